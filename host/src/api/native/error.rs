//! What the native API says when it cannot do a thing: one place that maps the host's errors to
//! statuses and codes.

use std::fmt::Display;

use hyper::{Method, StatusCode};
use shardmill_core::TenantId;
use shardmill_store::{CommitError, ReadError};

use crate::auth::AuthError;
use crate::delivery::DeliveryError;
use crate::functions::{AliasError, DeleteError, DeployError, FunctionError};
use crate::manifest::{BadKey, unknown_key};
use crate::mapping::{FailuresError, MappingError};
use crate::queues::QueueError;
use crate::server::NoBody;
use crate::tenancy::TooMany;

/// An error as it is answered.
#[derive(Debug)]
pub(super) struct Error {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Error {
    fn new(status: StatusCode, code: &'static str, message: impl Display) -> Self {
        Self {
            status,
            code,
            message: message.to_string(),
            hint: None,
        }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    pub(super) fn not_found(message: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn bad_request(message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) fn forbidden(message: impl Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// More requests than the tenant may make.
    pub(super) fn too_many(account: TenantId, too_many: TooMany) -> Self {
        let TooMany {
            allowed,
            retry_after,
        } = too_many;
        let message = format!("account {account} may make {allowed} requests a second");
        let hint = format!("try again in {} ms", retry_after.as_millis().max(1));
        Self::new(StatusCode::TOO_MANY_REQUESTS, "throttled", message).hint(hint)
    }

    /// A quota of something that stays.
    pub(super) fn quota(message: impl Display) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "quota", message)
    }

    pub(super) fn internal(message: &impl Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    pub(super) fn method(method: &Method, allowed: &str) -> Self {
        let message = format!("{method} is not possible here: {allowed} expected");
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            message,
        )
    }

    /// JSON that is none, or has a key that nobody knows.
    pub(super) fn json(what: &str, error: &serde_json::Error) -> Self {
        let text = error.to_string();
        Self::bad_request(format!("{what}: {}", unknown_key(&text).unwrap_or(text)))
    }

    pub(super) fn too_large(message: impl Display) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    pub(super) fn conflict(message: impl Display) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }
}

impl From<AuthError> for Error {
    fn from(error: AuthError) -> Self {
        let unknown = |code| Self::new(StatusCode::UNAUTHORIZED, code, &error);
        match &error {
            AuthError::Denied(_) => Self::forbidden(&error),
            AuthError::Missing => unknown("unauthenticated").hint(
                "this host is closed: sign requests with an access key, \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on the command line",
            ),
            AuthError::Both | AuthError::Incomplete(_) => Self::bad_request(&error),
            AuthError::UnknownKey
            | AuthError::SessionToken
            | AuthError::Mismatch
            | AuthError::Invalid(_) => unknown("unauthenticated"),
        }
    }
}

impl From<BadKey> for Error {
    fn from(bad: BadKey) -> Self {
        Self::bad_request(bad)
    }
}

impl From<NoBody> for Error {
    fn from(error: NoBody) -> Self {
        match error {
            NoBody::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error),
            NoBody::Incomplete => Self::new(StatusCode::REQUEST_TIMEOUT, "incomplete", error),
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NoSuchShard(_) => Self::not_found(error),
            ReadError::Damaged(_) | ReadError::Io(_) => Self::internal(&error),
        }
    }
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(_) | CommitError::StreamChanged(_) => {
                Self::conflict(error).hint("try again")
            }
            CommitError::Full { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", error)
            }
            CommitError::Quota { .. } => Self::quota(error),
            CommitError::NoSuchStream(_) => Self::not_found(error),
            CommitError::StreamExists(_) | CommitError::ShardClosed(_) => Self::conflict(error),
            CommitError::TooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error)
            }
            CommitError::ProducerBehind { .. } | CommitError::ProducerReused { .. } => {
                Self::bad_request(error)
            }
            CommitError::Fenced | CommitError::Unknown(_) => Self::internal(&error),
        }
    }
}

impl From<FunctionError> for Error {
    fn from(error: FunctionError) -> Self {
        match error {
            FunctionError::NotFound(_) => {
                Self::not_found(error).hint("`shardmill functions` lists them")
            }
            FunctionError::Read(error) => error.into(),
            FunctionError::NoModule(_) => Self::not_found(error),
            FunctionError::NoVersion { .. } => {
                Self::not_found(error).hint("`shardmill functions versions NAME` lists them")
            }
            FunctionError::NoAlias { .. } => {
                Self::not_found(error).hint("`shardmill aliases list NAME` lists them")
            }
            FunctionError::Reference(_) => Self::bad_request(error),
            FunctionError::Load(_) | FunctionError::Damaged(_) => Self::internal(&error),
        }
    }
}

