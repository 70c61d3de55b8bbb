//! Every number that bounds something, with its unit and its source.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Batches of a new version that are looked at before it is trusted, unless a mapping says so.
pub const DEFAULT_ROLL_BACK_BATCHES: u32 = 20;
/// Batches of a new version that may be looked at.
pub const MAX_ROLL_BACK_BATCHES: u32 = 10_000;

/// Fuel that a shadow may burn, units/s: about a tenth of a core, of which guests were measured to
/// burn 11 to 22 units in a nanosecond.
pub const DEFAULT_SHADOW_FUEL_PER_SECOND: u64 = 1_000_000_000;

/// Fuel of an invocation before records are counted: a JSON handler's start-up many times over.
pub const DEFAULT_FUEL_BASE: u64 = 50_000_000;
/// Fuel added per record: about 33 times what a JSON handler was measured to need (15,270).
pub const DEFAULT_FUEL_PER_RECORD: u64 = 500_000;
/// The least fuel limit that can be set.
pub const MIN_FUEL: u64 = 1_000_000;
/// The highest fuel limit that can be set.
pub const MAX_FUEL: u64 = 1_000_000_000_000;
/// Wall clock of an invocation. Lambda's default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
/// The shortest wall clock. Lambda's minimum.
pub const MIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest wall clock. Lambda's maximum.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(900);
/// Memory of an invocation in bytes. Lambda's least.
pub const DEFAULT_MEMORY_BYTES: u64 = 128 << 20;
/// The least memory in bytes.
pub const MIN_MEMORY_BYTES: u64 = 1 << 20;
/// The most memory in bytes: a slot of the pool.
pub const MAX_MEMORY_BYTES: u64 = 1 << 30;
/// Largest JSON event or response in bytes. Lambda quotas, "Invocation payload".
pub const MAX_EVENT_BYTES: usize = 6 * 1024 * 1024;
/// Largest packed answer in bytes, by default.
pub const DEFAULT_ANSWER_BYTES: usize = 1 << 20;
/// Standard output and error that are kept of an invocation, bytes; the rest is counted.
pub const DEFAULT_OUTPUT_BYTES: usize = 64 << 10;
/// Standard output and error that may be kept of an invocation, bytes.
pub const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// Standard error at the end that goes into a trap report, bytes.
pub const STDERR_TAIL_BYTES: usize = 4 << 10;
/// A handler's error message that is kept, bytes; the rest is cut.
pub const MAX_ERROR_MESSAGE_BYTES: usize = 16 << 10;
/// A handler's error type that is kept, bytes; the rest is cut.
pub const MAX_ERROR_TYPE_BYTES: usize = 256;
/// A function's name in a trap report, bytes; the rest is cut. A report has up to forty of them.
pub const MAX_FRAME_NAME_BYTES: usize = 1 << 10;
/// Effects of one batch, bytes of names, keys and values.
pub const DEFAULT_EFFECT_BYTES: usize = 8 << 20;
/// Effects of one batch, items.
pub const DEFAULT_EFFECT_ITEMS: usize = 10_000;
/// Packed bytes of one batch for a packed-ABI handler.
pub const DEFAULT_BATCH_BYTES: usize = 16 << 20;
/// Effects of one batch, and its packed bytes, at most: they have to fit a transaction.
pub const MAX_BATCH_BYTES: usize = 32 << 20;
/// Effects of one batch, items, at most.
pub const MAX_EFFECT_ITEMS: usize = 1_000_000;
/// Longest name of a value of keyed state, bytes.
pub const MAX_STATE_NAME_BYTES: usize = 256;
/// Largest value of keyed state, bytes.
pub const MAX_STATE_VALUE_BYTES: usize = 256 << 10;
/// Longest name of a counter, bytes.
pub const MAX_COUNTER_NAME_BYTES: usize = 128;
/// Counter names of one function; what goes beyond is added to [`COUNTER_OVERFLOW_NAME`].
pub const MAX_COUNTER_NAMES: usize = 10_000;
/// The counter that takes the additions for names beyond the limit.
pub const COUNTER_OVERFLOW_NAME: &str = "(other)";
/// Longest partition key, characters. PutRecord, "PartitionKey".
pub const MAX_PARTITION_KEY_CHARS: usize = 256;
/// Bytes that an aggregate's inner records may take once their keys are written out, and its
/// tables. A key stands once in an aggregate however many records have it, so a small aggregate
/// can be made that takes any amount of memory. KPL's own take a few MiB.
pub const MAX_TAKEN_APART_BYTES: usize = 32 << 20;
/// Largest emitted record, key and data, bytes.
pub const MAX_EMIT_BYTES: usize = 1 << 20;
/// Longest text of one `log` call, bytes.
pub const MAX_LOG_BYTES: usize = 4 << 10;
/// Records of one batch. CreateEventSourceMapping, "BatchSize".
pub const MAX_BATCH_SIZE: u32 = 10_000;
/// Attempts after the first one. CreateEventSourceMapping, "MaximumRetryAttempts".
pub const MAX_RETRY_ATTEMPTS: u32 = 10_000;
/// Batch size unless the mapping says otherwise.
pub const DEFAULT_BATCH_SIZE: u32 = 100;
/// Longest batching window. CreateEventSourceMapping, "MaximumBatchingWindowInSeconds".
pub const MAX_BATCHING_WINDOW: Duration = Duration::from_secs(300);
/// Batches of one shard at a time. CreateEventSourceMapping, "ParallelizationFactor".
pub const MAX_PARALLELIZATION_FACTOR: u32 = 10;
/// Longest tumbling window. CreateEventSourceMapping, "TumblingWindowInSeconds".
pub const MAX_TUMBLING_WINDOW: Duration = Duration::from_secs(900);
/// Keys of one mapping that may be parked, unless it says otherwise.
pub const DEFAULT_PARKED_KEYS: u32 = 1_000;
/// Keys of one mapping that may be parked at the most: each is looked up for each record.
pub const MAX_PARKED_KEYS: u32 = 100_000;
/// Bytes of one mapping's parked records at the most: 1 TiB.
pub const MAX_PARKED_BYTES: u64 = 1 << 40;
/// Bytes of one mapping's parked records, unless it says otherwise.
pub const DEFAULT_PARKED_BYTES: u64 = 64 << 20;
/// Entries of one PutRecords call.
pub const MAX_PUT_RECORDS: usize = 500;
/// Data and keys of one PutRecords call, bytes.
pub const MAX_PUT_RECORDS_BYTES: usize = 10 << 20;
/// Records of one GetRecords call.
pub const MAX_GET_RECORDS: usize = 10_000;
/// Payload of one GetRecords call, bytes.
pub const MAX_GET_RECORDS_BYTES: usize = 10 << 20;
/// Open shards that UpdateShardCount leaves a stream with. API reference, UpdateShardCount.
pub const MAX_SHARDS_BY_COUNT: u32 = 10_000;
/// Changes by UpdateShardCount of one stream in [`COUNT_UPDATES_SPAN`]. API reference,
/// UpdateShardCount.
pub const MAX_COUNT_UPDATES: usize = 10;
/// The rolling span in which UpdateShardCount's changes are counted.
pub const COUNT_UPDATES_SPAN: Duration = Duration::from_secs(24 * 3600);

