//! Segments before and after their use: prepared ones, so that an append never has to wait for
//! space, and used ones, whose blocks are written again.
//!
//! A prepared segment has its final name, a durable header and all its space. Numbers have no
//! gaps: frames go on from a segment to the one with the next number.
//!
//! A new segment's space is allocated, not filled with zeros. Filling it would make syncs in it as
//! cheap as those in a used one (on ext4 two thirds of the time for groups of 16 KiB and more, no
//! difference at 1 KiB), but would write everything twice for as long as the store grows.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex};

use super::layout::{Joins, SegmentHeader};
use super::segment::{DIR, SegmentFile, locked, path, write_header};
use super::{JournalOptions, Prepare};
use crate::io::{File, Io};

/// Zeros that are written at once.
const ZEROS_BYTES: usize = 1 << 20;

/// A segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub number: u64,
    /// Bytes of its file.
    pub bytes: u64,
}

/// What is left of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Bytes in segments that are prepared for frames, beyond the one in use.
    pub reserve_bytes: u64,
    /// See [`super::JournalOptions::low_water_bytes`].
    pub low_water_bytes: u64,
}

impl Space {
    /// Whether records have to be refused.
    pub fn is_low(&self) -> bool {
        self.free_bytes < self.low_water_bytes
    }
}

#[derive(Debug)]
pub(super) struct Pool {
    io: Arc<dyn Io>,
    store_id: u64,
    options: JournalOptions,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    ready: VecDeque<Arc<SegmentFile>>,
    /// Segments that were used, out of the journal by name, with that name.
    used: Vec<(String, SegmentFile)>,
    next_number: u64,
    /// Segments that somebody waits for.
    wanted: usize,
    failed: Option<io::Error>,
    stopped: bool,
}