impl From<DeployError> for Error {
    fn from(error: DeployError) -> Self {
        match error {
            DeployError::Commit(error) => error.into(),
            DeployError::Read(error) => error.into(),
            DeployError::Throttled(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "throttled", error)
            }
            DeployError::Name(_) | DeployError::Load(_) | DeployError::DryRun(_) => {
                Self::new(StatusCode::BAD_REQUEST, "not_deployed", error)
            }
        }
    }
}

impl From<DeleteError> for Error {
    fn from(error: DeleteError) -> Self {
        match error {
            DeleteError::Function(error) => error.into(),
            DeleteError::Named { .. } | DeleteError::Latest { .. } => Self::conflict(error),
            DeleteError::Commit(error) => error.into(),
        }
    }
}

impl From<AliasError> for Error {
    fn from(error: AliasError) -> Self {
        match error {
            // What the path or the body names.
            AliasError::Function(error) => error.into(),
            AliasError::Exists { .. } => Self::conflict(error),
            AliasError::Commit(error) => error.into(),
            AliasError::Weight(_)
            | AliasError::SameVersion(_)
            | AliasError::LatestShares
            | AliasError::TooMany { .. }
            | AliasError::Description { .. } => Self::bad_request(error),
        }
    }
}

impl From<MappingError> for Error {
    fn from(error: MappingError) -> Self {
        match error {
            MappingError::NotFound(_) => {
                Self::not_found(error).hint("`shardmill mappings` lists them")
            }
            MappingError::NoStream(_) | MappingError::NoFunction(_) => Self::not_found(error),
            MappingError::NotParked(_) | MappingError::NoShadow(_) => Self::not_found(error),
            MappingError::Exists(_) => Self::conflict(error)
                .hint("`shardmill mappings update NAME --set KEY=VALUE` changes one"),
            MappingError::Deleting(_)
            | MappingError::Deaggregate(_)
            | MappingError::Parked { .. } => Self::conflict(error),
            MappingError::Name(_)
            | MappingError::Policy(_)
            | MappingError::Function(_)
            | MappingError::NoSuchPlace(_)
            | MappingError::Future { .. } => Self::bad_request(error),
            MappingError::Destination(error) => match Self::from(error) {
                // What the body names, not what the path does.
                told if told.status == StatusCode::NOT_FOUND => Self::bad_request(told.message),
                told => told,
            },
            MappingError::Read(error) => error.into(),
            MappingError::Commit(error) => error.into(),
            MappingError::Failures(error) => error.into(),
        }
    }
}

impl From<DeliveryError> for Error {
    fn from(error: DeliveryError) -> Self {
        match error {
            DeliveryError::NotFound(_) => {
                Self::not_found(error).hint("`shardmill deliveries` lists them")
            }
            DeliveryError::ForeignQueue { .. } | DeliveryError::Ambiguous { .. } => {
                Self::bad_request(error)
            }
            DeliveryError::NotAllowed(_) => Self::forbidden(error),
            DeliveryError::Queue(QueueError::Read(error)) => error.into(),
            DeliveryError::Queue(QueueError::Commit(error)) => error.into(),
            DeliveryError::Queue(error) => Self::not_found(error),
            DeliveryError::Read(error) => error.into(),
            DeliveryError::Commit(error) => error.into(),
        }
    }
}

impl From<FailuresError> for Error {
    fn from(error: FailuresError) -> Self {
        match error {
            FailuresError::NotFound(_) | FailuresError::NoStream(_) => Self::not_found(error),
            FailuresError::Redriven(_) => Self::new(StatusCode::CONFLICT, "redriven", error),
            FailuresError::Window(_) => Self::new(StatusCode::CONFLICT, "tumbling_window", error),
            FailuresError::NoRecords { .. }
            | FailuresError::Imported(_)
            | FailuresError::Parked(_)
            | FailuresError::NoAttempt(_) => Self::conflict(error),
            FailuresError::Ambiguous { .. } | FailuresError::Bundle(_) => Self::bad_request(error),
            FailuresError::Throttled(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "throttled", error).hint("try again")
            }
            FailuresError::Full { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "failures_full", error)
            }
            FailuresError::Function(error) => error.into(),
            FailuresError::Read(error) => error.into(),
            FailuresError::Commit(error) => error.into(),
        }
    }
}