/// The limits under which a function runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FunctionLimits {
    /// Fuel of an invocation before records are counted, units.
    pub fuel_base: u64,
    /// Fuel added per record of the batch, units.
    pub fuel_per_record: u64,
    /// Wall clock: the invocation's own running and sleeping.
    pub timeout: Duration,
    /// Linear memory, bytes.
    pub memory_bytes: u64,
    /// Packed answer, bytes.
    pub answer_bytes: usize,
    /// Standard output and error that are kept, bytes.
    pub output_bytes: usize,
    /// Effects of a batch, bytes.
    pub effect_bytes: usize,
    /// Effects of a batch, items.
    pub effect_items: usize,
    /// Packed bytes of a batch.
    pub batch_bytes: usize,
}

impl Default for FunctionLimits {
    fn default() -> Self {
        Self {
            fuel_base: DEFAULT_FUEL_BASE,
            fuel_per_record: DEFAULT_FUEL_PER_RECORD,
            timeout: DEFAULT_TIMEOUT,
            memory_bytes: DEFAULT_MEMORY_BYTES,
            answer_bytes: DEFAULT_ANSWER_BYTES,
            output_bytes: DEFAULT_OUTPUT_BYTES,
            effect_bytes: DEFAULT_EFFECT_BYTES,
            effect_items: DEFAULT_EFFECT_ITEMS,
            batch_bytes: DEFAULT_BATCH_BYTES,
        }
    }
}

impl FunctionLimits {
    /// Fuel of an invocation with `records` records.
    pub fn fuel(&self, records: usize) -> u64 {
        self.fuel_base
            .saturating_add(self.fuel_per_record.saturating_mul(records as u64))
            .min(MAX_FUEL)
    }

    /// The first limit that no host would set, with what it would; `None`: all are good.
    pub fn out_of_range(&self) -> Option<String> {
        let bytes = |bytes: usize| bytes as u64;
        let seconds = (MIN_TIMEOUT.as_secs(), MAX_TIMEOUT.as_secs());
        for (name, value, (least, most)) in [
            ("fuel_base", self.fuel_base, (MIN_FUEL, MAX_FUEL)),
            ("fuel_per_record", self.fuel_per_record, (0, MAX_FUEL)),
            ("timeout", self.timeout.as_secs(), seconds),
            (
                "memory_bytes",
                self.memory_bytes,
                (MIN_MEMORY_BYTES, MAX_MEMORY_BYTES),
            ),
            (
                "answer_bytes",
                bytes(self.answer_bytes),
                (1, bytes(MAX_EVENT_BYTES)),
            ),
            (
                "output_bytes",
                bytes(self.output_bytes),
                (0, bytes(MAX_OUTPUT_BYTES)),
            ),
            (
                "effect_bytes",
                bytes(self.effect_bytes),
                (1, bytes(MAX_BATCH_BYTES)),
            ),
            (
                "effect_items",
                bytes(self.effect_items),
                (1, bytes(MAX_EFFECT_ITEMS)),
            ),
            (
                "batch_bytes",
                bytes(self.batch_bytes),
                (1, bytes(MAX_BATCH_BYTES)),
            ),
        ] {
            if !(least..=most).contains(&value) {
                return Some(format!("{name} = {value}: {least} to {most} expected"));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_no_host_would_set_are_named() {
        let base = FunctionLimits::default;
        assert_eq!(base().out_of_range(), None);
        let endless = FunctionLimits {
            timeout: Duration::MAX,
            ..base()
        };
        let told = endless.out_of_range().expect("far too long");
        assert!(told.ends_with(": 1 to 900 expected"), "{told}");
        let greedy = FunctionLimits {
            effect_bytes: usize::MAX,
            ..base()
        };
        let told = greedy.out_of_range().expect("far too much");
        assert!(told.starts_with("effect_bytes = "), "{told}");
    }
}
