//! What is known of a run at one moment: everything that expectations are judged by.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::mapping::{FailureEntry, Fate};

/// The facts at one moment, all since the start of the scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Every invocation, in order.
    pub(super) invocations: Vec<Invoked>,
    /// Invocations that the mapping takes for failed.
    pub(super) function_errors: u64,
    /// Tumbling windows whose final invocation succeeded.
    pub(super) windows_closed: u64,
    /// Every record that the scenario has put into the mapping's stream, in order.
    pub(super) records: Vec<RecordFact>,
    /// The function's counters.
    pub(super) counters: BTreeMap<String, i64>,
    /// Its keyed state, by partition key and name.
    pub(super) state: BTreeMap<(String, String), Bytes>,
    /// Records that handlers have put, by stream: partition key and data.
    pub(super) emitted: BTreeMap<String, Vec<(String, Bytes)>>,
    /// The failure store, oldest first.
    pub(super) failures: Vec<FailureEntry>,
    /// Parked keys, in the order of their names.
    pub(super) parked_keys: Vec<String>,
}

/// An invocation that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invoked {
    /// Records in it; none in a window's final invocation.
    pub(super) records: usize,
    /// Fuel used, units.
    pub(super) fuel: u64,
}

/// A record that was put, and what has become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordFact {
    /// The name that the scenario gives it.
    pub(super) name: Option<String>,
    /// Its partition key.
    pub(super) key: String,
    /// What has become of it.
    pub(super) fate: Fate,
}
