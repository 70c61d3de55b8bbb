//! What the threads and the readers share. Everything in [`State`] is durable. Its lock is held
//! for moments, never across I/O.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use shardmill_core::{Block, Scope, ShardKey, Stream, StreamId, StreamName};
use tokio::sync::watch;

use super::Options;
use super::cache::TailCache;
use super::sums::Sums;
use crate::catalog::Catalog;
use crate::journal::{Journal, Position};
use crate::layer::{Layer, Stored, StoredValue, Written};
use crate::tables::Tables;
use crate::visible::Visible;
use crate::{Key, ReadError, Stats, Versioned};

/// The journal, the tables, and what lies above them.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) journal: Journal,
    pub(super) tables: Tables,
    pub(super) options: Options,
    pub(super) counts: Counts,
    state: Mutex<State>,
    changed: Condvar,
    /// Revision of the last transaction that readers see.
    shown: AtomicU64,
    failure: watch::Sender<Option<Arc<str>>>,
}

/// What readers see above the tables.
#[derive(Debug)]
pub(super) struct State {
    pub(super) visible: Visible,
    /// Groups since `frozen`.
    pub(super) active: Layer,
    /// What is being written to the tables.
    pub(super) frozen: Option<Arc<Layer>>,
    pub(super) cache: TailCache,
    /// Bytes between positions that were asked for.
    pub(super) sums: Sums,
    /// Everything before this is in the tables, if they are not lost in a crash.
    pub(super) applied: Position,
    /// How the tables' thread is to end.
    pub(super) stop: Option<Stop>,
}

/// How the tables' thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// With durable tables.
    Orderly,
    /// As it is: the next start reads the journal.
    AtOnce,
}

/// Figures since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) groups: AtomicU64,
    pub(super) transactions: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) frame_bytes: AtomicU64,
}

impl State {
    pub(super) fn new(
        visible: Visible,
        active: Layer,
        applied: Position,
        cache_bytes: usize,
    ) -> Self {
        Self {
            visible,
            active,
            frozen: None,
            cache: TailCache::new(cache_bytes),
            sums: Sums::default(),
            applied,
            stop: None,
        }
    }
}

/// Memory of layers beyond which groups wait for the tables, as a multiple of a layer's.
const LAYERS_AHEAD: usize = 16;

