//! Doors for the laws of `fuzz/laws`. No part of the program.

use bytes::Bytes;
use hyper::http::request::Parts;

use super::chunked;
use super::{Claim, Service};
use crate::services::Services;

/// The body of a request whose signature is good.
///
/// # Errors
/// What the client is told.
pub(crate) fn checked_body(
    host: &Services,
    parts: &Parts,
    service: &str,
    body: Bytes,
) -> Result<Bytes, String> {
    let services = [Service::Kinesis, Service::Sqs, Service::Native];
    let service = services.into_iter().find(|s| s.name() == service);
    let claim = Claim::of(host, parts, service.unwrap_or(Service::Native));
    let checked = claim.and_then(|claim| claim.check(parts, body));
    checked
        .map(|(_, body)| body)
        .map_err(|error| error.to_string())
}

/// The data of a body in chunks, whose signatures are not looked at.
///
/// # Errors
/// What the client is told.
pub(crate) fn chunks(body: &[u8], announced: Option<usize>) -> Result<Bytes, String> {
    chunked::decode(body, None, announced).map_err(|error| error.to_string())
}
