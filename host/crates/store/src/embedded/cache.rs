//! The newest blocks of all shards, so that a reader right behind the head needs no disk. They
//! share the producers' bytes.

use std::collections::{HashMap, VecDeque};

use shardmill_core::block::INDEX_ENTRY_BYTES;
use shardmill_core::{Block, ShardKey};

use crate::ReadLimit;
use crate::select::Cut;

/// Blocks in memory: of each shard a run that reaches to its end.
#[derive(Debug)]
pub(super) struct TailCache {
    limit_bytes: usize,
    bytes: usize,
    blocks: usize,
    shards: HashMap<ShardKey, VecDeque<Block>>,
    /// All blocks from the oldest to the newest; those that were dropped meanwhile too.
    order: VecDeque<(ShardKey, u64)>,
}

/// Memory that a block takes beside its bytes, about.
const BLOCK_BYTES: usize = 256;

/// Entries of dropped blocks that are kept in the order before it is cleaned.
const STALE_ENTRIES: usize = 1024;

fn size(block: &Block) -> usize {
    block.blob_bytes() + block.count() as usize * INDEX_ENTRY_BYTES + BLOCK_BYTES
}

impl TailCache {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            bytes: 0,
            blocks: 0,
            shards: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Adds the newest block of a shard.
    pub(super) fn push(&mut self, shard: ShardKey, block: Block) {
        let run = self.shards.get(&shard);
        let last = run.and_then(VecDeque::back);
        if last.is_some_and(|last| last.end() != block.first()) {
            self.forget(shard);
        }
        let run = self.shards.entry(shard).or_default();
        self.bytes += size(&block);
        self.blocks += 1;
        self.order.push_back((shard, block.first()));
        run.push_back(block);
        while self.bytes > self.limit_bytes
            && let Some((shard, first)) = self.order.pop_front()
        {
            self.drop_front(shard, |block| block.first() == first);
        }
        if self.order.len() > STALE_ENTRIES + 2 * self.blocks {
            let shards = &self.shards;
            self.order.retain(|(shard, first)| {
                let run = shards.get(shard).and_then(VecDeque::front);
                run.is_some_and(|oldest| oldest.first() <= *first)
            });
        }
    }

    /// Forgets blocks that end at `before` or earlier.
    pub(super) fn trim(&mut self, shard: ShardKey, before: u64) {
        while self.drop_front(shard, |block| block.end() <= before) {}
    }

    /// Forgets a shard.
    pub(super) fn forget(&mut self, shard: ShardKey) {
        while self.drop_front(shard, |_| true) {}
    }

    /// The blocks of a read, if the run reaches back to `from`.
    pub(super) fn read(&self, shard: ShardKey, from: u64, limit: ReadLimit) -> Option<Vec<Block>> {
        let run = self.shards.get(&shard)?;
        if run.front()?.first() > from {
            return None;
        }
        let start = run.partition_point(|block| block.end() <= from);
        let mut cut = Cut::new(from, limit);
        let blocks = run
            .range(start..)
            .take_while(|block| cut.takes(block.first(), block.end(), block.blob_bytes()));
        Some(blocks.cloned().collect())
    }

    fn drop_front(&mut self, shard: ShardKey, when: impl FnOnce(&Block) -> bool) -> bool {
        let Some(run) = self.shards.get_mut(&shard) else {
            return false;
        };
        let Some(block) = run.pop_front_if(|block| when(block)) else {
            return false;
        };
        self.bytes -= size(&block);
        self.blocks -= 1;
        if run.is_empty() {
            self.shards.remove(&shard);
        }
        true
    }
}