impl Shared {
    pub(super) fn new(journal: Journal, tables: Tables, state: State, options: Options) -> Self {
        Self {
            journal,
            tables,
            options,
            counts: Counts::default(),
            shown: AtomicU64::new(state.visible.catalog().revision()),
            state: Mutex::new(state),
            changed: Condvar::new(),
            failure: watch::Sender::new(None),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a synced group visible.
    pub(super) fn show(&self, group: &Written<'_>, blocks: Vec<(ShardKey, Block)>) {
        let mut state = self.state();
        let State {
            visible,
            active,
            cache,
            sums,
            ..
        } = &mut *state;
        let was_empty = active.is_empty();
        let gone = visible.apply(&group.contents.change());
        active.add(group, visible.catalog(), &gone);
        for (shard, block) in blocks {
            if visible.catalog().tail(shard).is_some() {
                cache.push(shard, block);
            }
        }
        for trim in &group.contents.trims {
            cache.trim(trim.shard, trim.before);
        }
        for shard in gone {
            cache.forget(shard);
            sums.forget(shard);
        }
        self.shown.store(group.contents.revision, Ordering::Release);
        if was_empty || self.is_due(active) {
            self.changed.notify_all();
        }
    }

    /// Whether a layer has to go to the tables now.
    pub(super) fn is_due(&self, layer: &Layer) -> bool {
        layer.memory_bytes >= self.options.layer_bytes
            || layer.frame_bytes >= self.options.table_sync_bytes
    }

    /// Revision of the last transaction that readers see.
    pub(super) fn shown(&self) -> u64 {
        self.shown.load(Ordering::Acquire)
    }

    /// A copy of the catalog as readers see it.
    pub(super) fn catalog(&self) -> Catalog {
        self.state().visible.catalog().clone()
    }

    /// Waits for a change of the state, if `ready` is not so yet, at most until `timeout`.
    pub(super) fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        timeout: Option<std::time::Duration>,
        ready: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waits = |state: &mut State| !ready(state);
        match timeout {
            None => self
                .changed
                .wait_while(state, waits)
                .unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.changed.wait_timeout_while(state, timeout, waits);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Wakes whoever waits for a change of the state.
    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Waits while the tables are far behind.
    pub(super) fn wait_for_tables(&self) {
        let limit = self.options.layer_bytes.saturating_mul(LAYERS_AHEAD);
        let state = self.state();
        if state.active.memory_bytes > limit {
            drop(self.wait(state, None, |state| {
                state.active.memory_bytes <= limit || self.has_failed()
            }));
        }
    }

    /// Ends the tables' thread.
    pub(super) fn stop_tabler(&self, orderly: bool) {
        self.state().stop = Some(if orderly { Stop::Orderly } else { Stop::AtOnce });
        self.notify();
    }

    /// The store is of no more use in this process.
    pub(super) fn fail(&self, why: &str) {
        let first = self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert_with(|| why.into());
            first
        });
        if first {
            tracing::error!("the store failed, restart the process: {why}");
        }
        drop(self.state());
        self.notify();
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    pub(super) fn failure(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.failure.subscribe()
    }

    pub(super) fn subscribe(&self, shard: ShardKey) -> Result<watch::Receiver<u64>, ReadError> {
        self.state().visible.subscribe(shard)
    }

    pub(super) fn watch_streams(&self) -> watch::Receiver<u64> {
        self.state().visible.watch_streams()
    }

    pub(super) fn stream(&self, scope: &Scope, name: &StreamName) -> Option<Arc<Stream>> {
        let state = self.state();
        let catalog = state.visible.catalog();
        catalog
            .named(scope, name)
            .and_then(|id| catalog.stream(id).cloned())
    }

    pub(super) fn stream_by_id(&self, id: StreamId) -> Option<Arc<Stream>> {
        self.state().visible.catalog().stream(id).cloned()
    }

    pub(super) fn streams(&self, scope: Option<&Scope>) -> Vec<Arc<Stream>> {
        self.state().visible.catalog().streams(scope)
    }

    /// The value of a key, as it is stored.
    pub(super) fn stored(&self, key: &Key) -> Result<Option<Stored>, ReadError> {
        {
            let state = self.state();
            let frozen = state.frozen.as_deref();
            let found = [Some(&state.active), frozen]
                .into_iter()
                .flatten()
                .find_map(|layer| layer.keys.get(key));
            if let Some(found) = found {
                return Ok(found.clone());
            }
        }
        // What left the layers meanwhile is in the tables.
        self.tables.snapshot()?.value(key)
    }

    pub(super) fn get(&self, key: &Key) -> Result<Option<Versioned>, ReadError> {
        Ok(self.stored(key)?.map(versioned))
    }

    pub(super) fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, ReadError> {
        let start = after.map_or(prefix, |after| after.max(prefix));
        let is_after = |key: &Key| after.is_none_or(|after| key > after);
        let (above, snapshot) = {
            let state = self.state();
            let above = above_tables(&state, prefix, start, limit);
            (above, self.tables.snapshot()?)
        };
        let mut found = Vec::new();
        let mut above = above
            .into_iter()
            .filter(|(key, _)| is_after(key))
            .peekable();
        snapshot.values_from(prefix, start, |key, stored| {
            while found.len() < limit
                && let Some((key, stored)) = above.next_if(|(above, _)| *above < key)
            {
                found.extend(stored.map(|stored| (key, versioned(stored))));
            }
            if found.len() >= limit {
                return false;
            }
            match above.next_if(|(above, _)| *above == key) {
                Some((_, stored)) => found.extend(stored.map(|stored| (key, versioned(stored)))),
                None if is_after(&key) => found.push((key, versioned(stored))),
                None => {}
            }
            true
        })?;
        let rest = above.filter_map(|(key, stored)| Some((key, versioned(stored?))));
        found.extend(rest.take(limit.saturating_sub(found.len())));
        found.truncate(limit);
        Ok(found)
    }

    pub(super) fn stats(&self) -> Stats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            groups: count(&self.counts.groups),
            transactions: count(&self.counts.transactions),
            records: count(&self.counts.records),
            conflicts: count(&self.counts.conflicts),
            frame_bytes: count(&self.counts.frame_bytes),
            disk_bytes: self.journal.disk_bytes() + self.tables.disk_bytes(),
            full: self.journal.space().is_ok_and(|space| space.is_low()),
        }
    }
}

/// What the layers say about keys from `start` on, in order, as far as a scan of `limit` needs it.
fn above_tables(
    state: &State,
    prefix: &Key,
    start: &Key,
    limit: usize,
) -> Vec<(Key, Option<Stored>)> {
    let keys = |layer| Layer::keys_from(layer, prefix, start).peekable();
    let mut newer = keys(&state.active);
    let mut older = state.frozen.as_deref().map(keys);
    let mut above: Vec<(Key, Option<Stored>)> = Vec::new();
    let mut live = 0;
    while live <= limit {
        let next = match (newer.peek(), older.as_mut().and_then(|older| older.peek())) {
            (Some((new, _)), Some((old, _))) if old < new => {
                older.as_mut().and_then(Iterator::next)
            }
            (None, Some(_)) => older.as_mut().and_then(Iterator::next),
            (Some((new, _)), Some((old, _))) if old == new => {
                older.as_mut().and_then(Iterator::next);
                newer.next()
            }
            _ => newer.next(),
        };
        let Some((key, stored)) = next else { break };
        live += usize::from(stored.is_some());
        above.push((key.clone(), stored.clone()));
    }
    above
}

pub(super) fn versioned(stored: Stored) -> Versioned {
    Versioned {
        revision: stored.revision,
        value: match stored.value {
            StoredValue::Inline(bytes) => bytes,
            StoredValue::Blob(..) => Bytes::new(),
        },
    }
}
