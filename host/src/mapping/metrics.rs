//! What a mapping has done since the host started, and how its last batch ended.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use shardmill_core::Outcome;
use shardmill_core::mapping::Breaker;
use shardmill_core::sandbox::Report;

/// Counters of one mapping.
#[derive(Debug, Default)]
pub struct MappingMetrics {
    /// Records that are done.
    pub processed: AtomicU64,
    /// Records that were given up.
    pub given_up: AtomicU64,
    /// Records that were trimmed before they were delivered.
    pub expired: AtomicU64,
    /// Records that the filter criteria left out.
    pub filtered_out: AtomicU64,
    /// Records among those that are not JSON while a pattern asks for `data`.
    pub not_json: AtomicU64,
    /// Records that were parked.
    pub parked: AtomicU64,
    /// Batches that were split.
    pub split: AtomicU64,
    /// Invocations that ran a handler.
    pub invocations: AtomicU64,
    /// Invocations that ended in a function error.
    pub errors: AtomicU64,
    /// Parts that were put back for another attempt.
    pub retried: AtomicU64,
    /// Attempts that the host could not run.
    pub throttles: AtomicU64,
    /// Commits that met a changed value and were run again.
    pub conflicts: AtomicU64,
    /// Fuel used, units.
    pub fuel: AtomicU64,
    /// Time in handlers, microseconds.
    pub duration_micros: AtomicU64,
    /// Age of the last batch's last record when the handler was invoked, ms.
    pub iterator_age_ms: AtomicU64,
    last_result: Mutex<Option<String>>,
    breaker: Mutex<Breaker>,
}

/// [`MappingMetrics`] at one moment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct MetricsSnapshot {
    /// Records that are done.
    pub processed: u64,
    /// Records that were given up.
    pub given_up: u64,
    /// Records that were trimmed before they were delivered.
    pub expired: u64,
    /// Records that the filter criteria left out.
    pub filtered_out: u64,
    /// Records among those that are not JSON while a pattern asks for `data`.
    pub not_json: u64,
    /// Records that were parked.
    pub parked: u64,
    /// Batches that were split.
    pub split: u64,
    /// Invocations that ran a handler.
    pub invocations: u64,
    /// Invocations that ended in a function error.
    pub errors: u64,
    /// Parts that were put back for another attempt.
    pub retried: u64,
    /// Attempts that the host could not run.
    pub throttles: u64,
    /// Commits that met a changed value and were run again.
    pub conflicts: u64,
    /// Fuel used, units.
    pub fuel: u64,
    /// Time in handlers, microseconds.
    pub duration_micros: u64,
    /// Age of the last batch's last record when the handler was invoked, ms.
    pub last_iterator_age_ms: u64,
}

impl MappingMetrics {
    /// The figures now.
    pub fn snapshot(&self) -> MetricsSnapshot {
        MetricsSnapshot {
            processed: self.processed.load(Relaxed),
            given_up: self.given_up.load(Relaxed),
            expired: self.expired.load(Relaxed),
            filtered_out: self.filtered_out.load(Relaxed),
            not_json: self.not_json.load(Relaxed),
            parked: self.parked.load(Relaxed),
            split: self.split.load(Relaxed),
            invocations: self.invocations.load(Relaxed),
            errors: self.errors.load(Relaxed),
            retried: self.retried.load(Relaxed),
            throttles: self.throttles.load(Relaxed),
            conflicts: self.conflicts.load(Relaxed),
            fuel: self.fuel.load(Relaxed),
            duration_micros: self.duration_micros.load(Relaxed),
            last_iterator_age_ms: self.iterator_age_ms.load(Relaxed),
        }
    }

    /// AWS's `LastProcessingResult`.
    pub fn last_result(&self) -> String {
        let last = self
            .last_result
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        last.clone()
            .unwrap_or_else(|| "No records processed".into())
    }

    pub(super) fn set_last_result(&self, text: &str) {
        let mut last = self
            .last_result
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.as_deref() != Some(text) {
            *last = Some(text.into());
        }
    }

    /// The circuit breaker that the mapping's shards share.
    pub(super) fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how old the last record of a batch is that is about to run.
    pub(super) fn set_iterator_age(&self, age: Duration) {
        self.iterator_age_ms.store(age.as_millis() as u64, Relaxed);
    }

    /// Counts an invocation.
    pub(super) fn count(&self, report: &Report) {
        Self::add(&self.invocations, 1);
        if matches!(report.outcome, Outcome::Failed(_)) {
            Self::add(&self.errors, 1);
        }
        self.fuel.fetch_add(report.usage.fuel, Relaxed);
        let micros = report.usage.duration.as_micros() as u64;
        self.duration_micros.fetch_add(micros, Relaxed);
    }

    pub(super) fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(amount as u64, Relaxed);
    }
}
