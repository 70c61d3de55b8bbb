//! Sorting records by shard. Done by the caller's thread against the streams as readers see them,
//! so that the one writer only has to look whether that still holds.

use std::sync::Arc;

use shardmill_core::block::INDEX_ENTRY_BYTES;
use shardmill_core::{Records, ShardId, Stream, StreamId};

use crate::receipt::Sent;
use crate::resolved::Sums;
use crate::tx::{Append, CommitError, Route, StreamChange, Tx, Value};

/// A transaction whose records are sorted by shard.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The transaction, its appends taken out.
    pub(crate) tx: Tx,
    /// The appends, in order.
    pub(crate) appends: Vec<PreparedAppend>,
    /// What its producer sent, if it has a producer's mark.
    pub(crate) sent: Option<Sent>,
    /// Bytes that it takes in memory, and about as many on disk.
    pub(crate) bytes: u64,
}

/// One append.
#[derive(Debug)]
pub(crate) struct PreparedAppend {
    /// The stream.
    pub(crate) stream: StreamId,
    /// Its records.
    pub(crate) records: Sorted,
}

/// The records of one append.
#[derive(Debug)]
pub(crate) enum Sorted {
    /// All for one shard that the caller chose.
    Chosen(ShardId, Packed),
    /// By hash key.
    Hashed(Hashed),
}

/// Records with their checksums.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The records.
    pub(crate) records: Records,
    /// Their checksums.
    pub(crate) sums: Sums,
}

impl From<Records> for Packed {
    fn from(records: Records) -> Self {
        let sums = Sums::of(records.index(), records.blob());
        Self { records, sums }
    }
}

/// Records by shard, and how they were ordered before.
#[derive(Debug, Default)]
pub(crate) struct Hashed {
    /// The shards and what goes to each, in order.
    pub(crate) groups: Vec<(ShardId, Packed)>,
    /// For each record the index of its group.
    pub(crate) order: Vec<u32>,
}

impl Prepared {
    /// Sorts the records of a transaction. `stream` finds a stream as it is now.
    ///
    /// # Errors
    /// `NoSuchStream` for an append by hash key.
    pub(crate) fn new(
        mut tx: Tx,
        stream: impl Fn(StreamId) -> Option<Arc<Stream>>,
    ) -> Result<Self, CommitError> {
        let bytes = size_of_tx(&tx);
        let sent = tx.producer.as_ref().map(|_| Sent::of(&tx.appends));
        let mut appends = Vec::with_capacity(tx.appends.len());
        for Append {
            stream: id,
            route,
            records,
        } in std::mem::take(&mut tx.appends)
        {
            let records = match route {
                Route::Shard(shard) => Sorted::Chosen(shard, records.into()),
                Route::HashKey => {
                    let stream = stream(id).ok_or(CommitError::NoSuchStream(id))?;
                    Sorted::Hashed(Hashed::new(records, &stream)?)
                }
            };
            appends.push(PreparedAppend {
                stream: id,
                records,
            });
        }
        Ok(Self {
            tx,
            appends,
            sent,
            bytes,
        })
    }
}

impl Hashed {
    /// Sorts by the open shards of `stream`. Records that all go to one shard are not copied.
    ///
    /// # Errors
    /// `NoSuchStream` when no open shard takes a record.
    pub(crate) fn new(records: Records, stream: &Stream) -> Result<Self, CommitError> {
        let mut shards: Vec<ShardId> = Vec::new();
        let mut order = Vec::with_capacity(records.count());
        for parts in records.iter() {
            let shard = stream
                .open_shard(parts.hash_key())
                .ok_or(CommitError::NoSuchStream(stream.id))?;
            let group = shards.iter().position(|id| *id == shard.id);
            let group = group.unwrap_or_else(|| {
                shards.push(shard.id);
                shards.len() - 1
            });
            order.push(group as u32);
        }
        if let [only] = shards[..] {
            return Ok(Self {
                groups: vec![(only, records.into())],
                order,
            });
        }
        let mut sizes = vec![(0usize, 0usize); shards.len()];
        for (parts, group) in records.iter().zip(&order) {
            let (count, bytes) = &mut sizes[*group as usize];
            *count += 1;
            *bytes += parts.key.len() + parts.data.len() + parts.explicit.map_or(0, |_| 16);
        }
        let mut groups: Vec<(ShardId, Records)> = shards
            .into_iter()
            .zip(sizes)
            .map(|(shard, (count, bytes))| (shard, Records::with_capacity(count, bytes)))
            .collect();
        for (parts, group) in records.iter().zip(&order) {
            let (_, sorted) = &mut groups[*group as usize];
            sorted.push_parts(parts);
        }
        let groups = groups.into_iter();
        let groups = groups.map(|(shard, records)| (shard, records.into()));
        Ok(Self {
            groups: groups.collect(),
            order,
        })
    }

