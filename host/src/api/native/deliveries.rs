//! Deliveries that have not been made: shown, tried at once, dropped.

use serde_json::{Value, json};

use super::error::Error;
use super::request::Call;
use super::{Answer, ok};
use crate::delivery::{Delivery, Entry};

/// All of them, oldest first.
pub(super) fn list(call: &Call<'_>) -> Result<Answer, Error> {
    let entries = delivery(call)?.list(&call.scope, call.parameter("mapping"))?;
    let views: Vec<Value> = entries.iter().map(view).collect();
    ok(&json!({ "deliveries": views }))
}

/// Tries one at once.
pub(super) async fn retry(call: &Call<'_>, id: &str) -> Result<Answer, Error> {
    ok(&view(&delivery(call)?.retry(&call.scope, id).await?))
}

/// Drops one; the failure store keeps its entry.
pub(super) async fn delete(call: &Call<'_>, id: &str) -> Result<Answer, Error> {
    ok(&view(&delivery(call)?.drop_entry(&call.scope, id).await?))
}

fn delivery<'a>(call: &'a Call<'_>) -> Result<&'a Delivery, Error> {
    Ok(call.workloads()?.mappings.delivery())
}

fn view(entry: &Entry) -> Value {
    json!({
        "id": entry.id,
        "mapping": entry.mapping,
        "mapping_id": entry.mapping_id,
        "destination": entry.destination,
        "created": entry.created,
        "records": entry.records,
        "state": if entry.undeliverable.is_some() { "undeliverable" } else { "pending" },
        "undeliverable": entry.undeliverable,
        "document": entry.document,
    })
}
