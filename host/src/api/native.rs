//! The native API below `/_shardmill/`: small JSON for the command line and for scripts.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response, StatusCode};

use super::Answer;
use super::door::Refusal;
use crate::services::Services;

/// Answers a native request.
pub(crate) async fn handle(_host: Arc<Services>, request: Request<Incoming>) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/_shardmill/health") => {
            answer(StatusCode::OK, &serde_json::json!({"status": "ok"}))
        }
        (_, path) => error(
            StatusCode::NOT_FOUND,
            "not_found",
            &format!("no such path: {path}"),
        ),
    }
}

/// The answer to a request that was not let in.
pub(crate) fn refused(refusal: &Refusal) -> Answer {
    error(StatusCode::FORBIDDEN, "forbidden", &refusal.to_string())
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    let error = serde_json::json!({"code": code, "message": message, "hint": null});
    answer(status, &serde_json::json!({ "error": error }))
}

fn answer(status: StatusCode, body: &serde_json::Value) -> Answer {
    let mut answer = Response::new(body.to_string().into_bytes().into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/json"),
    );
    answer
}
