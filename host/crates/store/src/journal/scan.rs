//! Reads what is on disk: segments with their headers, and frames one after the other.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use crc32fast::Hasher;

use super::layout::{
    ALIGN, BadHeader, END_MARK_BYTES, FIRST_FRAME, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader,
    Joins, SEGMENT_HEADER_BYTES, SegmentHeader, VERSION, frame_bytes, read_end_mark, seed,
};
use super::segment::{DIR, SegmentFile, number_of, path};
use super::syncer::END_MARK;
use super::{Corruption, OpenError, Position, SegmentInfo};
use crate::io::{File, Io};

/// Bytes that are read at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// Bytes that are read for one frame header, which is longer with many shards.
const NARROW_BYTES: u64 = 512;

/// What is in the journal's folder.
pub(super) struct Found {
    pub(super) io: Arc<dyn Io>,
    /// `None`: no segment says it.
    pub(super) store_id: Option<u64>,
    pub(super) seed: Hasher,
    /// Segments before the tables' position; only their names and lengths are known.
    pub(super) past: Vec<SegmentInfo>,
    pub(super) segments: BTreeMap<u64, FoundSegment>,
    pub(super) end_mark: Option<Position>,
    /// Other files.
    pub(super) strays: Vec<String>,
}

pub(super) struct FoundSegment {
    pub(super) segment: Arc<SegmentFile>,
    pub(super) header: Option<SegmentHeader>,
    /// Where the segment before it ended, if its first frame says so.
    pub(super) previous_end: Option<u32>,
}

/// Bytes where a frame should be.
pub(super) enum Slot {
    Frame(FrameHeader),
    /// No frame, and why.
    Bad(&'static str),
}

impl Found {
    /// Looks at the names of all segments, and into those that may have frames behind `from`.
    pub(super) fn load(io: Arc<dyn Io>, from: Position) -> Result<Self, OpenError> {
        let mut found = Self {
            store_id: None,
            seed: seed(0),
            past: Vec::new(),
            segments: BTreeMap::new(),
            end_mark: None,
            strays: Vec::new(),
            io,
        };
        let io = Arc::clone(&found.io);
        io.create_dir(DIR).map_err(failed("make", &*io, DIR))?;
        for name in io.list(DIR).map_err(failed("list", &*io, DIR))? {
            match number_of(&name) {
                Some(number) => {
                    let path = path(number);
                    let segment = SegmentFile::open(&*io, number);
                    let segment = segment.map_err(failed("open", &*io, &path))?;
                    found.add(segment, from)?;
                }
                None => found.strays.push(format!("{DIR}/{name}")),
            }
        }
        found.seed = seed(found.store_id.unwrap_or(0));
        found.load_joints()?;
        found.end_mark = found.load_end_mark()?;
        Ok(found)
    }

    fn add(&mut self, segment: SegmentFile, from: Position) -> Result<(), OpenError> {
        if segment.number < from.segment {
            self.past.push(SegmentInfo {
                number: segment.number,
                bytes: segment.bytes,
            });
            return Ok(());
        }
        let path = path(segment.number);
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let header = if segment.bytes < bytes.len() as u64 {
            None
        } else {
            let read = segment.file.read_at(0, &mut bytes);
            read.map_err(failed("read", &*self.io, &path))?;
            match SegmentHeader::from_bytes(&bytes) {
                Ok(header) if header.number == segment.number => Some(header),
                Ok(_) | Err(BadHeader::Damaged) => None,
                Err(BadHeader::Version(version)) => {
                    return Err(OpenError::Version {
                        file: self.io.display(&path),
                        found: version,
                        known: VERSION,
                    });
                }
            }
        };
        // A segment that came from another journal is as good as one with a damaged header.
        let header = header.filter(|h| *self.store_id.get_or_insert(h.store_id) == h.store_id);
        let number = segment.number;
        let found = FoundSegment {
            segment: Arc::new(segment),
            header,
            previous_end: None,
        };
        self.segments.insert(number, found);
        Ok(())
    }

    /// Reads how reserve segments join those before them.
    fn load_joints(&mut self) -> Result<(), OpenError> {
        for (number, found) in &mut self.segments {
            if !matches!(
                found.header,
                Some(SegmentHeader {
                    joins: Joins::Reserve,
                    ..
                })
            ) {
                continue;
            }
            let at = Position {
                segment: *number,
                offset: FIRST_FRAME,
            };
            let mut window = Window::narrow(&found.segment);
            let header = frame_header(&mut window, &self.seed, at);
            let header = header.map_err(failed("read", &*self.io, &path(*number)))?;
            found.previous_end = header.and_then(|header| header.previous_end);
        }
        Ok(())
    }

    fn load_end_mark(&self) -> Result<Option<Position>, OpenError> {
        if !self.strays.iter().any(|stray| stray == END_MARK) {
            return Ok(None);
        }
        let file = self.io.open(END_MARK);
        let file = file.map_err(failed("open", &*self.io, END_MARK))?;
        let mut bytes = [0; END_MARK_BYTES];
        let read = file.read_at(0, &mut bytes);
        Ok(match (read, self.store_id) {
            (Ok(()), Some(store_id)) => read_end_mark(store_id, &bytes),
            _ => None,
        })
    }

