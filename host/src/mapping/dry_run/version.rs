//! One version of a function at work in a dry run: its batches, its failures, and the state that
//! it would have written, which its later batches see.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};
use shardmill_core::effects::{CounterAdd, Effects, Emit, StateWrite};
use shardmill_core::event::EventSource;
use shardmill_core::limits::{COUNTER_OVERFLOW_NAME, MAX_COUNTER_NAMES};
use shardmill_core::mapping::{Attempted, Judgement, Position, after, judge};
use shardmill_core::outcome::Outcome;
use shardmill_core::sandbox::{Input, Invocation, StateView};
use shardmill_core::{Batch, BatchContext, ShardId, UnixMillis};

use super::{DryRunError, policy_of};
use crate::functions::Loaded;
use crate::mapping::commit::{StoredState, refused_emit};
use crate::mapping::resource::{Inner, Mapping};

/// Bytes of keyed state that a version may have written and not kept.
const MAX_STATE_BYTES: usize = 256 << 20;
/// Causes of failures that are told apart.
const MAX_CAUSES: usize = 50;
/// Characters of a cause that tell it from others.
const CAUSE_CHARS: usize = 160;
/// How often an invocation is tried that the host had no room for, and the wait between.
const THROTTLE_TRIES: u32 = 50;
const THROTTLE_WAIT: Duration = Duration::from_millis(200);

/// Where a batch stands.
pub(super) struct Trial<'a> {
    pub(super) inner: &'a Inner,
    pub(super) mapping: &'a Mapping,
    pub(super) shard: ShardId,
    pub(super) now: UnixMillis,
}

/// A version.
pub(super) struct Version {
    loaded: Arc<Loaded>,
    overlay: Arc<Mutex<Overlay>>,
    report: VersionReport,
    causes: BTreeMap<(String, String), CauseCount>,
    pub(super) counters: BTreeMap<Box<str>, i64>,
}

type StateKey = (Box<str>, Box<str>);

/// Keyed state that was written: by partition key and name. `None`: deleted.
#[derive(Default)]
pub(super) struct Overlay {
    pub(super) values: HashMap<StateKey, Option<Bytes>>,
    bytes: usize,
}

impl Overlay {
    fn write(&mut self, write: StateWrite) {
        let StateWrite { key, name, value } = write;
        let names = key.len() + name.len();
        let size = |value: &Option<Bytes>| names + value.as_ref().map_or(0, Bytes::len);
        self.bytes += size(&value);
        if let Some(before) = self.values.insert((key, name), value) {
            self.bytes -= size(&before);
        }
    }
}

/// Adds to a counter as the store does: names beyond its bound share one.
fn add_to(counters: &mut BTreeMap<Box<str>, i64>, add: CounterAdd) {
    let known = counters.contains_key(&add.name) || counters.len() < MAX_COUNTER_NAMES;
    let name = match known {
        true => add.name,
        false => COUNTER_OVERFLOW_NAME.into(),
    };
    let sum = counters.entry(name).or_default();
    *sum = sum.wrapping_add(add.amount);
}

/// What became of the records.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VersionReport {
    /// SHA-256 of its module.
    pub digest: String,
    /// Records that it was given.
    pub records: u64,
    /// Records that failed: that a mapping without retries would have given up.
    pub failed_records: u64,
    /// Batches as they were cut.
    pub batches: u64,
    /// Batches in which a record failed.
    pub failed_batches: u64,
    /// Invocations; more than batches where failures were isolated.
    pub invocations: u64,
    /// Why records failed.
    pub causes: Vec<CauseCount>,
    /// Fuel, units.
    pub fuel: u64,
    /// The most that one invocation used.
    pub fuel_max: u64,
    /// The most that one invocation used per record.
    pub fuel_max_per_record: u64,
    /// Highest memory of an invocation, bytes.
    pub memory_max_bytes: u64,
    /// Time in the handler, microseconds.
    pub duration_micros: u64,
    /// Writes of keyed state.
    pub state_writes: u64,
    /// Emitted records.
    pub emits: u64,
}

/// A cause of failures.
#[derive(Clone, Debug, Serialize)]
pub struct CauseCount {
    /// Its kind, as in `trap`.
    pub cause: String,
    /// What it says.
    pub message: String,
    /// Batches in which it occurred.
    pub batches: u64,
    /// Records that failed by it.
    pub records: u64,
    /// The first of them.
    pub first: String,
}

/// What a version made of one batch.
#[derive(Default)]
pub(super) struct Tried {
    /// By record of the batch: why it failed.
    pub(super) failed: BTreeMap<usize, (String, String)>,
    /// Responses, joined.
    pub(super) text: String,
    pub(super) emits: Vec<Emit>,
}

impl Version {
    pub(super) fn new(loaded: Arc<Loaded>) -> Self {
        let report = VersionReport {
            digest: loaded.module.digest().to_owned(),
            ..VersionReport::default()
        };
        Self {
            loaded,
            overlay: Arc::default(),
            report,
            causes: BTreeMap::new(),
            counters: BTreeMap::new(),
        }
    }

