//! Every way a request can fail, and AWS's status, type and text for it.
//!
//! Rules: Kinesis Data Streams API reference, "Errors" of each operation; texts as production
//! Kinesis writes them. Where AWS's text is not known, the file that writes it says so.

use shardmill_core::{Scope, ShardId, TenantId};
use shardmill_store::{CommitError, ReadError};

use crate::auth::AuthError;
use crate::tenancy::TooMany;

/// Why a request is refused or failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Error {
    /// The body is no object.
    #[error("the body is not an object")]
    NoObject,
    /// A value of the wrong type.
    #[error("{0}")]
    WrongType(String),
    /// Members that break constraints, one text each.
    #[error("{} constraints broken", .0.len())]
    Constraints(Vec<String>),
    /// No such operation, or one that this host does not have yet: then with a text.
    #[error("unknown operation")]
    UnknownOperation(Option<String>),
    /// The signature is missing or incomplete.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The caller may not touch this.
    #[error("{0}")]
    AccessDenied(String),
    /// The members' values do not make sense.
    #[error("{0}")]
    InvalidArgument(String),
    /// The request does not fit the stream's settings.
    #[error("{0}")]
    Validation(String),
    /// Something that the request names does not exist.
    #[error("{0}")]
    NotFound(String),
    /// It exists, but its state forbids the operation.
    #[error("{0}")]
    InUse(String),
    /// A quota.
    #[error("{0}")]
    LimitExceeded(String),
    /// Too much for now; the client should come again.
    #[error("{0}")]
    Throughput(String),
    /// An iterator that is too old.
    #[error("{0}")]
    ExpiredIterator(String),
    /// A page token that is too old.
    #[error("{0}")]
    ExpiredNextToken(String),
    /// All is well, but nothing was to be done.
    #[error("dry run")]
    DryRun,
    /// The host cannot do it now; the client should come again.
    #[error("{0}")]
    Unavailable(String),
    /// The host failed; the cause goes to the log, not to the client.
    #[error("{0}")]
    Internal(String),
}

/// What the client is told.
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) message: Option<String>,
    /// `Message` for the errors of the type stage, `message` for all others.
    pub(crate) message_member: &'static str,
}

impl Error {
    /// AWS's status, type and text.
    pub(crate) fn told(&self) -> Told {
        let (status, kind, message) = match self {
            Self::NoObject => (400, "SerializationException", None),
            Self::WrongType(text) => (400, "SerializationException", Some(text.clone())),
            Self::Constraints(texts) => (400, "ValidationException", Some(listed(texts))),
            Self::UnknownOperation(text) => (400, "UnknownOperationException", text.clone()),
            Self::Auth(error) => (400, error.kind(), Some(error.to_string())),
            Self::AccessDenied(text) => (400, "AccessDeniedException", Some(text.clone())),
            Self::Validation(text) => (400, "ValidationException", Some(text.clone())),
            Self::InvalidArgument(text) => (400, "InvalidArgumentException", Some(text.clone())),
            Self::NotFound(text) => (400, "ResourceNotFoundException", Some(text.clone())),
            Self::InUse(text) => (400, "ResourceInUseException", Some(text.clone())),
            Self::LimitExceeded(text) => (400, "LimitExceededException", Some(text.clone())),
            Self::Throughput(text) => (
                400,
                "ProvisionedThroughputExceededException",
                Some(text.clone()),
            ),
            Self::ExpiredIterator(text) => (400, "ExpiredIteratorException", Some(text.clone())),
            Self::ExpiredNextToken(text) => (400, "ExpiredNextTokenException", Some(text.clone())),
            // AWS's text is not known; this is what its other services say.
            Self::DryRun => {
                let text = "Request would have succeeded, but DryRun flag is set.";
                (400, "DryRunOperationException", Some(text.into()))
            }
            Self::Unavailable(text) => (503, "ServiceUnavailable", Some(text.clone())),
            Self::Internal(_) => (500, "InternalFailure", None),
        };
        let message_member = match self {
            Self::WrongType(_) => "Message",
            _ => "message",
        };
        Told {
            status,
            kind,
            message,
            message_member,
        }
    }

    /// What a tenant is told that makes too many requests: operations on records have AWS's error
    /// for throughput, the others the one for calls that are too frequent.
    pub(crate) fn too_many(operation: &str, account: TenantId, too_many: TooMany) -> Self {
        let text = format!(
            "Rate exceeded for account {account}: {} requests per second are allowed.",
            too_many.allowed
        );
        match operation {
            "PutRecord" | "PutRecords" | "GetRecords" | "GetShardIterator" => {
                Self::Throughput(text)
            }
            _ => Self::LimitExceeded(text),
        }
    }

    pub(crate) fn stream_not_found(name: impl std::fmt::Display, scope: &Scope) -> Self {
        let account = scope.tenant;
        Self::NotFound(format!("Stream {name} under account {account} not found."))
    }

    /// No such shard in the stream, or no such stream.
    pub(crate) fn shard_not_found(
        shard: ShardId,
        name: impl std::fmt::Display,
        scope: &Scope,
    ) -> Self {
        let account = scope.tenant;
        Self::NotFound(format!(
            "Shard {shard} in stream {name} under account {account} does not exist"
        ))
    }

    /// A text that is no shard id.
    pub(crate) fn no_shard_id(text: &str, name: impl std::fmt::Display, scope: &Scope) -> Self {
        let account = scope.tenant;
        Self::NotFound(format!(
            "Could not find shard {text} in stream {name} under account {account}."
        ))
    }
}

fn listed(texts: &[String]) -> String {
    let errors = if texts.len() == 1 { "error" } else { "errors" };
    format!(
        "{} validation {errors} detected: {}",
        texts.len(),
        texts.join("; ")
    )
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        let text = error.to_string();
        match error {
            // Every 5xx is tried again by the official clients.
            CommitError::Full { .. } | CommitError::StreamChanged(_) => Self::Unavailable(text),
            CommitError::ProducerBehind { .. }
            | CommitError::ProducerReused { .. }
            | CommitError::TooLarge { .. } => Self::InvalidArgument(text),
            CommitError::Quota { .. } => Self::Throughput(text),
            CommitError::StreamExists(_) => Self::InUse(text),
            CommitError::NoSuchStream(_) => Self::NotFound(text),
            CommitError::Conflict(_)
            | CommitError::Fenced
            | CommitError::ShardClosed(_)
            | CommitError::Unknown(_) => Self::Internal(text),
        }
    }
}
