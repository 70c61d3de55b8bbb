//! The native API below `/_shardmill/`: small JSON for the command line and for scripts.
//!
//! | path | GET | PUT | POST | DELETE |
//! | --- | --- | --- | --- | --- |
//! | `health`, `metrics`, `streams[/NAME]` | shows | | | |
//! | `functions[/NAME]` | shows | deploys: wasm as body, `?settings=` | | deletes |
//! | `functions/NAME/quotas` | | sets weight and reserved concurrency | | |
//! | `functions/NAME[:QUALIFIER]` | shows that version | | | `NAME:VERSION`: deletes it |
//! | `functions/NAME[:QUALIFIER]/invoke` | | | runs it on the body | |
//! | `functions/NAME/versions` | shows them | | publishes `$LATEST` | |
//! | `functions/NAME/aliases[/ALIAS]` | shows | makes or changes; with `?create=true` only makes | | deletes |
//! | `mappings[/NAME]` | shows | makes or changes; with `?create=true` only makes | | deletes |
//! | `mappings/NAME/pause`, `…/resume`, `…/unpark`, `…/rewind` | | | does so | |
//! | `mappings/NAME/dry-run`, then `mappings/NAME/dry-run/ID` until it is done | | | tries filters or a module | |
//! | `mappings/NAME/parked` | shows the parked keys | | | |
//! | `mappings/NAME/shadow` | tells how its shadow compares | | | |
//! | `counters/FUNCTION[?prefix=]`, `state/FUNCTION?key=` | shows | | | |
//! | `usage[?days=]`, `usage/FUNCTION[?top=]` | what functions used; a function's partition keys | | | |
//! | `failures[?FILTER]`, `failures/ID[?records=]` | shows | | imports: a file as body | one: deletes |
//! | `failures/ID/replay` | | | does so; on another module: wasm as body | |
//! | `failures/ID/redrive[?to_stream=]` | | | does so | |
//! | `failures/ID/export[?module=&environment=]` | the file | | | |
//! | `deliveries` | lists those not made | | | |
//! | `deliveries/ID` | with its document | | | drops |
//! | `deliveries/ID/retry` | | | tries at once | |
//! | `tenants[/ACCOUNT]` | shows, with quotas and usage | | | |
//!
//! Errors are `{"error": {"code", "message", "hint"}}`. A signature as AWS's clients send it
//! names the account and region; without one they are the default ones. A closed host wants one
//! for all but `health`: a tenant's key reaches its own account, an operator's every account
//! (`x-shardmill-account`) and `metrics`, which are about all of them.

mod aliases;
mod deliveries;
mod dry_run;
mod error;
mod failures;
mod functions;
mod invoke;
mod mappings;
mod metrics;
mod request;
mod state;
mod streams;
mod tenants;
mod usage;

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::Answer;
use super::door::Refusal;
use crate::auth::Caller;
use crate::services::Services;
use error::Error;
use request::Call;

/// Answers a native request.
pub(crate) async fn handle(host: Arc<Services>, request: Request<Incoming>) -> Answer {
    match Call::read(&host, request).await {
        Ok(call) => route(&call).await.unwrap_or_else(answer_error),
        Err(error) => answer_error(error),
    }
}

/// Answers a native request of a known caller.
pub(crate) async fn respond(
    host: &Arc<Services>,
    parts: Parts,
    caller: Caller,
    body: Bytes,
) -> Answer {
    match Call::of(host, parts, caller, body) {
        Ok(call) => route(&call).await.unwrap_or_else(answer_error),
        Err(error) => answer_error(error),
    }
}

/// The answer to a request that was not let in.
pub(crate) fn refused(refusal: &Refusal) -> Answer {
    answer_error(match refusal {
        Refusal::SeveralHosts => Error::bad_request(refusal),
        Refusal::ForeignHost(_) | Refusal::ForeignOrigin(_) => Error::forbidden(refusal),
    })
}

