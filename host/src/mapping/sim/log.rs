//! What happened in a run, and what should not have. Lines of one instant are sorted by shard, so
//! that a seed gives the same text each time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use shardmill_core::UnixMillis;

/// Where lines that belong to no shard stand.
pub(super) const WORLD: u32 = u32::MAX;

/// The log of a run.
pub(super) struct Log {
    started: UnixMillis,
    /// Whether lines are kept: they cost more than the run.
    verbose: bool,
    lines: Mutex<Vec<(u64, u32, String)>>,
    violations: Mutex<Vec<String>>,
    reached: Mutex<BTreeMap<&'static str, u64>>,
}

impl Log {
    pub(super) fn new(started: UnixMillis, verbose: bool) -> Self {
        Self {
            started,
            verbose,
            lines: Mutex::default(),
            violations: Mutex::default(),
            reached: Mutex::default(),
        }
    }

    /// Notes an event; `text` is made only when somebody will read it.
    pub(super) fn note(&self, now: UnixMillis, shard: u32, text: impl FnOnce() -> String) {
        if self.verbose {
            let at = now.0 - self.started.0;
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push((at, shard, text()));
        }
    }

    /// Notes that something was met with, so that plans are known to reach it.
    pub(super) fn reach(&self, what: &'static str, times: u64) {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        *reached.entry(what).or_default() += times;
    }

    pub(super) fn reached(&self) -> BTreeMap<&'static str, u64> {
        let reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.clone()
    }

    /// Notes that a law was broken.
    pub(super) fn violation(&self, text: String) {
        let mut all = self
            .violations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.push(text);
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.violations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The lines, in order.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = self
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        lines.sort_by_key(|(at, shard, _)| (*at, *shard));
        let lines = lines.into_iter().map(|(at, shard, text)| {
            let who = match shard {
                WORLD => "world".into(),
                shard => format!("shard {shard}"),
            };
            format!("{:>9}.{:03} {who}: {text}", at / 1000, at % 1000)
        });
        lines.collect()
    }
}
