//! Which blocks one read returns.

use crate::ReadLimit;

/// Takes neighbouring blocks until the limit is reached: the first one always.
#[derive(Debug)]
pub(crate) struct Cut {
    from: u64,
    limit: ReadLimit,
    records: u64,
    bytes: usize,
    empty: bool,
}

impl Cut {
    /// A read of a shard from a position on.
    pub(crate) fn new(from: u64, limit: ReadLimit) -> Self {
        Self {
            from,
            limit,
            records: 0,
            bytes: 0,
            empty: true,
        }
    }

    /// Whether the next block, of these positions and this size, still belongs to the read.
    pub(crate) fn takes(&mut self, first: u64, end: u64, blob_bytes: usize) -> bool {
        let records = end.saturating_sub(first.max(self.from));
        self.records += records;
        self.bytes += blob_bytes;
        let fits = self.records <= self.limit.records as u64 && self.bytes <= self.limit.bytes;
        let takes = fits || self.empty;
        self.empty = false;
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_block_is_taken_whatever_its_size() {
        let limit = ReadLimit {
            records: 10,
            bytes: 100,
        };
        let mut cut = Cut::new(5, limit);
        assert!(cut.takes(1, 105, 1000), "the first");
        assert!(!cut.takes(105, 106, 1));
        let mut cut = Cut::new(5, limit);
        assert!(cut.takes(1, 8, 40), "three of its records count");
        assert!(cut.takes(8, 15, 60), "exactly the limit");
        assert!(!cut.takes(15, 16, 0));
    }
}
