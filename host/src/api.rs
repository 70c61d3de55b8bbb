//! From a request to the service that answers it.
//!
//! `/_shardmill/…` is the native API; a target of SQS goes there; everything else is Kinesis,
//! which ignores the path as AWS does. Before either, the door: no web page may reach a host through its visitor's browser.

pub(crate) mod kinesis;
pub(crate) mod native;
pub mod parity;
pub(crate) mod sqs;

mod door;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};

use crate::services::Services;

/// An answer, its body whole in memory.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Answers a request, whatever it is.
pub(crate) async fn handle(
    host: Arc<Services>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let native = request.uri().path().starts_with("/_shardmill/");
    Ok(match door::check(&request, host.settings.access) {
        Err(refusal) if native => native::refused(&refusal),
        Err(refusal) => kinesis::refused(&refusal),
        Ok(()) if native => native::handle(host, request).await,
        Ok(()) if of_sqs(&request) => sqs::handle(&host, request).await,
        Ok(()) => kinesis::handle(&host, request).await,
    })
}

fn of_sqs(request: &Request<Incoming>) -> bool {
    let target = request.headers().get("x-amz-target");
    target.is_some_and(|target| target.as_bytes().starts_with(sqs::TARGET.as_bytes()))
}
