//! What a mapping has done since the host started, shard by shard, and how its last batch ended.
//!
//! The balance, as in "Monitoring metrics for Lambda", event source mapping metrics: every record
//! that was polled was filtered out, or sent for the first time, or ended unsent (given up or
//! parked), or still waits:
//!
//! ```text
//! polled = filtered_out + first_invoked + unsent + put_back + waiting
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use shardmill_core::mapping::{Admission, Breaker, Circuit, FirstRead, Judgement};
use shardmill_core::sandbox::Report;
use shardmill_core::{Outcome, ShardId, UnixMillis};

use super::resource::Mapping;

/// Bytes of an error's message that are kept.
const MAX_ERROR_BYTES: usize = 512;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident)*) => {
        /// Counters of one shard of a mapping.
        #[derive(Debug, Default)]
        pub struct ShardMetrics {
            $($(#[$doc])* pub $name: AtomicU64,)*
            iterator_age_ms: AtomicU64,
            last_error: Mutex<Option<LastError>>,
        }

        /// [`ShardMetrics`] at one moment, or the sum of several.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct MetricsSnapshot {
            $($(#[$doc])* pub $name: u64,)*
            /// Age of the last batch's last record when the handler was invoked, ms; of several
            /// shards the highest.
            pub last_iterator_age_ms: u64,
        }

        impl ShardMetrics {
            /// The figures now.
            pub fn snapshot(&self) -> MetricsSnapshot {
                MetricsSnapshot {
                    $($name: self.$name.load(Relaxed),)*
                    last_iterator_age_ms: self.iterator_age_ms.load(Relaxed),
                }
            }
        }

        impl MetricsSnapshot {
            /// Adds another shard's figures.
            pub fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
                let age = &mut self.last_iterator_age_ms;
                *age = other.last_iterator_age_ms.max(*age);
            }
        }
    };
}

counters! {
    /// Records that were read, each once: AWS's `PolledEventCount`.
    polled
    /// Records that the filter criteria left out: AWS's `FilteredOutEventCount`.
    filtered_out
    /// Records among those that are not JSON while a pattern asks for `data`.
    not_json
    /// Records sent to the function, retries too: AWS's `InvokedEventCount`.
    invoked
    /// Records sent to the function for the first time.
    first_invoked
    /// Records in failed invocations, or behind the first that a partial answer names: AWS's
    /// `FailedInvokeEventCount`.
    failed_records
    /// Records that were given up or parked and never sent.
    unsent
    /// Records that were gathered when the shard's poller ended: they are read again.
    put_back
    /// Records that are done.
    processed
    /// Records that were given up, reported to a destination or not: AWS's `DroppedEventCount`
    /// has only those that were not.
    given_up
    /// Failures that left no entry, because the failure store had no room even for that.
    failures_dropped
    /// Records that were trimmed before they were delivered.
    expired
    /// Records that were parked.
    parked
    /// Batches that were split.
    split
    /// Invocations that ran a handler.
    invocations
    /// Invocations that ended in a function error.
    errors
    /// Invocations that the mapping takes for failed: those, malformed answers, and answers whose
    /// effects are refused.
    failed_invocations
    /// Tumbling windows whose final invocation succeeded.
    windows_closed
    /// Parts that were put back for another attempt.
    retried
    /// Attempts that the host could not run.
    throttles
    /// Times that the mapping went back to an earlier version of its function.
    roll_backs
    /// Commits that met a changed value and were run again.
    conflicts
    /// Fuel used, units.
    fuel
    /// Time in handlers, microseconds.
    duration_micros
    /// Age of records when they were first sent, ms, summed up over records.
    waited_millis
}

/// Something that went wrong in a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// When.
    pub at: UnixMillis,
    /// What, at most 512 bytes.
    pub message: String,
}

/// Counters of one mapping.
#[derive(Debug, Default)]
pub struct MappingMetrics {
    shards: Mutex<BTreeMap<ShardId, Arc<ShardMetrics>>>,
    last_result: Mutex<Option<String>>,
    breaker: Mutex<Breaker>,
}

impl MetricsSnapshot {
    /// Records that were read and wait for their first invocation.
    pub fn waiting(&self) -> u64 {
        let ended = self.filtered_out + self.first_invoked + self.unsent + self.put_back;
        self.polled.saturating_sub(ended)
    }
}

