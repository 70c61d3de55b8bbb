//! Which shard takes a hash key: a stream's open shards as a sorted table, kept until the stream
//! changes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use shardmill_core::{HashKey, Shard, Stream, StreamId};

/// The open shards of one state of a stream, by the start of their range.
pub(crate) struct Routing {
    pub(crate) stream: Arc<Stream>,
    /// Start of each range, ascending, and the shard's place in `stream.shards`.
    starts: Vec<(HashKey, usize)>,
}

impl Routing {
    fn new(stream: Arc<Stream>) -> Self {
        let open = stream.shards.iter().enumerate();
        let open = open.filter(|(_, shard)| shard.closed_seconds.is_none());
        let mut starts: Vec<_> = open.map(|(at, shard)| (shard.range.start, at)).collect();
        starts.sort_unstable();
        Self { stream, starts }
    }

    /// How many open shards there are.
    pub(crate) fn count(&self) -> usize {
        self.starts.len()
    }

    /// The number, below [`count`](Self::count), of the open shard that takes `key`. Open shards
    /// tile the space, so there is one, unless a stream has none at all.
    pub(crate) fn slot(&self, key: HashKey) -> Option<usize> {
        let after = self.starts.partition_point(|(start, _)| *start <= key);
        after.checked_sub(1)
    }

    /// The shard with this number.
    pub(crate) fn shard(&self, slot: usize) -> &Shard {
        &self.stream.shards[self.starts[slot].1]
    }
}

/// The tables of the streams that were written to.
#[derive(Default)]
pub(crate) struct Routes(RwLock<HashMap<StreamId, Arc<Routing>>>);

impl Routes {
    /// The table of this state of the stream.
    pub(crate) fn of(&self, stream: &Arc<Stream>) -> Arc<Routing> {
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(routing) = kept.get(&stream.id)
            && Arc::ptr_eq(&routing.stream, stream)
        {
            return routing.clone();
        }
        drop(kept);
        let routing = Arc::new(Routing::new(stream.clone()));
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        kept.insert(stream.id, routing.clone());
        routing
    }

    /// Forgets a stream that is gone.
    pub(crate) fn forget(&self, stream: StreamId) {
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        kept.remove(&stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kinesis::tests::stream_of;

    #[test]
    fn every_key_goes_to_the_open_shard_whose_range_holds_it() {
        let mut stream = stream_of(7);
        stream.shards[2].closed_seconds = Some(9);
        let (low, high) = (stream.shards[2].range.start, stream.shards[2].range.end);
        for (id, start, end) in [(7, low, HashKey(low.0 + 5)), (8, HashKey(low.0 + 6), high)] {
            let mut child = stream.shards[2].clone();
            child.id = shardmill_core::ShardId(id);
            child.closed_seconds = None;
            child.range = shardmill_core::HashKeyRange { start, end };
            stream.shards.push(child);
        }
        let routing = Routing::new(Arc::new(stream));
        for shard in &routing.stream.shards {
            for key in [shard.range.start, shard.range.end] {
                let slot = routing.slot(key).expect("a shard");
                let want = routing.stream.open_shard(key).expect("a shard");
                assert_eq!(routing.shard(slot).id, want.id, "{key}");
            }
        }
    }
}
