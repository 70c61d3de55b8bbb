//! The records of one invocation, as a view of the host's buffer.

use crate::Record;
use crate::abi::ENTRY_BYTES;

/// The records of one invocation, in the order of their sequence numbers. Copying it copies two
/// pointers.
///
/// Where the batch comes from stands in [`Context::invocation`](crate::Context::invocation).
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    bytes: &'a [u8],
    entries: &'a [[u8; ENTRY_BYTES]],
}

impl<'a> Batch<'a> {
    /// `index` holds whole entries; what they point at is checked when a record is read.
    pub(crate) fn new(bytes: &'a [u8], index: &'a [u8]) -> Self {
        Self {
            bytes,
            entries: index.as_chunks().0,
        }
    }

    /// Number of records, 0 … 10,000. A new version of a function is tried on an empty batch.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The record at `index`, or `None` past the end.
    pub fn get(&self, index: usize) -> Option<Record<'a>> {
        let entry = self.entries.get(index)?;
        Some(Record::new(self.bytes, entry, index as u32))
    }

    /// The records in order. [`Record::index`] tells each one's place.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'a>> + use<'a> {
        let bytes = self.bytes;
        (self.entries.iter().enumerate())
            .map(move |(index, entry)| Record::new(bytes, entry, index as u32))
    }
}
