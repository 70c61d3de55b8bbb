//! Functions: shown with the manifest's words, deployed from a body of wasm.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;
use shardmill_core::UnixMillis;

use super::error::Error;
use super::request::Call;
use super::{Answer, ok};
use crate::functions::{Function, FunctionError, FunctionSettings};
use crate::manifest::{FunctionTable, check_function};

#[derive(Serialize)]
struct FunctionView<'a> {
    name: &'a str,
    version: u64,
    digest: &'a str,
    code_size: u64,
    last_modified: UnixMillis,
    timeout_seconds: u64,
    memory_mib: u64,
    fuel: u64,
    fuel_per_record: u64,
    answer_kib: usize,
    output_kib: usize,
    effects_mib: usize,
    effects: usize,
    batch_mib: usize,
    environment: &'a BTreeMap<String, String>,
}

/// All functions.
pub(super) fn list(call: &Call<'_>) -> Result<Answer, Error> {
    let functions = call.workloads()?.functions.list(&call.scope)?;
    let views: Vec<_> = functions.iter().map(view).collect();
    ok(&json!({ "functions": views }))
}

/// One function.
pub(super) fn get(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    ok(&view(
        &call.workloads()?.functions.describe(&call.scope, name)?,
    ))
}

/// Deploys the body. Settings that are not given stay as they are.
pub(super) async fn put(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let functions = &call.workloads()?.functions;
    if call.body.is_empty() {
        return Err(Error::bad_request(
            "no module: the body must be the wasm file",
        ));
    }
    // Held over the deployment, so that two new functions do not share the last place.
    let mut place = None;
    let base = match functions.describe(&call.scope, name) {
        Ok(function) => function.settings,
        Err(FunctionError::NotFound(_)) => {
            place = call.place_for_function().await?;
            FunctionSettings::default()
        }
        Err(error) => return Err(error.into()),
    };
    let text = call.parameter("settings").unwrap_or("{}");
    let table: FunctionTable =
        serde_json::from_str(text).map_err(|e| Error::json("settings", &e))?;
    if table.names_itself() {
        return Err(Error::bad_request(
            "settings: name, wasm, account and region are not for here",
        )
        .hint("the path names the function, the signature the account and the region"));
    }
    let settings = check_function(table, base, "settings")?;
    let deployed = functions
        .deploy(&call.scope, name, call.body.clone(), settings)
        .await?;
    drop(place);
    ok(&view(&deployed.function))
}

/// Deletes a function.
pub(super) async fn delete(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    call.workloads()?
        .functions
        .delete(&call.scope, name)
        .await?;
    ok(&json!({ "name": name }))
}

fn view(function: &Function) -> FunctionView<'_> {
    let limits = &function.settings.limits;
    FunctionView {
        name: &function.name,
        version: function.version,
        digest: &function.digest,
        code_size: function.code_size,
        last_modified: function.last_modified,
        timeout_seconds: limits.timeout.as_secs(),
        memory_mib: limits.memory_bytes >> 20,
        fuel: limits.fuel_base,
        fuel_per_record: limits.fuel_per_record,
        answer_kib: limits.answer_bytes >> 10,
        output_kib: limits.output_bytes >> 10,
        effects_mib: limits.effect_bytes >> 20,
        effects: limits.effect_items,
        batch_mib: limits.batch_bytes >> 20,
        environment: &function.settings.environment,
    }
}
