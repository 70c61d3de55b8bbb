//! Puts frames into the page cache, in order: one write per group and segment, no sync.

use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;

use crc32fast::Hasher;
use shardmill_core::ShardKey;

use super::layout::{ALIGN, FIRST_FRAME, FrameHeader, frame_bytes, max_payload_bytes};
use super::pool::write_zeros;
use super::segment::{SegmentFile, Shared, locked};
use super::{AppendError, Place, Position};
use crate::io::MAX_SLICES;

/// Checksums of pieces from this length on are combined, shorter ones computed: combining takes
/// about a microsecond whatever the length.
const COMBINE_FROM_BYTES: usize = 8 << 10;

/// What stands between a payload and the next frame.
const PADDING: [u8; ALIGN] = [0; ALIGN];

/// One transaction to append.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The caller's number for it, handed back by recovery. The journal does not look at it.
    pub number: u64,
    /// The shards that it touches, for the report if it is ever lost; at most 65,535.
    pub shards: &'a [ShardKey],
    /// Its payload, gathered: pieces are written one behind the other, without a copy.
    pub payload: &'a [Piece<'a>],
}

/// A part of a payload.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Their CRC-32 (`crc32fast::hash`), if the producer's thread has computed it.
    pub crc: Option<u32>,
}

impl<'a> From<&'a [u8]> for Piece<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { bytes, crc: None }
    }
}

/// Frames that were appended together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Where each frame's payload lies, in order.
    pub places: Vec<Place>,
    /// Where the group ends: it is durable when [`super::Syncer::sync`] has returned this
    /// position or a later one.
    pub end: Position,
    /// Bytes of the frames, headers and padding included.
    pub bytes: u64,
}

/// The one that appends.
#[derive(Debug)]
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    active: Arc<SegmentFile>,
    offset: u32,
    /// Headers and padding of a group; kept for its memory.
    scratch: Vec<u8>,
    /// The thread that prepares segments.
    helper: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        active: Arc<SegmentFile>,
        offset: u32,
        helper: Option<JoinHandle<()>>,
    ) -> Self {
        Self {
            shared,
            active,
            offset,
            scratch: Vec::new(),
            helper,
        }
    }

    /// Appends frames behind all earlier ones: one write (more when the group crosses into
    /// another segment or has more than a thousand pieces), no sync. Waits for the disk only when
    /// no prepared segment is left.
    ///
    /// # Errors
    /// See [`AppendError`]: all frames or none.
    pub fn append(&mut self, frames: &[Frame<'_>]) -> Result<Group, AppendError> {
        let durable = {
            let progress = locked(&self.shared.progress);
            if let Some(message) = &progress.failed {
                return Err(AppendError::Failed(Arc::clone(message)));
            }
            progress.durable
        };
        if frames.is_empty() {
            return Ok(Group {
                places: Vec::new(),
                end: self.end(),
                bytes: 0,
            });
        }
        let sizes = self.sizes(frames)?;
        let runs = self.runs(&sizes)?;
        let (places, ends) = self.write_headers(frames, &runs, durable);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let headers: Vec<&[u8]> = starts
            .zip(&ends)
            .map(|(start, end)| &self.scratch[start..*end])
            .collect();
        let mut written = vec![0; runs.len()];
        for (run, done) in runs.iter().zip(&mut written) {
            let range = run.frames.clone();
            let result = write_run(run, &frames[range.clone()], &headers[range], done);
            if let Err(error) = result {
                return Err(self.take_back(runs, &written, &error));
            }
        }
        Ok(self.advance(runs, places))
    }

    /// Where the next frame follows.
    pub fn end(&self) -> Position {
        Position {
            segment: self.active.number,
            offset: self.offset,
        }
    }

    /// The size of every frame in bytes.
    fn sizes(&self, frames: &[Frame<'_>]) -> Result<Vec<u32>, AppendError> {
        let size = |frame: &Frame<'_>| {
            let len: usize = frame.payload.iter().map(|piece| piece.bytes.len()).sum();
            let allowed = max_payload_bytes(self.shared.segment_bytes, frame.shards.len());
            if len > allowed || frame.shards.len() > usize::from(u16::MAX) {
                return Err(AppendError::TooLarge {
                    size: len as u64,
                    allowed: allowed as u64,
                });
            }
            Ok(frame_bytes(frame.shards.len(), len) as u32)
        };
        frames.iter().map(size).collect()
    }

    /// Divides a group among the active segment and as many prepared ones as it needs.
    fn runs(&self, sizes: &[u32]) -> Result<Vec<Run>, AppendError> {
        let mut cuts = Vec::new();
        let (mut start, mut at, mut limit) = (0, self.offset, self.active.bytes);
        for (n, size) in sizes.iter().enumerate() {
            if u64::from(at) + u64::from(*size) > limit {
                cuts.push((start..n, at));
                (start, at, limit) = (n, FIRST_FRAME, u64::from(self.shared.segment_bytes));
            }
            at += size;
        }
        cuts.push((start..sizes.len(), at));
        let more = match cuts.len() - 1 {
            0 => Vec::new(),
            count => {
                let taken = self.shared.pool.take(count);
                taken.map_err(|error| self.out_of_space(&error))?
            }
        };
        let files = std::iter::once(Arc::clone(&self.active)).chain(more);
        let mut start = self.offset;
        let runs = cuts
            .into_iter()
            .zip(files)
            .map(|((frames, end), segment)| Run {
                segment,
                frames,
                start: std::mem::replace(&mut start, FIRST_FRAME),
                end,
            });
        Ok(runs.collect())
    }

    fn out_of_space(&self, error: &io::Error) -> AppendError {
        if !is_out_of_space(error) {
            return AppendError::Failed(self.shared.fail("prepare a segment", error));
        }
        AppendError::Full {
            free_bytes: self.shared.io.free_bytes().unwrap_or(0),
            needed_bytes: u64::from(self.shared.segment_bytes),
        }
    }
}

