//! Makes aggregates, as a producer does: entries go in until the next one does not fit, then the
//! aggregate is taken and put as one record.
//!
//! Whatever comes out, [`super::take_apart`] takes apart. The KPL puts a lone record as it is;
//! whether to do so is the caller's choice.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use md5::{Digest, Md5};

use super::wire::{put_bytes, put_integer};
use super::{
    DATA, DIGEST_BYTES, EXPLICIT_HASH_KEY_INDEX, EXPLICIT_HASH_KEY_TABLE, MAGIC,
    PARTITION_KEY_INDEX, PARTITION_KEY_TABLE, RECORDS, TABLE_ENTRY_BYTES,
};
use crate::block::INDEX_ENTRY_BYTES;
use crate::hash_key::HashKey;
use crate::limits::{MAX_PARTITION_KEY_CHARS, MAX_TAKEN_APART_BYTES};

/// The partition key under which the KPL puts an aggregate.
pub const OUTER_PARTITION_KEY: &str = "a";

/// Builds one aggregate after the other.
#[derive(Debug)]
pub struct Aggregator {
    limit_bytes: usize,
    gathered: Gathered,
}

/// An aggregate, ready to be put under [`OUTER_PARTITION_KEY`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// The explicit hash key to put it with: where its first record belongs. The others belong to
    /// the same shard if the caller gathered them so.
    pub explicit: HashKey,
    /// How many records are inside, at least 1.
    pub count: usize,
    /// The outer record's data.
    pub data: Vec<u8>,
}

/// Why an entry was not added; the aggregator is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdded {
    /// The aggregate would be too large.
    #[error(
        "aggregate would have {bytes} bytes, the limit is {limit_bytes}: put what is gathered, \
         or this record alone if there is nothing yet"
    )]
    Full {
        /// What it would have.
        bytes: usize,
        /// The limit it would break: of the aggregate, or of what is taken apart.
        limit_bytes: usize,
    },
    /// A partition key that no put would accept.
    #[error("partition key has {chars} characters, 1 to {MAX_PARTITION_KEY_CHARS} are allowed")]
    Key {
        /// Its length.
        chars: usize,
    },
}

#[derive(Debug, Default)]
struct Gathered {
    first: Option<HashKey>,
    count: usize,
    /// What the records will take once taken apart, bytes.
    apart_bytes: usize,
    /// Where in its table each key stands.
    keys: HashMap<String, u64>,
    hash_keys: HashMap<HashKey, u64>,
    /// The fields of the three kinds, encoded.
    key_table: Vec<u8>,
    hash_key_table: Vec<u8>,
    records: Vec<u8>,
}

impl Aggregator {
    /// Makes aggregates of at most `limit_bytes` of data. The KPL's default is 51,200.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            gathered: Gathered::default(),
        }
    }

    /// Whether nothing was added since the last `take`.
    pub fn is_empty(&self) -> bool {
        self.gathered.count == 0
    }

    /// Adds a record; records come out in the order in which they were added.
    ///
    /// # Errors
    /// `Full` when it does not fit, and `Key` when no put would accept its key.
    pub fn push(
        &mut self,
        key: &str,
        explicit: Option<HashKey>,
        data: &[u8],
    ) -> Result<(), NotAdded> {
        let chars = key.chars().count();
        if chars == 0 || chars > MAX_PARTITION_KEY_CHARS {
            return Err(NotAdded::Key { chars });
        }
        let gathered = &mut self.gathered;
        let key_at = place(&gathered.keys, key);
        let hash_at = explicit.map(|hash| (place(&gathered.hash_keys, &hash), hash));

        // What is new is encoded beside, so that an entry that does not fit leaves nothing.
        let (mut tables, mut record) = ([Vec::new(), Vec::new()], Vec::new());
        if key_at.is_new {
            put_bytes(PARTITION_KEY_TABLE, key.as_bytes(), &mut tables[0]);
        }
        put_integer(PARTITION_KEY_INDEX, key_at.index, &mut record);
        if let Some((at, hash)) = hash_at {
            if at.is_new {
                let digits = hash.to_string();
                put_bytes(EXPLICIT_HASH_KEY_TABLE, digits.as_bytes(), &mut tables[1]);
            }
            put_integer(EXPLICIT_HASH_KEY_INDEX, at.index, &mut record);
        }
        put_bytes(DATA, data, &mut record);
        let mut field = Vec::with_capacity(record.len() + 8);
        put_bytes(RECORDS, &record, &mut field);

        let new_entries = tables.iter().filter(|table| !table.is_empty()).count();
        let apart_bytes = gathered.apart_bytes
            + new_entries * TABLE_ENTRY_BYTES
            + INDEX_ENTRY_BYTES
            + (key.len() + explicit.map_or(0, |hash| size_of_val(&hash)) + data.len());
        within(MAX_TAKEN_APART_BYTES, apart_bytes)?;
        let more = tables[0].len() + tables[1].len() + field.len();
        within(self.limit_bytes, gathered.data_len() + more)?;

        if key_at.is_new {
            gathered.keys.insert(key.into(), key_at.index);
        }
        if let Some((at, hash)) = hash_at {
            gathered.hash_keys.insert(hash, at.index);
        }
        gathered
            .first
            .get_or_insert_with(|| explicit.unwrap_or_else(|| HashKey::of_partition_key(key)));
        gathered.count += 1;
        gathered.apart_bytes = apart_bytes;
        gathered.key_table.append(&mut tables[0]);
        gathered.hash_key_table.append(&mut tables[1]);
        gathered.records.append(&mut field);
        Ok(())
    }

    /// The aggregate of what was added, and begins the next one. `None` when nothing was.
    pub fn take(&mut self) -> Option<Aggregate> {
        let gathered = std::mem::take(&mut self.gathered);
        let explicit = gathered.first?;
        let mut data = Vec::with_capacity(gathered.data_len());
        data.extend_from_slice(&MAGIC);
        data.extend_from_slice(&gathered.key_table);
        data.extend_from_slice(&gathered.hash_key_table);
        data.extend_from_slice(&gathered.records);
        let digest = Md5::digest(&data[MAGIC.len()..]);
        data.extend_from_slice(&digest);
        Some(Aggregate {
            explicit,
            count: gathered.count,
            data,
        })
    }
}

impl Gathered {
    /// Length of the aggregate's data, bytes.
    fn data_len(&self) -> usize {
        let message = self.key_table.len() + self.hash_key_table.len() + self.records.len();
        MAGIC.len() + message + DIGEST_BYTES
    }
}

/// An entry's place in a table.
#[derive(Clone, Copy)]
struct Place {
    index: u64,
    is_new: bool,
}

fn place<K, Q>(table: &HashMap<K, u64>, entry: &Q) -> Place
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    let found = table.get(entry).copied();
    Place {
        index: found.unwrap_or(table.len() as u64),
        is_new: found.is_none(),
    }
}

fn within(limit_bytes: usize, bytes: usize) -> Result<(), NotAdded> {
    if bytes > limit_bytes {
        return Err(NotAdded::Full { bytes, limit_bytes });
    }
    Ok(())
}
