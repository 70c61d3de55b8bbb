//! The failure store: every batch that is given up leaves an entry with its records, the reason
//! and what it takes to run it again. Entries are listed, shown, replayed, redriven, taken to
//! another host and back, and deleted.
//!
//! - `entry`: what is stored, and under which keys
//! - `give_up`: how an entry comes about
//! - `inputs`: what an attempt ran on, recorded while it runs and kept beside the entry
//! - `ledger`: how much a tenant keeps, how much it may, and what is too old
//! - `list`, `replay`, `redrive`, `transfer`: the operations
//! - `unparked`: entries whose parked records were dropped
//! - `compare`: whether a replay came to the same
//! - `bundle`: the file that `export` writes
//! - `lines`: from offsets in a module to source lines

mod bundle;
mod compare;
mod entry;
mod give_up;
mod inputs;
mod ledger;
mod lines;
mod list;
mod redrive;
mod replay;
mod transfer;
mod unparked;

use std::sync::Arc;

use bytes::Bytes;
use shardmill_core::{Batch, Scope, TenantId};
use shardmill_store::{CommitError, Expect, ReadError, Tx, Urgency, Value};

use super::resource::{Inner, Mappings};
use crate::functions::{FunctionError, RemoveError};
use entry::{entry_key, inputs_key, parse, payload_key};
use lines::LineCache;

pub use bundle::BadBundle;
pub use compare::Difference;
pub use entry::{FailureEntry, Imported, Replay};
pub(super) use give_up::{full, keep};
pub(super) use inputs::{Found, Given, Seen, recorded};
pub(super) use ledger::Ledger;
pub use ledger::{FailureBounds, Kept, Room};
pub use lines::{FIND_LINES, Line, find_lines};
pub use list::{FailureFilter, Page, Redriven};
pub use redrive::RedriveOutcome;
pub use replay::Replayed;

/// Why an operation on the failure store was refused.
#[derive(Debug, thiserror::Error)]
pub enum FailuresError {
    /// There is no such entry.
    #[error("no failure's id begins with {0:?}: `shardmill failures list` shows them")]
    NotFound(String),
    /// Several ids begin so.
    #[error("the ids of {count} failures begin with {id:?}: give more of it")]
    Ambiguous {
        /// What was given.
        id: String,
        /// How many there are, at least.
        count: usize,
    },
    /// It was redriven already.
    #[error("failure {0:?} was redriven already")]
    Redriven(String),
    /// Its records are not there.
    #[error("failure {id:?} has no records: {why}")]
    NoRecords {
        /// The entry.
        id: String,
        /// Where they are.
        why: String,
    },
    /// It came from elsewhere.
    #[error(
        "failure {0:?} was imported: it can be shown and replayed, not redriven; its records are \
         those of another host or account"
    )]
    Imported(String),
    /// Its records are still to be delivered.
    #[error(
        "the records of failure {0:?} are parked: `shardmill mappings unpark` lets their key go on"
    )]
    Parked(String),
    /// It belongs to a tumbling window.
    #[error(
        "failure {0:?} is of a tumbling window, which is closed: its state cannot be had again. \
         `shardmill failures redrive --to-stream` gives the records to a window of now"
    )]
    Window(String),
    /// No handler had run.
    #[error("failure {0:?} has no attempt to replay: no handler ran on its records")]
    NoAttempt(String),
    /// The host could not run it.
    #[error("the host could not run it now: {0}")]
    Throttled(String),
    /// Its stream is not there.
    #[error("stream {0} does not exist: create it first")]
    NoStream(String),
    /// A file that is none.
    #[error(transparent)]
    Bundle(#[from] BadBundle),
    /// There is no room for it.
    #[error(
        "the failure store holds {used} bytes of {allowed} allowed, and this takes {asked}: \
         `shardmill failures delete` makes room, failures_max_mib in [server] gives more"
    )]
    Full {
        /// Bytes that are used.
        used: u64,
        /// Bytes that are allowed.
        allowed: u64,
        /// Bytes that were asked for.
        asked: u64,
    },
    /// The function cannot be run.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<RemoveError> for FailuresError {
    fn from(error: RemoveError) -> Self {
        match error {
            RemoveError::Function(error) => error.into(),
            RemoveError::Commit(error) => error.into(),
        }
    }
}

/// Reads, replays, redrives, exports and deletes entries. Cheap to clone.
#[derive(Clone)]
pub struct Failures {
    inner: Arc<Inner>,
    lines: Arc<LineCache>,
}

impl Failures {
    /// The failures of these mappings.
    pub fn of(mappings: &Mappings) -> Self {
        Self {
            inner: Arc::clone(&mappings.inner),
            lines: Arc::default(),
        }
    }

    /// Has debug sections read by a child process of this program from now on: [`FIND_LINES`].
    pub fn contain_lines(&mut self) {
        self.lines = Arc::new(LineCache::contained("/proc/self/exe".into()));
    }