/// The part of a group that goes into one segment.
#[derive(Debug)]
struct Run {
    segment: Arc<SegmentFile>,
    frames: Range<usize>,
    start: u32,
    end: u32,
}

impl Writer {
    /// Fills the scratch memory with the headers, each behind the padding of the frame before it
    /// in its segment. Gives where payloads will lie and where headers end in that memory.
    fn write_headers(
        &mut self,
        frames: &[Frame<'_>],
        runs: &[Run],
        durable: Position,
    ) -> (Vec<Place>, Vec<usize>) {
        self.scratch.clear();
        let mut places = Vec::with_capacity(frames.len());
        let mut ends = Vec::with_capacity(frames.len());
        for (n, run) in runs.iter().enumerate() {
            let mut offset = run.start;
            let mut padding = 0;
            for (i, frame) in frames[run.frames.clone()].iter().enumerate() {
                let (payload_len, payload_crc) = sum(frame.payload);
                let opens_segment = n > 0 && i == 0;
                let header = FrameHeader {
                    at: Position {
                        segment: run.segment.number,
                        offset,
                    },
                    number: frame.number,
                    payload_len,
                    payload_crc,
                    shard_count: frame.shards.len() as u16,
                    durable,
                    previous_end: opens_segment.then(|| runs[n - 1].end),
                };
                self.scratch.extend_from_slice(&PADDING[..padding]);
                header.write(&self.shared.seed, frame.shards, &mut self.scratch);
                ends.push(self.scratch.len());
                places.push(Place {
                    segment: run.segment.number,
                    offset: header.payload_offset(),
                    len: payload_len,
                });
                offset = header.end().offset;
                padding = (offset - header.payload_offset() - payload_len) as usize;
            }
        }
        (places, ends)
    }

    /// Everything was written: go on behind it.
    fn advance(&mut self, runs: Vec<Run>, places: Vec<Place>) -> Group {
        let bytes = runs.iter().map(|run| u64::from(run.end - run.start)).sum();
        for run in runs {
            if !Arc::ptr_eq(&run.segment, &self.active) {
                locked(&self.shared.used).insert(&run.segment);
                self.active = run.segment;
            }
            self.offset = run.end;
            let mut progress = locked(&self.shared.progress);
            progress.note_unsynced(&self.active);
        }
        let end = self.end();
        locked(&self.shared.progress).written = end;
        Group { places, end, bytes }
    }

    /// A group could not be written whole: makes sure that no start finds any of it.
    fn take_back(&self, runs: Vec<Run>, written: &[u32], error: &io::Error) -> AppendError {
        if !is_out_of_space(error) {
            return AppendError::Failed(self.shared.fail("write", error));
        }
        for (run, bytes) in runs.iter().zip(written).rev().filter(|(_, b)| **b > 0) {
            let file = &*run.segment.file;
            let (start, end) = (u64::from(run.start), u64::from(run.start + bytes));
            let erased = write_zeros(file, start, end).and_then(|()| file.sync_data());
            if let Err(error) = erased {
                return AppendError::Failed(self.shared.fail("take back a group", &error));
            }
        }
        let untouched = runs.into_iter().skip(1).map(|run| run.segment).collect();
        self.shared.pool.give_back(untouched);
        self.out_of_space(error)
    }
}

/// Length and checksum of a payload.
fn sum(payload: &[Piece<'_>]) -> (u32, u32) {
    if let [Piece { bytes, crc }] = payload {
        let crc = crc.unwrap_or_else(|| crc32fast::hash(bytes));
        return (bytes.len() as u32, crc);
    }
    let mut hasher = Hasher::new();
    let mut len = 0;
    for piece in payload {
        len += piece.bytes.len();
        match piece.crc {
            Some(crc) if piece.bytes.len() >= COMBINE_FROM_BYTES => {
                hasher.combine(&Hasher::new_with_initial_len(crc, piece.bytes.len() as u64));
            }
            _ => hasher.update(piece.bytes),
        }
    }
    (len as u32, hasher.finalize())
}

/// Writes a run; counts the bytes that were written in `done`, on an error too. `headers` are those
/// of the run's frames, each with the padding before it.
fn write_run(run: &Run, frames: &[Frame<'_>], headers: &[&[u8]], done: &mut u32) -> io::Result<()> {
    let mut slices = Vec::with_capacity(headers.len() * 3);
    for (frame, header) in frames.iter().zip(headers) {
        slices.push(IoSlice::new(header));
        let pieces = frame.payload.iter().map(|piece| piece.bytes);
        slices.extend(pieces.filter(|bytes| !bytes.is_empty()).map(IoSlice::new));
    }
    let filled: usize = slices.iter().map(|slice| slice.len()).sum();
    slices.push(IoSlice::new(
        &PADDING[..(run.end - run.start) as usize - filled],
    ));
    let mut rest = slices.as_mut_slice();
    while run.start + *done < run.end {
        let offset = u64::from(run.start + *done);
        let some = rest.len().min(MAX_SLICES);
        match run.segment.file.write_slices_at(offset, &rest[..some])? {
            0 => return Err(ErrorKind::WriteZero.into()),
            bytes => {
                *done += bytes as u32;
                IoSlice::advance_slices(&mut rest, bytes);
            }
        }
    }
    Ok(())
}

fn is_out_of_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::WriteZero
    )
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.pool.stop();
        if let Some(helper) = self.helper.take() {
            // It holds nothing that could be lost if it panicked.
            let _ = helper.join();
        }
    }
}
