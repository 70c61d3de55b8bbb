//! The loop between the ABI and a handler: a batch buffer in, an answer buffer out.
//!
//! [`handler!`](crate::handler) calls one of these functions inside the sandbox; a native
//! benchmark calls the same one with a [`Host`](crate::host::Host) of its own and a buffer from
//! [`testing::pack`](crate::testing::pack). Nothing is allocated for each record.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Shape;
use crate::host::HostRef;
use crate::{Batch, BatchResponse, Context, Error, Record, abi, answer};

/// Record mode: the handler is called for each record in order, up to the first that fails.
pub fn record<F>(handler: F, batch: &[u8], host: HostRef<'_>) -> Vec<u8>
where
    F: Fn(&Record<'_>, &mut Context<'_>) -> Result<(), Error>,
{
    let (invocation, batch) = match abi::read_records(batch) {
        Ok(read) => read,
        Err(error) => return answer::error(None, &error),
    };
    let mut ctx = Context::new(invocation, Shape::Record, host);
    for (index, record) in (0..).zip(batch.iter()) {
        let result = (ctx.enter(index))
            .and_then(|()| handler(&record, &mut ctx))
            .and_then(|()| ctx.check_refusal());
        if let Err(error) = result {
            return answer::error(Some(index), &error);
        }
    }
    answer::ok(ctx.window_state())
}

/// Batch mode: the handler is called once and says which records failed.
pub fn batch<F, R>(handler: F, batch: &[u8], host: HostRef<'_>) -> Vec<u8>
where
    F: Fn(&Batch<'_>, &mut Context<'_>) -> Result<R, Error>,
    R: Into<BatchResponse>,
{
    let (invocation, batch) = match abi::read_records(batch) {
        Ok(read) => read,
        Err(error) => return answer::error(None, &error),
    };
    let mut ctx = Context::new(invocation, Shape::Batch, host);
    let result = handler(&batch, &mut ctx)
        .and_then(|response| ctx.check_refusal().map(|()| response))
        .and_then(|response| failed_indices(response.into(), batch.len()));
    match result {
        Ok(failed) if failed.is_empty() => answer::ok(ctx.window_state()),
        Ok(failed) => answer::partial(&failed, ctx.window_state()),
        Err(error) => answer::error(ctx.current_index(), &error),
    }
}

/// Event mode: JSON in, JSON out.
pub fn event<F, T, R>(handler: F, batch: &[u8], host: HostRef<'_>) -> Vec<u8>
where
    F: Fn(T, &mut Context<'_>) -> Result<R, Error>,
    T: DeserializeOwned,
    R: Serialize,
{
    let (invocation, event) = match abi::read_event(batch) {
        Ok(read) => read,
        Err(error) => return answer::error(None, &error),
    };
    let mut ctx = Context::new(invocation, Shape::Event, host);
    let result = (serde_json::from_slice(event).map_err(Error::from))
        .and_then(|event| handler(event, &mut ctx))
        .and_then(|response| ctx.check_refusal().map(|()| response))
        .and_then(|response| Ok(serde_json::to_string(&response)?));
    match result {
        Ok(response) => answer::json(&response),
        Err(error) => answer::error(None, &error),
    }
}

fn failed_indices(response: BatchResponse, count: usize) -> Result<Vec<u32>, Error> {
    let failed = response.into_indices();
    match failed.last() {
        Some(last) if *last >= count => Err(Error::new(
            "UnknownRecord",
            format!("the response names record {last}, and the batch has {count}"),
        )),
        _ => Ok(failed.into_iter().map(|index| index as u32).collect()),
    }
}
