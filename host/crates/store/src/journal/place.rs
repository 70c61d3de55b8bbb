//! Where things are in the journal.

use std::fmt;

/// A place between frames: everything before it, in this and in lower segments, comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The segment's number; segments count from 1.
    pub segment: u64,
    /// Bytes from the beginning of its file.
    pub offset: u32,
}

impl Position {
    /// Before the first frame of a journal that may not exist yet.
    pub const START: Self = Self {
        segment: 0,
        offset: 0,
    };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

/// A frame's payload, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The segment's number.
    pub segment: u64,
    /// Bytes from the beginning of its file.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Place {
    /// `len` bytes of this place, from its byte `at` on. `None` beyond its end.
    #[must_use]
    pub fn part(self, at: u32, len: u32) -> Option<Self> {
        (at.checked_add(len)? <= self.len).then(|| Self {
            offset: self.offset + at,
            len,
            ..self
        })
    }
}
