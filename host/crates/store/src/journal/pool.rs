//! Segments before and after use.

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
