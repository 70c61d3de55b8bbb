//! The loop of one mapping and one shard: read, invoke, decide, commit. Each lane has one batch
//! at a time; the loop is the only one that moves the shard's cursor.
//!
//! Every turn ends in one transaction that holds the progress, the effects and the retry state,
//! so a crash at any point repeats a batch whose effects were never visible, or nothing.

mod attempt;
mod conclude;
mod count;
mod gather;
mod give_up;
mod judge;
mod settle;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use shardmill_core::mapping::{Cursor, Lanes, Position};
use shardmill_core::sandbox::BoxFuture;
use shardmill_core::{ShardId, ShardKey, UnixMillis};
use shardmill_store::{CommitError, ReadError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::attempt::Ended;
pub(super) use self::attempt::{InvocationOf, Job, Place, limits_of};
pub(super) use self::gather::MAX_PARKABLE_BYTES;
pub(super) use self::judge::Judging;
use super::filters::Filters;
use super::in_flight::InFlight;
use super::metrics::{MappingMetrics, ShardMetrics};
use super::parked::ParkedKeys;
use super::resource::{Inner, Mapping, cursor_key};
use super::shadow::MappingShadow;
use super::source::Source;
use crate::clock::Clock;
use crate::functions::{FunctionError, Ready};

/// How often the disk's free space is asked for.
const FULL_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Wait after an error of the store or a missing function, before looking again.
const TROUBLE_WAIT: Duration = Duration::from_secs(1);

/// How long progress over records that nobody was invoked for may stay in memory.
const PROGRESS_DELAY: Duration = Duration::from_secs(1);

/// Never.
const FOREVER: UnixMillis = UnixMillis(u64::MAX);

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
    /// The last batch's records found no room under the tenant's quota, and would find none now.
    NoRoom(u64),
    Read(ReadError),
    Function(FunctionError),
    Commit(CommitError),
    /// The poller has come to its end.
    Ended(End),
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
            Self::NoRoom(bytes) => write!(
                f,
                "the tenant's quota of stored bytes has no room for the {bytes} bytes that the \
                 batch emits: have it raised, or shorten a stream's retention"
            ),
            Self::Read(error) => error.fmt(f),
            Self::Function(error) => error.fmt(f),
            Self::Commit(error) => error.fmt(f),
            Self::Ended(end) => write!(f, "{end:?}"),
        }
    }
}

pub(super) struct Poller {
    inner: Arc<Inner>,
    mapping: Arc<Mapping>,
    source: Source,
    metrics: Arc<MappingMetrics>,
    counts: Arc<ShardMetrics>,
    /// By lane: records before it were sent to the function, or ended without.
    begun: Vec<Position>,
    parked: Arc<ParkedKeys>,
    shadow: Option<Arc<MappingShadow>>,
    filters: Filters,
    stop: CancellationToken,
    kill: CancellationToken,
    cursor: Cursor,
    revision: u64,
    lanes: Lanes,
    /// A lane's batch that is formed and not running: it waits for room, a break, or its turn.
    held: Vec<Option<Job>>,
    running: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// When the first record of a lane's first part grows too old.
    expiry: Vec<Option<(Position, UnixMillis)>>,
    /// The versions whose carriers the gathered batches were measured for.
    measured: Option<Arc<Ready>>,
    notes: InFlight,
    full: bool,
    /// Bytes that the last batch emitted, and the tenant's quota had no room for.
    short: Option<u64>,
    full_checked: UnixMillis,
    /// Since when there is progress that is not committed.
    unsaved: Option<UnixMillis>,
    /// Nothing is begun before: the store or the function gave trouble.
    rest_until: UnixMillis,
}

/// What wakes a poller beside its own timers.
struct Wakes {
    appended: watch::Receiver<u64>,
    streams: watch::Receiver<u64>,
    changes: watch::Receiver<u64>,
}

/// What a turn of the loop waits for.
struct Wait {
    /// At the latest until then.
    until: UnixMillis,
    /// Whether appended records matter: a lane is free.
    records: bool,
}