impl ShardMetrics {
    /// Adds to a counter of this shard.
    pub(super) fn add(&self, counter: &AtomicU64, amount: usize) {
        counter.fetch_add(amount as u64, Relaxed);
    }

    /// A new poller begins with nothing gathered.
    pub(super) fn begin(&self) {
        let waiting = self.snapshot().waiting();
        self.put_back.fetch_add(waiting, Relaxed);
    }

    /// Counts what was read.
    pub(super) fn count_first_read(&self, read: FirstRead) {
        self.polled.fetch_add(read.records, Relaxed);
        self.filtered_out.fetch_add(read.dropped, Relaxed);
        self.not_json.fetch_add(read.not_json, Relaxed);
    }

    /// Notes how old the last record of a batch is that is about to run.
    pub(super) fn set_iterator_age(&self, age: Duration) {
        self.iterator_age_ms.store(age.as_millis() as u64, Relaxed);
    }

    /// Counts an invocation.
    pub(super) fn count(&self, report: &Report) {
        if matches!(report.outcome, Outcome::Throttled { .. }) {
            return;
        }
        self.add(&self.invocations, 1);
        if matches!(report.outcome, Outcome::Failed(_)) {
            self.add(&self.errors, 1);
        }
        self.fuel.fetch_add(report.usage.fuel, Relaxed);
        let micros = report.usage.duration.as_micros() as u64;
        self.duration_micros.fetch_add(micros, Relaxed);
    }

    /// What went wrong last.
    pub fn last_error(&self) -> Option<LastError> {
        held(&self.last_error).clone()
    }

    pub(super) fn set_last_error(&self, at: UnixMillis, message: &str) {
        let end = message.floor_char_boundary(MAX_ERROR_BYTES);
        let message = message[..end].to_owned();
        *held(&self.last_error) = Some(LastError { at, message });
    }
}

impl MappingMetrics {
    /// A shard's figures.
    pub(super) fn shard(&self, shard: ShardId) -> Arc<ShardMetrics> {
        Arc::clone(held(&self.shards).entry(shard).or_default())
    }

    /// The sum over the shards now.
    pub fn snapshot(&self) -> MetricsSnapshot {
        let mut sum = MetricsSnapshot::default();
        for shard in held(&self.shards).values() {
            sum.add(&shard.snapshot());
        }
        sum
    }

    /// AWS's `LastProcessingResult`.
    pub fn last_result(&self) -> String {
        let last = held(&self.last_result).clone();
        last.unwrap_or_else(|| "No records processed".into())
    }

    pub(super) fn set_last_result(&self, text: &str) {
        let mut last = held(&self.last_result);
        if last.as_deref() != Some(text) {
            *last = Some(text.into());
        }
    }

    /// The state of the circuit breaker that the mapping's shards share.
    pub(super) fn circuit(&self) -> Circuit {
        held(&self.breaker).circuit()
    }

    /// Asks the circuit breaker for leave to run a batch, if the mapping has one. `Err`: the
    /// instant when to ask again.
    pub(super) fn admit(&self, mapping: &Mapping, now: UnixMillis) -> Result<(), UnixMillis> {
        if mapping.policy.circuit_breaker == 0 {
            return Ok(());
        }
        match held(&self.breaker).admit(now) {
            Admission::Run => Ok(()),
            Admission::Wait(until) => Err(until),
        }
    }

    /// Tells the circuit breaker how a batch ended that it let run.
    pub(super) fn note_breaker(&self, mapping: &Mapping, judgement: &Judgement, now: UnixMillis) {
        let threshold = mapping.policy.circuit_breaker;
        if threshold == 0 {
            return;
        }
        let mut breaker = held(&self.breaker);
        let failed = match judgement {
            Judgement::Success | Judgement::Partial(_) => false,
            Judgement::Failed(_) => true,
            // The handler is not at fault.
            Judgement::Throttled(_) => return breaker.not_run(now),
        };
        if breaker.ended(failed, threshold, now) {
            let (mapping, circuit) = (&mapping.name, breaker.circuit());
            tracing::warn!(mapping, ?circuit, "the circuit breaker changed");
        }
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
