//! Segment files by name and number, and the state that the journal's handles share.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crc32fast::Hasher;

use super::layout::{FIRST_FRAME, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::pool::Pool;
use super::{FolderLock, JournalReadError, Position, SegmentInfo, Space};
use crate::io::{File, Io};

/// The journal's folder.
pub(super) const DIR: &str = "journal";

/// Segments of the past that are kept open for readers.
const MAX_OPEN_SEGMENTS: usize = 256;

/// A segment's file name.
pub(super) fn path(number: u64) -> String {
    format!("{DIR}/{number:020}.log")
}

/// The number in a segment's file name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// The lock of short critical sections. A thread that panicked in one has left nothing half done.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open segment.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) number: u64,
    pub(super) file: Arc<dyn File>,
    pub(super) bytes: u64,
}

impl SegmentFile {
    pub(super) fn open(io: &dyn Io, number: u64) -> io::Result<Self> {
        let file = io.open(&path(number))?;
        let bytes = file.len()?;
        Ok(Self {
            number,
            file,
            bytes,
        })
    }
}

/// Writes a segment's header with the rest of its page.
pub(super) fn write_header(file: &dyn File, header: SegmentHeader) -> io::Result<()> {
    let mut page = [0; FIRST_FRAME as usize];
    page[..SEGMENT_HEADER_BYTES].copy_from_slice(&header.to_bytes());
    file.write_at(0, &page)
}

/// What the handles share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) io: Arc<dyn Io>,
    pub(super) store_id: u64,
    /// See [`super::layout::seed`].
    pub(super) seed: Hasher,
    pub(super) low_water_bytes: u64,
    pub(super) segment_bytes: u32,
    pub(super) progress: Mutex<Progress>,
    pub(super) used: Mutex<Used>,
    pub(super) pool: Pool,
    pub(super) _lock: FolderLock,
}

/// How far writing and syncing have come.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) written: Position,
    pub(super) durable: Position,
    /// Segments with bytes that are not synced, in order; the last one is in use.
    pub(super) unsynced: Vec<Arc<SegmentFile>>,
    /// Why nothing works any more.
    pub(super) failed: Option<Arc<str>>,
}

impl Progress {
    /// Notes that a segment, the one in use from now on, has bytes that are not synced.
    pub(super) fn note_unsynced(&mut self, segment: &Arc<SegmentFile>) {
        let known = self.unsynced.last();
        if known.is_none_or(|last| last.number != segment.number) {
            self.unsynced.push(Arc::clone(segment));
        }
    }
}

impl Shared {
    pub(super) fn durable(&self) -> Position {
        locked(&self.progress).durable
    }

    /// Ends the journal's work: what is on disk beyond the last sync is unknown.
    pub(super) fn fail(&self, action: &str, error: &io::Error) -> Arc<str> {
        let message = format!("journal failed: {action}: {error}; restart to recover");
        tracing::error!("{message}");
        let mut progress = locked(&self.progress);
        progress.failed.get_or_insert(message.into()).clone()
    }

    pub(super) fn segments(&self) -> Vec<SegmentInfo> {
        locked(&self.used).list()
    }

    pub(super) fn release(&self, segment: u64, tables: Position) -> io::Result<bool> {
        if segment >= tables.segment.min(self.durable().segment) {
            return Ok(false);
        }
        let Some(entry) = locked(&self.used).0.remove(&segment) else {
            return Ok(true);
        };
        let scarce = self.io.free_bytes()? < self.low_water_bytes;
        let file = match entry.file {
            // A file that somebody is reading is removed instead; readers keep it.
            Some(file) => Arc::into_inner(file),
            None => SegmentFile::open(&*self.io, segment).ok(),
        };
        match file {
            Some(file) if !scarce && self.pool.wants_used() => self.pool.recycle(file)?,
            _ => self.io.remove(&path(segment))?,
        }
        Ok(true)
    }

    pub(super) fn space(&self) -> io::Result<Space> {
        Ok(Space {
            free_bytes: self.io.free_bytes()?,
            reserve_bytes: self.pool.ready_bytes(),
            low_water_bytes: self.low_water_bytes,
        })
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        let used: u64 = self.segments().iter().map(|segment| segment.bytes).sum();
        used + self.pool.bytes()
    }
}

/// Segments that hold or held frames, by number.
#[derive(Debug, Default)]
pub(super) struct Used(BTreeMap<u64, Entry>);

#[derive(Debug)]
struct Entry {
    bytes: u64,
    file: Option<Arc<SegmentFile>>,
}

impl Used {
    pub(super) fn insert(&mut self, segment: &Arc<SegmentFile>) {
        let entry = Entry {
            bytes: segment.bytes,
            file: Some(Arc::clone(segment)),
        };
        self.0.insert(segment.number, entry);
    }

    /// Notes a segment that is opened when somebody reads it.
    pub(super) fn insert_closed(&mut self, info: SegmentInfo) {
        let entry = Entry {
            bytes: info.bytes,
            file: None,
        };
        self.0.insert(info.number, entry);
    }

    pub(super) fn list(&self) -> Vec<SegmentInfo> {
        let info = |(number, entry): (&u64, &Entry)| SegmentInfo {
            number: *number,
            bytes: entry.bytes,
        };
        self.0.iter().map(info).collect()
    }

    /// The segment's file, opened if need be.
    pub(super) fn get(
        &mut self,
        io: &dyn Io,
        number: u64,
    ) -> Result<Arc<SegmentFile>, JournalReadError> {
        let missing = JournalReadError::Released(number);
        let entry = self.0.get(&number).ok_or(missing)?;
        if let Some(file) = &entry.file {
            return Ok(Arc::clone(file));
        }
        let file = SegmentFile::open(io, number).map_err(|error| JournalReadError::Io {
            file: io.display(&path(number)),
            message: error.to_string(),
        })?;
        self.close_one();
        let file = Arc::new(file);
        self.insert(&file);
        Ok(file)
    }

    /// Keeps the number of open files in bounds by closing the oldest segment's, which retention
    /// will take first.
    fn close_one(&mut self) {
        let mut open = self.0.values_mut().filter(|entry| entry.file.is_some());
        if let Some(oldest) = open.next()
            && open.count() + 1 >= MAX_OPEN_SEGMENTS
        {
            oldest.file = None;
        }
    }
}
