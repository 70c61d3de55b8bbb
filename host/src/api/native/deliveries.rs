//! Deliveries that have not been made: shown, tried at once, dropped.

use serde_json::{Value, json};

use super::error::Error;
use super::request::Call;
use super::{Answer, ok};
use crate::delivery::{Delivery, Filter, Listed};

/// Deliveries of one page unless the caller says otherwise.
const DEFAULT_PAGE: usize = 100;
/// Deliveries of one page, at most.
const MAX_PAGE: usize = 1000;

/// Deliveries, oldest first, page by page: `after` of the answer is the next call's parameter.
pub(super) fn list(call: &Call<'_>) -> Result<Answer, Error> {
    let limit = call.number("limit", DEFAULT_PAGE)?;
    if !(1..=MAX_PAGE).contains(&limit) {
        let message = format!("limit = {limit}: 1 to {MAX_PAGE} expected");
        return Err(Error::bad_request(message));
    }
    let filter = Filter {
        mapping: call.parameter("mapping"),
        destination: call.parameter("destination"),
    };
    let page = delivery(call)?.list(&call.scope, &filter, call.parameter("after"), limit)?;
    let views: Vec<Value> = page.deliveries.iter().map(view).collect();
    ok(&json!({ "deliveries": views, "after": page.after }))
}

/// One of them, with the document that is sent.
pub(super) fn get(call: &Call<'_>, id: &str) -> Result<Answer, Error> {
    let delivery = delivery(call)?;
    let found = delivery.get(&call.scope, &delivery.resolve(&call.scope, id)?)?;
    let mut view = view(&found);
    let document = serde_json::from_str(found.entry.document.get());
    view["document"] = document.map_err(|e| Error::internal(&e))?;
    ok(&view)
}

/// Tries one at once.
pub(super) async fn retry(call: &Call<'_>, id: &str) -> Result<Answer, Error> {
    let delivery = delivery(call)?;
    let id = delivery.resolve(&call.scope, id)?;
    let entry = delivery.retry(&call.scope, &id).await?;
    let problem = None;
    ok(&view(&Listed { entry, problem }))
}

/// Drops one; the failure store keeps its entry.
pub(super) async fn delete(call: &Call<'_>, id: &str) -> Result<Answer, Error> {
    let delivery = delivery(call)?;
    let id = delivery.resolve(&call.scope, id)?;
    let entry = delivery.drop_entry(&call.scope, &id).await?;
    let problem = None;
    ok(&view(&Listed { entry, problem }))
}

fn delivery<'a>(call: &'a Call<'_>) -> Result<&'a Delivery, Error> {
    Ok(call.workloads()?.mappings.delivery())
}

fn view(listed: &Listed) -> Value {
    let Listed { entry, problem } = listed;
    json!({
        "id": entry.id,
        "mapping": entry.mapping,
        "mapping_id": entry.mapping_id,
        "destination": entry.destination,
        "created": entry.created,
        "records": entry.records,
        "state": if entry.undeliverable.is_some() { "undeliverable" } else { "pending" },
        "problem": problem,
        "undeliverable": entry.undeliverable,
    })
}
