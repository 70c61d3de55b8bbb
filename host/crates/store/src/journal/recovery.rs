//! What a start does: finds the end of the log, makes what lies behind the tables durable once
//! more, and hands it over.
//!
//! After an orderly close the log goes on where it ended. After anything else the frames behind
//! the tables' position are written into new segments and synced (the page cache is no proof
//! that they are durable: after a failed sync its pages look clean), which then take the place of
//! the old ones by name, in one rename; the old segment is cut there. A crash on the way leaves the
//! old log or the new one.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use shardmill_core::ShardKey;

use super::layout::{self, FIRST_FRAME, FrameHeader};
use super::pool::Pool;
use super::restart::{Restarted, restart};
use super::scan::{Found, failed};
use super::segment::{DIR, Progress, SegmentFile, Shared, Used, path};
use super::syncer::END_MARK;
use super::walk::Walk;
use super::{Journal, JournalOptions, OpenError, Place, Position, Prepare, Syncer, Writer};
use crate::io::{Io, Lock};

/// The file whose lock is the folder's.
const LOCK: &str = "lock";

/// Sizes of segments that make sense, in bytes.
const SEGMENT_BYTES: std::ops::RangeInclusive<u32> = 64 << 10..=1 << 30;

/// The data folder, for one process. Taken before any file in it is opened, the tables' included.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "held for its drop")] Box<dyn Lock>);

impl FolderLock {
    /// Takes the folder.
    ///
    /// # Errors
    /// `InUse` when another process (or another journal of this one) has it, or `Io`.
    pub fn take(io: &dyn Io) -> Result<Self, OpenError> {
        match io.lock(LOCK).map_err(failed("lock", io, LOCK))? {
            Some(lock) => Ok(Self(lock)),
            None => Err(OpenError::InUse {
                folder: io.display(""),
            }),
        }
    }
}

/// A frame behind the tables' durable position. It is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredFrame {
    /// Its number (see [`super::Frame::number`]).
    pub number: u64,
    /// Where its payload lies now.
    pub place: Place,
    /// Where it ends: the tables' durable position once they hold it.
    pub end: Position,
    /// The shards that it touches.
    pub shards: Vec<ShardKey>,
    /// Its payload.
    pub payload: Bytes,
}

pub(super) fn open<E: Into<Box<dyn Error + Send + Sync>>>(
    io: Arc<dyn Io>,
    lock: FolderLock,
    options: JournalOptions,
    from: Position,
    mut each: impl FnMut(RecoveredFrame) -> Result<(), E>,
) -> Result<(Journal, Writer, Syncer), OpenError> {
    check(&options)?;
    let found = Found::load(Arc::clone(&io), from)?;
    let mut walk = found.walk(from);
    if let Some(damage) = walk.damage.take() {
        return Err(OpenError::Corrupt(damage));
    }
    let store_id = found.store_id.unwrap_or(options.new_store_id);
    let log = if found.end_mark == Some(walk.end) {
        resume(found, walk, options)
    } else {
        let restarted = restart(&found, &walk.frames, walk.end.segment, options, from)?;
        follow(found, restarted, options)
    }?;
    let seed = layout::seed(store_id);
    for header in &log.frames {
        let recovered = recovered(&*io, &log.segments, header)?;
        each(recovered).map_err(|error| OpenError::Rejected {
            number: header.number,
            source: error.into(),
        })?;
    }
    let mut used = Used::default();
    log.past
        .into_iter()
        .for_each(|info| used.insert_closed(info));
    log.segments
        .values()
        .for_each(|segment| used.insert(segment));
    let active = log.segments.get(&log.end.segment).map(Arc::clone);
    let active = active
        .ok_or_else(|| io::ErrorKind::NotFound.into())
        .map_err(failed("open", &*io, &path(log.end.segment)))?;
    let shared = Arc::new(Shared {
        io,
        store_id,
        seed,
        low_water_bytes: options.low_water_bytes,
        segment_bytes: options.segment_bytes,
        progress: Mutex::new(Progress {
            written: log.end,
            durable: log.end,
            unsynced: Vec::new(),
            failed: None,
        }),
        used: Mutex::new(used),
        pool: log.pool,
        _lock: lock,
    });
    let helper = match options.prepare {
        Prepare::Thread => Some(spawn_helper(&shared)?),
        Prepare::Writer => {
            // A failure matters, and will be seen, when a segment is needed.
            let _ = shared.pool.prepare_up_to(options.reserve_segments);
            None
        }
    };
    let writer = Writer::new(Arc::clone(&shared), active, log.end.offset, helper);
    let syncer = Syncer(Arc::clone(&shared));
    Ok((Journal(shared), writer, syncer))
}

