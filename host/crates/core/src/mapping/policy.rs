//! A mapping's settings, and the reasons for giving records up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{
    DEFAULT_BATCH_SIZE, DEFAULT_PARKED_BYTES, DEFAULT_PARKED_KEYS, DEFAULT_ROLL_BACK_BATCHES,
    MAX_BATCH_SIZE, MAX_BATCHING_WINDOW, MAX_PARALLELIZATION_FACTOR, MAX_PARKED_BYTES,
    MAX_PARKED_KEYS, MAX_RETRY_ATTEMPTS, MAX_ROLL_BACK_BATCHES, MAX_TUMBLING_WINDOW,
};
use crate::mapping::{BadFilter, Demand, FilterCriteria, Shadow};
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
    /// Length of a tumbling window, 0 … 900 s; 0: none. Not together with lanes, filters
    /// or `Park`.
    #[serde(default)]
    pub tumbling_window: Duration,
    /// Patterns of which a record must match one, 0 … 10; none: every record is delivered.
    #[serde(default)]
    pub filter_criteria: Vec<String>,
    /// Whether KPL aggregates are taken apart. As AWS has it: not for a stream, but for a
    /// consumer of enhanced fan-out. Stays as the mapping was made.
    #[serde(default)]
    pub deaggregate: bool,
    /// Failed batches in a row after which the mapping waits before it tries one more, 0 … 10,000;
    /// 0: never.
    #[serde(default)]
    pub circuit_breaker: u32,
    /// With `Park`: keys that may be parked, 1 … 100,000. At the bound a shard pauses.
    #[serde(default = "default_parked_keys")]
    pub max_parked_keys: u32,
    /// With `Park`: bytes of parked records, 1 … 1 TiB. At the bound a shard pauses.
    #[serde(default = "default_parked_bytes")]
    pub max_parked_bytes: u64,
    /// Share of a new version's first batches that must fail for the mapping to go back to the
    /// version before it, 1 … 100 %; 0: it never does.
    #[serde(default)]
    pub roll_back_failure_percent: u32,
    /// How many batches of a new version are looked at, 1 … 10,000.
    #[serde(default = "default_roll_back_batches")]
    pub roll_back_batches: u32,
    /// A version that runs beside on the same batches, if any does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
}

fn default_roll_back_batches() -> u32 {
    DEFAULT_ROLL_BACK_BATCHES
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
            roll_back_failure_percent: 0,
            roll_back_batches: DEFAULT_ROLL_BACK_BATCHES,
            shadow: None,
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

    /// What is asked of a new version, if it is on trial.
    pub fn demand(&self) -> Option<Demand> {
        let demand = Demand {
            failure_percent: self.roll_back_failure_percent,
            batches: self.roll_back_batches,
        };
        (demand.failure_percent > 0).then_some(demand)
    }

    /// Whether `attempts` are all that a batch gets.
    pub fn is_exhausted(&self, attempts: u32) -> bool {
        self.maximum_retry_attempts
            .is_some_and(|retries| attempts > retries)
    }
}

