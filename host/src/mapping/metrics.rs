//! What a mapping has done since the host started, and how its last batch ended.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// Counters of one mapping.
#[derive(Debug, Default)]
pub struct MappingMetrics {
    /// Records that are done.
    pub processed: AtomicU64,
    /// Records that were given up.
    pub given_up: AtomicU64,
    /// Records that were trimmed before they were delivered.
    pub expired: AtomicU64,
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

    pub(super) fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(amount as u64, Relaxed);
    }
}