impl Pool {
    pub(super) fn new(
        io: Arc<dyn Io>,
        store_id: u64,
        options: JournalOptions,
        next_number: u64,
    ) -> Self {
        let state = State {
            ready: VecDeque::new(),
            used: Vec::new(),
            next_number,
            wanted: 0,
            failed: None,
            stopped: false,
        };
        Self {
            io,
            store_id,
            options,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Adds a segment that an earlier process prepared; its number is the next one.
    pub(super) fn add_ready(&self, segment: Arc<SegmentFile>) {
        let mut state = locked(&self.state);
        state.next_number = segment.number + 1;
        state.ready.push_back(segment);
    }

    /// Takes the next `count` segments, waiting for them to be prepared.
    ///
    /// # Errors
    /// They could not be prepared; none is taken. The next call tries again.
    pub(super) fn take(&self, count: usize) -> io::Result<Vec<Arc<SegmentFile>>> {
        if self.options.prepare == Prepare::Writer {
            self.prepare_up_to(count)?;
        }
        let mut state = locked(&self.state);
        state.failed = None;
        state.wanted = count;
        self.changed.notify_all();
        while state.ready.len() < count {
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            if state.stopped {
                return Err(io::Error::other("nobody prepares segments any more"));
            }
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        state.wanted = 0;
        let taken = state.ready.drain(..count).collect();
        drop(state);
        self.changed.notify_all();
        if self.options.prepare == Prepare::Writer {
            // A failure matters, and will be seen, when the segment is needed.
            let _ = self.prepare_up_to(self.options.reserve_segments);
        }
        Ok(taken)
    }

    /// Puts segments back that were taken last and hold no frames.
    pub(super) fn give_back(&self, segments: Vec<Arc<SegmentFile>>) {
        let mut state = locked(&self.state);
        for segment in segments.into_iter().rev() {
            state.ready.push_front(segment);
        }
    }

    /// Whether [`Pool::recycle`] has use for another segment.
    pub(super) fn wants_used(&self) -> bool {
        locked(&self.state).used.len() < self.options.reserve_segments
    }

    /// Takes a segment out of the journal, to be used again.
    pub(super) fn recycle(&self, segment: SegmentFile) -> io::Result<()> {
        let name = path(segment.number).replace(".log", ".old");
        self.io.rename(&path(segment.number), &name)?;
        let mut state = locked(&self.state);
        state.used.push((name, segment));
        state.failed = None;
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Bytes of prepared segments.
    pub(super) fn ready_bytes(&self) -> u64 {
        locked(&self.state).ready.iter().map(|s| s.bytes).sum()
    }

    /// Bytes of all segments here.
    pub(super) fn bytes(&self) -> u64 {
        let state = locked(&self.state);
        let used: u64 = state.used.iter().map(|(_, s)| s.bytes).sum();
        used + state.ready.iter().map(|s| s.bytes).sum::<u64>()
    }

    /// Keeps the reserve full until [`Pool::stop`].
    pub(super) fn run(&self) {
        let mut state = locked(&self.state);
        while !state.stopped {
            let target = self.options.reserve_segments.max(state.wanted);
            if state.ready.len() >= target || state.failed.is_some() {
                state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
                continue;
            }
            drop(state);
            let result = self.prepare();
            state = locked(&self.state);
            match result {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!("prepare a journal segment: {error}");
                    state.failed = Some(error);
                }
            }
            self.changed.notify_all();
        }
    }

    pub(super) fn stop(&self) {
        locked(&self.state).stopped = true;
        self.changed.notify_all();
    }

    pub(super) fn prepare_up_to(&self, count: usize) -> io::Result<()> {
        while locked(&self.state).ready.len() < count {
            self.prepare()?;
        }
        Ok(())
    }

    /// Prepares the next segment. Only one thread is in here at a time.
    fn prepare(&self) -> io::Result<()> {
        let (number, used) = {
            let mut state = locked(&self.state);
            (state.next_number, state.used.pop())
        };
        let size = u64::from(self.options.segment_bytes);
        let draft = match used {
            Some(used) => Draft::reuse(&*self.io, used, size)?,
            None => Draft::create(&*self.io, number, size)?,
        };
        let header = SegmentHeader {
            store_id: self.store_id,
            number,
            joins: Joins::Reserve,
        };
        let segment = draft.finish(&*self.io, header)?;
        let mut state = locked(&self.state);
        state.next_number = number + 1;
        state.ready.push_back(Arc::new(segment));
        Ok(())
    }
}

/// A segment that does not have its name yet. Dropped before [`Draft::finish`] it stays as a file
/// that the next start removes.
pub(super) struct Draft {
    path: String,
    pub(super) file: Arc<dyn File>,
    pub(super) bytes: u64,
}

impl Draft {
    /// A new file with all its space.
    pub(super) fn create(io: &dyn Io, number: u64, bytes: u64) -> io::Result<Self> {
        let path = format!("{DIR}/{number:020}.new");
        let file = io.create(&path)?;
        if let Err(error) = file.allocate(bytes) {
            // Its space is wanted back at once; the next start removes it otherwise.
            let _ = io.remove(&path);
            return Err(error);
        }
        Ok(Self { path, file, bytes })
    }

    /// A used segment. The frames in it are of an earlier number, which their headers say.
    pub(super) fn reuse(
        io: &dyn Io,
        (path, segment): (String, SegmentFile),
        bytes: u64,
    ) -> io::Result<Self> {
        // Not before the old name is gone for good may the old header go.
        io.sync_dir(DIR)?;
        let file = segment.file;
        let sized = if segment.bytes > bytes {
            file.set_len(bytes)
        } else {
            file.allocate(bytes)
        };
        if let Err(error) = sized {
            let _ = io.remove(&path);
            return Err(error);
        }
        Ok(Self { path, file, bytes })
    }

    /// Makes it a segment: durable as it is, then by name.
    pub(super) fn finish(self, io: &dyn Io, header: SegmentHeader) -> io::Result<SegmentFile> {
        self.seal(header)?;
        let segment = self.name(io, header.number)?;
        io.sync_dir(DIR)?;
        Ok(segment)
    }

    /// Writes the header and makes the file durable.
    pub(super) fn seal(&self, header: SegmentHeader) -> io::Result<()> {
        write_header(&*self.file, header)?;
        self.file.sync_data()
    }

    /// Gives it its name, which is durable after a sync of the folder.
    pub(super) fn name(self, io: &dyn Io, number: u64) -> io::Result<SegmentFile> {
        io.rename(&self.path, &path(number))?;
        Ok(SegmentFile {
            number,
            file: self.file,
            bytes: self.bytes,
        })
    }
}

/// Writes zeros over a range of a file.
pub(super) fn write_zeros(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES.min(to.saturating_sub(from) as usize)];
    let mut at = from;
    while at < to {
        let len = (to - at).min(zeros.len() as u64);
        file.write_at(at, &zeros[..len as usize])?;
        at += len;
    }
    Ok(())
}