    /// Whether every shard of this order is still open in `stream`. Open shards tile the hash
    /// space and a shard's range never changes, so then the order still holds.
    pub(crate) fn holds(&self, stream: &Stream) -> bool {
        self.groups.iter().all(|(id, _)| {
            stream
                .shard(*id)
                .is_some_and(|shard| shard.closed_seconds.is_none())
        })
    }

    /// Sorts again, by the open shards of another state of the stream.
    ///
    /// # Errors
    /// As [`Hashed::new`].
    pub(crate) fn again(self, stream: &Stream) -> Result<Self, CommitError> {
        let mut groups: Vec<_> = self.groups.iter().map(|(_, r)| r.records.iter()).collect();
        let mut records = Records::default();
        for group in &self.order {
            if let Some(parts) = groups[*group as usize].next() {
                records.push_parts(parts);
            }
        }
        Self::new(records, stream)
    }
}

/// Room for what a frame keeps of each thing beside its bytes.
const BYTES_PER_ITEM: usize = 64;

fn size_of_tx(tx: &Tx) -> u64 {
    let records: usize = tx
        .appends
        .iter()
        .map(|a| a.records.packed_bytes() + BYTES_PER_ITEM)
        .sum();
    let writes: usize = tx
        .writes
        .iter()
        .map(|(key, value)| key.as_bytes().len() + value_bytes(value) + BYTES_PER_ITEM)
        .sum();
    let counters: usize = tx
        .counters
        .iter()
        .map(|c| c.function.len() + c.name.len() + BYTES_PER_ITEM)
        .sum();
    // A producer's mark keeps a few bytes per record.
    let mark = tx.producer.as_ref().map_or(0, |p| {
        let count: usize = tx
            .appends
            .iter()
            .map(|a| a.records.index().len() / INDEX_ENTRY_BYTES)
            .sum();
        p.id.len() + BYTES_PER_ITEM + 4 * count
    });
    let streams: usize = tx.streams.iter().map(stream_bytes).sum();
    let others = (tx.trims.len() + 1) * BYTES_PER_ITEM;
    (records + writes + counters + mark + streams + others) as u64
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Inline(bytes) | Value::Blob(bytes) => bytes.len(),
        Value::Delete => 0,
    }
}

/// About what a stream takes as JSON.
fn stream_bytes(change: &StreamChange) -> usize {
    match change {
        StreamChange::Create(stream) | StreamChange::Update(stream) => {
            let tags: usize = stream.tags.iter().map(|(k, v)| k.len() + v.len() + 8).sum();
            1024 + 256 * stream.shards.len() + tags
        }
        StreamChange::Remove(_) => BYTES_PER_ITEM,
    }
}

#[cfg(test)]
mod tests {
    use shardmill_core::HashKey;

    use super::*;
    use crate::test_support::stream_of;

    #[test]
    fn records_keep_hops_and_explicit_keys_when_they_are_sorted_and_sorted_again() {
        let mut records = Records::default();
        for n in 0..40u8 {
            records.push_emitted(&format!("key {n}"), 1 + n % 16, &[n]);
        }
        records.push("explicit", Some(HashKey(u128::MAX)), b"put");
        let sorted = Hashed::new(records.clone(), &stream_of("s", 2)).expect("two shards");
        assert_eq!(sorted.groups.len(), 2);
        for (_, packed) in &sorted.groups {
            for parts in packed.records.iter() {
                assert!(records.iter().any(|before| before == parts), "{parts:?}");
            }
        }
        let again = sorted.again(&stream_of("s", 1)).expect("one shard");
        assert_eq!(again.groups.len(), 1);
        assert_eq!(again.groups[0].1.records, records);
    }
}
