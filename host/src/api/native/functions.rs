//! Functions: shown with the manifest's words, deployed from a body of wasm. Their versions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shardmill_core::UnixMillis;

use super::error::Error;
use super::request::Call;
use super::{Answer, ok};
use crate::functions::{
    Deploy, FailedDeploy, Function, FunctionError, FunctionRecord, FunctionRef, FunctionSettings,
    LATEST, Qualifier, QuotasError,
};
use crate::manifest::{FunctionTable, check_function, check_quotas};

#[derive(Serialize)]
struct FunctionView<'a> {
    name: &'a str,
    /// A number, or `$LATEST` where that is not published.
    version: Value,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
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
    state_format: u32,
}

/// `$LATEST`, and what became of the last deploy.
#[derive(Serialize)]
struct RecordView<'a> {
    #[serde(flatten)]
    latest: FunctionView<'a>,
    newest_version: u64,
    weight: u32,
    reserved_concurrency: Option<u32>,
    failed_deploy: Option<&'a FailedDeploy>,
}

/// All functions.
pub(super) fn list(call: &Call<'_>) -> Result<Answer, Error> {
    let functions = call.workloads()?.functions.list(&call.scope)?;
    let views: Vec<_> = functions.iter().map(record_view).collect();
    ok(&json!({ "functions": views }))
}

/// One function, or the version that a qualifier names.
pub(super) fn get(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let functions = &call.workloads()?.functions;
    let named: FunctionRef = name.parse().map_err(FunctionError::from)?;
    if named.qualifier.is_none() {
        return ok(&record_view(&functions.record(&call.scope, name)?));
    }
    let route = functions.route(&call.scope, &named)?;
    let mut shown = serde_json::to_value(view(&route.first)).map_err(|e| Error::internal(&e))?;
    if let Some((second, weight)) = &route.second {
        shown["routing"] = json!({ second.label(): weight });
    }
    ok(&shown)
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
            "settings: name, wasm, account, region, weight and reserved_concurrency are not for here",
        )
        .hint(
            "the path names the function, the signature the account and the region; \
             functions/NAME/quotas takes the others",
        ));
    }
    let settings = check_function(table, base, "settings")?;
    let deploy = Deploy {
        wasm: call.body.clone(),
        settings,
        publish: !call.flag("latest_only")?,
    };
    let deployed = functions.update(&call.scope, name, deploy).await?;
    drop(place);
    ok(&view(&deployed))
}

/// Sets what a function is due among its tenant's: both keys, or what they are without one.
pub(super) async fn put_quotas(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let table: FunctionTable = call.json()?;
    let only_quotas = FunctionTable {
        weight: table.weight,
        reserved_concurrency: table.reserved_concurrency,
        ..FunctionTable::default()
    };
    if table != only_quotas {
        let what = "weight and reserved_concurrency expected, and nothing else";
        return Err(Error::bad_request(what));
    }
    let quotas = check_quotas(&table, "quotas")?.unwrap_or_default();
    let functions = &call.workloads()?.functions;
    match functions.set_quotas(&call.scope, name, quotas).await {
        Ok(()) => ok(&record_view(&functions.record(&call.scope, name)?)),
        Err(QuotasError::Function(error)) => Err(error.into()),
        Err(QuotasError::Commit(error)) => Err(error.into()),
    }
}

/// Deletes a function, or one of its versions; their modules go with them, unless a failure
/// names them.
pub(super) async fn delete(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let workloads = call.workloads()?;
    let functions = &workloads.functions;
    let named: FunctionRef = name.parse().map_err(FunctionError::from)?;
    let digests = match named.qualifier {
        None => functions.delete(&call.scope, name).await?,
        Some(Qualifier::Version(version)) => {
            let gone = functions.delete_version(&call.scope, &named.name, version);
            vec![gone.await?.digest]
        }
        Some(Qualifier::Latest) => {
            let what = "$LATEST cannot be deleted without its function";
            return Err(Error::bad_request(what));
        }
        Some(Qualifier::Alias(_)) => {
            let what = "an alias is not a version";
            return Err(Error::bad_request(what).hint("`shardmill aliases delete NAME:ALIAS`"));
        }
    };
    for digest in digests {
        workloads
            .failures
            .remove_module(&call.scope, &digest)
            .await?;
    }
    ok(&json!({ "name": name }))
}

/// The versions of a function.
pub(super) fn versions(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let functions = &call.workloads()?.functions;
    let latest = functions.describe(&call.scope, name)?;
    let versions = functions.versions(&call.scope, name)?;
    let views: Vec<_> = versions.iter().map(view).collect();
    ok(&json!({ "name": name, "latest": view(&latest), "versions": views }))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Publish {
    description: String,
}

/// Publishes `$LATEST`.
pub(super) async fn publish(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let Publish { description } = call.json()?;
    let functions = &call.workloads()?.functions;
    let published = functions.publish(&call.scope, name, description).await?;
    ok(&view(&published))
}

fn record_view(record: &FunctionRecord) -> RecordView<'_> {
    RecordView {
        latest: view(&record.latest),
        newest_version: record.newest,
        weight: record.quotas.weight,
        reserved_concurrency: record.quotas.reserved_concurrency,
        failed_deploy: record.failed_deploy.as_ref(),
    }
}

fn view(function: &Function) -> FunctionView<'_> {
    let limits = &function.settings.limits;
    FunctionView {
        name: &function.name,
        version: match function.version {
            0 => LATEST.into(),
            version => version.into(),
        },
        description: &function.description,
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
        state_format: function.settings.state_format,
    }
}
