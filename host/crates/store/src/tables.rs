//! The tables on disk: redb, with a checksum on every value, since redb does not look at its
//! pages' checksums when it reads. A table transaction holds one layer and the journal position
//! behind it; only some of them are made durable, and a start continues from the last of those.

mod backend;
mod codec;
mod snapshot;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use shardmill_core::ShardKey;

use crate::ReadError;
use crate::catalog::Catalog;
use crate::io::{File, Io};
use crate::journal::{Journal, Place, Position};
use crate::layer::{Layer, StoredValue};
use codec::{Saved, shard_key};

pub(crate) use snapshot::Snapshot;

type Bytewise = TableDefinition<'static, &'static [u8], &'static [u8]>;

const VALUES: Bytewise = TableDefinition::new("values");
const BLOCKS: Bytewise = TableDefinition::new("blocks");
const STREAMS: Bytewise = TableDefinition::new("streams");
const SHARDS: Bytewise = TableDefinition::new("shards");
const SEGMENTS: Bytewise = TableDefinition::new("segments");
const STATE: Bytewise = TableDefinition::new("state");

/// The one key of `STATE`.
const STATE_KEY: &[u8] = b"state";

/// The tables' file, and what it is called until it is complete.
const FILE: &str = "tables.redb";
const NEW_FILE: &str = "tables.redb.new";

/// The checksums of the tables' pages.
const SUMS_FILE: &str = "tables.sums";

/// Why the tables failed.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    /// The file is not what it should be.
    #[error("{file} is damaged: {reason}")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Another version's, or another journal's.
    #[error("{file} {reason}")]
    Foreign {
        /// The file.
        file: String,
        /// Whose it is.
        reason: String,
    },
    /// The disk failed.
    #[error("tables: {0}")]
    Io(String),
}

/// The tables.
#[derive(Debug)]
pub(crate) struct Tables {
    db: Database,
    file: Arc<dyn File>,
}

/// What the tables know when they are opened.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Streams and shards.
    pub(crate) catalog: Catalog,
    /// The journal is to be read from here on.
    pub(crate) position: Position,
    /// The journal that they belong to; `None` for new tables.
    pub(crate) store_id: Option<u64>,
}

impl Tables {
    /// Opens the tables, or makes them.
    ///
    /// # Errors
    /// See [`TablesError`].
    pub(crate) fn open(io: &dyn Io, cache_bytes: usize) -> Result<(Self, Loaded), TablesError> {
        let names = io.list("").map_err(io_failed)?;
        let is_new = !names.iter().any(|name| name == FILE);
        let open = |path| {
            let file = if is_new {
                io.create(path)
            } else {
                io.open(path)
            };
            file.map_err(io_failed)
        };
        let sums = open(SUMS_FILE)?;
        let file = open(if is_new { NEW_FILE } else { FILE })?;
        let backend = backend::Backend::new(Arc::clone(&file), sums).map_err(io_failed)?;
        let db = Database::builder()
            .set_cache_size(cache_bytes)
            .create_with_backend(backend)
            .map_err(failed)?;
        let tables = Self { db, file };
        if is_new {
            tables.create().map_err(failed)?;
            // The checksums have to have their name before the tables have theirs.
            io.sync_dir("").map_err(io_failed)?;
            io.rename(NEW_FILE, FILE).map_err(io_failed)?;
            io.sync_dir("").map_err(io_failed)?;
        }
        let loaded = tables.load(io)?;
        Ok((tables, loaded))
    }

    fn create(&self) -> Result<(), redb::Error> {
        let mut txn = self.db.begin_write()?;
        txn.set_quick_repair(true);
        for table in [VALUES, BLOCKS, STREAMS, SHARDS, SEGMENTS] {
            txn.open_table(table)?;
        }
        save_state(&txn, &Saved::default())?;
        Ok(txn.commit()?)
    }

