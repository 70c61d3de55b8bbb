//! Runs the shadow on what it was shown, one batch at a time, and compares. It gives way: to fuel
//! that is used up and to attempts of its tenant that wait for room.

use std::sync::Arc;
use std::time::Duration;

use shardmill_core::UnixMillis;
use shardmill_core::abi::INDEX_ENTRY_BYTES;
use shardmill_core::event::EventSource;
use shardmill_core::limits::MAX_EVENT_BYTES;
use shardmill_core::mapping::FuelBudget;
use shardmill_core::outcome::Outcome;
use shardmill_core::sandbox::{Input, Invocation, Report};
use tokio_util::sync::CancellationToken;

use super::compare::{Side, compare};
use super::report::{Compared, Dropped};
use super::state::AsItWas;
use super::{MappingShadow, Shown};
use crate::functions::Loaded;
use crate::mapping::poller::{InvocationOf, Judging, Place};
use crate::mapping::resource::{Inner, Mapping};

/// How often a running attempt looks whether others of its tenant wait.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Wait after a version could not be run, before it is tried again.
const TROUBLE_WAIT: Duration = Duration::from_secs(1);
/// Fuel that an attempt is taken to have burnt in a millisecond when it was cut off and nobody knows:
/// guests were measured to burn 11 to 22 units in a nanosecond.
const FUEL_PER_MILLI: u64 = 22_000_000;

/// The runner of a mapping's shadow.
pub(in crate::mapping) struct Runner {
    inner: Arc<Inner>,
    mapping: Arc<Mapping>,
    shadow: Arc<MappingShadow>,
    budget: FuelBudget,
    /// Nothing is tried before: its version could not be run.
    rest_until: UnixMillis,
    stop: CancellationToken,
}

impl Drop for Runner {
    /// However it ends, nobody puts anything in any more.
    fn drop(&mut self) {
        self.shadow.close();
    }
}

impl Runner {
    /// `None` for a mapping without a shadow.
    pub(in crate::mapping) fn new(
        inner: Arc<Inner>,
        mapping: Arc<Mapping>,
        stop: CancellationToken,
    ) -> Option<Self> {
        let shadow = inner.shadow_of(&mapping)?;
        shadow.queue.open();
        let budget = FuelBudget::new(shadow.settings.fuel_per_second, inner.clock.now());
        Some(Self {
            inner,
            mapping,
            shadow,
            budget,
            rest_until: UnixMillis(0),
            stop,
        })
    }

