//! A scenario as it is written: every key, none of them checked but for its type. What is said of
//! the function, the mapping and the streams are the manifest's own tables.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use crate::manifest::{FunctionTable, Instant, MappingTable, StreamTable};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawScenario {
    pub(super) name: Option<String>,
    pub(super) start: Option<Spanned<Instant>>,
    pub(super) function: Option<Spanned<FunctionTable>>,
    pub(super) mapping: Option<Spanned<MappingTable>>,
    pub(super) stream: Vec<Spanned<StreamTable>>,
    pub(super) step: Vec<Spanned<StepTable>>,
    pub(super) expect: Option<Spanned<ExpectTable>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StepTable {
    pub(super) name: Option<String>,
    pub(super) at: Option<Spanned<String>>,
    pub(super) stream: Option<Spanned<String>>,
    pub(super) put: Option<Vec<Spanned<RecordTable>>>,
    pub(super) wait: Option<Spanned<String>>,
    pub(super) drain: Option<Spanned<String>>,
    pub(super) r#do: Option<Spanned<String>>,
    pub(super) deploy: Option<Spanned<PathBuf>>,
    pub(super) unpark: Option<Spanned<Vec<String>>>,
    pub(super) split: Option<Spanned<u32>>,
    pub(super) merge: Option<Spanned<[u32; 2]>>,
    pub(super) expect: Option<Spanned<ExpectTable>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RecordTable {
    pub(super) name: Option<String>,
    pub(super) at: Option<String>,
    pub(super) key: Option<String>,
    pub(super) hash_key: Option<String>,
    pub(super) data: Option<String>,
    pub(super) json: Option<toml::Value>,
    pub(super) hex: Option<String>,
    pub(super) base64: Option<String>,
    pub(super) lines: Option<PathBuf>,
    pub(super) key_regex: Option<String>,
    pub(super) repeat: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExpectTable {
    pub(super) invocations: Option<Spanned<BoundTable>>,
    pub(super) function_errors: Option<Spanned<BoundTable>>,
    pub(super) windows_closed: Option<Spanned<BoundTable>>,
    pub(super) max_fuel_per_record: Option<Spanned<u64>>,
    pub(super) max_fuel_per_invocation: Option<Spanned<u64>>,
    pub(super) all_records: Option<Spanned<String>>,
    pub(super) records: BTreeMap<String, Spanned<String>>,
    pub(super) outcomes: BTreeMap<String, Spanned<BoundTable>>,
    pub(super) counters: BTreeMap<String, Spanned<i64>>,
    pub(super) no_other_counters: Option<Spanned<bool>>,
    pub(super) state: BTreeMap<String, BTreeMap<String, Spanned<toml::Value>>>,
    pub(super) no_other_state: Option<Spanned<bool>>,
    pub(super) absent_state: BTreeMap<String, Spanned<Vec<String>>>,
    pub(super) emitted: BTreeMap<String, Spanned<Vec<EmittedTable>>>,
    pub(super) emitted_counts: BTreeMap<String, Spanned<BoundTable>>,
    pub(super) failures: Option<Spanned<Vec<Spanned<FailureTable>>>>,
    pub(super) parked_keys: Option<Spanned<Vec<String>>>,
}

/// A count: exactly so many, or bounds.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "a number, or { at_least = N, at_most = N }, expected"
)]
pub(super) enum BoundTable {
    Exactly(u64),
    Between(BetweenTable),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BetweenTable {
    pub(super) at_least: Option<u64>,
    pub(super) at_most: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EmittedTable {
    pub(super) key: Option<String>,
    pub(super) data: Option<String>,
    pub(super) json: Option<toml::Value>,
    pub(super) hex: Option<String>,
    pub(super) base64: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FailureTable {
    pub(super) reason: Option<String>,
    pub(super) cause: Option<String>,
    pub(super) records: Option<u64>,
    pub(super) message: Option<String>,
    pub(super) invocations: Option<u32>,
    pub(super) parked: Option<bool>,
}
