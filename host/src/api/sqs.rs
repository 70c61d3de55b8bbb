//! SQS over AWS JSON 1.0: enough of it for dead-letter queues. Which operations there are is
//! [`operations`]; texts and codes of errors are [`error`]'s.
//!
//! Rules: Amazon SQS API reference; the AWS JSON protocol with query-compatible error codes.

mod attributes;
mod error;
mod messages;
mod operations;
mod queues;

pub(crate) use operations::OPERATIONS;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use shardmill_core::Scope;
use uuid::Uuid;

use super::Answer;
use crate::auth::{self, Caller, Claim};
use crate::queues::{Queue, Queues};
use crate::server::{discard_body, read_body};
use crate::services::Services;
use error::Error;

/// What begins the `X-Amz-Target` of every operation.
pub(crate) const TARGET: &str = "AmazonSQS.";

const JSON: &str = "application/x-amz-json-1.0";

/// Largest body: a message of 1 MiB whose every character is escaped.
const MAX_BODY_BYTES: usize = 7 << 20;

/// One request, as an operation sees it.
pub(crate) struct Call<'a> {
    queues: &'a Queues,
    scope: Scope,
    /// Scheme and authority under which this host was reached.
    base: String,
    body: Bytes,
}

/// Answers a request to SQS.
pub(crate) async fn handle(host: &Services, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let mut answer = match read(host, &parts, body).await {
        Ok((caller, body)) => respond(host, &parts, caller, body).await,
        Err((error, whole)) => {
            let mut answer = failed(&error);
            if !whole {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(CONNECTION, close);
            }
            answer
        }
    };
    if let Ok(id) = HeaderValue::from_str(&Uuid::new_v4().to_string()) {
        answer.headers_mut().insert("x-amzn-requestid", id);
    }
    answer
}

/// Answers a request of a known caller.
pub(crate) async fn respond(host: &Services, parts: &Parts, caller: Caller, body: Bytes) -> Answer {
    match run(host, parts, caller, body).await {
        Ok(output) => answer(StatusCode::OK, &output),
        Err(error) => failed(&error),
    }
}

/// Who is calling, and the body.
///
/// # Errors
/// Also whether the body was read to its end, so that the connection can go on.
async fn read(
    host: &Services,
    parts: &Parts,
    body: Incoming,
) -> Result<(Caller, Bytes), (Error, bool)> {
    let claim = match Claim::of(host, parts, auth::Service::Sqs) {
        Ok(claim) => claim,
        Err(error) => {
            discard_body(body).await;
            return Err((error.into(), false));
        }
    };
    let grace = host.settings.connections.body_grace;
    let body = read_body(body, MAX_BODY_BYTES, grace).await;
    let body = body.map_err(|error| (Error::Serialization(error.to_string()), false))?;
    claim
        .check(parts, body)
        .map_err(|error| (error.into(), true))
}

async fn run(host: &Services, parts: &Parts, caller: Caller, body: Bytes) -> Result<Json, Error> {
    let tenant = caller.scope.tenant;
    let admitted = host.tenancy.admit(tenant, host.clock.now());
    admitted.map_err(|too_many| Error::TooMany(too_many.allowed))?;
    let target = parts.headers.get("x-amz-target");
    let name = target
        .and_then(|target| target.to_str().ok())
        .and_then(|target| target.strip_prefix(TARGET))
        .unwrap_or_default();
    let run = operations::find(name)?;
    let workloads = host.workloads.as_ref();
    let workloads =
        workloads.ok_or_else(|| Error::Unsupported("this host has no queues".into()))?;
    let authority = parts.uri.authority().map(ToString::to_string);
    let authority = authority.or_else(|| {
        let host = parts.headers.get(HOST)?;
        Some(host.to_str().ok()?.to_owned())
    });
    let scheme = match host.settings.certificate {
        Some(_) => "https",
        None => "http",
    };
    let call = Call {
        queues: workloads.mappings.delivery().queues(),
        scope: caller.scope,
        base: format!("{scheme}://{}", authority.unwrap_or_default()),
        body,
    };
    run(&call).await
}

impl Call<'_> {
    /// The body as an operation's input.
    fn input<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Serialization(error.to_string()))
    }

    /// Where a queue is reached.
    fn url(&self, queue: &Queue) -> String {
        format!("{}/{}/{}", self.base, queue.scope.tenant, queue.name)
    }

    /// The name of the queue at `url`: its last part, behind the caller's account.
    fn name<'u>(&self, url: &'u Option<String>) -> Result<&'u str, Error> {
        let url = url.as_deref().ok_or(Error::Missing("QueueUrl"))?;
        let mut parts = url.rsplit('/');
        let (name, account) = (parts.next(), parts.next());
        let own = account.is_some_and(|a| a == self.scope.tenant.to_string());
        name.filter(|name| own && !name.is_empty())
            .ok_or(Error::NoQueue)
    }
}

fn failed(error: &Error) -> Answer {
    if let Error::Internal(cause) = error {
        tracing::error!(%cause, "a request failed");
    }
    let told = error.told();
    let body = serde_json::json!({ "__type": told.kind, "message": told.message });
    let mut answer = answer(told.status, &body);
    let sender = if told.status.is_server_error() {
        "Receiver"
    } else {
        "Sender"
    };
    if let Ok(code) = HeaderValue::from_str(&format!("{};{sender}", told.query_code)) {
        answer.headers_mut().insert("x-amzn-query-error", code);
    }
    answer
}

fn answer(status: StatusCode, body: &Json) -> Answer {
    let mut answer = Response::new(Bytes::from(body.to_string()).into());
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    answer
}
