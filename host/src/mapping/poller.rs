//! The loop of one mapping and one shard: read, invoke, decide, commit. One batch at a time.
//!
//! Every turn ends in one transaction that holds the progress, the effects and the retry state,
//! so a crash at any point repeats a batch whose effects were never visible, or nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sha2::{Digest, Sha256};
use shardmill_core::effects::Effects;
use shardmill_core::event::{EMPTY_EVENT_BYTES, EventSource};
use shardmill_core::limits::MAX_EVENT_BYTES;
use shardmill_core::mapping::{
    Attempted, Cursor, Judgement, Next, OnExhausted, Part, Paused, Position, Reason, Span, after,
    backoff, expired_len, judge,
};
use shardmill_core::outcome::{Cause, Failure};
use shardmill_core::sandbox::{Input, Invocation, Report};
use shardmill_core::{Batch, BatchContext, ShardId, ShardKey, UnixMillis};
use shardmill_store::{CommitError, ReadError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::commit::{Attempt, FunctionGuard, GivenUp, StoredState, Turn, refused_emit};
use super::in_flight::{DEATHS_BEFORE_SPLIT, InFlight, MAX_DEATHS};
use super::metrics::MappingMetrics;
use super::resource::{Inner, Mapping, cursor_key};
use super::source::{Bounds, Gathered, Source};
use crate::functions::{FunctionError, Loaded};

/// Conflicts after which a batch runs alone among the batches of its function.
const CONFLICTS_BEFORE_LOCK: u32 = 3;

/// How often the disk's free space is asked for.
const FULL_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Wait after an error of the store or a missing function, before looking again.
const TROUBLE_WAIT: Duration = Duration::from_secs(1);

/// Why a poller ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was told to stop.
    Stopped,
    /// The shard is closed and read to its end.
    Finished,
    /// Somebody else moved the cursor: start again from what is stored.
    Fenced,
}

/// Why a turn was not finished.
enum Trouble {
    /// Effects might not find room: nothing is invoked until there is some.
    Full,
    Read(ReadError),
    Function(FunctionError),
    Commit(CommitError),
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full => f.write_str("the disk is nearly full: free space, or trim streams"),
            Self::Read(error) => error.fmt(f),
            Self::Function(error) => error.fmt(f),
            Self::Commit(error) => error.fmt(f),
        }
    }
}

/// What a turn came to.
enum Turned {
    /// Go on.
    On,
    /// The same batch again, at once: a value changed under it.
    Again,
    Ended(End),
}

pub(super) struct Poller {
    inner: Arc<Inner>,
    mapping: Arc<Mapping>,
    source: Source,
    metrics: Arc<MappingMetrics>,
    stop: CancellationToken,
    kill: CancellationToken,
    cursor: Cursor,
    revision: u64,
    free_since: UnixMillis,
    in_flight: InFlight,
    full: bool,
    full_checked: UnixMillis,
    throttles: u32,
    conflicts: u32,
}

/// A batch to be tried: where it stands and what is left of it in the shard.
struct Work {
    part: Part,
    batch: Batch,
    lost: Option<Span>,
}

impl Poller {
    pub(super) fn new(
        inner: Arc<Inner>,
        mapping: Arc<Mapping>,
        shard: ShardId,
        stop: CancellationToken,
        kill: CancellationToken,
    ) -> Self {
        let source = Source {
            store: Arc::clone(&inner.store),
            clock: inner.clock,
            shard: ShardKey {
                stream: mapping.stream_id,
                shard,
            },
        };
        Self {
            metrics: inner.metrics_of(&mapping.id),
            free_since: inner.clock.now(),
            cursor: Cursor::starting_at(Position::of(1)),
            revision: 0,
            in_flight: InFlight::open(inner.notes.as_deref(), &mapping.id, source.shard),
            full: false,
            full_checked: UnixMillis(0),
            throttles: 0,
            conflicts: 0,
            inner,
            mapping,
            source,
            stop,
            kill,
        }
    }

