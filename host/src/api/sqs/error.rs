//! Every way a request can fail: AWS's status, type, text, and the code that clients of the
//! older query protocol know.

use hyper::StatusCode;
use shardmill_store::CommitError;

use crate::auth::AuthError;
use crate::queues::QueueError;

/// Why a request is refused or failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The body is not what the operation takes.
    #[error("{0}")]
    Serialization(String),
    /// No such operation.
    #[error("The operation {0} is not known")]
    UnknownOperation(String),
    /// Something that this host does not do.
    #[error("{0}")]
    Unsupported(String),
    /// A required member is absent.
    #[error("The request must contain the parameter {0}.")]
    Missing(&'static str),
    /// A member's value is not possible.
    #[error("{0}")]
    InvalidParameter(String),
    /// An attribute that queues do not have here.
    #[error("Unknown Attribute {0}.")]
    InvalidAttributeName(String),
    /// An attribute's value is not possible.
    #[error("Invalid value for the parameter {0}.")]
    InvalidAttributeValue(String),
    /// No such queue.
    #[error("The specified queue does not exist.")]
    NoQueue,
    /// The name is taken.
    #[error("A queue already exists with the same name and a different value for an attribute")]
    QueueExists,
    /// A receipt handle that is none.
    #[error("The input receipt handle is invalid.")]
    BadReceipt,
    /// The message cannot be hidden or given back.
    #[error("The message referred to isn't in flight.")]
    NotInFlight,
    /// A batch without entries.
    #[error("There should be at least one {0} in the request.")]
    EmptyBatch(&'static str),
    /// More than ten.
    #[error("Maximum number of entries per request are 10. You have sent {0}.")]
    LargeBatch(usize),
    /// Two entries of one id.
    #[error("Id {0} repeated.")]
    RepeatedId(String),
    /// A batch whose bodies are too large together.
    #[error("Batch requests cannot be longer than {allowed} bytes. You have sent {size} bytes.")]
    LongBatch {
        /// Bytes of all entries.
        size: usize,
        /// Bytes allowed.
        allowed: usize,
    },
    /// More requests a second than the tenant may make.
    #[error(
        "The request was denied due to request throttling: {0} requests per second are allowed."
    )]
    TooMany(u32),
    /// The signature is missing or incomplete.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The host cannot do it now; the client should come again.
    #[error("{0}")]
    Unavailable(String),
    /// The host failed; the cause goes to the log.
    #[error("We encountered an internal error. Please try again.")]
    Internal(String),
}

/// What the client is told.
pub(super) struct Told {
    pub(super) status: StatusCode,
    pub(super) kind: String,
    pub(super) query_code: &'static str,
    pub(super) message: String,
}

impl Error {
    /// AWS's status, type and text.
    pub(super) fn told(&self) -> Told {
        let bad = StatusCode::BAD_REQUEST;
        // The model's errors live in the service's namespace, the framework's in its own.
        let (sqs, coral) = ("com.amazonaws.sqs", "com.amazon.coral.service");
        let (status, space, kind, query_code) = match self {
            Self::Serialization(_) => (bad, coral, "SerializationException", "MalformedInput"),
            Self::UnknownOperation(_) => (bad, coral, "UnknownOperationException", "InvalidAction"),
            Self::Unsupported(_) => (
                bad,
                sqs,
                "UnsupportedOperation",
                "AWS.SimpleQueueService.UnsupportedOperation",
            ),
            Self::Missing(_) => (
                bad,
                coral,
                "MissingRequiredParameterException",
                "MissingParameter",
            ),
            Self::InvalidParameter(_) => (
                bad,
                coral,
                "InvalidParameterValueException",
                "InvalidParameterValue",
            ),
            Self::InvalidAttributeName(_) => {
                (bad, sqs, "InvalidAttributeName", "InvalidAttributeName")
            }
            Self::InvalidAttributeValue(_) => {
                (bad, sqs, "InvalidAttributeValue", "InvalidAttributeValue")
            }
            Self::NoQueue => (
                bad,
                sqs,
                "QueueDoesNotExist",
                "AWS.SimpleQueueService.NonExistentQueue",
            ),
            Self::QueueExists => (bad, sqs, "QueueNameExists", "QueueAlreadyExists"),
            Self::BadReceipt => (bad, sqs, "ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid"),
            Self::NotInFlight => (
                bad,
                sqs,
                "MessageNotInflight",
                "AWS.SimpleQueueService.MessageNotInflight",
            ),
            Self::EmptyBatch(_) => (
                bad,
                sqs,
                "EmptyBatchRequest",
                "AWS.SimpleQueueService.EmptyBatchRequest",
            ),
            Self::LargeBatch(_) => (
                bad,
                sqs,
                "TooManyEntriesInBatchRequest",
                "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
            ),
            Self::RepeatedId(_) => (
                bad,
                sqs,
                "BatchEntryIdsNotDistinct",
                "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
            ),
            Self::LongBatch { .. } => (
                bad,
                sqs,
                "BatchRequestTooLong",
                "AWS.SimpleQueueService.BatchRequestTooLong",
            ),
            Self::TooMany(_) => (bad, sqs, "RequestThrottled", "RequestThrottled"),
            Self::Auth(error) => {
                // What the query protocol calls them.
                let code = match error {
                    AuthError::Missing => "MissingAuthenticationToken",
                    AuthError::UnknownKey | AuthError::SessionToken => "InvalidClientTokenId",
                    AuthError::Mismatch => "SignatureDoesNotMatch",
                    AuthError::Both | AuthError::Invalid(_) => "InvalidSignatureException",
                    AuthError::Incomplete(_) => "IncompleteSignature",
                    AuthError::Denied(_) => "AccessDenied",
                };
                (StatusCode::FORBIDDEN, coral, error.kind(), code)
            }
            Self::Unavailable(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                coral,
                "ServiceUnavailable",
                "ServiceUnavailable",
            ),
            Self::Internal(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                coral,
                "InternalFailure",
                "InternalError",
            ),
        };
        Told {
            status,
            kind: format!("{space}#{kind}"),
            query_code,
            message: self.to_string(),
        }
    }
}

impl From<QueueError> for Error {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::NotFound { .. } => Self::NoQueue,
            QueueError::Exists(_) => Self::QueueExists,
            QueueError::BadReceipt => Self::BadReceipt,
            QueueError::NotInFlight => Self::NotInFlight,
            // Deleted between the look at the queue and the commit.
            QueueError::Commit(CommitError::Conflict(_)) => Self::NoQueue,
            QueueError::Commit(error @ (CommitError::Full { .. } | CommitError::Quota { .. })) => {
                Self::Unavailable(error.to_string())
            }
            QueueError::Commit(error) => Self::Internal(error.to_string()),
            QueueError::Read(error) => Self::Internal(error.to_string()),
        }
    }
}
