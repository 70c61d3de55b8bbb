//! One attempt at a batch: the invocation, and what is needed to repeat it.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use shardmill_core::event::{EventSource, EventWindow};
use shardmill_core::limits::{FunctionLimits, MAX_EVENT_BYTES};
use shardmill_core::mapping::{FirstOf, Part, Position, Span};
use shardmill_core::sandbox::{Input, Invocation, StateView};
use shardmill_core::{Batch, BatchContext, ShardId, UnixMillis};
use tokio_util::sync::CancellationToken;

use super::Poller;
use crate::functions::Loaded;
use crate::mapping::commit::{Attempt, FunctionGuard, StoredState};
use crate::mapping::failures;
use crate::mapping::resource::{Inner, Mapping};
use crate::mapping::shadow::MappingShadow;

/// Conflicts after which a batch runs alone among the batches of its function.
const CONFLICTS_BEFORE_LOCK: u32 = 3;

/// Bit of a packed batch's flags: the window's final invocation.
const FINAL_INVOCATION: u32 = 1;
/// Bit of a packed batch's flags: the window ended before its time.
const ENDED_EARLY: u32 = 2;

/// A batch to be tried.
#[derive(Clone)]
pub(in crate::mapping) struct Job {
    /// Where it stands, and its attempts so far.
    pub(in crate::mapping) part: Part,
    /// Its records; none in the final invocation of a window.
    pub(in crate::mapping) batch: Batch,
    /// Records of the part whose keys are parked meanwhile.
    pub(super) parked: Batch,
    /// What was trimmed at its head.
    pub(super) lost: Option<Span>,
    /// Where the part holds more than one batch takes.
    pub(super) more: Option<Position>,
    /// The tumbling window that it belongs to.
    pub(in crate::mapping) window: Option<EventWindow>,
    /// Not to be run before, for reasons of the host's.
    pub(super) not_before: UnixMillis,
    /// How often the host had no room for it.
    pub(super) throttles: u32,
    /// How often a value was changed under it.
    pub(in crate::mapping) conflicts: u32,
}

impl Job {
    pub(in crate::mapping) fn new(part: Part, batch: Batch) -> Self {
        Self {
            part,
            batch,
            parked: Batch::default(),
            lost: None,
            more: None,
            window: None,
            not_before: UnixMillis(0),
            throttles: 0,
            conflicts: 0,
        }
    }

    /// Whether this is the final invocation of a window.
    pub(in crate::mapping) fn is_final(&self) -> bool {
        self.window.as_ref().is_some_and(|w| w.is_final)
    }

    /// The position where the record with this index begins, so that the whole span is covered
    /// whatever was left out between the records.
    pub(super) fn boundary(&self, index: usize) -> Position {
        if index == 0 {
            return self.part.span.from;
        }
        let record = self.batch.get(index);
        record.map_or(self.part.span.to, |record| record.beginning())
    }
}

/// An attempt that has ended. `None`: the host is being stopped for good.
pub(super) struct Ended {
    pub(super) lane: usize,
    pub(super) job: Job,
    pub(super) attempt: Option<Attempt>,
}

impl Poller {
    /// Notes from which record on a version runs in this shard. `beside`: the version that shares
    /// requests with it.
    pub(super) fn note_version(&mut self, job: &Job, loaded: &Loaded, beside: Option<u64>) {
        let Some(first) = job.batch.get(0) else {
            return;
        };
        let runs = |number| {
            self.cursor
                .versions
                .last()
                .is_some_and(|v| v.version == number)
        };
        if runs(loaded.function.number()) {
            return;
        }
        let first = FirstOf {
            version: loaded.function.number(),
            sequence_number: first.sequence_number().to_string(),
            at: self.inner.clock.now(),
        };
        let sequence_number = first.sequence_number.clone();
        if self.cursor.note_version(first, beside) {
            let Mapping { name, function, .. } = self.mapping.as_ref();
            let (shard, version) = (self.source.shard.shard, loaded.function.label());
            tracing::info!(mapping = name, function, %shard, version, sequence_number, "a version begins");
        }
    }

    /// Runs a lane's batch; the loop is told when it has ended.
    pub(super) fn run_job(&mut self, lane: usize, job: Job, loaded: &Arc<Loaded>) {
        if let Some(last) = job.batch.get(job.batch.len().saturating_sub(1)) {
            let age = self.inner.clock.now().since(last.arrival);
            self.counts.set_iterator_age(age);
        }
        let place = Place {
            inner: Arc::clone(&self.inner),
            mapping: Arc::clone(&self.mapping),
            shard: self.source.shard.shard,
            loaded: Arc::clone(loaded),
            json: self.event_source(loaded.carrier().takes_json()),
            kill: self.kill.clone(),
            shadow: self.shadow.clone(),
        };
        self.running.push(Box::pin(async move {
            let attempt = place.attempt(&job).await;
            Ended { lane, job, attempt }
        }));
    }
}

/// The limits of an attempt.
pub(in crate::mapping) fn limits_of(loaded: &Loaded, in_window: bool) -> FunctionLimits {
    let mut limits = loaded.function.settings.limits.clone();
    if in_window {
        // A state that grows too large ends its window early; it is no fault of the answer's.
        limits.answer_bytes = limits.answer_bytes.max(MAX_EVENT_BYTES);
    }
    limits
}