    pub(super) async fn run(mut self) -> End {
        let key = cursor_key(&self.mapping, self.source.shard.shard);
        match self.inner.store.get(&key) {
            Ok(Some(stored)) => {
                self.revision = stored.revision;
                match serde_json::from_slice(&stored.value) {
                    Ok(cursor) => self.cursor = cursor,
                    Err(error) => {
                        let reason = format!("its checkpoint is damaged: {error}");
                        return self.stand_still(&reason).await;
                    }
                }
            }
            // The mapping was deleted meanwhile.
            Ok(None) => return End::Stopped,
            Err(error) => {
                self.report(&Trouble::Read(error));
                self.wait(TROUBLE_WAIT).await;
                return End::Fenced;
            }
        }
        if let Some(paused) = self.cursor.paused.clone() {
            if self
                .version()
                .is_none_or(|version| version == paused.version)
            {
                return self.stand_still(&paused.reason).await;
            }
            // A new version of the function: what the old one could not do is tried again.
            self.cursor.resume();
        }
        let mut work = None;
        loop {
            let turned = match self.turn(&mut work).await {
                Ok(turned) => turned,
                Err(trouble) => {
                    work = None;
                    self.report(&trouble);
                    if let Trouble::Commit(CommitError::Unknown(_)) = trouble {
                        return self.stand_still("the store failed: restart the host").await;
                    }
                    self.wait(TROUBLE_WAIT).await;
                    Turned::On
                }
            };
            match turned {
                Turned::On => work = None,
                Turned::Again => {}
                Turned::Ended(end) => return end,
            }
            if self.stop.is_cancelled() {
                return End::Stopped;
            }
        }
    }

    /// One batch, from reading it to the commit of what came of it.
    async fn turn(&mut self, kept: &mut Option<Work>) -> Result<Turned, Trouble> {
        let loaded = self
            .inner
            .functions
            .get(&self.mapping.scope, &self.mapping.function)
            .await;
        let loaded = loaded.map_err(Trouble::Function)?;
        let json = self.event_source(&loaded);
        let work = match kept.take() {
            Some(work) => work,
            None => match self.next_work(&loaded, json.as_ref()).await? {
                Ok(work) => work,
                Err(end) => return Ok(Turned::Ended(end)),
            },
        };
        // The wait may have been long: the batch runs on the version of now.
        let (scope, name) = (&self.mapping.scope, &self.mapping.function);
        let before = loaded.carrier();
        let loaded = self
            .inner
            .functions
            .get(scope, name)
            .await
            .map_err(Trouble::Function)?;
        if loaded.carrier().takes_json() != before.takes_json() {
            return Ok(Turned::On);
        }
        if self.is_full() {
            return Err(Trouble::Full);
        }
        if let Some(turned) = self
            .give_up_undeliverable(&work, &loaded, json.as_ref())
            .await?
        {
            return Ok(turned);
        }
        let deaths = self.in_flight.begin(work.part.span.from);
        if deaths >= DEATHS_BEFORE_SPLIT && work.batch.len() > 1 {
            return self.split_suspect(&work, &loaded).await;
        }
        if deaths >= MAX_DEATHS {
            self.in_flight.end();
            let given_up = GivenUp {
                batch: work.batch.clone(),
                reason: Reason::ProcessDied,
                span: work.part.span,
                cause: None,
            };
            return self.give_up(&work, given_up, &loaded).await;
        }
        let attempt = self.invoke(&work, &loaded, json.as_ref()).await;
        self.in_flight.end();
        let Some(attempt) = attempt else {
            return Ok(Turned::Ended(End::Stopped));
        };
        self.conclude(work, attempt, kept).await
    }

