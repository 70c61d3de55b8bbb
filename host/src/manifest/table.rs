//! The manifest as it is written: every key, none of them checked. The tables of functions and
//! mappings are also the JSON bodies of the native API, where every key is optional.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::tenancy::Secret;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawManifest {
    pub(crate) prune: bool,
    pub(crate) build: Option<BuildTable>,
    pub(crate) server: ServerTable,
    pub(crate) stream: Vec<StreamTable>,
    pub(crate) function: Vec<FunctionTable>,
    pub(crate) alias: Vec<AliasTable>,
    pub(crate) mapping: Vec<MappingTable>,
    pub(crate) queue: Vec<QueueTable>,
    pub(crate) delivery: DeliveryTable,
    pub(crate) s3: S3Table,
    pub(crate) tenant: Vec<TenantTable>,
    pub(crate) operator: Vec<OperatorTable>,
    pub(crate) tls: Option<TlsTable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BuildTable {
    pub(crate) language: Option<String>,
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServerTable {
    pub(crate) listen: Option<String>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) account: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) failures_max_age_days: Option<i64>,
    pub(crate) failures_max_mib: Option<i64>,
    pub(crate) access: Option<String>,
    pub(crate) clock_skew_seconds: Option<i64>,
    pub(crate) secret_key_file: Option<PathBuf>,
    pub(crate) max_connections: Option<i64>,
    pub(crate) patience_seconds: Option<i64>,
    pub(crate) body_grace_seconds: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsTable {
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TenantTable {
    pub(crate) account: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) weight: Option<i64>,
    pub(crate) stored_mib: Option<i64>,
    pub(crate) shards: Option<i64>,
    pub(crate) functions: Option<i64>,
    pub(crate) requests_per_second: Option<i64>,
    pub(crate) concurrent_invocations: Option<i64>,
    pub(crate) guest_memory_mib: Option<i64>,
    pub(crate) fuel_per_second: Option<i64>,
    pub(crate) access_key: Vec<AccessKeyTable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OperatorTable {
    pub(crate) name: Option<String>,
    pub(crate) access_key: Vec<AccessKeyTable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AccessKeyTable {
    pub(crate) id: Option<String>,
    pub(crate) secret: Option<Secret>,
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) secret_env: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DeliveryTable {
    pub(crate) maximum_age_hours: Option<i64>,
    pub(crate) timeout_seconds: Option<i64>,
    pub(crate) outbox_entries: Option<i64>,
    pub(crate) outbox_mib: Option<i64>,
    pub(crate) webhook_secret: Option<String>,
    pub(crate) allow: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct S3Table {
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) access_key_id: Option<String>,
    pub(crate) secret_access_key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct QueueTable {
    pub(crate) name: Option<String>,
    pub(crate) account: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) visibility_timeout_seconds: Option<i64>,
    pub(crate) message_retention_seconds: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StreamTable {
    pub(crate) name: Option<String>,
    pub(crate) account: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) shards: Option<i64>,
    pub(crate) retention_hours: Option<i64>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FunctionTable {
    pub(crate) name: Option<String>,
    pub(crate) account: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) wasm: Option<PathBuf>,
    pub(crate) timeout_seconds: Option<i64>,
    pub(crate) memory_mib: Option<i64>,
    pub(crate) fuel: Option<i64>,
    pub(crate) fuel_per_record: Option<i64>,
    pub(crate) answer_kib: Option<i64>,
    pub(crate) output_kib: Option<i64>,
    pub(crate) effects_mib: Option<i64>,
    pub(crate) effects: Option<i64>,
    pub(crate) batch_mib: Option<i64>,
    pub(crate) weight: Option<i64>,
    pub(crate) reserved_concurrency: Option<i64>,
    pub(crate) environment: Option<BTreeMap<String, String>>,
    pub(crate) state_format: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AliasTable {
    pub(crate) name: Option<String>,
    pub(crate) function: Option<String>,
    pub(crate) account: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) version: Option<VersionName>,
    pub(crate) routing: Option<BTreeMap<String, f64>>,
    pub(crate) description: Option<String>,
}

/// A version: its number, or `$LATEST`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum VersionName {
    Number(i64),
    Text(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MappingTable {
    pub(crate) name: Option<String>,
    pub(crate) account: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) stream: Option<String>,
    pub(crate) function: Option<String>,
    pub(crate) batch_size: Option<i64>,
    pub(crate) batching_window_seconds: Option<i64>,
    pub(crate) starting_position: Option<String>,
    pub(crate) starting_position_timestamp: Option<Instant>,
    pub(crate) maximum_retry_attempts: Option<i64>,
    pub(crate) maximum_record_age_seconds: Option<i64>,
    pub(crate) bisect_batch_on_function_error: Option<bool>,
    pub(crate) report_batch_item_failures: Option<bool>,
    pub(crate) on_exhausted: Option<String>,
    pub(crate) parallelization_factor: Option<i64>,
    pub(crate) tumbling_window_seconds: Option<i64>,
    pub(crate) filters: Option<Vec<String>>,
    pub(crate) deaggregate: Option<bool>,
    pub(crate) circuit_breaker: Option<i64>,
    pub(crate) max_parked_keys: Option<i64>,
    pub(crate) max_parked_mib: Option<i64>,
    pub(crate) roll_back_failure_percent: Option<i64>,
    pub(crate) roll_back_batches: Option<i64>,
    pub(crate) shadow: Option<String>,
    pub(crate) shadow_percent: Option<i64>,
    pub(crate) shadow_fuel_per_second: Option<i64>,
    pub(crate) on_failure: Option<String>,
    pub(crate) enabled: Option<bool>,
}

/// A point in time: seconds since the epoch, as in AWS's API, or RFC 3339, as TOML's own date or
/// as a text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Instant {
    Seconds(f64),
    Text(String),
    Toml(toml::value::Datetime),
}

impl FunctionTable {
    /// Whether it says more than what a version runs with.
    pub(crate) fn names_itself(&self) -> bool {
        let texts = [&self.name, &self.account, &self.region];
        let numbers = [self.weight, self.reserved_concurrency];
        self.wasm.is_some()
            || texts.into_iter().any(Option::is_some)
            || numbers.into_iter().any(|number| number.is_some())
    }
}

impl AliasTable {
    /// Whether it says which alias it is.
    pub(crate) fn names_itself(&self) -> bool {
        [&self.name, &self.function, &self.account, &self.region]
            .into_iter()
            .any(Option::is_some)
    }
}

impl MappingTable {
    /// Whether it says which mapping it is.
    pub(crate) fn names_itself(&self) -> bool {
        [&self.name, &self.account, &self.region]
            .into_iter()
            .any(Option::is_some)
    }
}