    /// Sets what a tenant may keep, and counts what each keeps: reads the whole table once.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open(&self, bounds: FailureBounds) -> Result<(), ReadError> {
        self.inner.ledger.open(self.inner.store.as_ref(), bounds)
    }

    /// What may still be kept of an entry of `bytes` bytes. Looks at running totals only.
    pub fn room(&self, scope: &Scope, bytes: u64) -> Room {
        self.inner.ledger.room(scope, bytes)
    }

    /// Removes what is older than entries may be, and corrects the totals by what was not
    /// committed in the end. Returns how many entries went.
    ///
    /// # Errors
    /// See [`FailuresError`].
    pub async fn sweep(&self) -> Result<usize, FailuresError> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let swept = inner.ledger.sweep(inner.store.as_ref(), now).await?;
        for (scope, digest) in &swept.modules {
            self.remove_module(scope, digest).await?;
        }
        Ok(swept.entries)
    }

    /// What every account keeps, and how many bytes each may. Looks at running totals only.
    pub fn kept(&self) -> (Vec<(TenantId, Kept)>, u64) {
        self.inner.ledger.all()
    }

    /// The id that begins with `id`, which may be whole.
    ///
    /// # Errors
    /// See [`FailuresError`].
    pub fn resolve(&self, scope: &Scope, id: &str) -> Result<String, FailuresError> {
        let id = id.to_ascii_lowercase();
        let is_part = |b: u8| b.is_ascii_hexdigit() || b == b'-';
        if id.is_empty() || id.len() > entry::ID_LEN || !id.bytes().all(is_part) {
            return Err(FailuresError::NotFound(id));
        }
        let prefix = entry::entries_beginning(scope, &id);
        /// Enough to say that there are several.
        const SEVERAL: usize = 100;
        let found = self.inner.store.scan(&prefix, None, SEVERAL)?;
        match found.as_slice() {
            [] => Err(FailuresError::NotFound(id)),
            [(key, _)] => entry::id_of(key).ok_or(FailuresError::NotFound(id)),
            several => Err(FailuresError::Ambiguous {
                id,
                count: several.len(),
            }),
        }
    }

    /// One entry.
    ///
    /// # Errors
    /// See [`FailuresError`].
    pub fn get(&self, scope: &Scope, id: &str) -> Result<FailureEntry, FailuresError> {
        Ok(self.find(scope, id)?.0)
    }

    /// The records of an entry; empty when they are not kept.
    ///
    /// # Errors
    /// See [`FailuresError`].
    pub async fn payload(&self, scope: &Scope, id: &str) -> Result<Batch, FailuresError> {
        self.find(scope, id)?;
        let stored = self.inner.store.blob(&payload_key(scope, id)).await?;
        read_batch(stored.unwrap_or_default(), id)
    }

    /// Where the frames of an entry's trap report are in its source: one list per frame, the
    /// inlined functions before those that they were inlined into. Empty lists where the module
    /// has no line tables.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn lines(&self, entry: &FailureEntry) -> Result<Vec<Vec<Line>>, FailuresError> {
        let frames = entry.frames();
        if frames.is_empty() {
            return Ok(Vec::new());
        }
        let (functions, digest) = (&self.inner.functions, entry.digest.as_str());
        let module = || functions.wasm(&entry.scope, digest);
        Ok(self.lines.resolve(digest, frames, module).await?)
    }

    /// Deletes an entry with its records, whatever became of it. It takes its module along, unless
    /// somebody else needs it.
    ///
    /// # Errors
    /// See [`FailuresError`]; `NotFound` also for whoever comes second.
    pub async fn delete(&self, scope: &Scope, id: &str) -> Result<(), FailuresError> {
        loop {
            let (entry, revision) = self.find(scope, id)?;
            let writes = [entry_key, payload_key, inputs_key];
            let tx = Tx {
                expect: vec![Expect::Revision(entry_key(scope, id), Some(revision))],
                writes: writes.map(|key| (key(scope, id), Value::Delete)).into(),
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            self.inner.ledger.is_there(id);
            match self.inner.store.commit(tx).await {
                Ok(_) => {}
                // It was redriven, or is gone.
                Err(CommitError::Conflict(_)) => continue,
                Err(error) => return Err(error.into()),
            }
            let gone = Kept {
                entries: 1,
                bytes: entry.bytes,
            };
            self.inner.ledger.forget(scope, gone);
            self.remove_module(scope, &entry.digest).await?;
            return Ok(());
        }
    }

    fn find(&self, scope: &Scope, id: &str) -> Result<(FailureEntry, u64), FailuresError> {
        let stored = self.inner.store.get(&entry_key(scope, id))?;
        let stored = stored.ok_or_else(|| FailuresError::NotFound(id.into()))?;
        Ok((parse(&stored.value)?, stored.revision))
    }
}

fn read_batch(stored: Bytes, id: &str) -> Result<Batch, FailuresError> {
    let damaged = |_| ReadError::Damaged(format!("payload of failure {id}"));
    Ok(Batch::from_stored(stored).map_err(damaged)?)
}