    pub(super) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    pub(super) fn overlay(&self) -> std::sync::MutexGuard<'_, Overlay> {
        self.overlay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn report(&self) -> VersionReport {
        let mut report = self.report.clone();
        report.causes = self.causes.values().cloned().collect();
        report.causes.sort_by_key(|c| std::cmp::Reverse(c.records));
        report
    }

    /// Runs a batch; what fails in it is isolated as the mapping does, without retries.
    pub(super) async fn run(
        &mut self,
        trial: &Trial<'_>,
        batch: &Batch,
    ) -> Result<Tried, DryRunError> {
        let policy = policy_of(trial.mapping);
        let mut result = Tried::default();
        // The parts that are left, the last one first.
        let mut parts = vec![(0..batch.len(), 0, false)];
        while let Some((range, attempts, doubted)) = parts.pop() {
            let part = batch.cut(range.clone());
            let (outcome, mut effects) = self.invoke(trial, &part).await?;
            let mut judgement = judge(outcome.clone(), &effects, &part, &policy);
            let attempted = Attempted {
                len: part.len(),
                attempts,
                record_mode: self.loaded.carrier().is_record_mode(),
                doubted,
            };
            let (store, scope) = (trial.inner.store.as_ref(), &trial.mapping.scope);
            let kept = after(&judgement, attempted, &policy).done;
            if let Some(refused) = refused_emit(store, scope, &effects, &part, kept) {
                judgement = Judgement::Failed(refused);
            }
            let next = after(&judgement, attempted, &policy);
            if next.done < part.len() {
                effects = effects.below(next.done as u32);
            }
            self.keep(effects, &mut result)?;
            match outcome {
                Outcome::Json { text } if judgement == Judgement::Success => result.text += &text,
                _ => {}
            }
            let why = why(&judgement);
            for index in next.given_up {
                result.failed.insert(range.start + index, why.clone());
            }
            for rest in next.rest.into_iter().rev() {
                let (from, to) = (rest.records.start, rest.records.end);
                let range = range.start + from..range.start + to;
                parts.push((range, rest.attempts, rest.doubted));
            }
        }
        self.count(trial, batch, &result);
        Ok(result)
    }

    async fn invoke(
        &mut self,
        trial: &Trial<'_>,
        batch: &Batch,
    ) -> Result<(Outcome, Effects), DryRunError> {
        let mut reason = String::new();
        for _ in 0..THROTTLE_TRIES {
            let report = trial
                .inner
                .sandbox
                .invoke(self.invocation(trial, batch))
                .await;
            if let Outcome::Throttled { reason: short } = report.outcome {
                reason = short;
                let now = trial.inner.clock.now();
                trial.inner.clock.sleep_until(now.plus(THROTTLE_WAIT)).await;
                continue;
            }
            let (usage, sums) = (report.usage, &mut self.report);
            sums.invocations += 1;
            sums.fuel += usage.fuel;
            sums.fuel_max = sums.fuel_max.max(usage.fuel);
            let per_record = usage.fuel / batch.len().max(1) as u64;
            sums.fuel_max_per_record = sums.fuel_max_per_record.max(per_record);
            sums.memory_max_bytes = sums.memory_max_bytes.max(usage.memory_bytes);
            sums.duration_micros += usage.duration.as_micros() as u64;
            return Ok((report.outcome, report.effects));
        }
        Err(DryRunError::Throttled(reason))
    }

    fn invocation(&self, trial: &Trial<'_>, batch: &Batch) -> Invocation {
        let Trial { mapping, shard, .. } = trial;
        let function = &self.loaded.function;
        let stream = mapping.stream.as_str();
        let input = match self.loaded.carrier().takes_json() {
            false => Input::Records(batch.clone()),
            true => Input::Event {
                json: EventSource::new(&mapping.scope, stream).event(batch),
                count: batch.len(),
            },
        };
        let stored = StoredState {
            store: Arc::clone(&trial.inner.store),
            scope: mapping.scope.clone(),
            function: mapping.function.clone(),
        };
        Invocation {
            owner: Arc::clone(&self.loaded.owner),
            mapping: None,
            module: Arc::clone(&self.loaded.module),
            input,
            context: BatchContext {
                stream: stream.to_owned(),
                shard: shard.to_string(),
                request_id: "dry-run".into(),
                function: function.name.clone(),
                version: function.label(),
                tenant: mapping.scope.tenant.to_string(),
                attempt: 1,
                ..BatchContext::default()
            },
            limits: function.settings.limits.clone(),
            environment: Arc::clone(&self.loaded.environment),
            state: Arc::new(Overlaid {
                overlay: Arc::clone(&self.overlay),
                stored,
            }),
            now: trial.now,
            seed: seed(trial, batch),
        }
    }