/// Settings that do not go together, or a filter that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// A value out of its range.
    #[error("{setting} {value}: {range} expected")]
    Range {
        /// The setting.
        setting: &'static str,
        /// What was given.
        value: String,
        /// What is possible.
        range: &'static str,
    },
    /// Two settings that exclude each other.
    #[error("a tumbling window cannot be used together with {0}")]
    Window(&'static str),
    /// A pattern that is none.
    #[error(transparent)]
    Filter(#[from] BadFilter),
}

impl Policy {
    /// Whether the settings are in their ranges and go together.
    ///
    /// # Errors
    /// See [`BadPolicy`].
    pub fn check(&self) -> Result<(), BadPolicy> {
        self.compile().map(drop)
    }

    /// The same, and the filter criteria as they are compiled for that.
    ///
    /// # Errors
    /// See [`BadPolicy`].
    pub fn compile(&self) -> Result<FilterCriteria, BadPolicy> {
        let range = |good: bool, setting, value: &dyn Fn() -> String, range| match good {
            true => Ok(()),
            false => Err(BadPolicy::Range {
                setting,
                value: value(),
                range,
            }),
        };
        let whole = |span: Duration| span.subsec_nanos() == 0;
        range(
            (1..=MAX_BATCH_SIZE).contains(&self.batch_size),
            "batch size",
            &|| self.batch_size.to_string(),
            "1 to 10000 records",
        )?;
        range(
            self.batching_window <= MAX_BATCHING_WINDOW && whole(self.batching_window),
            "batching window",
            &|| format!("{:?}", self.batching_window),
            "0 to 300 whole seconds",
        )?;
        range(
            self.maximum_retry_attempts
                .is_none_or(|n| n <= MAX_RETRY_ATTEMPTS),
            "maximum retry attempts",
            &|| self.maximum_retry_attempts.unwrap_or_default().to_string(),
            "0 to 10000, or -1",
        )?;
        let age = self.maximum_record_age.map(|age| age.as_secs());
        range(
            age.is_none_or(|age| (60..=604_800).contains(&age)),
            "maximum record age",
            &|| format!("{:?}", self.maximum_record_age.unwrap_or_default()),
            "60 to 604800 seconds, or -1",
        )?;
        range(
            (1..=MAX_PARALLELIZATION_FACTOR).contains(&self.parallelization_factor),
            "parallelization factor",
            &|| self.parallelization_factor.to_string(),
            "1 to 10",
        )?;
        range(
            self.tumbling_window <= MAX_TUMBLING_WINDOW && whole(self.tumbling_window),
            "tumbling window",
            &|| format!("{:?}", self.tumbling_window),
            "0 to 900 whole seconds",
        )?;
        range(
            (1..=MAX_PARKED_KEYS).contains(&self.max_parked_keys),
            "parked keys",
            &|| self.max_parked_keys.to_string(),
            "1 to 100000",
        )?;
        range(
            (1..=MAX_PARKED_BYTES).contains(&self.max_parked_bytes),
            "bytes of parked records",
            &|| self.max_parked_bytes.to_string(),
            "1 byte to 1 TiB",
        )?;
        range(
            self.circuit_breaker <= MAX_RETRY_ATTEMPTS,
            "circuit breaker",
            &|| self.circuit_breaker.to_string(),
            "0 to 10000 failed batches",
        )?;
        range(
            self.roll_back_failure_percent <= 100,
            "failure percentage of a roll-back",
            &|| self.roll_back_failure_percent.to_string(),
            "0 to 100 percent",
        )?;
        range(
            (1..=MAX_ROLL_BACK_BATCHES).contains(&self.roll_back_batches),
            "batches of a roll-back",
            &|| self.roll_back_batches.to_string(),
            "1 to 10000 batches",
        )?;
        let shadow = self.shadow.as_ref().and_then(Shadow::out_of_range);
        if let Some((setting, value, range)) = shadow {
            return Err(BadPolicy::Range {
                setting,
                value,
                range,
            });
        }
        let filters = FilterCriteria::compile(&self.filter_criteria)?;
        if self.window().is_some() {
            if self.parallelization_factor > 1 {
                return Err(BadPolicy::Window("a parallelization factor above 1"));
            }
            if !self.filter_criteria.is_empty() {
                return Err(BadPolicy::Window("filter criteria"));
            }
            if self.on_exhausted == OnExhausted::Park {
                // What is let go on would come behind its window, whose state is gone.
                return Err(BadPolicy::Window("on_exhausted \"park\""));
            }
        }
        Ok(filters)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_or_that_exclude_each_other_are_refused() {
        let window = Duration::from_secs(60);
        let base = Policy::aws;
        for (policy, message) in [
            (
                Policy {
                    batch_size: 0,
                    ..base()
                },
                "batch size 0: 1 to 10000 records expected",
            ),
            (
                Policy {
                    batch_size: 10_001,
                    ..base()
                },
                "batch size 10001: 1 to 10000 records expected",
            ),
            (
                Policy {
                    batching_window: Duration::from_secs(301),
                    ..base()
                },
                "batching window 301s: 0 to 300 whole seconds expected",
            ),
            (
                Policy {
                    maximum_retry_attempts: Some(10_001),
                    ..base()
                },
                "maximum retry attempts 10001: 0 to 10000, or -1 expected",
            ),
            (
                Policy {
                    maximum_record_age: Some(Duration::from_secs(59)),
                    ..base()
                },
                "maximum record age 59s: 60 to 604800 seconds, or -1 expected",
            ),
            (
                Policy {
                    parallelization_factor: 11,
                    ..base()
                },
                "parallelization factor 11: 1 to 10 expected",
            ),
            (
                Policy {
                    tumbling_window: Duration::from_secs(901),
                    ..base()
                },
                "tumbling window 901s: 0 to 900 whole seconds expected",
            ),
            (
                Policy {
                    tumbling_window: window,
                    parallelization_factor: 2,
                    ..base()
                },
                "a tumbling window cannot be used together with a parallelization factor above 1",
            ),
            (
                Policy {
                    tumbling_window: window,
                    filter_criteria: vec![r#"{"data":{"a":[1]}}"#.into()],
                    ..base()
                },
                "a tumbling window cannot be used together with filter criteria",
            ),
            (
                Policy {
                    tumbling_window: window,
                    on_exhausted: OnExhausted::Park,
                    ..base()
                },
                "a tumbling window cannot be used together with on_exhausted \"park\"",
            ),
            (
                Policy {
                    circuit_breaker: 10_001,
                    ..base()
                },
                "circuit breaker 10001: 0 to 10000 failed batches expected",
            ),
            (
                Policy {
                    max_parked_bytes: 0,
                    ..base()
                },
                "bytes of parked records 0: 1 byte to 1 TiB expected",
            ),
            (
                Policy {
                    roll_back_failure_percent: 101,
                    ..base()
                },
                "failure percentage of a roll-back 101: 0 to 100 percent expected",
            ),
            (
                Policy {
                    roll_back_batches: 0,
                    ..base()
                },
                "batches of a roll-back 0: 1 to 10000 batches expected",
            ),
            (
                Policy {
                    shadow: Some(Shadow {
                        percent: 0,
                        ..Shadow::of(":2")
                    }),
                    ..base()
                },
                "percentage of a shadow 0: 1 to 100 percent expected",
            ),
            (
                Policy {
                    shadow: Some(Shadow {
                        fuel_per_second: 7,
                        ..Shadow::of(":2")
                    }),
                    ..base()
                },
                "fuel of a shadow 7: 1000000 to 1000000000000 units per second expected",
            ),
        ] {
            let bad = policy.check().expect_err(message);
            assert_eq!(bad.to_string(), message);
        }
        assert!(
            Policy {
                filter_criteria: vec!["{".into()],
                ..base()
            }
            .check()
            .is_err()
        );
        assert_eq!(Policy::aws().check(), Ok(()));
        assert_eq!(Policy::manifest().check(), Ok(()));
    }
}