    fn load(&self, io: &dyn Io) -> Result<Loaded, TablesError> {
        let file = || io.display(FILE);
        let damaged_at = |error: ReadError| TablesError::Damaged {
            file: file(),
            reason: error.to_string(),
        };
        let txn = self.db.begin_read().map_err(failed)?;
        let saved = load_state(&txn).map_err(damaged_at)?;
        if saved.version != codec::VERSION {
            return Err(TablesError::Foreign {
                file: file(),
                reason: format!(
                    "has format version {}, this program reads {}",
                    saved.version,
                    codec::VERSION
                ),
            });
        }
        let mut streams = Vec::new();
        snapshot::each(&txn, STREAMS, |key, value| {
            streams.push(Arc::new(codec::open_stream(key, value)?));
            Ok(())
        })
        .map_err(damaged_at)?;
        let mut tails = Vec::new();
        snapshot::each(&txn, SHARDS, |key, value| {
            tails.push(codec::open_tail(key, value)?);
            Ok(())
        })
        .map_err(damaged_at)?;
        Ok(Loaded {
            catalog: Catalog::restore(streams, tails, saved.next_stream, saved.revision),
            position: saved.position,
            store_id: (saved.store_id != 0).then_some(saved.store_id),
        })
    }

    /// Whether these tables, which say that they belong to `store_id`, belong to this journal.
    ///
    /// # Errors
    /// `Foreign`.
    pub(crate) fn check_belongs(
        &self,
        io: &dyn Io,
        store_id: Option<u64>,
        journal: &Journal,
    ) -> Result<(), TablesError> {
        match store_id {
            Some(id) if id != journal.store_id() => Err(TablesError::Foreign {
                file: io.display(FILE),
                reason: "belongs to another journal".into(),
            }),
            _ => Ok(()),
        }
    }

    /// Bytes of the tables' file.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.file.len().unwrap_or(0)
    }

    /// The tables as they are now.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, ReadError> {
        let txn = self.db.begin_read();
        txn.map(Snapshot::new)
            .map_err(|e| ReadError::Io(e.to_string()))
    }

    /// Writes a layer; durably, if asked, with all that was written before.
    ///
    /// # Errors
    /// Afterwards the tables cannot be used any more in this process.
    pub(crate) fn apply(
        &self,
        layer: &Layer,
        store_id: u64,
        durability: Durability,
    ) -> Result<(), TablesError> {
        self.try_apply(layer, store_id, durability).map_err(failed)
    }

    fn try_apply(
        &self,
        layer: &Layer,
        store_id: u64,
        durability: Durability,
    ) -> Result<(), redb::Error> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(durability)
            .map_err(|e| redb::Error::from(redb::StorageError::Corrupted(e.to_string())))?;
        if matches!(durability, Durability::Immediate) {
            txn.set_quick_repair(true);
        }
        let mut live = Live(layer.live.clone());
        write_values(&txn, layer, &mut live)?;
        write_blocks(&txn, layer, &mut live)?;
        write_streams(&txn, layer)?;
        live.write(&txn)?;
        let saved = Saved {
            version: codec::VERSION,
            store_id,
            position: layer.position,
            revision: layer.revision,
            next_stream: layer.next_stream,
        };
        save_state(&txn, &saved)?;
        Ok(txn.commit()?)
    }

    /// Which of these segments something in the tables refers to.
    ///
    /// # Errors
    /// The disk's, or a damaged count.
    pub(crate) fn live_segments(&self) -> Result<BTreeMap<u64, u64>, ReadError> {
        let txn = self
            .db
            .begin_read()
            .map_err(|e| ReadError::Io(e.to_string()))?;
        let mut live = BTreeMap::new();
        snapshot::each(&txn, SEGMENTS, |key, value| {
            let (segment, bytes) = codec::open_segment(key, value)?;
            live.insert(segment, bytes);
            Ok(())
        })?;
        Ok(live)
    }
}

fn write_values(txn: &WriteTransaction, layer: &Layer, live: &mut Live) -> Result<(), redb::Error> {
    if layer.keys.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(VALUES)?;
    for (key, stored) in &layer.keys {
        let old = match stored {
            Some(stored) => {
                let sealed = codec::seal_value(key.as_bytes(), stored);
                table.insert(key.as_bytes(), &*sealed)?
            }
            None => table.remove(key.as_bytes())?,
        };
        // A damaged old value leaves its segment pinned: better than losing live bytes.
        if let Some(old) = old
            && let Ok(old) = codec::open_value(key.as_bytes(), old.value())
            && let StoredValue::Blob(place, _) = old.value
        {
            live.drop(place);
        }
    }
    Ok(())
}