/// Refuses options that make no sense.
pub(super) fn check(options: &JournalOptions) -> Result<(), OpenError> {
    let bytes = options.segment_bytes;
    if !SEGMENT_BYTES.contains(&bytes) || !bytes.is_multiple_of(FIRST_FRAME) {
        return Err(OpenError::Options(format!(
            "journal segments of {bytes} bytes: 64 KiB to 1 GiB in steps of 4 KiB are possible"
        )));
    }
    if !(1..=8).contains(&options.reserve_segments) {
        let count = options.reserve_segments;
        let message = format!("{count} journal segments in reserve: 1 to 8 are possible");
        return Err(OpenError::Options(message));
    }
    Ok(())
}

/// A log that is ready to be read and written.
struct Log {
    frames: Vec<FrameHeader>,
    end: Position,
    segments: BTreeMap<u64, Arc<SegmentFile>>,
    past: Vec<super::SegmentInfo>,
    pool: Pool,
}

/// Goes on where the journal was closed.
fn resume(found: Found, walk: Walk, options: JournalOptions) -> Result<Log, OpenError> {
    let io = &*found.io;
    let store_id = found.store_id.unwrap_or(options.new_store_id);
    let last = walk.end.segment;
    let pool = Pool::new(Arc::clone(&found.io), store_id, options, last + 1);
    let mut segments = BTreeMap::new();
    let mut next = last + 1;
    for (number, found) in found.segments {
        if number <= last {
            segments.insert(number, found.segment);
            continue;
        }
        let whole = found.segment.bytes == u64::from(options.segment_bytes);
        if number == next && whole && found.header.is_some() {
            pool.add_ready(found.segment);
            next += 1;
        } else {
            let path = path(number);
            io.remove(&path).map_err(failed("remove", io, &path))?;
        }
    }
    remove_strays(io, &found.strays)?;
    Ok(Log {
        frames: walk.frames,
        end: walk.end,
        segments,
        past: found.past,
        pool,
    })
}

/// Goes on behind the segments of a restart.
fn follow(found: Found, restarted: Restarted, options: JournalOptions) -> Result<Log, OpenError> {
    let io = Arc::clone(&found.io);
    let store_id = found.store_id.unwrap_or(options.new_store_id);
    let next = restarted.end.segment + 1;
    let pool = Pool::new(Arc::clone(&io), store_id, options, next);
    for number in restarted.dead {
        let path = path(number);
        let done = if pool.wants_used() {
            SegmentFile::open(&*io, number).and_then(|segment| pool.recycle(segment))
        } else {
            io.remove(&path)
        };
        done.map_err(failed("free", &*io, &path))?;
    }
    Ok(Log {
        frames: restarted.frames,
        end: restarted.end,
        segments: restarted.segments,
        past: found.past,
        pool,
    })
}

/// Removes files that are no segments, the end mark among them, for good.
pub(super) fn remove_strays(io: &dyn Io, strays: &[String]) -> Result<(), OpenError> {
    for stray in strays {
        io.remove(stray).map_err(failed("remove", io, stray))?;
    }
    if strays.iter().any(|stray| stray == END_MARK) {
        io.sync_dir(DIR).map_err(failed("sync", io, DIR))?;
    }
    Ok(())
}

fn recovered(
    io: &dyn Io,
    segments: &BTreeMap<u64, Arc<SegmentFile>>,
    header: &FrameHeader,
) -> Result<RecoveredFrame, OpenError> {
    let path = path(header.at.segment);
    let mut frame = vec![0; (header.end().offset - header.at.offset) as usize];
    let segment = segments.get(&header.at.segment);
    let segment = segment.ok_or_else(|| io::ErrorKind::NotFound.into());
    segment
        .and_then(|segment| {
            segment
                .file
                .read_at(u64::from(header.at.offset), &mut frame)
        })
        .map_err(failed("read", io, &path))?;
    let frame = Bytes::from(frame);
    let payload_at = header.header_bytes();
    let payload = frame.slice(payload_at..payload_at + header.payload_len as usize);
    if crc32fast::hash(&payload) != header.payload_crc {
        let error = io::Error::other("a frame changed while it was recovered");
        return Err(failed("read", io, &path)(error));
    }
    Ok(RecoveredFrame {
        number: header.number,
        place: Place {
            segment: header.at.segment,
            offset: header.payload_offset(),
            len: header.payload_len,
        },
        end: header.end(),
        shards: layout::shards(&frame[..payload_at]),
        payload,
    })
}

fn spawn_helper(shared: &Arc<Shared>) -> Result<thread::JoinHandle<()>, OpenError> {
    let shared = Arc::clone(shared);
    let run = move || {
        // A writer that waits must not wait for ever, should this thread panic.
        let stop = StopOnDrop(&shared.pool);
        stop.0.run();
    };
    let thread = thread::Builder::new().name("journal-reserve".into());
    thread.spawn(run).map_err(|source| OpenError::Io {
        action: "start a thread".into(),
        source,
    })
}

struct StopOnDrop<'a>(&'a Pool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