    /// Takes over what the mapping would have committed.
    fn keep(&mut self, effects: Effects, result: &mut Tried) -> Result<(), DryRunError> {
        for (_, add) in effects.counters {
            add_to(&mut self.counters, add);
        }
        self.report.state_writes += effects.state.len() as u64;
        self.report.emits += effects.emits.len() as u64;
        result
            .emits
            .extend(effects.emits.into_iter().map(|(_, emit)| emit));
        let mut overlay = self.overlay();
        for (_, write) in effects.state {
            overlay.write(write);
        }
        if overlay.bytes > MAX_STATE_BYTES {
            return Err(DryRunError::TooMuchState(MAX_STATE_BYTES));
        }
        Ok(())
    }

    fn count(&mut self, trial: &Trial<'_>, batch: &Batch, result: &Tried) {
        let sums = &mut self.report;
        sums.records += batch.len() as u64;
        sums.batches += 1;
        sums.failed_records += result.failed.len() as u64;
        sums.failed_batches += u64::from(!result.failed.is_empty());
        let mut here = BTreeMap::<&(String, String), (usize, u64)>::new();
        for (index, why) in &result.failed {
            here.entry(why).or_insert((*index, 0)).1 += 1;
        }
        for (why, (first, records)) in here {
            let known = self.causes.contains_key(why) || self.causes.len() < MAX_CAUSES;
            let key = match known {
                true => why.clone(),
                false => ("other".to_owned(), "other causes".to_owned()),
            };
            let cause = self.causes.entry(key.clone()).or_insert_with(|| {
                let number = batch.get(first).map(|r| r.sequence_number().to_string());
                CauseCount {
                    cause: key.0,
                    message: key.1,
                    batches: 0,
                    records: 0,
                    first: format!("{} {}", trial.shard, number.unwrap_or_default()),
                }
            });
            cause.batches += 1;
            cause.records += records;
        }
    }
}

/// Why records failed, short enough to be grouped by.
fn why(judgement: &Judgement) -> (String, String) {
    match judgement {
        Judgement::Failed(failure) => {
            let text = failure.cause.to_string();
            let line = text.lines().next().unwrap_or_default();
            let line = line.chars().take(CAUSE_CHARS).collect();
            (failure.cause.name().to_owned(), line)
        }
        Judgement::Partial(_) => ("partial".into(), "the handler names it as failed".into()),
        Judgement::Success | Judgement::Throttled(_) => Default::default(),
    }
}

/// The store's state under what the version has written.
struct Overlaid {
    overlay: Arc<Mutex<Overlay>>,
    stored: StoredState,
}

impl StateView for Overlaid {
    fn get(&self, partition_key: &str, name: &str) -> Result<Option<(Bytes, u64)>, String> {
        let overlay = self.overlay.lock().unwrap_or_else(PoisonError::into_inner);
        match overlay.values.get(&(partition_key.into(), name.into())) {
            // Nothing is committed, so that any revision will do.
            Some(written) => Ok(written.clone().map(|value| (value, 1))),
            None => {
                drop(overlay);
                self.stored.get(partition_key, name)
            }
        }
    }
}

/// The same chance for both versions, and for every dry run of the same batch.
fn seed(trial: &Trial<'_>, batch: &Batch) -> [u8; 32] {
    let first = batch.first_position().unwrap_or(Position::of(0));
    let mut hash = Sha256::new();
    hash.update(trial.mapping.id.as_bytes());
    hash.update(trial.shard.0.to_le_bytes());
    hash.update(first.record.to_le_bytes());
    hash.update(first.sub.to_le_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(name: &str, value: Option<&'static str>) -> StateWrite {
        StateWrite {
            key: "key".into(),
            name: name.into(),
            value: value.map(Bytes::from),
        }
    }

    #[test]
    fn a_value_that_is_written_again_takes_no_more_than_its_size() {
        let mut overlay = Overlay::default();
        for (name, value, bytes) in [
            ("a", Some("12345"), 9),
            ("a", Some("12"), 6),
            ("a", None, 4),
            ("b", Some("1"), 9),
            ("a", Some("1234"), 13),
        ] {
            overlay.write(write(name, value));
            assert_eq!(overlay.bytes, bytes, "{name} {value:?}");
        }
    }

    #[test]
    fn counters_beyond_the_bound_share_one_as_in_the_store() {
        let mut counters = BTreeMap::new();
        for n in 0..MAX_COUNTER_NAMES + 5 {
            let name = format!("{n}").into();
            add_to(&mut counters, CounterAdd { name, amount: 1 });
        }
        let name = "7".into();
        add_to(&mut counters, CounterAdd { name, amount: 1 });
        assert_eq!(counters.len(), MAX_COUNTER_NAMES + 1);
        assert_eq!((counters[COUNTER_OVERFLOW_NAME], counters["7"]), (5, 2));
    }
}
