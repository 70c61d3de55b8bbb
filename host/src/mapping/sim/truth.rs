//! What is durable, as nobody in the run can spoil it: how far shards are, and which keys are parked.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use shardmill_core::mapping::Cursor;
use shardmill_core::{Scope, ShardId, ShardKey, Stream};
use shardmill_store::{Key, Memory, Store, Table};

use crate::mapping::Mapping;
use crate::mapping::resource::cursor_key;

/// The store in memory, read past the host. Cheap to clone.
#[derive(Clone)]
pub(super) struct Truth {
    memory: Arc<Memory>,
    mapping: Arc<OnceLock<Mapping>>,
}

impl Truth {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        let mapping = Arc::default();
        Self { memory, mapping }
    }

    /// Says which mapping it is about.
    pub(super) fn is_about(&self, mapping: Mapping) {
        self.mapping.set(mapping).expect("one mapping");
    }

    pub(super) fn mapping(&self) -> &Mapping {
        self.mapping.get().expect("a mapping")
    }

    pub(super) fn stream(&self) -> Arc<Stream> {
        let id = self.mapping().stream_id;
        self.memory.stream_by_id(id).expect("a stream")
    }

    pub(super) fn cursor(&self, shard: ShardId) -> Option<Cursor> {
        let key = cursor_key(self.mapping(), shard);
        let found = self.memory.get(&key).expect("a store")?;
        serde_json::from_slice(&found.value).ok()
    }

    pub(super) fn cursors(&self) -> BTreeMap<ShardId, Cursor> {
        let stream = self.stream();
        let shards = stream.shards.iter().map(|shard| shard.id);
        shards
            .filter_map(|id| Some((id, self.cursor(id)?)))
            .collect()
    }

    /// Whether a shard is delivered to its end.
    pub(super) fn is_done(&self, shard: ShardId) -> bool {
        let stream = self.mapping().stream_id;
        let ends = self.memory.subscribe(ShardKey { stream, shard });
        let end = *ends.expect("a shard").borrow();
        let done = |c: Cursor| c.low().record >= end && c.has_no_parts() && c.window.is_none();
        self.cursor(shard).is_some_and(done)
    }

    pub(super) fn parents_done(&self, shard: ShardId) -> bool {
        let stream = self.stream();
        let mut parents = stream.shard(shard).into_iter().flat_map(|s| &s.parents);
        parents.all(|parent| self.is_done(*parent))
    }

    /// Whether the stream that handlers emit to is there.
    pub(super) fn has_target(&self) -> bool {
        let name = "out".parse().expect("a name");
        self.memory.stream(&Scope::default(), &name).is_some()
    }

    pub(super) fn is_parked(&self, key: &str) -> bool {
        let keys = Key::new(Table::ParkedKey, &Scope::default());
        let key = keys.part(&self.mapping().id).part(key);
        self.memory.get(&key).expect("a store").is_some()
    }
}
