//! Lets parked keys go on: their records are delivered from the side log, in order, by the same
//! function and under the same rules, one key after the other. What comes in for a key meanwhile
//! is put behind; the key is free when its side log is empty.
//!
//! When attempts end once more the key stays parked, with the record that failed at its head; so
//! it does when the process died over that record, and when the failure store has no room.

mod settle;

use std::sync::Arc;
use std::time::Duration;

use shardmill_core::event::{EMPTY_EVENT_BYTES, EventSource};
use shardmill_core::limits::MAX_EVENT_BYTES;
use shardmill_core::mapping::{Judgement, Part, Position, Reason, Span, backoff, cut};
use shardmill_core::{Batch, ShardId, UnixMillis};
use shardmill_store::{CommitError, ReadError};
use tokio_util::sync::CancellationToken;

use self::settle::{Concluded, Settled, housekeeping};
use super::in_flight::{DEATHS_BEFORE_SPLIT, InFlight, MAX_DEATHS};
use super::metrics::MappingMetrics;
use super::parked::{ParkedKey, ParkedKeys, Release, Turn};
use super::poller::{Job, MAX_PARKABLE_BYTES, Place};
use super::resource::{Inner, Mapping};
use crate::functions::{FunctionError, Loaded, Ready};

/// Wait after an error of the store or a missing function, before looking again.
const TROUBLE_WAIT: Duration = Duration::from_secs(1);

/// Wait before a key whose records cannot be read is looked at again: the others go on.
const DAMAGED_WAIT: Duration = Duration::from_secs(60);

/// Bytes that a packed record takes beside its key and data.
const PACKED_OVERHEAD_BYTES: usize = shardmill_core::abi::INDEX_ENTRY_BYTES;

/// Why a key was not delivered.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the disk is nearly full: free space, or trim streams")]
    Full,
    #[error(
        "the tenant's quota of stored bytes has no room for the {0} bytes that the batch emits: have \
         it raised, or shorten a stream's retention"
    )]
    NoRoom(u64),
    #[error("{0}")]
    StandsStill(String),
    #[error("records of the parked key {0:?} are damaged")]
    Damaged(String),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Function(#[from] FunctionError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Trouble {
    /// Whether it is one key's alone.
    fn is_of_key(&self) -> bool {
        match self {
            Self::Damaged(_) | Self::Read(_) => true,
            Self::Full
            | Self::NoRoom(_)
            | Self::StandsStill(_)
            | Self::Function(_)
            | Self::Commit(_) => false,
        }
    }
}

/// Delivers the keys of one mapping that are being let go on.
pub(super) struct Releaser {
    inner: Arc<Inner>,
    mapping: Arc<Mapping>,
    parked: Arc<ParkedKeys>,
    metrics: Arc<MappingMetrics>,
    notes: InFlight,
    stop: CancellationToken,
    kill: CancellationToken,
    /// Bytes that the last batch emitted, and the tenant's quota had no room for.
    short: Option<u64>,
}

/// The head of a key's side log.
struct Head {
    batch: Batch,
    /// Runs that the batch takes whole.
    runs: u64,
    /// What it leaves of the run behind them.
    left: Batch,
}

