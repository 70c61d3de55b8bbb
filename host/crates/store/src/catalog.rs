//! Streams, their names, and where each shard begins and ends: small enough to be held in memory
//! whole. The writer keeps one that is ahead of the disk, readers see one that is not.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use shardmill_core::{Scope, Shard, ShardKey, Stream, StreamId, StreamName, UnixMillis};

use crate::resolved::StreamSet;
use crate::tx::Trim;

/// Both ends of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The first position that is not trimmed, at least 1.
    pub(crate) floor: u64,
    /// The position that the next record gets, at least `floor`.
    pub(crate) next: u64,
    /// When the newest record arrived; the shard's creation before there is any.
    pub(crate) arrival: UnixMillis,
}

impl Tail {
    /// The ends of a shard that never had a record.
    pub(crate) fn of_new(shard: &Shard) -> Self {
        Self {
            floor: 1,
            next: 1,
            arrival: UnixMillis(shard.created_seconds.saturating_mul(1000)),
        }
    }
}

/// What a transaction means for the catalog. Applied in the order of the fields.
#[derive(Clone, Debug)]
pub(crate) struct Change<'a> {
    /// Revision of the newest transaction in it.
    pub(crate) revision: u64,
    /// Streams.
    pub(crate) streams: &'a [StreamSet],
    /// New ends of shards, the last one of a shard being the highest.
    pub(crate) ends: Vec<End>,
    /// New beginnings of shards.
    pub(crate) trims: &'a [Trim],
}

/// Where a shard ends from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The shard.
    pub(crate) shard: ShardKey,
    /// The position that the next record gets.
    pub(crate) next: u64,
    /// When the newest record arrived.
    pub(crate) arrival: UnixMillis,
}

/// All streams and shards.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    streams: HashMap<StreamId, Arc<Stream>>,
    names: BTreeMap<Scope, BTreeMap<StreamName, StreamId>>,
    tails: HashMap<ShardKey, Tail>,
    next_stream: u64,
    revision: u64,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            streams: HashMap::new(),
            names: BTreeMap::new(),
            tails: HashMap::new(),
            next_stream: 1,
            revision: 0,
        }
    }
}

impl Catalog {
    /// The catalog that was saved as these parts.
    pub(crate) fn restore(
        streams: impl IntoIterator<Item = Arc<Stream>>,
        tails: impl IntoIterator<Item = (ShardKey, Tail)>,
        next_stream: u64,
        revision: u64,
    ) -> Self {
        let mut catalog = Self {
            next_stream: next_stream.max(1),
            revision,
            ..Self::default()
        };
        for stream in streams {
            catalog.put_stream(&stream, &mut Vec::new());
        }
        catalog.tails.extend(tails);
        catalog
    }

    /// The stream with this id.
    pub(crate) fn stream(&self, id: StreamId) -> Option<&Arc<Stream>> {
        self.streams.get(&id)
    }

    /// The id of the stream with this name.
    pub(crate) fn named(&self, scope: &Scope, name: &StreamName) -> Option<StreamId> {
        self.names.get(scope)?.get(name).copied()
    }

    /// The streams of a scope, or of all, by scope and name.
    pub(crate) fn streams(&self, scope: Option<&Scope>) -> Vec<Arc<Stream>> {
        let ids: Vec<StreamId> = match scope {
            Some(scope) => self
                .names
                .get(scope)
                .into_iter()
                .flat_map(|names| names.values().copied())
                .collect(),
            None => self
                .names
                .values()
                .flat_map(|names| names.values().copied())
                .collect(),
        };
        ids.iter()
            .filter_map(|id| self.streams.get(id).cloned())
            .collect()
    }

    /// The ends of a shard.
    pub(crate) fn tail(&self, shard: ShardKey) -> Option<Tail> {
        self.tails.get(&shard).copied()
    }

    /// The id that the next new stream gets.
    pub(crate) fn next_stream(&self) -> u64 {
        self.next_stream
    }

    /// The revision of the newest transaction; 0 before the first.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Applies a transaction, or several in one, and gives the shards that are gone.
    pub(crate) fn apply(&mut self, change: &Change<'_>) -> Vec<ShardKey> {
        self.revision = self.revision.max(change.revision);
        let mut gone = Vec::new();
        for set in change.streams {
            match set {
                StreamSet::Put(stream) => self.put_stream(stream, &mut gone),
                StreamSet::Remove(id) => self.remove_stream(*id, &mut gone),
            }
        }
        for end in &change.ends {
            if let Some(tail) = self.tails.get_mut(&end.shard) {
                tail.next = end.next;
                tail.arrival = end.arrival;
            }
        }
        for trim in change.trims {
            if let Some(tail) = self.tails.get_mut(&trim.shard) {
                tail.floor = tail.floor.max(trim.before);
            }
        }
        gone
    }

    fn put_stream(&mut self, stream: &Arc<Stream>, gone: &mut Vec<ShardKey>) {
        self.next_stream = self.next_stream.max(stream.id.0 + 1);
        if let Some(old) = self.streams.insert(stream.id, Arc::clone(stream)) {
            for shard in &old.shards {
                if stream.shard(shard.id).is_none() {
                    self.tails.remove(&key(&old, shard));
                    gone.push(key(&old, shard));
                }
            }
        } else {
            self.names
                .entry(stream.scope.clone())
                .or_default()
                .insert(stream.name.clone(), stream.id);
        }
        for shard in &stream.shards {
            self.tails
                .entry(key(stream, shard))
                .or_insert_with(|| Tail::of_new(shard));
        }
    }

    fn remove_stream(&mut self, id: StreamId, gone: &mut Vec<ShardKey>) {
        let Some(stream) = self.streams.remove(&id) else {
            return;
        };
        for shard in &stream.shards {
            self.tails.remove(&key(&stream, shard));
            gone.push(key(&stream, shard));
        }
        if let Some(names) = self.names.get_mut(&stream.scope) {
            if names.get(&stream.name) == Some(&id) {
                names.remove(&stream.name);
            }
            if names.is_empty() {
                self.names.remove(&stream.scope);
            }
        }
    }
}

fn key(stream: &Stream, shard: &Shard) -> ShardKey {
    ShardKey {
        stream: stream.id,
        shard: shard.id,
    }
}
