//! Keeps one poller per mapping and shard, one releaser per mapping whose parked keys go on, and
//! one runner per mapping that has a shadow: starts them when a mapping or a shard appears, stops them when it goes, and lets a child shard
//! begin only when its parents are done. A mapping that is being deleted goes when nothing of it
//! runs any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use shardmill_core::mapping::{Cursor, Position};
use shardmill_core::{ShardId, ShardKey, Stream};
use shardmill_store::{Expect, Key, ReadError, Seek, Table, Tx, Urgency, Value};
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;

use super::poller::{End, Poller};
use super::release::Releaser;
use super::resource::{Inner, Mapping, cursor_key, mapping_key, shards_in_order};
use super::shadow;
use crate::functions::to_json;

/// Wait before mappings that could not be read are read again.
const RETRY: Duration = Duration::from_secs(1);

/// A mapping's id and what of it runs.
pub(super) type WorkerId = (String, Worker);

/// What runs for a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worker {
    /// The poller of a shard.
    Poller(ShardId),
    /// The releaser of its parked keys.
    Releaser,
    /// The runner of its shadow.
    Shadow,
}

impl Worker {
    /// No worker of a mapping comes before it.
    const FIRST: Self = Self::Poller(ShardId(0));
}

/// A worker that runs: the mapping it was started with, and how to stop it.
struct Running {
    mapping: Arc<Mapping>,
    stop: CancellationToken,
}

/// How far a shard is.
enum Progress {
    /// There is something to do, or will be.
    Open,
    /// Closed and read to its end.
    Finished,
    /// It has no cursor, and none could be made now.
    Unknown,
}

/// A task that ended, and what it came to.
type Joined = Result<(task::Id, End), task::JoinError>;

struct Supervisor {
    inner: Arc<Inner>,
    kill: CancellationToken,
    running: BTreeMap<WorkerId, Running>,
    tasks: JoinSet<End>,
    /// Whose task each is.
    ids: HashMap<task::Id, WorkerId>,
    /// Shards that are read to their end, by mapping and its epoch, so that nobody looks again.
    finished: BTreeSet<(String, u64, ShardId)>,
    /// Whether a shard has no cursor because none could be made.
    lacks_cursor: bool,
}

pub(super) async fn run(inner: Arc<Inner>, stop: CancellationToken, kill: CancellationToken) {
    let mut mappings = inner.changes.subscribe();
    let mut streams = inner.store.watch_streams();
    let mut supervisor = Supervisor {
        inner,
        kill,
        running: BTreeMap::new(),
        tasks: JoinSet::new(),
        ids: HashMap::new(),
        finished: BTreeSet::new(),
        lacks_cursor: false,
    };
    while !stop.is_cancelled() {
        mappings.borrow_and_update();
        streams.borrow_and_update();
        let reconciled = supervisor.reconcile().await;
        if let Err(error) = &reconciled {
            tracing::error!(%error, "mappings cannot be read; those that run go on");
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            Some(ended) = supervisor.tasks.join_next_with_id() => supervisor.all_ended(ended),
            () = tokio::time::sleep(RETRY), if reconciled.is_err() || supervisor.lacks_cursor => {}
            changed = mappings.changed() => if changed.is_err() { break },
            changed = streams.changed() => if changed.is_err() { break },
        }
    }
    for poller in supervisor.running.values() {
        poller.stop.cancel();
    }
    while let Some(ended) = supervisor.tasks.join_next_with_id().await {
        supervisor.ended(ended);
    }
}

