//! Lets parked keys go on: their records are delivered from the side log, in order, by the same
//! function and under the same rules, one key after the other. What comes in for a key meanwhile
//! is put behind; the key is free when its side log is empty.
//!
//! When attempts end once more the key stays parked, with the record that failed at its head.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::effects::Effects;
use shardmill_core::event::{EMPTY_EVENT_BYTES, EventSource};
use shardmill_core::limits::MAX_EVENT_BYTES;
use shardmill_core::mapping::{
    Attempted, Cursor, Judgement, Next, Part, Position, Reason, Span, after, backoff, cut, judge,
};
use shardmill_core::outcome::{Cause, Failure};
use shardmill_core::{Batch, ShardId, UnixMillis};
use shardmill_store::{CommitError, ReadError, Tx, Urgency, Value};
use tokio_util::sync::CancellationToken;

use super::commit::{Attempt, GivenUp, Owner, Turn, add_effects, refused_emit};
use super::failures;
use super::metrics::MappingMetrics;
use super::parked::{ParkedKey, ParkedKeys, Release};
use super::poller::{Job, Place};
use super::resource::{Inner, Mapping};
use crate::functions::{FunctionError, Loaded};

/// Wait after an error of the store or a missing function, before looking again.
const TROUBLE_WAIT: Duration = Duration::from_secs(1);

/// Bytes that a packed record takes beside its key and data.
const PACKED_OVERHEAD_BYTES: usize = shardmill_core::abi::INDEX_ENTRY_BYTES;

