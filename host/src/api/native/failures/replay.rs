//! A replay for people and scripts: how it ended beside how it had ended, and what the handler
//! did, none of which is kept.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shardmill_core::effects::Effects;
use shardmill_core::outcome::Outcome;

use super::super::error::Error;
use super::super::invoke;
use super::super::request::Call;
use super::super::state::data;
use super::super::{Answer, ok};
use super::view;
use crate::mapping::Replayed;

/// Writes, and emitted records, that are shown of a replay.
const SHOWN_EFFECTS: usize = 1000;

/// Runs an entry's attempt again: on its own module, or on the one in the body.
pub(in crate::api::native) async fn replay(call: &Call<'_>, id: &str) -> Result<Answer, Error> {
    let failures = &call.workloads()?.failures;
    let id = failures.resolve(&call.scope, id)?;
    let other = (!call.body.is_empty()).then(|| call.body.clone());
    let replayed = failures.replay(&call.scope, &id, other).await?;
    let Replayed {
        entry,
        recorded,
        report,
        digest,
        same,
        differences,
        warnings,
    } = &replayed;
    let mut run = invoke::view(report, &entry.request_id);
    run["effects"] = effects(&report.effects);
    run["digest"] = digest.as_str().into();
    let told = match recorded {
        Outcome::Failed(failure) => json!({
            "outcome": "failed",
            "message": failure.cause.to_string(),
            "record": failure.record,
        }),
        Outcome::Partial { failed, .. } => json!({
            "outcome": "partial",
            "failed_records": failed,
        }),
        Outcome::Ok { .. } | Outcome::Json { .. } => json!({ "outcome": "ok" }),
        Outcome::Throttled { reason } => json!({ "outcome": "throttled", "message": reason }),
    };
    ok(&json!({
        "failure": view(entry)?,
        "recorded": told,
        "replayed": run,
        "same": same,
        "differences": differences,
        "warnings": warnings,
    }))
}

fn effects(effects: &Effects) -> Value {
    let mut counters = BTreeMap::<&str, i64>::new();
    for (_, add) in &effects.counters {
        let sum = counters.entry(&add.name).or_default();
        *sum = sum.wrapping_add(add.amount);
    }
    let state = effects.state.iter().take(SHOWN_EFFECTS).map(|(_, write)| {
        let view =
            json!({ "key": write.key, "name": write.name, "deleted": write.value.is_none() });
        data(view, write.value.as_deref().unwrap_or_default())
    });
    let emits = effects.emits.iter().take(SHOWN_EFFECTS).map(|(_, emit)| {
        data(
            json!({ "stream": emit.stream, "partition_key": emit.key }),
            &emit.data,
        )
    });
    json!({
        "counters": counters,
        "state": state.collect::<Vec<_>>(),
        "state_writes": effects.state.len(),
        "emitted": emits.collect::<Vec<_>>(),
        "emits": effects.emits.len(),
    })
}
