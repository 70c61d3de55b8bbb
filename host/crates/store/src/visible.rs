//! What readers see of streams and shards, and how they are woken. Holds only what is durable.

use std::collections::HashMap;

use shardmill_core::ShardKey;
use tokio::sync::watch;

use crate::ReadError;
use crate::catalog::{Catalog, Change, Tail};

/// The catalog with those who wait for it to change.
#[derive(Debug)]
pub(crate) struct Visible {
    catalog: Catalog,
    ends: HashMap<ShardKey, watch::Sender<u64>>,
    stream_changes: watch::Sender<u64>,
}

impl Visible {
    /// A catalog that nobody waits for yet.
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self {
            catalog,
            ends: HashMap::new(),
            stream_changes: watch::Sender::new(0),
        }
    }

    /// The streams and shards.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The ends of a shard.
    ///
    /// # Errors
    /// `NoSuchShard`.
    pub(crate) fn tail(&self, shard: ShardKey) -> Result<Tail, ReadError> {
        self.catalog
            .tail(shard)
            .ok_or(ReadError::NoSuchShard(shard))
    }

    /// Who is woken by appends to a shard.
    ///
    /// # Errors
    /// `NoSuchShard`.
    pub(crate) fn subscribe(&mut self, shard: ShardKey) -> Result<watch::Receiver<u64>, ReadError> {
        let next = self.tail(shard)?.next;
        let end = self.ends.entry(shard);
        Ok(end.or_insert_with(|| watch::Sender::new(next)).subscribe())
    }

    /// Who is woken by changes of streams.
    pub(crate) fn watch_streams(&self) -> watch::Receiver<u64> {
        self.stream_changes.subscribe()
    }

    /// Makes decided transactions visible and wakes whoever waits. Whatever readers find behind
    /// the new ends has to be in place before they can look. Gives the shards that are gone.
    pub(crate) fn apply(&mut self, change: &Change<'_>) -> Vec<ShardKey> {
        let gone = self.catalog.apply(change);
        for end in &change.ends {
            if let Some(waiting) = self.ends.get(&end.shard) {
                waiting.send_replace(end.next);
            }
        }
        if !change.streams.is_empty() {
            // A receiver of a shard that is gone sees its channel closed.
            self.ends
                .retain(|shard, _| self.catalog.tail(*shard).is_some());
            self.stream_changes.send_modify(|changes| *changes += 1);
        }
        gone
    }
}