    /// The part that waits, or a new batch. `Err`: the poller has come to its end.
    async fn next_work(
        &mut self,
        loaded: &Loaded,
        json: Option<&EventSource>,
    ) -> Result<Result<Work, End>, Trouble> {
        let (part, gathered) = match self.cursor.parts.first().cloned() {
            Some(part) => {
                let expiry = self.expiry_of(&part).await?;
                let wake = part.not_before.min(expiry);
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return Ok(Err(End::Stopped)),
                    () = self.inner.clock.sleep_until(wake) => {}
                }
                let gathered = self.source.read_span(part.span).await?;
                (Some(part), gathered)
            }
            None => {
                let limits = &loaded.function.settings.limits;
                let bounds = Bounds {
                    policy: &self.mapping.policy,
                    budget: if json.is_some() {
                        MAX_EVENT_BYTES - EMPTY_EVENT_BYTES
                    } else {
                        limits.batch_bytes
                    },
                    size: json,
                    free_since: self.free_since,
                };
                (
                    None,
                    self.source
                        .gather(self.cursor.frontier(), &bounds, &self.stop)
                        .await?,
                )
            }
        };
        Ok(match gathered {
            Gathered::Finished => Err(End::Finished),
            Gathered::Stopped => Err(End::Stopped),
            Gathered::Records { batch, lost } => {
                let part = part.unwrap_or_else(|| new_part(self.cursor.frontier(), &batch));
                Ok(Work { part, batch, lost })
            }
        })
    }

    /// When the oldest record of a part passes the mapping's age limit.
    async fn expiry_of(&self, part: &Part) -> Result<UnixMillis, Trouble> {
        let never = UnixMillis(u64::MAX);
        let Some(limit) = self.mapping.policy.maximum_record_age else {
            return Ok(never);
        };
        let one = Span {
            from: part.span.from,
            to: Position::of(part.span.from.record + 1),
        };
        Ok(match self.source.read_span(one).await? {
            Gathered::Records { batch, .. } => batch
                .get(0)
                .map_or(never, |r| r.arrival.plus(limit + Duration::from_millis(1))),
            Gathered::Finished | Gathered::Stopped => never,
        })
    }

    /// Gives up what no attempt can deliver: records that were trimmed, that are too old, or
    /// whose event is too large.
    async fn give_up_undeliverable(
        &mut self,
        work: &Work,
        loaded: &Loaded,
        json: Option<&EventSource>,
    ) -> Result<Option<Turned>, Trouble> {
        let now = self.inner.clock.now();
        let expired = expired_len(&work.batch, &self.mapping.policy, now);
        let too_large = json.is_some_and(|source| {
            work.batch.len() == 1
                && work.batch.get(0).is_some_and(|r| {
                    source.record_bytes(&r) + EMPTY_EVENT_BYTES > MAX_EVENT_BYTES + 1
                })
        });
        let (span, batch, reason) = if let Some(lost) = work.lost {
            (lost, Batch::default(), Reason::Expired)
        } else if expired > 0 {
            let span = Span {
                from: work.part.span.from,
                to: boundary(work, expired),
            };
            (span, work.batch.cut(0..expired), Reason::RecordAgeExceeded)
        } else if too_large {
            (work.part.span, work.batch.clone(), Reason::RecordTooLarge)
        } else {
            return Ok(None);
        };
        let given_up = GivenUp {
            batch,
            reason,
            span,
            cause: None,
        };
        self.give_up(work, given_up, loaded).await.map(Some)
    }

    /// Halves a batch that was in flight in several process deaths, so that its records are not
    /// lost with the one that is at fault, if one is.
    async fn split_suspect(&mut self, work: &Work, loaded: &Loaded) -> Result<Turned, Trouble> {
        self.in_flight.split();
        let mut cursor = self.cursor.clone();
        take_part(&mut cursor, &work.part);
        let middle = boundary(work, work.batch.len() / 2);
        let Span { from, to } = work.part.span;
        let half = |from, to| Part {
            span: Span { from, to },
            attempts: 0,
            invocations: 0,
            not_before: UnixMillis(0),
            request_id: new_request_id(),
        };
        cursor
            .parts
            .splice(0..0, [half(from, middle), half(middle, to)]);
        let turn = Turn {
            cursor,
            given_up: None,
            loaded,
            attempt: None,
            part: &work.part,
            batch: &work.batch,
            done: 0,
        };
        self.commit(turn).await
    }

    /// Gives up records at the head of a batch without an attempt.
    async fn give_up(
        &mut self,
        work: &Work,
        given_up: GivenUp,
        loaded: &Loaded,
    ) -> Result<Turned, Trouble> {
        let mut cursor = self.cursor.clone();
        let waiting = take_part(&mut cursor, &work.part);
        cursor.mark_done(given_up.span);
        // A new batch is simply read again from behind the span; a part keeps its state.
        if waiting && given_up.span.to < work.part.span.to {
            let rest = Span {
                from: given_up.span.to,
                ..work.part.span
            };
            cursor.parts.insert(
                0,
                Part {
                    span: rest,
                    ..work.part.clone()
                },
            );
        }
        let turn = Turn {
            cursor,
            given_up: Some(given_up),
            loaded,
            attempt: None,
            part: &work.part,
            batch: &work.batch,
            done: 0,
        };
        self.commit(turn).await
    }

    /// Runs the handler once. `None` when the host is being stopped for good.
    async fn invoke(
        &mut self,
        work: &Work,
        loaded: &Arc<Loaded>,
        json: Option<&EventSource>,
    ) -> Option<Attempt> {
        let inner = &self.inner;
        let lock = inner.function_lock(&self.mapping.scope, &self.mapping.function);
        let guard = if self.conflicts < CONFLICTS_BEFORE_LOCK {
            FunctionGuard::Shared {
                _guard: lock.read_owned().await,
            }
        } else {
            FunctionGuard::Alone {
                _guard: lock.write_owned().await,
            }
        };
        let now = inner.clock.now();
        if let Some(last) = work.batch.get(work.batch.len().saturating_sub(1)) {
            self.metrics
                .iterator_age_ms
                .store(now.since(last.arrival).as_millis() as u64, Relaxed);
        }
        let input = match json {
            Some(source) => Input::Event {
                json: source.event(&work.batch),
                count: work.batch.len(),
            },
            None => Input::Records(work.batch.clone()),
        };
        let seed = self.seed(work, loaded);
        let invocation = Invocation {
            module: Arc::clone(&loaded.module),
            input,
            context: BatchContext {
                stream: self.mapping.stream.to_string(),
                shard: self.source.shard.shard.to_string(),
                request_id: work.part.request_id.clone(),
                function: loaded.function.name.clone(),
                version: loaded.function.version.to_string(),
                tenant: self.mapping.scope.tenant.to_string(),
                attempt: work.part.attempts + 1,
                ..BatchContext::default()
            },
            limits: loaded.function.settings.limits.clone(),
            environment: Arc::clone(&loaded.environment),
            state: Arc::new(StoredState {
                store: Arc::clone(&inner.store),
                scope: self.mapping.scope.clone(),
                function: self.mapping.function.clone(),
            }),
            now,
            seed,
        };
        let report = tokio::select! {
            biased;
            report = inner.sandbox.invoke(invocation) => report,
            () = self.kill.cancelled() => return None,
        };
        self.count(&report);
        Some(Attempt {
            report,
            seed,
            now,
            loaded: Arc::clone(loaded),
            _guard: guard,
        })
    }

    /// Decides what follows from an attempt and commits it.
    async fn conclude(
        &mut self,
        work: Work,
        mut attempt: Attempt,
        kept: &mut Option<Work>,
    ) -> Result<Turned, Trouble> {
        let policy = &self.mapping.policy;
        let carrier = attempt.loaded.carrier();
        let attempted = Attempted {
            len: work.batch.len(),
            attempts: work.part.attempts,
            record_mode: carrier.is_record_mode(),
        };
        let outcome = attempt.report.outcome.clone();
        let effects = &attempt.report.effects;
        let mut judgement = judge(outcome, effects, &work.batch, policy);
        let mut next = after(&judgement, attempted, policy);
        let (store, scope) = (self.inner.store.as_ref(), &self.mapping.scope);
        if let Some(refused) = refused_emit(store, scope, effects, &work.batch, next.done) {
            judgement = Judgement::Failed(refused);
            next = after(&judgement, attempted, policy);
        }
        if let Judgement::Throttled(reason) = &judgement {
            return Ok(self.throttled(reason).await);
        }
        self.throttles = 0;
        let result = if matches!(judgement, Judgement::Failed(_)) {
            "PROBLEM: Function call failed"
        } else {
            "OK"
        };
        self.metrics.set_last_result(result);
        let done = next.done;
        if done < work.batch.len() {
            let effects = std::mem::take(&mut attempt.report.effects);
            attempt.report.effects = effects.below(done as u32);
        }
        let mut committed = self.commit_attempt(&work, &attempt, next, &judgement).await;
        if let Err(Trouble::Commit(CommitError::TooLarge { size, allowed })) = committed {
            // More effects than one transaction takes: a function error, without any of them.
            let cause = Cause::EffectsExceeded {
                asked: size,
                allowed,
                unit: "bytes".into(),
            };
            let judgement = Judgement::Failed(Failure {
                cause,
                record: None,
            });
            attempt.report.effects = Effects::default();
            let next = after(&judgement, attempted, &self.mapping.policy);
            committed = self.commit_attempt(&work, &attempt, next, &judgement).await;
        }
        let turned = committed?;
        if let Turned::Again = turned {
            *kept = Some(work);
        }
        Ok(turned)
    }

    async fn commit_attempt(
        &mut self,
        work: &Work,
        attempt: &Attempt,
        next: Next,
        judgement: &Judgement,
    ) -> Result<Turned, Trouble> {
        let done = next.done;
        let version = attempt.loaded.function.version;
        let (cursor, given_up) = self.plan(work, next, judgement, version);
        let turn = Turn {
            cursor,
            given_up,
            loaded: &attempt.loaded,
            attempt: Some(attempt),
            part: &work.part,
            batch: &work.batch,
            done,
        };
        self.commit(turn).await
    }

    /// The cursor after this attempt, and what is given up.
    fn plan(
        &self,
        work: &Work,
        next: Next,
        judgement: &Judgement,
        version: u64,
    ) -> (Cursor, Option<GivenUp>) {
        let now = self.inner.clock.now();
        let mut cursor = self.cursor.clone();
        take_part(&mut cursor, &work.part);
        let span = |records: &std::ops::Range<usize>| Span {
            from: boundary(work, records.start),
            to: boundary(work, records.end),
        };
        let mut parts = Vec::new();
        let mut given_up = None;
        if next.done > 0 {
            cursor.mark_done(span(&(0..next.done)));
        }
        if !next.given_up.is_empty() {
            let cause = match judgement {
                Judgement::Failed(failure) => Some(failure.cause.clone()),
                _ => None,
            };
            let at = span(&next.given_up);
            if self.mapping.policy.on_exhausted == OnExhausted::Pause {
                let why = cause.map_or_else(
                    || "the handler keeps naming it as failed".into(),
                    |c| c.to_string(),
                );
                let reason = format!("attempts ended: {why}");
                cursor.paused = Some(Paused { reason, version });
                parts.push(Part {
                    span: at,
                    ..work.part.clone()
                });
            } else {
                cursor.mark_done(at);
                let batch = work.batch.cut(next.given_up.clone());
                given_up = Some(GivenUp {
                    batch,
                    reason: Reason::RetryAttemptsExhausted,
                    span: at,
                    cause,
                });
            }
        }
        for rest in next.rest {
            let at_head = rest.records.start == 0;
            let ran = at_head || rest.attempts > 0;
            parts.push(Part {
                span: span(&rest.records),
                attempts: rest.attempts,
                invocations: if at_head {
                    work.part.invocations + 1
                } else {
                    u32::from(ran)
                },
                not_before: now.plus(rest.delay),
                request_id: if rest.unchanged {
                    work.part.request_id.clone()
                } else {
                    new_request_id()
                },
            });
        }
        cursor.parts.splice(0..0, parts);
        (cursor, given_up)
    }

    /// Commits a turn and takes its cursor over.
    async fn commit(&mut self, turn: Turn<'_>) -> Result<Turned, Trouble> {
        let counts = turn.counts();
        let (tx, key) = turn.transaction(
            &self.inner,
            &self.mapping,
            self.source.shard.shard,
            self.revision,
        );
        let cursor = turn.into_cursor();
        match self.inner.store.commit(tx).await {
            Ok(receipt) => {
                self.revision = receipt.revision;
                let paused = cursor.paused.clone();
                self.cursor = cursor;
                self.conflicts = 0;
                self.free_since = self.inner.clock.now();
                counts.add_to(&self.metrics);
                match paused {
                    Some(paused) => Ok(Turned::Ended(self.stand_still(&paused.reason).await)),
                    None => Ok(Turned::On),
                }
            }
            Err(CommitError::Conflict(changed)) if changed == key => Ok(Turned::Ended(End::Fenced)),
            Err(CommitError::Conflict(_) | CommitError::NoSuchStream(_)) => {
                // Keyed state was changed by another shard, or a stream went: run it again.
                self.conflicts += 1;
                MappingMetrics::add(&self.metrics.conflicts, 1);
                Ok(Turned::Again)
            }
            Err(error) => Err(Trouble::Commit(error)),
        }
    }

    async fn throttled(&mut self, reason: &str) -> Turned {
        self.throttles += 1;
        MappingMetrics::add(&self.metrics.throttles, 1);
        tracing::warn!(mapping = self.mapping.name, shard = %self.source.shard.shard, reason, "throttled");
        self.wait(backoff(self.throttles)).await;
        Turned::On
    }

    /// Waits to be stopped: a change of the mapping, of its function or of the cursor by hand
    /// starts a new poller.
    async fn stand_still(&self, reason: &str) -> End {
        tracing::warn!(mapping = self.mapping.name, shard = %self.source.shard.shard, reason, "paused");
        let key = cursor_key(&self.mapping, self.source.shard.shard);
        let mut changes = self.inner.changes.subscribe();
        let mut functions = self.inner.functions.watch();
        let version = self.version();
        loop {
            match self.inner.store.get(&key) {
                Ok(Some(stored)) if stored.revision == self.revision => {}
                Ok(_) => return End::Fenced,
                Err(error) => {
                    self.report(&Trouble::Read(error));
                    self.wait(TROUBLE_WAIT).await;
                    return End::Fenced;
                }
            }
            if self.version() != version {
                return End::Fenced;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return End::Stopped,
                changed = changes.changed() => if changed.is_err() { return End::Stopped },
                changed = functions.changed() => if changed.is_err() { return End::Stopped },
            }
        }
    }

    /// The function's version as it is stored.
    fn version(&self) -> Option<u64> {
        let Mapping {
            scope, function, ..
        } = self.mapping.as_ref();
        self.inner
            .functions
            .describe(scope, function)
            .ok()
            .map(|f| f.version)
    }

    /// Whether the disk is nearly full; looked at once a second at the most.
    fn is_full(&mut self) -> bool {
        let now = self.inner.clock.now();
        if now.since(self.full_checked) >= FULL_CHECK_INTERVAL {
            self.full_checked = now;
            self.full = self.inner.store.stats().full;
        }
        self.full
    }

    async fn wait(&self, span: Duration) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(span) => {}
        }
    }

    fn report(&self, trouble: &Trouble) {
        self.metrics.set_last_result(&format!("PROBLEM: {trouble}"));
        let (mapping, shard) = (&self.mapping.name, self.source.shard.shard);
        tracing::warn!(mapping, %shard, %trouble, "the shard waits");
    }

    fn count(&self, report: &Report) {
        MappingMetrics::add(&self.metrics.invocations, 1);
        if matches!(report.outcome, shardmill_core::Outcome::Failed(_)) {
            MappingMetrics::add(&self.metrics.errors, 1);
        }
        self.metrics.fuel.fetch_add(report.usage.fuel, Relaxed);
        self.metrics
            .duration_micros
            .fetch_add(report.usage.duration.as_micros() as u64, Relaxed);
    }

    fn event_source(&self, loaded: &Loaded) -> Option<EventSource> {
        let Mapping { scope, stream, .. } = self.mapping.as_ref();
        loaded
            .carrier()
            .takes_json()
            .then(|| EventSource::new(scope, stream.as_str()))
    }

    /// The guest's randomness: the same for every attempt at the same records on the same version.
    fn seed(&self, work: &Work, loaded: &Loaded) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [
            self.mapping.scope.tenant.to_string(),
            self.mapping.stream.to_string(),
            self.mapping.id.clone(),
            self.source.shard.shard.to_string(),
            work.part.span.from.record.to_string(),
            loaded.function.version.to_string(),
        ] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

/// The position where the record with this index begins, so that the whole span is covered
/// whatever was left out between the records.
fn boundary(work: &Work, index: usize) -> Position {
    if index == 0 {
        return work.part.span.from;
    }
    work.batch
        .get(index)
        .map_or(work.part.span.to, |record| record.beginning())
}

/// Takes a part out of the cursor; says whether it was there.
fn take_part(cursor: &mut Cursor, part: &Part) -> bool {
    let waits = cursor
        .parts
        .first()
        .is_some_and(|first| first.span.from == part.span.from);
    if waits {
        cursor.parts.remove(0);
    }
    waits
}

fn new_part(from: Position, batch: &Batch) -> Part {
    let to = batch.end_position().unwrap_or(from);
    Part {
        span: Span { from, to },
        attempts: 0,
        invocations: 0,
        not_before: UnixMillis(0),
        request_id: new_request_id(),
    }
}

fn new_request_id() -> String {
    Uuid::new_v4().to_string()
}