impl Supervisor {
    /// Makes what runs agree with what is stored.
    async fn reconcile(&mut self) -> Result<(), ReadError> {
        let stored = self.inner.stored(&Key::table_prefix(Table::Mapping))?;
        let mut wanted = BTreeMap::new();
        self.lacks_cursor = false;
        for mapping in &stored {
            let mapping = Arc::new(mapping.clone());
            if !mapping.enabled || mapping.deleting {
                continue;
            }
            let stream = self.inner.store.stream_by_id(mapping.stream_id);
            let Some(stream) = stream.filter(|s| s.deleted.is_none()) else {
                continue;
            };
            for shard in self.startable(&mapping, &stream).await? {
                let id = (mapping.id.clone(), Worker::Poller(shard));
                wanted.insert(id, Arc::clone(&mapping));
            }
            if mapping.policy.shadow.is_some() {
                let id = (mapping.id.clone(), Worker::Shadow);
                wanted.insert(id, Arc::clone(&mapping));
            }
            if self.inner.parked_of(&mapping)?.has_releases() {
                wanted.insert((mapping.id.clone(), Worker::Releaser), mapping);
            }
        }
        // A worker whose mapping has changed is stopped; when it has ended, a new one starts.
        for (id, running) in &self.running {
            let same = wanted.get(id).is_some_and(|m| **m == *running.mapping);
            if !same {
                running.stop.cancel();
            }
        }
        for (id, mapping) in wanted {
            if !self.running.contains_key(&id) && !self.inner.is_dead(&id, &mapping) {
                self.start(id, mapping)?;
            }
        }
        let epochs: BTreeSet<(&str, u64)> =
            stored.iter().map(|m| (m.id.as_str(), m.epoch)).collect();
        self.finished
            .retain(|(id, epoch, _)| epochs.contains(&(id.as_str(), *epoch)));
        self.note_applied(stored).await
    }

    /// Notes of which mappings nothing old runs any more, and removes those that are to be
    /// deleted.
    async fn note_applied(&mut self, stored: Vec<Mapping>) -> Result<(), ReadError> {
        let mut applied = BTreeMap::new();
        for mapping in stored {
            let runs = mapping.enabled && !mapping.deleting;
            let mut workers = self.workers_of(&mapping.id);
            let settled = workers.all(|running| runs && *running.mapping == mapping);
            drop(workers);
            if settled {
                applied.insert(mapping.id.clone(), mapping);
            }
        }
        let deleted: Vec<Mapping> = applied.values().filter(|m| m.deleting).cloned().collect();
        self.inner.note_applied(applied);
        for mapping in deleted {
            if let Err(error) = self.inner.remove(&mapping).await {
                tracing::warn!(%error, mapping = mapping.name, "it is not deleted yet");
                return Err(ReadError::Io(error.to_string()));
            }
        }
        Ok(())
    }

    /// What runs of a mapping.
    fn workers_of(&self, mapping: &str) -> impl Iterator<Item = &Running> {
        let first = (mapping.to_owned(), Worker::FIRST);
        let workers = self.running.range(first..);
        workers
            .take_while(move |((id, _), _)| id == mapping)
            .map(|(_, running)| running)
    }

    /// The shards of a mapping that can be read now: not finished, with all parents done. A shard
    /// that appeared while the mapping ran begins at its first record.
    async fn startable(
        &mut self,
        mapping: &Mapping,
        stream: &Stream,
    ) -> Result<Vec<ShardId>, ReadError> {
        let mut startable = Vec::new();
        let mut done = BTreeSet::new();
        for shard in shards_in_order(stream) {
            let id = (mapping.id.clone(), mapping.epoch, shard);
            let parents = stream
                .shard(shard)
                .map(|s| s.parents.as_slice())
                .unwrap_or_default();
            let waits = parents
                .iter()
                .any(|p| stream.shard(*p).is_some() && !done.contains(p));
            #[cfg(test)]
            let waits = waits
                && !self
                    .inner
                    .has(super::sim::defect::Defect::ChildBeforeParent);
            if waits {
                continue;
            }
            let progress = match self.finished.contains(&id) {
                true => Progress::Finished,
                false => self.progress(mapping, stream, shard).await?,
            };
            match progress {
                Progress::Finished => {
                    done.insert(shard);
                    self.finished.insert(id);
                }
                Progress::Open => startable.push(shard),
                Progress::Unknown => self.lacks_cursor = true,
            }
        }
        Ok(startable)
    }