impl Poller {
    pub(super) fn new(
        inner: Arc<Inner>,
        mapping: Arc<Mapping>,
        shard: ShardId,
        stop: CancellationToken,
        kill: CancellationToken,
    ) -> Result<Self, ReadError> {
        let shard = ShardKey {
            stream: mapping.stream_id,
            shard,
        };
        let source = Source {
            store: Arc::clone(&inner.store),
            shard,
            deaggregate: mapping.policy.deaggregate,
        };
        let cursor = Cursor::starting_at(Position::of(1));
        let metrics = inner.metrics_of(&mapping.id);
        let counts = metrics.shard(shard.shard);
        counts.begin();
        Ok(Self {
            metrics,
            counts,
            begun: Vec::new(),
            parked: inner.parked_of(&mapping)?,
            shadow: inner.shadow_of(&mapping),
            filters: inner.filters.of(&mapping).map_err(ReadError::Damaged)?,
            lanes: Lanes::new(&cursor, inner.clock.now()),
            cursor,
            revision: 0,
            held: Vec::new(),
            running: FuturesUnordered::new(),
            expiry: Vec::new(),
            measured: None,
            notes: InFlight::open(inner.notes.as_deref(), &mapping.id, shard),
            full: false,
            short: None,
            full_checked: UnixMillis(0),
            unsaved: None,
            rest_until: UnixMillis(0),
            inner,
            mapping,
            source,
            stop,
            kill,
        })
    }

    pub(super) async fn run(mut self) -> End {
        match self.load() {
            Ok(None) => {}
            Ok(Some(reason)) => return self.stand_still(&reason).await,
            Err(Trouble::Ended(end)) => return end,
            Err(trouble) => {
                self.report(&trouble);
                self.sleep(TROUBLE_WAIT).await;
                return End::Fenced;
            }
        }
        match self.poll().await {
            Ok(never) => match never {},
            Err(Trouble::Ended(end)) => end,
            Err(trouble) => {
                self.report(&trouble);
                self.stand_still("the store failed: restart the host").await
            }
        }
    }

    /// Takes over what is stored. Gives the reason when the shard stands still.
    fn load(&mut self) -> Result<Option<String>, Trouble> {
        let key = cursor_key(&self.mapping, self.source.shard.shard);
        let Some(stored) = self.inner.store.get(&key)? else {
            // The mapping was deleted meanwhile.
            return Err(Trouble::Ended(End::Stopped));
        };
        self.revision = stored.revision;
        match serde_json::from_slice(&stored.value) {
            Ok(cursor) => self.cursor = cursor,
            Err(error) => return Ok(Some(format!("its checkpoint is damaged: {error}"))),
        }
        #[cfg(test)]
        self.inner.forget_marks(&mut self.cursor);
        #[cfg(test)]
        self.inner.forget_attempts(&mut self.cursor);
        if let Some(paused) = self.cursor.paused.clone() {
            let running = self.running_numbers();
            if running.is_none_or(|running| running.contains(&paused.version)) {
                return Ok(Some(paused.reason));
            }
            // A new version of the function: what the old one could not do is tried again.
            self.cursor.resume();
        }
        self.set_lanes();
        Ok(None)
    }

    /// Lanes as the cursor has them; as many as the mapping wants where they have met.
    fn set_lanes(&mut self) {
        #[cfg(test)]
        self.inner
            .force_lanes(&mut self.cursor, self.mapping.policy.parallelization_factor);
        self.cursor.relane(self.wanted_lanes());
        let count = self.cursor.lanes.len();
        self.lanes = Lanes::new(&self.cursor, self.inner.clock.now());
        self.held = (0..count).map(|_| None).collect();
        self.expiry = vec![None; count];
        self.begun = self.cursor.lanes.iter().map(|lane| lane.mark).collect();
    }

    fn wanted_lanes(&self) -> usize {
        self.mapping.policy.parallelization_factor.max(1) as usize
    }