/// What is delivered.
struct Work<'a> {
    turn: &'a Turn,
    head: Head,
    job: Job,
    shard: ShardId,
    loaded: Arc<Loaded>,
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
            notes: InFlight::of_releaser(inner.notes.as_deref(), &mapping.id),
            short: None,
            inner,
            mapping,
            stop,
            kill,
        })
    }

    /// Runs until no key is being let go on any more.
    pub(super) async fn run(mut self) {
        while !self.stop.is_cancelled() {
            let now = self.inner.clock.now();
            let Some(turn) = self.parked.next_release() else {
                return;
            };
            if turn.at > now {
                tokio::select! {
                    biased;
                    () = self.sleep_until(turn.at) => {}
                    () = self.parked.released() => {}
                }
                continue;
            }
            if let Err(trouble) = self.deliver(&turn).await {
                if let Trouble::Commit(CommitError::Quota { bytes, .. }) = trouble {
                    self.short = Some(bytes);
                }
                self.metrics.set_last_result(&format!("PROBLEM: {trouble}"));
                let (mapping, key) = (&self.mapping.name, &turn.key.key);
                tracing::warn!(mapping, key, %trouble, "the parked key waits");
                if trouble.is_of_key() {
                    self.parked.put_off(key, now.plus(DAMAGED_WAIT));
                } else {
                    self.sleep_until(now.plus(TROUBLE_WAIT)).await;
                }
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
    async fn deliver(&mut self, turn: &Turn) -> Result<(), Trouble> {
        let scope = &self.mapping.scope;
        let running = self.inner.running(&self.mapping)?;
        if let Some((reason, _)) = running.stands_still {
            return Err(Trouble::StandsStill(reason));
        }
        let ready = self.inner.functions.ready(scope, &running.route).await?;
        let source = || EventSource::new(scope, self.mapping.stream.as_str());
        let measure = ready.takes_json().then(source);
        let mut work = self.work(turn, &ready, measure.as_ref()).await?;
        let json = work.loaded.carrier().takes_json().then(source);
        let place = Place {
            inner: Arc::clone(&self.inner),
            mapping: Arc::clone(&self.mapping),
            shard: work.shard,
            loaded: Arc::clone(&work.loaded),
            json,
            kill: self.kill.clone(),
            shadow: None,
        };
        let mut throttles = 0;
        while self.still_counts(&work) {
            if self.inner.store.stats().full {
                return Err(Trouble::Full);
            }
            let tenant = self.mapping.scope.tenant;
            let has_room = |bytes: &u64| self.inner.store.has_room(tenant, *bytes);
            self.short = self.short.filter(|bytes| !has_room(bytes));
            if let Some(bytes) = self.short {
                return Err(Trouble::NoRoom(bytes));
            }
            let now = self.inner.clock.now();
            if let Err(at) = self.metrics.admit(&self.mapping, now) {
                self.sleep_until(at).await;
                continue;
            }
            if self.after_deaths(&work).await? {
                return Ok(());
            }
            let attempt = place.attempt(&work.job).await;
            self.notes.end(0);
            let Some(mut attempt) = attempt else {
                return Ok(());
            };
            let counts = self.metrics.shard(work.shard);
            match self.conclude(&work, &mut attempt).await? {
                Concluded::Done => return Ok(()),
                Concluded::Conflict => {
                    counts.add(&counts.conflicts, 1);
                    work.job.conflicts += 1;
                }
                Concluded::Throttled => {
                    drop(attempt);
                    throttles += 1;
                    let until = self.inner.clock.now().plus(backoff(throttles));
                    self.sleep_until(until).await;
                }
            }
        }
        Ok(())
    }

    /// Whether what was read is still to be delivered, and by this version of the function.
    fn still_counts(&self, work: &Work<'_>) -> bool {
        let version = work.loaded.function.number();
        let running = self.inner.running(&self.mapping);
        let same = running.is_ok_and(|now| now.route.numbers().contains(&version));
        same && !self.stop.is_cancelled() && self.parked.drops() == work.turn.drops
    }

    /// What a key's turn is for.
    async fn work<'a>(
        &self,
        turn: &'a Turn,
        ready: &Ready,
        json: Option<&EventSource>,
    ) -> Result<Work<'a>, Trouble> {
        let key = &turn.key;
        let head = self.head(key, ready, json).await?;
        let Some(first) = head.batch.get(0) else {
            return Err(Trouble::Damaged(key.key.clone()));
        };
        let (from, shard) = (first.beginning(), first.shard());
        let to = head.batch.end_position().unwrap_or(from).max(from);
        let request_id = match key.release.request_id.as_str() {
            "" => self.inner.request_id(&self.mapping.scope),
            kept => kept.to_owned(),
        };
        let part = Part {
            attempts: key.release.attempts,
            invocations: key.release.invocations,
            doubted: key.release.doubted,
            ..Part::fresh(Span { from, to }, request_id)
        };
        let loaded = Arc::clone(ready.choose(&part.request_id));
        Ok(Work {
            turn,
            job: Job::new(part, head.batch.clone()),
            head,
            shard,
            loaded,
        })
    }

    /// Notes that a batch is about to run. One that was in flight in several process deaths is
    /// halved; a record that was in three keeps its key parked. Says whether it is not to run.
    async fn after_deaths(&mut self, work: &Work<'_>) -> Result<bool, Trouble> {
        let Position { record, sub } = work.job.part.span.from;
        // Positions of different shards are told apart.
        let record = record ^ (u64::from(work.shard.0) << 40);
        let deaths = self.notes.begin(0, Position { record, sub });
        let len = work.job.batch.len();
        let mut tx = housekeeping();
        let settled = if deaths >= DEATHS_BEFORE_SPLIT && len > 1 {
            self.notes.split(0);
            let release = Release {
                releasing: true,
                limit: len as u32 / 2,
                ..Release::default()
            };
            Settled {
                done: 0,
                release,
                why: None,
            }
        } else if deaths >= MAX_DEATHS {
            self.notes.end(0);
            let given_up = self.given_up(work, 0..len, Reason::ProcessDied, None);
            let why = format!("the host's process died {MAX_DEATHS} times over it");
            self.stays_parked(&mut tx, work, None, (given_up, why))
        } else {
            return Ok(false);
        };
        self.metrics.note_breaker(
            &self.mapping,
            &Judgement::Throttled(String::new()),
            self.inner.clock.now(),
        );
        self.settle(work, tx, &settled).await?;
        Ok(true)
    }

    /// Reads the head of a key's side log: at most a batch.
    async fn head(
        &self,
        key: &ParkedKey,
        ready: &Ready,
        json: Option<&EventSource>,
    ) -> Result<Head, Trouble> {
        let size = self.mapping.policy.batch_size as usize;
        let size = match key.release.limit {
            0 => size,
            limit => size.min(limit as usize),
        };
        let mut budget = match json {
            Some(_) => ready.batch_bytes().min(MAX_EVENT_BYTES - EMPTY_EVENT_BYTES),
            None => ready.batch_bytes().min(MAX_PARKABLE_BYTES),
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
}