fn write_blocks(txn: &WriteTransaction, layer: &Layer, live: &mut Live) -> Result<(), redb::Error> {
    let mut blocks = txn.open_table(BLOCKS)?;
    let mut shards = txn.open_table(SHARDS)?;
    for (shard, tail) in &layer.tails {
        let key = shard_key(*shard);
        let old = shards.get(&key[..])?;
        let old = old.and_then(|old| codec::open_tail(&key, old.value()).ok());
        let below = tail.map_or(u64::MAX, |tail| tail.floor);
        // Blocks below the old floor are gone already.
        if old.is_some_and(|(_, old)| below > old.floor) {
            remove_blocks(&mut blocks, *shard, below, live)?;
        }
        match tail {
            Some(tail) => shards.insert(&key[..], &*codec::seal_tail(*shard, tail))?,
            None => shards.remove(&key[..])?,
        };
    }
    for (shard, new) in &layer.blocks {
        for block in new.values() {
            let key = codec::block_key(*shard, block.first);
            blocks.insert(&key[..], &*codec::seal_block(&key, block))?;
        }
    }
    Ok(())
}

fn remove_blocks(
    blocks: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    shard: ShardKey,
    below: u64,
    live: &mut Live,
) -> Result<(), redb::Error> {
    let mut dead = Vec::new();
    let (start, end) = (
        codec::block_key(shard, 0),
        codec::block_key(shard, u64::MAX),
    );
    for entry in blocks.range::<&[u8]>(&start[..]..=&end[..])? {
        let (key, value) = entry?;
        match codec::open_block(key.value(), value.value()) {
            Ok(block) if block.end() > below => break,
            Ok(block) => {
                live.drop(block.place);
                dead.push(key.value().to_vec());
            }
            // Damaged: its place is not known, so that its segment stays pinned. It goes when the
            // block behind it goes.
            Err(_) => dead.push(key.value().to_vec()),
        }
    }
    for key in dead {
        blocks.remove(&*key)?;
    }
    Ok(())
}

fn write_streams(txn: &WriteTransaction, layer: &Layer) -> Result<(), redb::Error> {
    if layer.streams.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(STREAMS)?;
    for (id, stream) in &layer.streams {
        let key = id.0.to_be_bytes();
        match stream {
            Some(stream) => table.insert(&key[..], &*codec::seal_stream(&key, stream))?,
            None => table.remove(&key[..])?,
        };
    }
    Ok(())
}

/// By segment: how its live bytes change.
struct Live(BTreeMap<u64, i64>);

impl Live {
    fn drop(&mut self, place: Place) {
        *self.0.entry(place.segment).or_default() -= i64::from(place.len);
    }

    fn write(&self, txn: &WriteTransaction) -> Result<(), redb::Error> {
        let mut table = txn.open_table(SEGMENTS)?;
        for (segment, change) in self.0.iter().filter(|(_, change)| **change != 0) {
            let key = segment.to_be_bytes();
            let old = table.get(&key[..])?;
            let old = old.map_or(Ok((*segment, 0)), |old| {
                codec::open_segment(&key, old.value())
            });
            // A damaged count stays as it is: the segment is pinned.
            let Ok((_, old)) = old else { continue };
            match old.saturating_add_signed(*change) {
                0 => table.remove(&key[..])?,
                bytes => table.insert(&key[..], &*codec::seal_segment(&key, bytes))?,
            };
        }
        Ok(())
    }
}

fn save_state(txn: &WriteTransaction, saved: &Saved) -> Result<(), redb::Error> {
    let mut table = txn.open_table(STATE)?;
    table.insert(STATE_KEY, &*codec::seal_state(STATE_KEY, saved))?;
    Ok(())
}

fn load_state(txn: &redb::ReadTransaction) -> Result<Saved, ReadError> {
    let mut saved = None;
    snapshot::each(txn, STATE, |key, value| {
        saved = Some(codec::open_state(key, value)?);
        Ok(())
    })?;
    saved.ok_or_else(|| ReadError::Damaged("the tables' state is missing".into()))
}

fn io_failed(error: std::io::Error) -> TablesError {
    failed(redb::Error::Io(error))
}

fn failed(error: impl Into<redb::Error>) -> TablesError {
    let damaged = |reason| TablesError::Damaged {
        file: FILE.into(),
        reason,
    };
    match error.into() {
        redb::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
            damaged(error.to_string())
        }
        redb::Error::Corrupted(reason) => damaged(reason),
        redb::Error::Io(error) => TablesError::Io(error.to_string()),
        other => TablesError::Io(other.to_string()),
    }
}