/// Why a key was not delivered.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the disk is nearly full: free space, or trim streams")]
    Full,
    #[error("records of the parked key {0:?} are damaged")]
    Damaged(String),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Function(#[from] FunctionError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Delivers the keys of one mapping that are being let go on.
pub(super) struct Releaser {
    inner: Arc<Inner>,
    mapping: Arc<Mapping>,
    parked: Arc<ParkedKeys>,
    metrics: Arc<MappingMetrics>,
    stop: CancellationToken,
    kill: CancellationToken,
}

/// The head of a key's side log.
struct Head {
    batch: Batch,
    /// Runs that the batch takes whole.
    runs: u64,
    /// What it leaves of the run behind them.
    left: Batch,
}

impl Releaser {
    pub(super) fn new(
        inner: Arc<Inner>,
        mapping: Arc<Mapping>,
        stop: CancellationToken,
        kill: CancellationToken,
    ) -> Result<Self, ReadError> {
        Ok(Self {
            parked: inner.parked_of(&mapping)?,
            metrics: inner.metrics_of(&mapping.id),
            inner,
            mapping,
            stop,
            kill,
        })
    }

    /// Runs until no key is being let go on any more.
    pub(super) async fn run(self) {
        while !self.stop.is_cancelled() {
            let now = self.inner.clock.now();
            let Some(next) = self.parked.next_release() else {
                return;
            };
            if next.release.not_before > now {
                self.sleep_until(next.release.not_before).await;
                continue;
            }
            if let Err(trouble) = self.deliver(&next).await {
                self.metrics.set_last_result(&format!("PROBLEM: {trouble}"));
                let (mapping, key) = (&self.mapping.name, &next.key);
                tracing::warn!(mapping, key, %trouble, "the parked key waits");
                self.sleep_until(now.plus(TROUBLE_WAIT)).await;
            }
        }
    }

    async fn sleep_until(&self, instant: UnixMillis) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = self.inner.clock.sleep_until(instant) => {}
        }
    }

    /// One batch of a key, from reading it to the commit of what came of it.
    async fn deliver(&self, key: &ParkedKey) -> Result<(), Trouble> {
        if self.inner.store.stats().full {
            return Err(Trouble::Full);
        }
        let (scope, function) = (&self.mapping.scope, &self.mapping.function);
        let loaded = self.inner.functions.get(scope, function).await?;
        let json = loaded.carrier().takes_json();
        let json = json.then(|| EventSource::new(scope, self.mapping.stream.as_str()));
        let head = self.head(key, &loaded, json.as_ref()).await?;
        let Some(first) = head.batch.get(0) else {
            return Err(Trouble::Damaged(key.key.clone()));
        };
        let from = first.beginning();
        let shard = first.shard();
        let to = head.batch.end_position().unwrap_or(from);
        let request_id = match key.release.request_id.as_str() {
            "" => self.inner.request_id(),
            kept => kept.to_owned(),
        };
        let part = Part {
            attempts: key.release.attempts,
            invocations: key.release.invocations,
            ..Part::fresh(
                Span {
                    from,
                    to: to.max(from),
                },
                request_id,
            )
        };
        let mut job = Job::new(part, head.batch.clone());
        let place = Place {
            inner: Arc::clone(&self.inner),
            mapping: Arc::clone(&self.mapping),
            shard,
            loaded: Arc::clone(&loaded),
            json,
            kill: self.kill.clone(),
        };
        loop {
            let Some(mut attempt) = place.attempt(&job).await else {
                return Ok(());
            };
            if self.conclude(key, &head, &job, &mut attempt, shard).await? {
                return Ok(());
            }
            let counts = self.metrics.shard(shard);
            counts.add(&counts.conflicts, 1);
            job.conflicts += 1;
        }
    }

    /// Reads the head of a key's side log: at most a batch.
    async fn head(
        &self,
        key: &ParkedKey,
        loaded: &Loaded,
        json: Option<&EventSource>,
    ) -> Result<Head, Trouble> {
        let size = self.mapping.policy.batch_size as usize;
        let size = match key.release.limit {
            0 => size,
            limit => size.min(limit as usize),
        };
        let mut budget = match json {
            Some(_) => MAX_EVENT_BYTES - EMPTY_EVENT_BYTES,
            None => loaded.function.settings.limits.batch_bytes,
        };
        let mut head = Head {
            batch: Batch::default(),
            runs: 0,
            left: Batch::default(),
        };
        for run in key.first_run..key.next_run {
            let blob = self
                .inner
                .store
                .blob(&self.parked.run_key(&key.key, run))
                .await?;
            let damaged = || Trouble::Damaged(key.key.clone());
            let records = Batch::from_stored(blob.ok_or_else(damaged)?).map_err(|_| damaged())?;
            let room = size - head.batch.len();
            let taken = cut(
                records.iter().map(|r| match json {
                    Some(source) => source.record_bytes(&r),
                    None => r.payload_bytes() + PACKED_OVERHEAD_BYTES,
                }),
                head.batch.is_empty(),
                room,
                budget,
            );
            budget = budget.saturating_sub(taken.bytes);
            head.batch.append(&records.cut(0..taken.records));
            if taken.records < records.len() {
                head.left = records.cut(taken.records..records.len());
                break;
            }
            head.runs += 1;
            if head.batch.len() == size {
                break;
            }
        }
        Ok(head)
    }

    /// Decides what follows and commits it. `false`: a value was changed, run it again.
    async fn conclude(
        &self,
        key: &ParkedKey,
        head: &Head,
        job: &Job,
        attempt: &mut Attempt,
        shard: ShardId,
    ) -> Result<bool, Trouble> {
        let policy = &self.mapping.policy;
        let attempted = Attempted {
            len: job.batch.len(),
            attempts: job.part.attempts,
            record_mode: attempt.loaded.carrier().is_record_mode(),
            doubted: false,
        };
        let effects = &attempt.report.effects;
        let mut judgement = judge(attempt.report.outcome.clone(), effects, &job.batch, policy);
        let done = after(&judgement, attempted, policy).done;
        let (store, scope) = (self.inner.store.as_ref(), &self.mapping.scope);
        if let Some(refused) = refused_emit(store, scope, effects, &job.batch, done) {
            judgement = Judgement::Failed(refused);
        }
        let work = (key, head, job, shard);
        match self.commit(work, attempt, attempted, &judgement).await {
            Err(Trouble::Commit(CommitError::TooLarge { size, allowed })) => {
                // More effects than one transaction takes: a function error, without any of them.
                let cause = Cause::EffectsExceeded {
                    asked: size,
                    allowed,
                    unit: "bytes".into(),
                };
                let record = None;
                let judgement = Judgement::Failed(Failure { cause, record });
                attempt.report.effects = Effects::default();
                self.commit(work, attempt, attempted, &judgement).await
            }
            committed => committed,
        }
    }

    /// Commits what follows. `false`: a value was changed under the batch.
    async fn commit(
        &self,
        (key, head, job, shard): (&ParkedKey, &Head, &Job, ShardId),
        attempt: &mut Attempt,
        attempted: Attempted,
        judgement: &Judgement,
    ) -> Result<bool, Trouble> {
        let policy = &self.mapping.policy;
        let (store, scope) = (self.inner.store.as_ref(), &self.mapping.scope);
        let next = after(judgement, attempted, policy);
        if next.done < job.batch.len() {
            let effects = std::mem::take(&mut attempt.report.effects);
            attempt.report.effects = effects.below(next.done as u32);
        }
        let throttled = matches!(judgement, Judgement::Throttled(_));
        let mut release = self.release_after(job, &next, throttled);
        let mut why = None;
        let mut entry = None;
        if !next.given_up.is_empty() {
            let cause = match judgement {
                Judgement::Failed(failure) => Some(failure.cause.clone()),
                _ => None,
            };
            why = Some(match &cause {
                Some(cause) => cause.to_string(),
                None => "the handler keeps naming it as failed".into(),
            });
            release = Release::default();
            entry = Some(GivenUp {
                batch: job.batch.cut(next.given_up.clone()),
                reason: Reason::RetryAttemptsExhausted,
                span: job.part.span,
                cause,
                parked: true,
            });
        }
        let mut tx = Tx {
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        let owner = Owner {
            scope,
            function: &self.mapping.function,
        };
        add_effects(&mut tx, store, owner, &attempt.report.effects, &job.batch);
        if let Some(given_up) = &entry {
            let turn = Turn {
                cursor: Cursor::starting_at(Position::of(1)),
                given_up: None,
                loaded: &attempt.loaded,
                attempt: Some(&*attempt),
                part: &job.part,
                batch: &job.batch,
                window: None,
            };
            let place = (self.inner.as_ref(), self.mapping.as_ref(), shard);
            failures::keep(&mut tx, &turn, given_up, place);
        }
        let settled = Settled {
            done: next.done,
            release,
            why,
        };
        loop {
            let mut tx = tx.clone();
            let Some(changed) = self.settle(&mut tx, key, head, &settled) else {
                return Ok(true);
            };
            match self.inner.store.commit(tx).await {
                Ok(receipt) => {
                    self.parked.settled(&key.key, changed, receipt.revision);
                    let counts = self.metrics.shard(shard);
                    counts.add(&counts.processed, next.done);
                    return Ok(true);
                }
                // Records came in for the key meanwhile: what was run stays right.
                Err(CommitError::Conflict(changed)) if self.parked.owns(&changed) => {
                    self.parked.reload(&self.inner)?;
                }
                Err(CommitError::Conflict(_) | CommitError::NoSuchStream(_)) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How a key goes on after an attempt that did not give up.
    fn release_after(&self, job: &Job, next: &Next, throttled: bool) -> Release {
        let now = self.inner.clock.now();
        let Some(rest) = next.rest.first() else {
            return Release {
                releasing: true,
                ..Release::default()
            };
        };
        let invocations = if throttled { 0 } else { 1 };
        Release {
            releasing: true,
            attempts: rest.attempts,
            invocations: match rest.records.start {
                0 => job.part.invocations + invocations,
                _ => u32::from(rest.attempts > 0),
            },
            not_before: now.plus(if throttled { backoff(1) } else { rest.delay }),
            request_id: match rest.unchanged {
                true => job.part.request_id.clone(),
                false => String::new(),
            },
            // A batch that is tried unchanged, or in parts, stays as it was cut.
            limit: match rest.unchanged || next.rest.len() > 1 {
                true => rest.records.len() as u32,
                false => 0,
            },
        }
    }

    /// Takes what is done off the head of the side log. `None`: the key is gone.
    fn settle(
        &self,
        tx: &mut Tx,
        key: &ParkedKey,
        head: &Head,
        settled: &Settled,
    ) -> Option<Option<ParkedKey>> {
        let (mut now, revision) = self.parked.get(&key.key)?;
        self.parked.expect(tx, &key.key, revision);
        let done_bytes: usize = head
            .batch
            .iter()
            .take(settled.done)
            .map(|r| r.payload_bytes())
            .sum();
        now.records -= (settled.done as u64).min(now.records);
        now.bytes -= (done_bytes as u64).min(now.bytes);
        if settled.done > 0 {
            // The runs that the batch was made of go; what is left of them is one run.
            let touched = head.runs + u64::from(!head.left.is_empty());
            let mut rest = head.batch.cut(settled.done..head.batch.len());
            rest.append(&head.left);
            let last = now.first_run + touched - 1;
            for run in now.first_run..=last {
                let run_key = self.parked.run_key(&key.key, run);
                let value = match rest.is_empty() || run < last {
                    true => Value::Delete,
                    false => Value::Blob(Bytes::from(rest.to_stored())),
                };
                tx.writes.push((run_key, value));
            }
            now.first_run = if rest.is_empty() { last + 1 } else { last };
        }
        now.release = settled.release.clone();
        if let Some(why) = &settled.why {
            now.reason.clone_from(why);
        }
        let left = (now.records > 0).then_some(now);
        self.parked.write(tx, &key.key, left.as_ref());
        Some(left)
    }
}

/// What an attempt changes in a key.
struct Settled {
    done: usize,
    release: Release,
    why: Option<String>,
}
