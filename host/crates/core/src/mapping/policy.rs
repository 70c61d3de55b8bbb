//! A mapping's settings, and the reasons for giving records up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{DEFAULT_BATCH_SIZE, DEFAULT_PARKED_BYTES, DEFAULT_PARKED_KEYS};
use crate::time::UnixMillis;

/// Where a shard without a checkpoint is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "SCREAMING_SNAKE_CASE",
    tag = "type",
    content = "timestamp"
)]
pub enum StartingPosition {
    /// The oldest record.
    TrimHorizon,
    /// After the newest record.
    Latest,
    /// The first record that arrived at this instant or later.
    AtTimestamp(UnixMillis),
}

/// What happens when a batch's attempts end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExhausted {
    /// The records go to the failure store and the shard goes on. AWS's behaviour.
    #[default]
    Discard,
    /// The shard stops until a person or a new version of the function resumes it.
    Pause,
    /// The record at fault and every later one of its partition key wait in order, until a
    /// person lets them go on; other keys are not held up. An entry of the failure store says why.
    Park,
}

/// How a mapping cuts, retries and gives up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Records of a batch, 1 … 10,000.
    pub batch_size: u32,
    /// How long records are gathered, 0 … 300 s; 0: a batch is whatever is there.
    pub batching_window: Duration,
    /// Attempts after the first one, 0 … 10,000; `None`: until the records expire.
    pub maximum_retry_attempts: Option<u32>,
    /// Age at which a record is given up, 60 … 604,800 s; `None`: retention's end.
    pub maximum_record_age: Option<Duration>,
    /// Whether a failed batch is split.
    pub bisect_batch_on_function_error: bool,
    /// Whether a JSON response may name failed records. A packed answer always may.
    pub report_batch_item_failures: bool,
    /// What happens when attempts end.
    pub on_exhausted: OnExhausted,
    /// Batches of one shard that may run at a time, 1 … 10; each partition key stays in order.
    #[serde(default = "one")]
    pub parallelization_factor: u32,
    /// Length of a tumbling window, 0 … 900 s; 0: none. Not together with lanes or filters.
    #[serde(default)]
    pub tumbling_window: Duration,
    /// Patterns of which a record must match one, 0 … 10; none: every record is delivered.
    #[serde(default)]
    pub filter_criteria: Vec<String>,
    /// Whether KPL aggregates are taken apart. As AWS has it: not for a stream, but for a
    /// consumer of enhanced fan-out. Stays as the mapping was made.
    #[serde(default)]
    pub deaggregate: bool,
    /// Failed batches in a row after which the mapping waits before it tries one more; 0: never.
    #[serde(default)]
    pub circuit_breaker: u32,
    /// With `Park`: keys that may be parked, 1 … 100,000. At the bound a shard pauses.
    #[serde(default = "default_parked_keys")]
    pub max_parked_keys: u32,
    /// With `Park`: bytes of parked records. At the bound a shard pauses.
    #[serde(default = "default_parked_bytes")]
    pub max_parked_bytes: u64,
}

fn one() -> u32 {
    1
}

fn default_parked_keys() -> u32 {
    DEFAULT_PARKED_KEYS
}

fn default_parked_bytes() -> u64 {
    DEFAULT_PARKED_BYTES
}

impl Policy {
    /// AWS's defaults: retries until the record expires.
    pub fn aws() -> Self {
        Self {
            batch_size: DEFAULT_BATCH_SIZE,
            batching_window: Duration::ZERO,
            maximum_retry_attempts: None,
            maximum_record_age: None,
            bisect_batch_on_function_error: false,
            report_batch_item_failures: false,
            on_exhausted: OnExhausted::Discard,
            parallelization_factor: 1,
            tumbling_window: Duration::ZERO,
            filter_criteria: Vec::new(),
            deaggregate: false,
            circuit_breaker: 0,
            max_parked_keys: DEFAULT_PARKED_KEYS,
            max_parked_bytes: DEFAULT_PARKED_BYTES,
        }
    }

    /// The manifest's defaults: two retries, split on the first failure, then the failure store.
    /// One poison record neither stops a shard for a day nor takes its whole batch along.
    pub fn manifest() -> Self {
        Self {
            maximum_retry_attempts: Some(2),
            bisect_batch_on_function_error: true,
            ..Self::aws()
        }
    }

    /// The length of a tumbling window, if the mapping has one.
    pub fn window(&self) -> Option<Duration> {
        (self.tumbling_window > Duration::ZERO).then_some(self.tumbling_window)
    }

    /// Whether `attempts` are all that a batch gets.
    pub fn is_exhausted(&self, attempts: u32) -> bool {
        self.maximum_retry_attempts
            .is_some_and(|retries| attempts > retries)
    }
}

/// Why records were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The attempts ended.
    RetryAttemptsExhausted,
    /// The records were older than the mapping allows.
    RecordAgeExceeded,
    /// The record's event is larger than any event may be.
    RecordTooLarge,
    /// The records were trimmed before they could be delivered: their data is gone.
    Expired,
    /// The host's process died three times while the batch was in flight.
    ProcessDied,
}