/// What an attempt is given beside its batch.
pub(in crate::mapping) struct InvocationOf {
    /// As what it is noted in the ledger.
    pub(in crate::mapping) mapping: Arc<str>,
    pub(in crate::mapping) state: Arc<dyn StateView>,
    pub(in crate::mapping) now: UnixMillis,
    pub(in crate::mapping) seed: [u8; 32],
}

/// Where an attempt is made.
pub(in crate::mapping) struct Place {
    pub(in crate::mapping) inner: Arc<Inner>,
    pub(in crate::mapping) mapping: Arc<Mapping>,
    pub(in crate::mapping) shard: ShardId,
    pub(in crate::mapping) loaded: Arc<Loaded>,
    pub(in crate::mapping) json: Option<EventSource>,
    pub(in crate::mapping) kill: CancellationToken,
    /// What is shown the attempt, if anything is.
    pub(in crate::mapping) shadow: Option<Arc<MappingShadow>>,
}

impl Place {
    /// Runs the handler once. `None` when the host is being stopped for good.
    pub(in crate::mapping) async fn attempt(&self, job: &Job) -> Option<Attempt> {
        let (inner, mapping, loaded) = (&self.inner, &self.mapping, &self.loaded);
        let lock = inner.function_lock(&mapping.scope, &mapping.function);
        let guard = if job.conflicts < CONFLICTS_BEFORE_LOCK {
            FunctionGuard::Shared {
                _guard: lock.read_owned().await,
            }
        } else {
            FunctionGuard::Alone {
                _guard: lock.write_owned().await,
            }
        };
        let (now, seed) = (inner.clock.now(), self.seed(job));
        let given = InvocationOf {
            mapping: mapping.name.as_str().into(),
            state: Arc::new(self.stored_state()),
            now,
            seed,
        };
        let invocation = self.invocation(job, given);
        let last = mapping.policy.is_exhausted(job.part.attempts + 1);
        let shadow = self.shadow.as_ref();
        let is_shown = shadow.is_some_and(|shadow| shadow.wants(&job.part));
        let (invocation, given) = failures::recorded(invocation, last || is_shown);
        let report = tokio::select! {
            biased;
            report = inner.sandbox.invoke(invocation) => report,
            () = self.kill.cancelled() => return None,
        };
        inner
            .metrics_of(&mapping.id)
            .shard(self.shard)
            .count(&report);
        Some(Attempt {
            report,
            seed,
            now,
            loaded: Arc::clone(loaded),
            given,
            is_shown,
            _guard: guard,
        })
    }

    /// Keyed state as the mapping's function finds it.
    pub(in crate::mapping) fn stored_state(&self) -> StoredState {
        StoredState {
            store: Arc::clone(&self.inner.store),
            scope: self.mapping.scope.clone(),
            function: self.mapping.function.clone(),
        }
    }

    /// What the handler is given.
    pub(in crate::mapping) fn invocation(&self, job: &Job, of: InvocationOf) -> Invocation {
        let loaded = &self.loaded;
        let input = match (&self.json, &job.window) {
            (None, _) => Input::Records(job.batch.clone()),
            (Some(source), window) => Input::Event {
                json: match window {
                    None => source.event(&job.batch),
                    Some(window) => source.event_in_window(&job.batch, self.shard, window),
                },
                count: job.batch.len(),
            },
        };
        Invocation {
            owner: Arc::clone(&loaded.owner),
            mapping: Some(of.mapping),
            module: Arc::clone(&loaded.module),
            input,
            context: self.context(job),
            limits: limits_of(loaded, job.window.is_some()),
            environment: Arc::clone(&loaded.environment),
            state: of.state,
            now: of.now,
            seed: of.seed,
        }
    }

    fn context(&self, job: &Job) -> BatchContext {
        let function = &self.loaded.function;
        let mut context = BatchContext {
            stream: self.mapping.stream.to_string(),
            shard: self.shard.to_string(),
            request_id: job.part.request_id.clone(),
            function: function.name.clone(),
            version: function.label(),
            tenant: self.mapping.scope.tenant.to_string(),
            attempt: job.part.attempts + 1,
            ..BatchContext::default()
        };
        if let Some(window) = &job.window {
            context.window_state = window.state.clone();
            context.window = (window.start, window.end);
            for (set, flag) in [
                (window.is_final, FINAL_INVOCATION),
                (window.ended_early, ENDED_EARLY),
            ] {
                context.flags |= if set { flag } else { 0 };
            }
        }
        context
    }

    /// The guest's randomness: the same for every attempt at the same records on the same version.
    fn seed(&self, job: &Job) -> [u8; 32] {
        let mut hash = Sha256::new();
        let Position { record, sub } = job.part.span.from;
        for part in [
            self.mapping.scope.tenant.to_string(),
            self.mapping.stream.to_string(),
            self.mapping.id.clone(),
            self.shard.to_string(),
            match sub {
                0 => record.to_string(),
                sub => format!("{record}.{sub}"),
            },
            self.loaded.function.label(),
        ] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}
