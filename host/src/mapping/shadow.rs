//! Shadows: a version that runs beside the mapping's own on the batches that come by. What it does
//! is compared and forgotten. It changes nothing: no progress, no state, no record, no count of the
//! mapping's, no trial, no breaker.
//!
//! A poller shows what it has committed and goes on; it waits for nothing. One runner per mapping
//! takes what was shown, one batch at a time, and gives way: to a queue that is full, to fuel that is
//! used up, and to any attempt of the tenant that waits for room. What is left out is counted.
//!
//! - `queue`: what waits, within bounds
//! - `runner`: runs it
//! - `state`: keyed state as it was for the mapping's own version
//! - `compare`: what two runs did otherwise
//! - `report`: what came of it all

mod compare;
mod queue;
mod report;
mod runner;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shardmill_core::mapping::{Part, Shadow};
use shardmill_core::{Scope, ShardId, UnixMillis};

pub(super) use self::compare::Side;
use self::queue::Queue;
use self::report::{Dropped, Sums};
pub use self::report::{
    DroppedBatches, ShadowDifference, ShadowFigures, ShadowProblem, ShadowReport, ShadowSide,
    VersionPair,
};
pub(super) use self::runner::Runner;
use super::failures::Seen;
use super::poller::Job;
use super::resource::{Inner, Mapping, MappingError, Mappings};
use crate::functions::{BadReference, FunctionRef, Loaded};

/// What the mapping's own version made of a batch, after it was committed.
pub(super) struct Shown {
    /// The batch, with its window as the attempt was given it.
    pub(super) job: Job,
    pub(super) shard: ShardId,
    /// What ran.
    pub(super) loaded: Arc<Loaded>,
    /// What it did.
    pub(super) primary: Side,
    pub(super) seed: [u8; 32],
    pub(super) now: UnixMillis,
    /// Keyed state that it read.
    pub(super) seen: Seen,
    /// Revision of the commit: a value with a lower one was there before it.
    pub(super) revision: u64,
}

impl Shown {
    /// About how much memory it holds, bytes.
    fn bytes(&self) -> usize {
        let batch = self.job.batch.packed_len(&Default::default());
        let effects = &self.primary.effects;
        let emits = effects.emits.iter();
        let emits: usize = emits.map(|(_, e)| e.key.len() + e.data.len()).sum();
        let state = effects.state.iter();
        let state = state.map(|(_, w)| w.key.len() + w.value.as_ref().map_or(0, |v| v.len()));
        let window = self.job.window.as_ref().map_or(0, |w| w.state.len());
        let text = self.primary.text().len();
        batch + emits + state.sum::<usize>() + text + window + self.seen.bytes
    }
}

/// The shadow of one mapping, which all its pollers share.
pub(super) struct MappingShadow {
    settings: Shadow,
    /// The mapping's function, of which the shadow may be a version.
    function: String,
    queue: Queue,
    sums: Mutex<Sums>,
}

impl MappingShadow {
    fn new(settings: Shadow, function: String, now: UnixMillis) -> Self {
        Self {
            settings,
            function,
            queue: Queue::default(),
            sums: Mutex::new(Sums::new(now)),
        }
    }

    /// Whether it is to see an attempt at this part: the first one at each batch, if it is among
    /// its share.
    pub(super) fn wants(&self, part: &Part) -> bool {
        part.attempts == 0 && self.settings.is_shown(&part.request_id)
    }

    /// Takes what was shown, or leaves it out. Waits for nothing.
    pub(super) fn offer(&self, shown: Shown) {
        self.sums().shown += 1;
        if let Err(why) = self.queue.push(shown) {
            self.drop_one(why);
        }
    }

    /// What it runs, as functions are named.
    fn named(&self) -> Result<FunctionRef, BadReference> {
        FunctionRef::beside(&self.function, &self.settings.function)
    }

    fn drop_one(&self, why: Dropped) {
        self.sums().dropped.add(why, 1);
    }

    /// Leaves out what waits, and whatever comes until it is opened again.
    fn close(&self) {
        let left = self.queue.close();
        self.sums().dropped.add(Dropped::Stopped, left);
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The shadow of a mapping, if it has one. With other settings than before it begins anew.
    pub(super) fn shadow_of(&self, mapping: &Mapping) -> Option<Arc<MappingShadow>> {
        let settings = mapping.policy.shadow.as_ref()?;
        let mut all = self.shadows.lock().unwrap_or_else(PoisonError::into_inner);
        let held = all.get(&mapping.id);
        let same = |held: &&Arc<MappingShadow>| {
            held.settings == *settings && held.function == mapping.function
        };
        if let Some(shadow) = held.filter(same) {
            return Some(Arc::clone(shadow));
        }
        let (settings, function) = (settings.clone(), mapping.function.clone());
        let shadow = Arc::new(MappingShadow::new(settings, function, self.clock.now()));
        all.insert(mapping.id.clone(), Arc::clone(&shadow));
        Some(shadow)
    }

    /// Notes that the shadow's runner died, which is a bug of ours.
    pub(super) fn note_shadow_dead(&self, mapping: &Mapping, why: &str) {
        if let Some(shadow) = self.shadow_of(mapping) {
            shadow.sums().note_problem(self.clock.now(), why);
        }
    }

    pub(super) fn forget_shadow(&self, mapping: &str) {
        let mut all = self.shadows.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(mapping);
    }

    pub(super) fn shadow_figures(&self, mapping: &Mapping) -> Option<ShadowFigures> {
        let shadow = self.shadow_of(mapping)?;
        let named = shadow
            .named()
            .map_or_else(|_| String::new(), |n| n.to_string());
        let figures = shadow.sums().figures(named);
        Some(figures)
    }
}

impl Mappings {
    /// How a mapping's shadow compares, since the host started or its settings were changed.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub fn shadow(&self, scope: &Scope, name: &str) -> Result<ShadowReport, MappingError> {
        let mapping = self.get(scope, name)?;
        let inner = &self.inner;
        let shadow = inner.shadow_of(&mapping);
        let shadow = shadow.ok_or_else(|| MappingError::NoShadow(mapping.name.clone()))?;
        let named = shadow.named()?;
        let gone = inner.functions.route(scope, &named).err();
        let gone = gone.map(|error| ShadowProblem {
            at: inner.clock.now(),
            message: error.to_string(),
        });
        let waiting = shadow.queue.len();
        let mut report = shadow.sums().report();
        report.mapping = mapping.name;
        report.function = named.to_string();
        report.percent = shadow.settings.percent;
        report.fuel_per_second = shadow.settings.fuel_per_second;
        report.waiting = waiting as u64;
        report.problem = gone.or(report.problem);
        Ok(report)
    }
}
