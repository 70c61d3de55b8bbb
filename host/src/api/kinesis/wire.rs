//! The protocol around the operations: content types, what is refused before the signature is
//! looked at, and the form of answers.
//!
//! Rules: answers of production Kinesis to every combination of method, target, content type,
//! body and signature. One difference: an `Origin` that is no loopback origin never gets here.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value as Json;

use super::operations::{self, Handler, OTHER_BODY_BYTES, Operation};
use super::{Call, Error, Output, Support, coerce, constraints};
use crate::api::Answer;
use crate::api::door::Refusal;
use crate::auth::{self, AuthError, Caller, Claim};
use crate::server::{NoBody, discard_body, read_body};
use crate::services::{Access, Services};

mod producer;

const JSON: &str = "application/x-amz-json-1.1";
const CBOR: &str = "application/x-amz-cbor-1.1";
const PLAIN_JSON: &str = "application/json";
const EXPOSED: &str =
    "x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date";
const ACCESS_DENIED: &str = "<AccessDeniedException>\n  <Message>Unable to determine \
     service/operation name to be authorized</Message>\n</AccessDeniedException>\n";
const UNKNOWN_OPERATION: &str = "<UnknownOperationException/>\n";

/// Answers a request to Kinesis.
pub(crate) async fn handle(host: &Services, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let origin = parts.headers.contains_key(ORIGIN);
    if parts.method == Method::OPTIONS && origin {
        return preflight(&parts.headers);
    }
    let mut answer = if parts.method == Method::POST {
        post(host, &parts, body).await
    } else {
        answer(403, None, ACCESS_DENIED)
    };
    let headers = answer.headers_mut();
    headers.insert("x-amz-id-2", request_id_2());
    if origin {
        headers.insert("access-control-allow-origin", HeaderValue::from_static("*"));
        let exposed = HeaderValue::from_static(EXPOSED);
        headers.insert("access-control-expose-headers", exposed);
    }
    answer
}

/// The answer to a request that was not let in.
pub(crate) fn refused(refusal: &Refusal) -> Answer {
    let error = Error::AccessDenied(refusal.to_string());
    let mut answer = failed(&error, Format::Json);
    *answer.status_mut() = match refusal {
        Refusal::SeveralHosts => StatusCode::BAD_REQUEST,
        Refusal::ForeignHost(_) | Refusal::ForeignOrigin(_) => StatusCode::FORBIDDEN,
    };
    answer
}

async fn post(host: &Services, parts: &Parts, body: Incoming) -> Answer {
    let target = parts.headers.get("x-amz-target");
    let operation = target
        .and_then(|target| target.to_str().ok())
        .and_then(|target| target.strip_prefix("Kinesis_20131202."))
        .and_then(operations::find);
    let handler = operation.and_then(handler_of);
    let limit = handler.map_or(OTHER_BODY_BYTES, |handler| handler.body_bytes);
    let claim = Claim::of(host, parts, auth::Service::Kinesis);
    let closed = host.settings.access == Access::Closed;
    // Nobody in particular fills no memory of a closed host.
    if closed && let Err(error) = claim {
        discard_body(body).await;
        let mut answer = failed(&error.into(), format_of(&parts.headers));
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(CONNECTION, close);
        return answer;
    }
    let grace = host.settings.connections.body_grace;
    let body = match read_body(body, limit, grace).await {
        Ok(body) => body,
        Err(NoBody::TooLarge(_)) => return closing(StatusCode::PAYLOAD_TOO_LARGE),
        Err(NoBody::Incomplete) => return closing(StatusCode::REQUEST_TIMEOUT),
    };
    let (caller, body) = match claim {
        Ok(claim) => match claim.check(parts, body) {
            Ok((caller, body)) => (Ok(caller), body),
            Err(error) => return failed(&error.into(), format_of(&parts.headers)),
        },
        // Told in AWS's order.
        Err(error) => (Err(error), body),
    };
    let content_type = parts.headers.get(CONTENT_TYPE);
    let content_type = content_type.and_then(|text| text.to_str().ok());
    let content_type = content_type.and_then(|text| text.split(';').next());
    let format = match content_type.map(str::trim) {
        _ if body.is_empty() => {
            let error = match operation {
                Some(_) => Error::NoObject,
                None => Error::UnknownOperation(None),
            };
            let json = content_type.map(str::trim) == Some(JSON);
            return failed(&error, if json { Format::Json } else { Format::Cbor });
        }
        Some(JSON) => Format::Json,
        Some(CBOR) => Format::Cbor,
        Some(PLAIN_JSON) => return plain_json(&body),
        _ if target.is_some() => return answer(404, None, UNKNOWN_OPERATION),
        _ => return answer(403, None, ACCESS_DENIED),
    };
    if format == Format::Cbor {
        let text = "CBOR is not supported yet: send application/x-amz-json-1.1 (Java: \
                    AWS_CBOR_DISABLE=true, or -Daws.cborEnabled=false)";
        return failed(&Error::UnknownOperation(Some(text.into())), format);
    }
    match run(host, parts, caller, operation, &body).await {
        Ok(output) => {
            let body = output.into_bytes();
            answer(200, Some(format.content_type()), body)
        }
        Err(error) => failed(&error, format),
    }
}

