//! Records of parked keys that stand in the way of a rewind: which they are, and how they are
//! dropped. With a rewind of some shards, only the records of those: what others have parked
//! would not be read again.

use std::collections::{BTreeMap, BTreeSet};

use shardmill_core::mapping::Position;
use shardmill_core::{Batch, ShardId};
use shardmill_store::{ReadError, Tx, Value};

use super::{ParkedKey, ParkedKeys};
use crate::mapping::resource::Inner;

/// Places of records: by shard, where they begin.
pub(in crate::mapping) type Places = BTreeMap<ShardId, BTreeSet<Position>>;

/// What stands in the way.
#[derive(Default)]
pub(in crate::mapping) struct InTheWay {
    keys: Vec<Cut>,
    records: Places,
}

/// A key, and what stays of its runs.
struct Cut {
    key: ParkedKey,
    stays: Vec<Batch>,
}

impl InTheWay {
    /// How many keys.
    pub(in crate::mapping) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Those of their records that nobody reads again when each shard is read from the record
    /// that is given for it.
    pub(in crate::mapping) fn lost(&self, from: &BTreeMap<ShardId, u64>) -> Places {
        let mut lost = self.records.clone();
        for (shard, from) in from {
            if let Some(places) = lost.get_mut(shard) {
                places.retain(|place| place.record < *from);
            }
        }
        lost.retain(|_, places| !places.is_empty());
        lost
    }

    /// The runs that their records lie in, key by key.
    pub(in crate::mapping) fn runs(&self) -> impl Iterator<Item = (&ParkedKey, u64)> {
        let keys = self.keys.iter().map(|cut| &cut.key);
        keys.flat_map(|key| (key.first_run..key.next_run).map(move |run| (key, run)))
    }
}

impl ParkedKeys {
    /// What stands in the way of a rewind of these shards; `None`: of all. A key whose
    /// records cannot be read counts only when all shards are meant.
    pub(in crate::mapping) async fn in_the_way(
        &self,
        inner: &Inner,
        shards: Option<&BTreeSet<ShardId>>,
    ) -> Result<InTheWay, ReadError> {
        let mut found = InTheWay::default();
        for key in self.list() {
            let mut stays = Vec::new();
            let mut records = Vec::new();
            let mut damaged = false;
            for run in key.first_run..key.next_run {
                let Some(batch) = self.read_run(inner, &key, run).await? else {
                    damaged = true;
                    continue;
                };
                let mut rest = Batch::default();
                for (record, single) in batch.singles() {
                    if shards.is_none_or(|shards| shards.contains(&record.shard())) {
                        records.push((record.shard(), record.beginning()));
                    } else {
                        rest.append(&single);
                    }
                }
                if !rest.is_empty() {
                    stays.push(rest);
                }
            }
            if shards.is_some() && (damaged || records.is_empty()) {
                continue;
            }
            for (shard, position) in records {
                found.records.entry(shard).or_default().insert(position);
            }
            found.keys.push(Cut { key, stays });
        }
        Ok(found)
    }

    /// The records of a run; `None`, and a warning, when they are damaged.
    pub(in crate::mapping) async fn read_run(
        &self,
        inner: &Inner,
        key: &ParkedKey,
        run: u64,
    ) -> Result<Option<Batch>, ReadError> {
        let stored = match inner.store.blob(&self.run_key(&key.key, run)).await {
            // It may be there the next time.
            Err(error @ ReadError::Io(_)) => return Err(error),
            stored => stored.ok().flatten(),
        };
        let batch = stored.and_then(|stored| Batch::from_stored(stored).ok());
        if batch.is_none() {
            let mapping = &self.mapping;
            tracing::warn!(mapping, key = key.key, run, "parked records are damaged");
        }
        Ok(batch)
    }

    /// Adds to a transaction that what stands in the way is dropped. Whoever asks holds the keys
    /// alone, and calls [`ParkedKeys::dropped`] afterwards.
    pub(in crate::mapping) fn drop_from(
        &self,
        inner: &Inner,
        tx: &mut Tx,
        found: &InTheWay,
        shards: Option<&BTreeSet<ShardId>>,
    ) -> Result<(), ReadError> {
        if shards.is_none() {
            return self.delete_all(inner, tx);
        }
        for Cut { key, stays } in &found.keys {
            let mut stays = stays.iter();
            let mut left = ParkedKey {
                next_run: key.first_run,
                records: 0,
                bytes: 0,
                release: super::Release::default(),
                ..key.clone()
            };
            for run in key.first_run..key.next_run {
                let value = match stays.next() {
                    Some(batch) => {
                        left.next_run = run + 1;
                        left.records += batch.len() as u64;
                        let sizes = batch.iter().map(|r| r.payload_bytes() as u64);
                        left.bytes += sizes.sum::<u64>();
                        Value::Blob(batch.to_stored().into())
                    }
                    None => Value::Delete,
                };
                tx.writes.push((self.run_key(&key.key, run), value));
            }
            self.write(tx, &key.key, (left.records > 0).then_some(&left));
        }
        Ok(())
    }

    /// Takes over what is stored after records were dropped. Should it fail, what was read of a
    /// side log before counts no more all the same, and keys that are gone are found out by
    /// whoever adds to them.
    pub(in crate::mapping) fn dropped(&self, inner: &Inner) -> Result<(), ReadError> {
        self.held().drops += 1;
        let mut fresh = super::Held::default();
        self.read(inner, &mut fresh)?;
        let mut held = self.held();
        fresh.drops = held.drops;
        *held = fresh;
        Ok(())
    }
}
