//! Page tokens: where a listing goes on. Sealed, and good for as long as an iterator.
//!
//! Rules: ListShards, "NextToken". AWS's texts for a token that is too old or not its own are
//! not known; these are ours.

use serde::Serialize;
use serde::de::DeserializeOwned;
use shardmill_core::UnixMillis;

use super::{Call, Error};
use crate::seal::Kind;

/// The text for the client.
pub(crate) fn seal(call: &Call<'_>, kind: Kind, token: &impl Serialize) -> String {
    // A structure of numbers and texts always has JSON.
    let payload = serde_json::to_vec(token).unwrap_or_default();
    call.host.seal.seal(kind, &payload)
}

/// Reads a text back.
///
/// # Errors
/// `InvalidArgumentException` for a text that this host did not write.
pub(crate) fn open<T: DeserializeOwned>(
    call: &Call<'_>,
    kind: Kind,
    text: &str,
) -> Result<T, Error> {
    let payload = call.host.seal.open(kind, text);
    payload
        .and_then(|payload| serde_json::from_slice(&payload).ok())
        .ok_or_else(invalid)
}

/// What a text is answered with that this host did not write for the caller.
pub(crate) fn invalid() -> Error {
    Error::InvalidArgument("NextToken is invalid.".into())
}

/// # Errors
/// `ExpiredNextTokenException`.
pub(crate) fn in_time(call: &Call<'_>, issued: UnixMillis) -> Result<(), Error> {
    let lifetime = call.host.settings.iterator_lifetime;
    if call.now.since(issued) > lifetime {
        return Err(Error::ExpiredNextToken(format!(
            "NextToken expired: it is older than {} seconds.",
            lifetime.as_secs()
        )));
    }
    Ok(())
}