    /// Turns until the poller comes to its end.
    async fn poll(&mut self) -> Result<std::convert::Infallible, Trouble> {
        let clock = self.inner.clock;
        let store = &self.inner.store;
        let mut wakes = Wakes {
            appended: store.subscribe(self.source.shard)?,
            streams: store.watch_streams(),
            changes: self.inner.watch(&self.mapping.id),
        };
        loop {
            let stopping = self.stop.is_cancelled();
            if stopping && self.running.is_empty() {
                self.save_progress().await.ok();
                return Err(Trouble::Ended(End::Stopped));
            }
            let wait = match stopping {
                true => Ok(Wait {
                    until: FOREVER,
                    records: false,
                }),
                false => self.turn(&mut wakes).await,
            };
            let wait = match wait {
                Ok(wait) => wait,
                Err(trouble) => self.rest(trouble)?,
            };
            tokio::select! {
                biased;
                () = self.kill.cancelled() => return Err(Trouble::Ended(End::Stopped)),
                Some(ended) = self.running.next(), if !self.running.is_empty() => {
                    if let Err(trouble) = self.conclude(ended).await {
                        self.rest(trouble)?;
                    }
                }
                () = self.stop.cancelled(), if !stopping => {}
                changed = wakes.changes.changed(), if !stopping => {
                    if changed.is_err() { return Err(Trouble::Ended(End::Stopped)) }
                    if let Err(trouble) = self.check_fence() {
                        self.rest(trouble)?;
                    }
                }
                changed = wakes.appended.changed(), if wait.records => {
                    if changed.is_err() { return Err(Trouble::Ended(End::Stopped)) }
                }
                changed = wakes.streams.changed(), if wait.records => {
                    if changed.is_err() { return Err(Trouble::Ended(End::Stopped)) }
                }
                () = until(clock, wait.until), if !stopping => {}
            }
        }
    }

    /// Reports trouble and rests, unless the poller has to end with it.
    fn rest(&mut self, trouble: Trouble) -> Result<Wait, Trouble> {
        if let Trouble::Ended(_) | Trouble::Commit(CommitError::Unknown(_)) = trouble {
            return Err(trouble);
        }
        self.report(&trouble);
        self.rest_until = self.inner.clock.now().plus(TROUBLE_WAIT);
        Ok(Wait {
            until: self.rest_until,
            records: false,
        })
    }

    /// Begins again from what is stored if somebody else has changed the cursor.
    fn check_fence(&self) -> Result<(), Trouble> {
        let key = cursor_key(&self.mapping, self.source.shard.shard);
        match self.inner.store.get(&key)? {
            Some(stored) if stored.revision == self.revision => Ok(()),
            Some(_) => Err(Trouble::Ended(End::Fenced)),
            None => Err(Trouble::Ended(End::Stopped)),
        }
    }

    /// Waits to be stopped: a change of the mapping, of its function or of the cursor by hand
    /// starts a new poller.
    async fn stand_still(&mut self, reason: &str) -> End {
        let (mapping, shard) = (&self.mapping.name, self.source.shard.shard);
        tracing::warn!(mapping, %shard, reason, "paused");
        let mut changes = self.inner.watch(&self.mapping.id);
        let mut functions = self.inner.functions.watch();
        let running = self.running_numbers();
        loop {
            match self.check_fence() {
                Ok(()) => {}
                Err(Trouble::Ended(end)) => return end,
                Err(trouble) => {
                    self.report(&trouble);
                    self.sleep(TROUBLE_WAIT).await;
                    return End::Fenced;
                }
            }
            if self.running_numbers() != running {
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

    /// The versions that the mapping runs now.
    fn running_numbers(&self) -> Option<Vec<u64>> {
        let running = self.inner.running(&self.mapping);
        running.ok().map(|running| running.route.numbers())
    }

    /// Whether what the last batch emitted, and the quota had no room for, has found none yet.
    fn lacks_room(&mut self) -> Option<u64> {
        let tenant = self.mapping.scope.tenant;
        let has_room = |bytes: &u64| self.inner.store.has_room(tenant, *bytes);
        self.short = self.short.filter(|bytes| !has_room(bytes));
        self.short
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

    async fn sleep(&mut self, span: Duration) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(span) => {}
        }
    }

    fn report(&self, trouble: &Trouble) {
        self.metrics.set_last_result(&format!("PROBLEM: {trouble}"));
        self.counts
            .set_last_error(self.inner.clock.now(), &trouble.to_string());
        let (mapping, shard) = (&self.mapping.name, self.source.shard.shard);
        tracing::warn!(mapping, %shard, %trouble, "the shard waits");
    }
}

async fn until(clock: Clock, instant: UnixMillis) {
    if instant == FOREVER {
        std::future::pending().await
    } else {
        clock.sleep_until(instant).await;
    }
}
