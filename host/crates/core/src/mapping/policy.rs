//! A mapping's settings, and the reasons for giving records up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::DEFAULT_BATCH_SIZE;
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
