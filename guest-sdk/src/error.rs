//! How a handler says that a record, a batch or an event failed.

use std::{any, error, fmt};

/// A handler's failure: what AWS calls `errorType` and `errorMessage`.
///
/// Every standard error converts into one, so `?` works on all of them. For that reason it does
/// not implement [`std::error::Error`] itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    error_type: String,
    message: String,
}

impl Error {
    /// An error with a type of the handler's own, a single line such as `MalformedRecord`.
    pub fn new(error_type: impl Into<String>, message: impl Into<String>) -> Self {
        let mut error_type = error_type.into();
        if error_type.contains('\n') {
            error_type = error_type.replace('\n', " ");
        }
        Self {
            error_type,
            message: message.into(),
        }
    }

    /// The type, one line. For a converted error, the Rust type's path.
    pub fn error_type(&self) -> &str {
        &self.error_type
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl<E: error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        Self::new(any::type_name::<E>(), error.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error_type, self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
