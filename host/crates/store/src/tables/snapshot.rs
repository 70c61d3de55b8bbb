//! Reading the tables as they were at one moment.

use std::io::ErrorKind;

use redb::{ReadOnlyTable, ReadTransaction};
use shardmill_core::ShardKey;

use super::{BLOCKS, Bytewise, VALUES, codec};
use crate::layer::{BlockRef, Stored};
use crate::{Key, ReadError};

/// The tables at one moment. Holding one keeps old pages from being used again: not for long.
#[derive(Debug)]
pub(crate) struct Snapshot(ReadTransaction);

impl Snapshot {
    pub(super) fn new(txn: ReadTransaction) -> Self {
        Self(txn)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// A damaged value, or the disk's.
    pub(crate) fn value(&self, key: &Key) -> Result<Option<Stored>, ReadError> {
        let table = table(&self.0, VALUES)?;
        let found = table.get(key.as_bytes()).map_err(failed)?;
        found
            .map(|value| codec::open_value(key.as_bytes(), value.value()))
            .transpose()
    }

    /// Values from `start` on whose keys begin with `prefix`, in order, while `each` says so.
    ///
    /// # Errors
    /// A damaged value, or the disk's.
    pub(crate) fn values_from(
        &self,
        prefix: &Key,
        start: &Key,
        mut each: impl FnMut(Key, Stored) -> bool,
    ) -> Result<(), ReadError> {
        let table = table(&self.0, VALUES)?;
        for entry in table.range(start.as_bytes()..).map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            let key = key.value();
            if !key.starts_with(prefix.as_bytes()) {
                break;
            }
            let stored = codec::open_value(key, value.value())?;
            if !each(Key::from_bytes(key.to_vec()), stored) {
                break;
            }
        }
        Ok(())
    }

    /// Values from `start` to before `end`, the last one first, while `each` says so.
    ///
    /// # Errors
    /// A damaged value, or the disk's.
    pub(crate) fn values_back(
        &self,
        start: &Key,
        end: &Key,
        mut each: impl FnMut(Key, Stored) -> bool,
    ) -> Result<(), ReadError> {
        let table = table(&self.0, VALUES)?;
        let range = table.range(start.as_bytes()..end.as_bytes());
        for entry in range.map_err(failed)?.rev() {
            let (key, value) = entry.map_err(failed)?;
            let key = key.value();
            let stored = codec::open_value(key, value.value())?;
            if !each(Key::from_bytes(key.to_vec()), stored) {
                break;
            }
        }
        Ok(())
    }

    /// Blocks of a shard that end above `from`, in order, while `each` says so.
    ///
    /// # Errors
    /// A damaged entry, or the disk's.
    pub(crate) fn blocks_from(
        &self,
        shard: ShardKey,
        from: u64,
        mut each: impl FnMut(BlockRef) -> bool,
    ) -> Result<(), ReadError> {
        let table = table(&self.0, BLOCKS)?;
        let [lowest, here, highest] =
            [0, from, u64::MAX].map(|first| codec::block_key(shard, first));
        let holder = table
            .range(&lowest[..]..=&here[..])
            .map_err(failed)?
            .next_back();
        let mut start = here;
        if let Some(entry) = holder {
            let (key, value) = entry.map_err(failed)?;
            let block = codec::open_block(key.value(), value.value())?;
            if block.end() > from {
                start = codec::block_key(shard, block.first);
            }
        }
        for entry in table.range(&start[..]..=&highest[..]).map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            if !each(codec::open_block(key.value(), value.value())?) {
                break;
            }
        }
        Ok(())
    }
}

/// All entries of a table, in order.
pub(super) fn each(
    txn: &ReadTransaction,
    definition: Bytewise,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let table = table(txn, definition)?;
    for entry in table.range::<&[u8]>(..).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        each(key.value(), value.value())?;
    }
    Ok(())
}

fn table(
    txn: &ReadTransaction,
    definition: Bytewise,
) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>, ReadError> {
    txn.open_table(definition).map_err(|error| match error {
        redb::TableError::Storage(error) => failed(error),
        other => ReadError::Damaged(other.to_string()),
    })
}

fn failed(error: redb::StorageError) -> ReadError {
    match error {
        redb::StorageError::Corrupted(what) => ReadError::Damaged(what),
        redb::StorageError::Io(error) if error.kind() == ErrorKind::InvalidData => {
            ReadError::Damaged(error.to_string())
        }
        other => ReadError::Io(other.to_string()),
    }
}
