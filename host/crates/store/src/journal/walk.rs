//! Follows the log from a position to its end, and tells an end from damage.
//!
//! From a position the log goes on, in this order of precedence,
//! 1. in the newest segment whose header says that it takes the place of everything behind it,
//! 2. in the next segment, if that is a reserve segment whose first frame says that the segment
//!    before it ended here,
//! 3. with the frame that lies there.
//!
//! Where none of these is intact the log is over. That is **torn**, the trace of a crash, unless
//! something says that more was durable: the mark of an orderly close, the header of a segment
//! that a start wrote, or any intact frame header further on, in this segment or a later one, by
//! the position that it names as durable when it was written. Then it is **damage**.

use std::io;
use std::ops::ControlFlow;

use super::layout::{FIRST_FRAME, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, Joins};
use super::scan::{Found, Slot, Window, frame};
use super::{Corruption, Position};

/// What lies behind a position.
pub(super) struct Walk {
    /// The intact frames, in order.
    pub(super) frames: Vec<FrameHeader>,
    /// Where they end.
    pub(super) end: Position,
    /// Whether more was durable.
    pub(super) damage: Option<Corruption>,
}

/// Why there is no frame.
enum Stop {
    /// The log was closed here.
    Closed,
    Missing,
    Bad(&'static str),
    Unreadable(io::Error),
}

impl Found {
    /// Follows the log.
    pub(super) fn walk(&self, from: Position) -> Walk {
        let mut frames = Vec::new();
        let (end, stop) = self.follow(from, &mut frames);
        let damage = self.judge(from, end, stop);
        Walk {
            frames,
            end,
            damage,
        }
    }

    fn follow(&self, from: Position, frames: &mut Vec<FrameHeader>) -> (Position, Stop) {
        let mut at = from;
        loop {
            while let Some(next) = self.joint(at) {
                at = next;
            }
            let Some(found) = self.segments.get(&at.segment) else {
                return (at, Stop::Missing);
            };
            if self.end_mark == Some(at) && u64::from(at.offset) <= found.segment.bytes {
                return (at, Stop::Closed);
            }
            let mut window = Window::new(&found.segment);
            // A segment's frames in one go, so that the window is used again.
            loop {
                match frame(&mut window, &self.seed, at) {
                    Ok(Slot::Frame(header)) => {
                        frames.push(header);
                        at = header.end();
                    }
                    Ok(Slot::Bad(reason)) => return (at, Stop::Bad(reason)),
                    Err(error) => return (at, Stop::Unreadable(error)),
                }
                if self.joint(at).is_some() || self.end_mark == Some(at) {
                    break;
                }
            }
        }
    }

    /// The beginning of the segment in which the log goes on, if it leaves this one here.
    fn joint(&self, at: Position) -> Option<Position> {
        let later = self.segments.range(at.segment + 1..).rev();
        let taking_over = later
            .filter_map(|(number, found)| Some((number, found.header?.joins)))
            .find(|(_, joins)| matches!(joins, Joins::Start { follows, .. } if *follows == at));
        let next = || {
            let next = at.segment + 1;
            let found = self.segments.get(&next)?;
            (found.previous_end == Some(at.offset)).then_some(next)
        };
        let segment = taking_over.map(|(number, _)| *number).or_else(next)?;
        Some(Position {
            segment,
            offset: FIRST_FRAME,
        })
    }

    /// Tells the end of the log from damage.
    fn judge(&self, from: Position, end: Position, stop: Stop) -> Option<Corruption> {
        // Headers are durable before a segment has its name: no crash can have damaged one. That
        // of the first segment does not matter once the log has left it, and after an orderly
        // close those of the reserve do not.
        let left = (end.segment > from.segment).then_some(from.segment);
        let last = match stop {
            Stop::Closed => end.segment,
            _ => u64::MAX,
        };
        let headless = self
            .segments
            .range(..=last)
            .find(|(number, found)| found.header.is_none() && Some(**number) != left);
        if let Some((number, _)) = headless {
            let at = Position {
                segment: *number,
                offset: 0,
            };
            return Some(self.corruption(at, "the segment's header is damaged"));
        }
        let reason = match stop {
            Stop::Closed => return None,
            Stop::Missing if end == Position::START => {
                let first = self.past.len() + self.segments.len();
                return (first > 0).then(|| Corruption {
                    file: self.io.display(super::segment::DIR),
                    offset: 0,
                    reason: "the tables are empty, but the journal does not begin here".into(),
                });
            }
            Stop::Missing => return Some(self.corruption(end, "the file is missing")),
            Stop::Unreadable(error) => {
                return Some(self.corruption(end, format!("it cannot be read: {error}")));
            }
            Stop::Bad(reason) => reason,
        };
        let found = self.segments.get(&end.segment)?;
        if end == from && u64::from(end.offset) > found.segment.bytes {
            return Some(self.corruption(end, "the file ends before the tables' position"));
        }
        let claim = self.durable_behind(end)?;
        let damaged = self.damaged_place(end);
        Some(self.corruption(damaged, format!("{reason}, but {claim}")))
    }

    /// The frame that is missing at the end of the log: the one that begins there, or, when
    /// nothing was ever written there, the first one of the next segment.
    fn damaged_place(&self, end: Position) -> Position {
        let next = Position {
            segment: end.segment + 1,
            offset: FIRST_FRAME,
        };
        let written_here = self.segments.get(&end.segment).is_none_or(|found| {
            let mut fixed = [0; FRAME_HEADER_BYTES];
            let read = found
                .segment
                .file
                .read_at(u64::from(end.offset), &mut fixed);
            let stale = FrameHeader::peek(&fixed).is_some_and(|h| h.at.segment < end.segment);
            read.is_ok() && fixed[..FRAME_MAGIC.len()] != [0; FRAME_MAGIC.len()] && !stale
        });
        let mut more_here = false;
        let _ = self.search(end, &mut |header| {
            more_here = header.is_ok_and(|header| header.at.segment == end.segment);
            ControlFlow::Break(())
        });
        if written_here || more_here || !self.segments.contains_key(&next.segment) {
            return end;
        }
        next
    }

    /// Who says that bytes behind a position were durable.
    fn durable_behind(&self, end: Position) -> Option<String> {
        if let Some(mark) = self.end_mark.filter(|mark| *mark > end) {
            return Some(format!("the journal was closed at {mark}"));
        }
        let header = self.segments.get(&end.segment)?.header?;
        if let Joins::Start { durable_to, .. } = header.joins
            && durable_to > end.offset
        {
            return Some(format!("the segment was durable up to byte {durable_to}"));
        }
        let mut claim = None;
        let _ = self.search(end, &mut |header| match header {
            Ok(header) if header.durable > end => {
                let (at, durable) = (header.at, header.durable);
                claim = Some(format!("the frame at {at} says that {durable} was durable"));
                ControlFlow::Break(())
            }
            Ok(_) => ControlFlow::Continue(()),
            Err(error) => {
                claim = Some(format!("what follows cannot be read: {error}"));
                ControlFlow::Break(())
            }
        });
        claim
    }
}