fn handler_of(operation: &'static Operation) -> Option<&'static Handler> {
    match &operation.support {
        Support::Yes(handler) => Some(handler),
        Support::No => None,
    }
}

/// Everything from the body on.
pub(crate) async fn run(
    host: &Services,
    parts: &Parts,
    caller: Result<Caller, AuthError>,
    operation: Option<&'static Operation>,
    body: &[u8],
) -> Result<Output, Error> {
    let handler = operation.and_then(handler_of);
    if let (Ok(caller), Some(operation)) = (&caller, operation) {
        let tenant = caller.scope.tenant;
        let admitted = host.tenancy.admit(tenant, host.clock.now());
        admitted.map_err(|too_many| Error::too_many(operation.name, tenant, too_many))?;
    }
    let producer = producer::of(&parts.headers);
    // The plain way: all is well at the first look.
    if let (Some(operation), Some(handler)) = (operation, handler)
        && let (Ok(caller), Ok(producer)) = (&caller, &producer)
    {
        let call = Call {
            host,
            caller: caller.clone(),
            operation: operation.name,
            now: host.clock.now(),
            producer: mark(caller, producer),
        };
        if let Some(running) = (handler.fast)(&call, body) {
            return running.await;
        }
    }
    careful(host, parts, caller, operation, body).await
}

/// The careful way: what is wrong is found in AWS's order.
pub(crate) async fn careful(
    host: &Services,
    parts: &Parts,
    caller: Result<Caller, AuthError>,
    operation: Option<&'static Operation>,
    body: &[u8],
) -> Result<Output, Error> {
    let body = match serde_json::from_slice(body) {
        Ok(Json::Object(members)) => members,
        _ => return Err(Error::NoObject),
    };
    let operation = operation.ok_or(Error::UnknownOperation(None))?;
    let caller = caller?;
    let handler = handler_of(operation).ok_or_else(|| {
        Error::UnknownOperation(Some(format!(
            "{} is not supported yet: docs/parity.md lists what is",
            operation.name
        )))
    })?;
    let input = coerce::members(handler.members, &body).map_err(Error::WrongType)?;
    drop(body);
    let violations = constraints::violations(handler.members, &input);
    if !violations.is_empty() {
        return Err(Error::Constraints(violations));
    }
    let producer = producer::of(&parts.headers)?;
    let call = Call {
        host,
        operation: operation.name,
        now: host.clock.now(),
        producer: mark(&caller, &producer),
        caller,
    };
    (handler.run)(&call, input).await
}

fn mark(
    caller: &Caller,
    producer: &Option<producer::Producer>,
) -> Option<shardmill_store::ProducerMark> {
    producer.as_ref().map(|p| p.mark(&caller.scope))
}

/// How an answer's body is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Cbor,
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Cbor => CBOR,
        }
    }
}

