//! How a module's run differs from the current version's on the same batches.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use shardmill_core::Batch;
use shardmill_core::effects::Emit;

use super::DryRunError;
use super::version::{Overlay, Trial, Tried, Version};
use crate::mapping::differences::{self, shown, shown_emit};

/// Differences of each kind that are shown.
const SHOWN: usize = 5;
/// Counters that are shown.
const SHOWN_COUNTERS: usize = 1_000;

/// Two versions on the same batches.
pub(super) struct Comparison {
    pub(super) current: Version,
    pub(super) new: Version,
    differences: Differences,
}

/// How two versions differ.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Differences {
    /// Records that are done in both, or fail in both in the same way.
    pub same_outcome: u64,
    /// Records that fail with the module and not with the current version.
    pub fail_now: u64,
    /// Records that fail with the current version and not with the module.
    pub mended: u64,
    /// Records that fail in both, but otherwise.
    pub fail_otherwise: u64,
    /// The first records whose outcomes differ.
    pub outcomes: Vec<OutcomeDifference>,
    /// Batches whose JSON responses differ.
    pub responses: u64,
    /// Counters that differ, by name: the first thousand.
    pub counters: Vec<CounterDifference>,
    /// Counters that are the same in both.
    pub same_counters: u64,
    /// Values of keyed state that differ at the end.
    pub state: u64,
    /// The first of them.
    pub state_values: Vec<StateDifference>,
    /// Batches whose emitted records differ.
    pub emits: u64,
    /// The first emitted records that differ.
    pub emitted: Vec<EmitDifference>,
}

/// A record whose outcomes differ.
#[derive(Clone, Debug, Serialize)]
pub struct OutcomeDifference {
    /// Its shard.
    pub shard: String,
    /// Its sequence number.
    pub sequence_number: String,
    /// `done`, or why it failed.
    pub current: String,
    /// The same with the module.
    pub new: String,
}

/// A counter that differs.
#[derive(Clone, Debug, Serialize)]
pub struct CounterDifference {
    /// Its name.
    pub name: String,
    /// What the current version adds to it.
    pub current: i64,
    /// What the module adds to it.
    pub new: i64,
}

/// A value of keyed state that differs at the end. `None`: there is none, or it was not written.
#[derive(Clone, Debug, Serialize)]
pub struct StateDifference {
    /// Its partition key.
    pub key: String,
    /// Its name.
    pub name: String,
    /// What the current version leaves.
    pub current: Option<String>,
    /// What the module leaves.
    pub new: Option<String>,
}

/// An emitted record that differs. `None`: one of them emits fewer.
#[derive(Clone, Debug, Serialize)]
pub struct EmitDifference {
    /// The shard of the batch.
    pub shard: String,
    /// The batch's first sequence number.
    pub batch: String,
    /// The current version's: stream, key and data.
    pub current: Option<String>,
    /// The module's.
    pub new: Option<String>,
}

impl Comparison {
    pub(super) fn new(current: Version, new: Version) -> Self {
        Self {
            current,
            new,
            differences: Differences::default(),
        }
    }

    /// Runs a batch on both.
    pub(super) async fn run(
        &mut self,
        trial: &Trial<'_>,
        batch: &Batch,
    ) -> Result<(), DryRunError> {
        let current = self.current.run(trial, batch).await?;
        let new = self.new.run(trial, batch).await?;
        self.differences.add_outcomes(trial, batch, &current, &new);
        self.differences.responses += u64::from(current.text != new.text);
        self.differences
            .add_emits(trial, batch, &current.emits, &new.emits);
        Ok(())
    }

    pub(super) fn report(&self) -> Differences {
        let mut report = self.differences.clone();
        report.set_counters(&self.current.counters, &self.new.counters);
        report.set_state(&self.current.overlay(), &self.new.overlay());
        report
    }
}

impl Differences {
    fn add_outcomes(&mut self, trial: &Trial<'_>, batch: &Batch, current: &Tried, new: &Tried) {
        let failed: BTreeSet<usize> = current
            .failed
            .keys()
            .chain(new.failed.keys())
            .copied()
            .collect();
        self.same_outcome += (batch.len() - failed.len()) as u64;
        for index in failed {
            let (before, now) = (current.failed.get(&index), new.failed.get(&index));
            let count = match (before, now) {
                (Some(before), Some(now)) if before == now => {
                    self.same_outcome += 1;
                    continue;
                }
                (Some(_), Some(_)) => &mut self.fail_otherwise,
                (None, _) => &mut self.fail_now,
                (_, None) => &mut self.mended,
            };
            *count += 1;
            if self.outcomes.len() < SHOWN {
                let word = |why: Option<&(String, String)>| match why {
                    None => "done".to_owned(),
                    Some((_, message)) => message.clone(),
                };
                self.outcomes.push(OutcomeDifference {
                    shard: trial.shard.to_string(),
                    sequence_number: number(batch, index),
                    current: word(before),
                    new: word(now),
                });
            }
        }
    }

    fn add_emits(&mut self, trial: &Trial<'_>, batch: &Batch, current: &[Emit], new: &[Emit]) {
        if current == new {
            return;
        }
        self.emits += 1;
        for (before, now) in differences::emits(current, new) {
            if self.emitted.len() >= SHOWN {
                return;
            }
            self.emitted.push(EmitDifference {
                shard: trial.shard.to_string(),
                batch: number(batch, 0),
                current: before.map(shown_emit),
                new: now.map(shown_emit),
            });
        }
    }

    fn set_counters(&mut self, current: &BTreeMap<Box<str>, i64>, new: &BTreeMap<Box<str>, i64>) {
        for (name, current, new) in differences::counters(current, new) {
            if current == new {
                self.same_counters += 1;
            } else if self.counters.len() < SHOWN_COUNTERS {
                self.counters.push(CounterDifference {
                    name: name.to_string(),
                    current,
                    new,
                });
            }
        }
    }

    fn set_state(&mut self, current: &Overlay, new: &Overlay) {
        let both = current.values.keys().chain(new.values.keys());
        let differ = both.filter(|key| current.values.get(*key) != new.values.get(*key));
        let differ: BTreeSet<_> = differ.collect();
        self.state = differ.len() as u64;
        for key in differ.into_iter().take(SHOWN) {
            let of = |all: &Overlay| {
                let value = all.values.get(key).cloned().flatten();
                value.map(|value| shown(&value))
            };
            self.state_values.push(StateDifference {
                key: key.0.to_string(),
                name: key.1.to_string(),
                current: of(current),
                new: of(new),
            });
        }
    }
}

fn number(batch: &Batch, index: usize) -> String {
    let record = batch.get(index);
    record.map_or_else(String::new, |r| r.sequence_number().to_string())
}