    /// How far a shard is. One that appeared while the mapping ran is given a cursor at its
    /// first record.
    async fn progress(
        &self,
        mapping: &Mapping,
        stream: &Stream,
        shard: ShardId,
    ) -> Result<Progress, ReadError> {
        let key = cursor_key(mapping, shard);
        let Some(stored) = self.inner.store.get(&key)? else {
            let cursor = Cursor::starting_at(Position::of(1));
            let tx = Tx {
                // A mapping that was deleted meanwhile must not come back.
                expect: vec![
                    Expect::Present(mapping_key(mapping)),
                    Expect::Revision(key.clone(), None),
                ],
                writes: vec![(key, Value::Inline(to_json(&cursor)))],
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            return Ok(match self.inner.store.commit(tx).await {
                Ok(_) => Progress::Open,
                Err(error) => {
                    tracing::warn!(%error, mapping = mapping.name, %shard, "no checkpoint was made");
                    Progress::Unknown
                }
            });
        };
        let closed = stream
            .shard(shard)
            .is_some_and(|s| s.closed_seconds.is_some());
        if !closed {
            return Ok(Progress::Open);
        }
        let Ok(cursor) = serde_json::from_slice::<Cursor>(&stored.value) else {
            // Its poller says so, and stands still.
            return Ok(Progress::Open);
        };
        let key = ShardKey {
            stream: stream.id,
            shard,
        };
        let end = self.inner.store.seek(key, Seek::Latest).await?;
        let finished =
            cursor.low().record >= end && cursor.has_no_parts() && cursor.window.is_none();
        Ok(if finished {
            Progress::Finished
        } else {
            Progress::Open
        })
    }

    fn start(&mut self, id: WorkerId, mapping: Arc<Mapping>) -> Result<(), ReadError> {
        let stop = CancellationToken::new();
        let (inner, kill) = (Arc::clone(&self.inner), self.kill.clone());
        let (stopped, of) = (stop.clone(), Arc::clone(&mapping));
        let running = Running { mapping, stop };
        let task = match id.1 {
            Worker::Poller(shard) => {
                let poller = Poller::new(inner, of, shard, stopped, kill)?;
                self.tasks.spawn(poller.run())
            }
            Worker::Releaser => {
                let releaser = Releaser::new(inner, of, stopped, kill)?;
                self.tasks.spawn(async move {
                    releaser.run().await;
                    End::Stopped
                })
            }
            Worker::Shadow => {
                let Some(runner) = shadow::Runner::new(inner, of, stopped) else {
                    return Ok(());
                };
                self.tasks.spawn(async move {
                    runner.run().await;
                    End::Stopped
                })
            }
        };
        self.ids.insert(task.id(), id.clone());
        self.running.insert(id, running);
        Ok(())
    }

    /// Takes note of a worker that ended, and of all that ended with it: a thousand pollers that
    /// stop together are worth one look at what is stored.
    fn all_ended(&mut self, first: Joined) {
        self.ended(first);
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.ended(ended);
        }
    }

    fn ended(&mut self, ended: Joined) {
        let task = match &ended {
            Ok((task, _)) => *task,
            Err(error) => error.id(),
        };
        let id = self.ids.remove(&task);
        let Some((id, running)) = id.and_then(|id| self.running.remove_entry(&id)) else {
            return;
        };
        match ended {
            Ok((_, End::Finished)) => {
                if let Worker::Poller(shard) = id.1 {
                    self.finished.insert((id.0, running.mapping.epoch, shard));
                }
            }
            Ok((_, End::Stopped | End::Fenced)) => {}
            // A panic is a bug of ours. It stands still until somebody says otherwise, which is
            // safer than to run a bug again and again.
            Err(error) => {
                let mapping = &running.mapping;
                let why = format!(
                    "a bug in the host: {error}; it begins anew when the host is restarted, \
                     or the mapping is changed or resumed"
                );
                tracing::error!(mapping = mapping.name, worker = ?id.1, %error, "a worker died");
                self.inner.note_dead(id, mapping, &why);
            }
        }
    }
}