    /// The highest segment number that a name has.
    pub(super) fn last_number(&self) -> u64 {
        let past = self.past.iter().map(|segment| segment.number);
        past.chain(self.segments.keys().copied()).max().unwrap_or(0)
    }

    /// Calls `visit` with every frame header behind `at`, in order, whether its payload is intact
    /// or not, and with errors of the disk, until it breaks.
    pub(super) fn search(
        &self,
        at: Position,
        visit: &mut dyn FnMut(io::Result<FrameHeader>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for (number, found) in self.segments.range(at.segment..) {
            let mut offset = u64::from(FIRST_FRAME);
            if *number == at.segment {
                offset = u64::from(at.offset) + ALIGN as u64;
            }
            let mut window = Window::new(&found.segment);
            let mut probe = Window::new(&found.segment);
            while offset < found.segment.bytes {
                let len = (found.segment.bytes - offset).min(WINDOW_BYTES);
                let chunk = match window.get(offset, len) {
                    Ok(chunk) => chunk,
                    Err(error) => {
                        visit(Err(error))?;
                        offset += len;
                        continue;
                    }
                };
                let starts = magics(chunk);
                for start in starts {
                    let at = Position {
                        segment: *number,
                        offset: offset as u32 + start,
                    };
                    let header = frame_header(&mut probe, &self.seed, at);
                    if let Some(header) = header.transpose() {
                        visit(header)?;
                    }
                }
                offset += len;
            }
        }
        ControlFlow::Continue(())
    }

    pub(super) fn corruption(&self, at: Position, reason: impl Into<String>) -> Corruption {
        Corruption {
            file: self.io.display(&path(at.segment)),
            offset: u64::from(at.offset),
            reason: reason.into(),
        }
    }
}

/// Where frames may begin in these bytes.
fn magics(bytes: &[u8]) -> Vec<u32> {
    let mut starts = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        // Nearly always the first comparison decides.
        if bytes[at] == FRAME_MAGIC[0] && bytes[at..].starts_with(&FRAME_MAGIC) {
            starts.push(at as u32);
        }
        at += ALIGN;
    }
    starts
}

/// A part of a segment in memory.
pub(super) struct Window<'a> {
    file: &'a dyn File,
    file_bytes: u64,
    /// Bytes that are read at once, at least.
    width: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    pub(super) fn new(segment: &'a SegmentFile) -> Self {
        Self {
            file: &*segment.file,
            file_bytes: segment.bytes,
            width: WINDOW_BYTES,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// One that reads little more than it is asked for.
    fn narrow(segment: &'a SegmentFile) -> Self {
        Self {
            width: NARROW_BYTES,
            ..Self::new(segment)
        }
    }

    /// Bytes of the file, which has them.
    pub(super) fn get(&mut self, offset: u64, len: u64) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + len > end {
            let wanted = (self.file_bytes - offset).min(len.max(self.width));
            if self.bytes.len() as u64 != wanted {
                self.bytes = vec![0; wanted as usize];
            }
            self.start = offset;
            if let Err(error) = self.file.read_at(offset, &mut self.bytes) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let at = (offset - self.start) as usize;
        Ok(&self.bytes[at..at + len as usize])
    }
}

/// The frame header at a place, if there is an intact one that belongs there and whose frame the
/// file has room for.
pub(super) fn frame_header(
    window: &mut Window<'_>,
    seed: &Hasher,
    at: Position,
) -> io::Result<Option<FrameHeader>> {
    let offset = u64::from(at.offset);
    if offset + FRAME_HEADER_BYTES as u64 > window.file_bytes {
        return Ok(None);
    }
    let mut fixed = [0; FRAME_HEADER_BYTES];
    fixed.copy_from_slice(window.get(offset, FRAME_HEADER_BYTES as u64)?);
    let Some(header) = FrameHeader::peek(&fixed).filter(|header| header.at == at) else {
        return Ok(None);
    };
    let size = frame_bytes(usize::from(header.shard_count), header.payload_len as usize);
    if offset + size as u64 > window.file_bytes {
        return Ok(None);
    }
    let bytes = window.get(offset, header.header_bytes() as u64)?;
    Ok(FrameHeader::is_intact(seed, bytes).then_some(header))
}

/// The frame at a place.
pub(super) fn frame(window: &mut Window<'_>, seed: &Hasher, at: Position) -> io::Result<Slot> {
    let Some(header) = frame_header(window, seed, at)? else {
        return Ok(Slot::Bad("there is no intact frame header"));
    };
    let payload = window.get(
        u64::from(header.payload_offset()),
        u64::from(header.payload_len),
    )?;
    if crc32fast::hash(payload) != header.payload_crc {
        return Ok(Slot::Bad("the frame's payload does not have its checksum"));
    }
    Ok(Slot::Frame(header))
}

/// Turns a disk's error into one that says what was tried.
pub(super) fn failed(
    action: &'static str,
    io: &dyn Io,
    path: &str,
) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let file = io.display(path);
    move |source| OpenError::Io {
        action: format!("{action} {file}"),
        source,
    }
}
