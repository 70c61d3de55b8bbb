//! Writes the frames behind the tables' position into new segments, which take the place of the
//! old ones.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use crc32fast::Hasher;

use super::layout::{self, FIRST_FRAME, FrameHeader, Joins, SegmentHeader};
use super::pool::Draft;
use super::recovery::remove_strays;
use super::scan::{Found, failed};
use super::segment::{DIR, SegmentFile, path};
use super::{JournalOptions, OpenError, Position};
use crate::io::Io;

/// The log behind the tables' position, in new segments.
pub(super) struct Restarted {
    /// Frames with their new places.
    pub(super) frames: Vec<FrameHeader>,
    /// Where they end.
    pub(super) end: Position,
    /// The new segments, and the one that holds the tables' position.
    pub(super) segments: BTreeMap<u64, Arc<SegmentFile>>,
    /// Segments whose place was taken.
    pub(super) dead: Vec<u64>,
}

/// Makes `frames`, which end in segment `last`, durable in new segments. Whatever else lies behind
/// `from` is gone afterwards.
pub(super) fn restart(
    found: &Found,
    frames: &[FrameHeader],
    last: u64,
    options: JournalOptions,
    from: Position,
) -> Result<Restarted, OpenError> {
    let io = &*found.io;
    remove_strays(io, &found.strays)?;
    let store_id = found.store_id.unwrap_or(options.new_store_id);
    let mut copy = Copy {
        found,
        options,
        from,
        store_id,
        seed: layout::seed(store_id),
        spare: found.segments.range(last + 1..).map(|s| *s.0).collect(),
        next_number: found.last_number() + 1,
        left_bytes: frames.iter().map(|header| size(header) as u64).sum(),
        frames: Vec::with_capacity(frames.len()),
        sealed: Vec::new(),
    };
    let end = copy.all(frames).map_err(|error| match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => OpenError::Full {
            folder: io.display(DIR),
            needed_bytes: u64::from(FIRST_FRAME) + copy.left_bytes,
        },
        _ => failed("write segments in", io, DIR)(error),
    })?;
    let mut segments = take_over(io, copy.sealed).map_err(failed("name segments in", io, DIR))?;
    let numbers = found.segments.keys().copied();
    let replaced = numbers.filter(|number| *number > from.segment && *number <= last);
    let dead = replaced.chain(copy.spare).collect();
    if let Some(old) = found.segments.get(&from.segment) {
        let old = cut(&old.segment, from.offset);
        let old = old.map_err(failed("cut", io, &path(from.segment)))?;
        segments.insert(old.number, Arc::new(old));
    }
    Ok(Restarted {
        frames: copy.frames,
        end,
        segments,
        dead,
    })
}

/// Copies frames into segments that have no name yet.
struct Copy<'a> {
    found: &'a Found,
    options: JournalOptions,
    from: Position,
    store_id: u64,
    seed: Hasher,
    /// Segments behind the end of the log, whose space can be used again.
    spare: Vec<u64>,
    next_number: u64,
    /// Bytes of frames that are not copied.
    left_bytes: u64,
    /// Headers of those that are.
    frames: Vec<FrameHeader>,
    /// Segments that are durable but for their names.
    sealed: Vec<(u64, Draft)>,
}

impl Copy<'_> {
    fn all(&mut self, frames: &[FrameHeader]) -> io::Result<Position> {
        let mut follows = self.from;
        let mut frames = frames.iter().peekable();
        loop {
            let draft = self.draft(frames.peek().map_or(0, |header| size(header)))?;
            let number = self.next_number;
            self.next_number += 1;
            let mut offset = FIRST_FRAME;
            let fits = |header: &&FrameHeader, offset| {
                u64::from(offset) + size(header) as u64 <= draft.bytes
            };
            while let Some(header) = frames.next_if(|header| fits(header, offset)) {
                let at = Position {
                    segment: number,
                    offset,
                };
                offset = self.copy(header, at, &draft)?;
            }
            let joins = Joins::Start {
                follows,
                durable_to: offset,
            };
            draft.seal(SegmentHeader {
                store_id: self.store_id,
                number,
                joins,
            })?;
            self.sealed.push((number, draft));
            follows = Position {
                segment: number,
                offset,
            };
            if frames.peek().is_none() {
                return Ok(follows);
            }
        }
    }

    /// Space for a segment whose first frame has this size: that of a spare one, or new, or, on a
    /// disk that is nearly full, as little as possible.
    fn draft(&mut self, first_bytes: usize) -> io::Result<Draft> {
        let io = &*self.found.io;
        let headed = |bytes: u64| (u64::from(FIRST_FRAME) + bytes).next_multiple_of(4096);
        let bytes = headed(first_bytes as u64).max(u64::from(self.options.segment_bytes));
        if let Some(number) = self.spare.pop() {
            let segment = SegmentFile::open(io, number)?;
            let name = path(number).replace(".log", ".old");
            io.rename(&path(number), &name)?;
            return Draft::reuse(io, (name, segment), bytes);
        }
        match Draft::create(io, self.next_number, bytes) {
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                let least = headed(self.left_bytes).min(bytes);
                Draft::create(io, self.next_number, least)
            }
            other => other,
        }
    }

    /// Copies one frame and says where it ends.
    fn copy(&mut self, header: &FrameHeader, at: Position, draft: &Draft) -> io::Result<u32> {
        let old = self.found.segments.get(&header.at.segment);
        let old = old.ok_or(ErrorKind::NotFound)?;
        let mut bytes = vec![0; size(header)];
        old.segment
            .file
            .read_at(u64::from(header.at.offset), &mut bytes)?;
        let head = header.header_bytes();
        let shards = layout::shards(&bytes[..head]);
        let moved = FrameHeader {
            at,
            durable: self.from,
            previous_end: None,
            ..*header
        };
        let mut new_head = Vec::with_capacity(head);
        moved.write(&self.seed, &shards, &mut new_head);
        bytes[..head].copy_from_slice(&new_head);
        draft.file.write_at(u64::from(at.offset), &bytes)?;
        self.left_bytes -= size(header) as u64;
        self.frames.push(moved);
        Ok(moved.end().offset)
    }
}

/// Bytes of a frame.
fn size(header: &FrameHeader) -> usize {
    (header.end().offset - header.at.offset) as usize
}

/// Names the new segments. The first one's name is what makes the others and itself part of the
/// log, so it comes last.
fn take_over(
    io: &dyn Io,
    sealed: Vec<(u64, Draft)>,
) -> io::Result<BTreeMap<u64, Arc<SegmentFile>>> {
    let mut segments = BTreeMap::new();
    let mut sealed = sealed.into_iter();
    let first = sealed.next();
    for (number, draft) in sealed {
        segments.insert(number, Arc::new(draft.name(io, number)?));
    }
    if !segments.is_empty() {
        io.sync_dir(DIR)?;
    }
    if let Some((number, draft)) = first {
        segments.insert(number, Arc::new(draft.name(io, number)?));
        io.sync_dir(DIR)?;
    }
    Ok(segments)
}

/// Cuts a segment that ends there from now on. What is cut off is part of the log no more.
fn cut(segment: &SegmentFile, offset: u32) -> io::Result<SegmentFile> {
    let bytes = segment.bytes.min(u64::from(offset.max(FIRST_FRAME)));
    if bytes < segment.bytes {
        segment.file.set_len(bytes)?;
        segment.file.sync_data()?;
    }
    Ok(SegmentFile {
        number: segment.number,
        file: Arc::clone(&segment.file),
        bytes,
    })
}
