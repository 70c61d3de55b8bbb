//! Why a request is not authenticated, in AWS's words.

/// Why a request is not authenticated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    /// Neither kind of signature.
    #[error("Missing Authentication Token")]
    Missing,
    /// Both kinds.
    #[error(
        "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."
    )]
    Both,
    /// Parts of the signature are missing or have no form; says which.
    #[error("{0}")]
    Incomplete(String),
    /// No such access key.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// A session token, which there is none of here.
    #[error(
        "The security token included in the request is invalid: session tokens are not supported, \
         use a long-term access key"
    )]
    SessionToken,
    /// The key is known, the signature is not its.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your \
         AWS Secret Access Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
    /// Signed at another time, for another scope, or not over what must be signed; says which.
    #[error("{0}")]
    Invalid(String),
    /// The key is good, and not for this.
    #[error("{0}")]
    Denied(String),
}

impl AuthError {
    /// AWS's type.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationTokenException",
            Self::Both | Self::Mismatch | Self::Invalid(_) => "InvalidSignatureException",
            Self::Incomplete(_) => "IncompleteSignatureException",
            Self::UnknownKey | Self::SessionToken => "UnrecognizedClientException",
            Self::Denied(_) => "AccessDeniedException",
        }
    }
}