    /// Runs until it is stopped; a batch that runs then is left out.
    pub(in crate::mapping) async fn run(mut self) {
        let (stop, shadow) = (self.stop.clone(), Arc::clone(&self.shadow));
        loop {
            let shown = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                shown = shadow.queue.next() => shown,
            };
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => Err(Dropped::Stopped),
                done = self.show(shown) => done,
            };
            if let Err(why) = done {
                shadow.drop_one(why);
            }
        }
    }

    /// Runs one batch and compares; says why not, if not.
    async fn show(&mut self, mut shown: Shown) -> Result<(), Dropped> {
        let now = self.inner.clock.now();
        if now < self.rest_until {
            return Err(Dropped::Unavailable);
        }
        if !self.budget.is_open(now) {
            return Err(Dropped::Fuel);
        }
        if self.others_wait() {
            return Err(Dropped::NoRoom);
        }
        let loaded = self.load(&shown).await?;
        let place = self.place(&shown, &loaded);
        let seen = std::mem::take(&mut shown.seen);
        let (committed, revision) = (&shown.primary.effects, shown.revision);
        let state = AsItWas::new(seen, committed, revision, place.stored_state());
        let state = Arc::new(state);
        let given = InvocationOf {
            mapping: format!("{} (shadow)", self.mapping.name).into(),
            state: Arc::clone(&state) as _,
            now: shown.now,
            seed: shown.seed,
        };
        let invocation = place.invocation(&shown.job, given);
        if is_too_large(&invocation) {
            return Err(Dropped::TooLarge);
        }
        let report = self.invoke(invocation, shown.job.batch.len()).await?;
        self.shadow.sums().no_problem();
        self.compare(&shown, &loaded, report, state.is_doubtful());
        Ok(())
    }

    /// The version that is shown the batch.
    async fn load(&mut self, shown: &Shown) -> Result<Arc<Loaded>, Dropped> {
        let loaded = match self.shadow.named() {
            Err(error) => Err(error.to_string()),
            Ok(named) => {
                let (scope, id) = (&self.mapping.scope, &shown.job.part.request_id);
                let chosen = self.inner.functions.choose(scope, &named, id).await;
                chosen.map_err(|error| error.to_string())
            }
        };
        loaded.map_err(|why| {
            let now = self.inner.clock.now();
            self.shadow.sums().note_problem(now, &why);
            self.rest_until = now.plus(TROUBLE_WAIT);
            Dropped::Unavailable
        })
    }

    fn place(&self, shown: &Shown, loaded: &Arc<Loaded>) -> Place {
        let (scope, stream) = (&self.mapping.scope, self.mapping.stream.as_str());
        let takes_json = loaded.carrier().takes_json();
        Place {
            inner: Arc::clone(&self.inner),
            mapping: Arc::clone(&self.mapping),
            shard: shown.shard,
            loaded: Arc::clone(loaded),
            json: takes_json.then(|| EventSource::new(scope, stream)),
            kill: self.stop.clone(),
            shadow: None,
        }
    }

    /// Runs an attempt, unless others of the tenant come to wait for room meanwhile.
    async fn invoke(&mut self, invocation: Invocation, records: usize) -> Result<Report, Dropped> {
        let inner = Arc::clone(&self.inner);
        let (began, limit) = (inner.clock.now(), invocation.limits.fuel(records));
        let ended = tokio::select! {
            biased;
            report = inner.sandbox.invoke(invocation) => Some(report),
            () = self.until_others_wait() => None,
        };
        let Some(report) = ended else {
            let span = inner.clock.now().since(began).as_millis();
            let span = u64::try_from(span).unwrap_or(u64::MAX);
            self.budget
                .burn(span.saturating_mul(FUEL_PER_MILLI).min(limit));
            return Err(Dropped::NoRoom);
        };
        self.budget.burn(report.usage.fuel);
        match report.outcome {
            Outcome::Throttled { .. } => Err(Dropped::NoRoom),
            Outcome::Ok { .. }
            | Outcome::Partial { .. }
            | Outcome::Json { .. }
            | Outcome::Failed(_) => Ok(report),
        }
    }

    async fn until_others_wait(&self) {
        let clock = self.inner.clock;
        while !self.others_wait() {
            clock.sleep_until(clock.now().plus(LOOK_INTERVAL)).await;
        }
    }

    /// Whether attempts of the tenant wait for room.
    fn others_wait(&self) -> bool {
        let standings = self.inner.sandbox.standings();
        let tenant = self.mapping.scope.tenant;
        let mut own = standings.iter().filter(|(id, _)| *id == tenant);
        own.any(|(_, standing)| standing.waiting > 0)
    }

    fn compare(&self, shown: &Shown, loaded: &Loaded, mut report: Report, uncertain: bool) {
        let judging = Judging {
            inner: &self.inner,
            mapping: &self.mapping,
            job: &shown.job,
            loaded,
        };
        let judgement = judging.judge(&report);
        report.effects = judging.kept(&judgement, report.effects);
        let shadow = Side::new(judgement, report);
        let apart = compare(&shown.job.batch, &shown.primary, &shadow);
        self.shadow.sums().add(Compared {
            shown,
            loaded,
            primary: &shown.primary,
            shadow: &shadow,
            apart,
            uncertain,
        });
    }
}

/// Whether a poller would not give the version so much: it might have another limit, or take another
/// form. A packed batch takes one record of any size.
fn is_too_large(invocation: &Invocation) -> bool {
    match &invocation.input {
        Input::Records(batch) => {
            let bytes = batch.iter().map(|r| r.payload_bytes() + INDEX_ENTRY_BYTES);
            batch.len() > 1 && bytes.sum::<usize>() > invocation.limits.batch_bytes
        }
        Input::Event { json, .. } => json.len() > MAX_EVENT_BYTES,
    }
}