/// The form of an answer to a request whose body is not looked at.
fn format_of(headers: &HeaderMap) -> Format {
    match headers.get(CONTENT_TYPE) {
        Some(text) if text.as_bytes().starts_with(CBOR.as_bytes()) => Format::Cbor,
        _ => Format::Json,
    }
}

fn failed(error: &Error, format: Format) -> Answer {
    if let Error::Internal(cause) = error {
        tracing::error!(%cause, "a request failed");
    }
    let told = error.told();
    let mut members = vec![("__type", told.kind)];
    if let Some(message) = &told.message {
        members.push((told.message_member, message));
    }
    let body = match format {
        Format::Json => {
            let members = members.into_iter().map(|(n, text)| (n.into(), text.into()));
            Json::Object(members.collect()).to_string().into_bytes()
        }
        Format::Cbor => cbor_map(&members),
    };
    answer(told.status, Some(format.content_type()), body)
}

/// A CBOR map of texts (RFC 8949, sections 3.1 and 3.2), at most 23 of them.
fn cbor_map(members: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![0xa0 | members.len() as u8];
    for text in members.iter().flat_map(|(name, text)| [name, text]) {
        match u32::try_from(text.len()).unwrap_or(u32::MAX) {
            length @ 0..=23 => bytes.push(0x60 | length as u8),
            length => {
                bytes.push(0x7a);
                bytes.extend_from_slice(&length.to_be_bytes());
            }
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// `application/json` never succeeds.
fn plain_json(body: &[u8]) -> Answer {
    let (status, kind) = match serde_json::from_slice(body) {
        Ok(Json::Object(_)) => (404, "UnknownOperationException"),
        _ => (400, "SerializationException"),
    };
    let body =
        format!(r#"{{"Output":{{"__type":"com.amazon.coral.service#{kind}"}},"Version":"1.0"}}"#);
    answer(status, Some(PLAIN_JSON), body)
}

fn preflight(headers: &HeaderMap) -> Answer {
    let mut answer = answer(200, None, "");
    let answered = answer.headers_mut();
    answered.insert("access-control-allow-origin", HeaderValue::from_static("*"));
    answered.insert("access-control-max-age", HeaderValue::from_static("172800"));
    for (asked, told) in [
        (
            "access-control-request-headers",
            "access-control-allow-headers",
        ),
        (
            "access-control-request-method",
            "access-control-allow-methods",
        ),
    ] {
        if let Some(value) = headers.get(asked) {
            answered.insert(HeaderName::from_static(told), value.clone());
        }
    }
    answer
}

/// An answer without a body, after which the connection is closed.
fn closing(status: StatusCode) -> Answer {
    let mut answer = answer(status.as_u16(), None, "");
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(CONNECTION, close);
    answer
}

fn answer(status: u16, content_type: Option<&'static str>, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(body.into().into());
    *answer.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers_mut();
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    headers.insert("x-amzn-requestid", request_id());
    answer
}

/// A random UUID.
fn request_id() -> HeaderValue {
    let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    let mut text = uuid::Uuid::encode_buffer();
    let text = id.hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// 64 to 80 random bytes, in Base64; clients only log it.
fn request_id_2() -> HeaderValue {
    let mut bytes = [0u8; 72];
    rand::Rng::fill(&mut rand::rng(), &mut bytes[..]);
    let text = base64_simd::STANDARD.encode_to_string(bytes);
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_awss_cbor_form() {
        let body = cbor_map(&[
            ("__type", "ResourceNotFoundException"),
            (
                "message",
                "Stream foo under account 000000000000 not found.",
            ),
        ]);
        assert_eq!(body[..8], *b"\xa2\x66__type");
        assert_eq!(body[8..13], [0x7a, 0, 0, 0, 25]);
        assert!(body.ends_with(b"not found."));
    }
}