async fn route(call: &Call<'_>) -> Result<Answer, Error> {
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    let method = &call.method;
    // What the path takes, for the answer to any other method.
    let allowed = match path.as_slice() {
        ["health"] if method == Method::GET => return health(call),
        ["metrics"] if method == Method::GET => {
            call.operators_only()?;
            return metrics::show(call).await;
        }
        ["tenants"] if method == Method::GET => return tenants::list(call).await,
        ["tenants", account] if method == Method::GET => return tenants::get(call, account).await,
        ["streams"] if method == Method::GET => return streams::list(call).await,
        ["streams", name] if method == Method::GET => return streams::get(call, name).await,
        ["functions"] if method == Method::GET => return functions::list(call),
        ["functions", name] if method == Method::GET => return functions::get(call, name),
        ["functions", name] if method == Method::PUT => return functions::put(call, name).await,
        ["functions", name] if method == Method::DELETE => {
            return functions::delete(call, name).await;
        }
        ["functions", name, "quotas"] if method == Method::PUT => {
            return functions::put_quotas(call, name).await;
        }
        ["functions", name, "invoke"] if method == Method::POST => {
            return invoke::invoke(call, name).await;
        }
        ["functions", name, "versions"] if method == Method::GET => {
            return functions::versions(call, name);
        }
        ["functions", name, "versions"] if method == Method::POST => {
            return functions::publish(call, name).await;
        }
        ["functions", name, "aliases"] if method == Method::GET => {
            return aliases::list(call, name);
        }
        ["functions", name, "aliases", alias] if method == Method::GET => {
            return aliases::get(call, name, alias);
        }
        ["functions", name, "aliases", alias] if method == Method::PUT => {
            return aliases::put(call, name, alias).await;
        }
        ["functions", name, "aliases", alias] if method == Method::DELETE => {
            return aliases::delete(call, name, alias).await;
        }
        ["mappings"] if method == Method::GET => return mappings::list(call).await,
        ["mappings", name] if method == Method::GET => return mappings::get(call, name).await,
        ["mappings", name] if method == Method::PUT => return mappings::put(call, name).await,
        ["mappings", name] if method == Method::DELETE => {
            return mappings::delete(call, name).await;
        }
        ["mappings", name, "pause"] if method == Method::POST => {
            return mappings::pause(call, name).await;
        }
        ["mappings", name, "resume"] if method == Method::POST => {
            return mappings::resume(call, name).await;
        }
        ["mappings", name, "dry-run"] if method == Method::POST => {
            return dry_run::begin(call, name).await;
        }
        ["mappings", _, "dry-run", id] if method == Method::POST => {
            return dry_run::go_on(call, id).await;
        }
        ["mappings", name, "parked"] if method == Method::GET => {
            return mappings::parked(call, name);
        }
        ["mappings", name, "shadow"] if method == Method::GET => {
            return mappings::shadow(call, name);
        }
        ["mappings", name, "unpark"] if method == Method::POST => {
            return mappings::unpark(call, name).await;
        }
        ["mappings", name, "rewind"] if method == Method::POST => {
            return mappings::rewind(call, name).await;
        }
        ["counters", function] if method == Method::GET => return state::counters(call, function),
        ["state", function] if method == Method::GET => return state::state(call, function),
        ["usage"] if method == Method::GET => return usage::list(call).await,
        ["usage", function] if method == Method::GET => return usage::keys(call, function),
        ["failures"] if method == Method::GET => return failures::list(call),
        ["failures"] if method == Method::POST => return failures::import(call).await,
        ["failures", id] if method == Method::GET => return failures::get(call, id).await,
        ["failures", id] if method == Method::DELETE => return failures::delete(call, id).await,
        ["failures", id, "replay"] if method == Method::POST => {
            return failures::replay(call, id).await;
        }
        ["failures", id, "export"] if method == Method::GET => {
            return failures::export(call, id).await;
        }
        ["failures", id, "redrive"] if method == Method::POST => {
            return failures::redrive(call, id).await;
        }
        ["deliveries"] if method == Method::GET => return deliveries::list(call),
        ["deliveries", id] if method == Method::GET => return deliveries::get(call, id),
        ["deliveries", id] if method == Method::DELETE => {
            return deliveries::delete(call, id).await;
        }
        ["deliveries", id, "retry"] if method == Method::POST => {
            return deliveries::retry(call, id).await;
        }
        ["functions" | "mappings", _] | ["functions", _, "aliases", _] => "GET, PUT, DELETE",
        ["functions", _, "versions"] => "GET, POST",
        ["functions", _, "aliases"] => "GET",
        ["functions", _, "quotas"] => "PUT",
        ["functions", _, "invoke"] | ["mappings", _, "pause" | "resume" | "unpark" | "rewind"] => {
            "POST"
        }
        ["mappings", _, "dry-run"] | ["mappings", _, "dry-run", _] => "POST",
        ["mappings", _, "parked" | "shadow"] => "GET",
        ["failures", _, "redrive" | "replay"] | ["deliveries", _, "retry"] => "POST",
        ["failures"] => "GET, POST",
        ["failures", _] => "GET, DELETE",
        ["failures", _, "export"] | ["deliveries"] => "GET",
        ["deliveries", _] => "GET, DELETE",
        ["health" | "metrics" | "streams" | "functions" | "mappings" | "tenants" | "usage"]
        | ["streams" | "counters" | "state" | "tenants" | "usage", _] => "GET",
        _ => {
            return Err(Error::not_found(format!(
                "no such path: /_shardmill/{}",
                path.join("/")
            )));
        }
    };
    let mut answer = answer_error(Error::method(method, allowed));
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    Ok(answer)
}

/// Whether the host does its work: 503 while the disk is too full to take records.
fn health(call: &Call<'_>) -> Result<Answer, Error> {
    let full = call.host.store.stats().full;
    let (status, word) = match full {
        false => (StatusCode::OK, "ok"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "disk_full"),
    };
    let body = json!({ "status": word, "version": env!("CARGO_PKG_VERSION") });
    Ok(answer(status, "application/json", body.to_string()))
}

/// A good answer.
fn ok(body: &impl Serialize) -> Result<Answer, Error> {
    let body = serde_json::to_vec(body).map_err(|e| Error::internal(&e))?;
    Ok(answer(StatusCode::OK, "application/json", body))
}

fn answer_error(error: Error) -> Answer {
    let Error {
        status,
        code,
        message,
        hint,
    } = error;
    if status.is_server_error() {
        tracing::warn!(code, message, "a native request failed");
    }
    let body = json!({ "error": { "code": code, "message": message, "hint": hint } });
    let mut answer = answer(status, "application/json", body.to_string());
    if status == StatusCode::TOO_MANY_REQUESTS {
        // Seconds; of the rate, a second's worth is back by then.
        let headers = answer.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(body.into().into());
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
