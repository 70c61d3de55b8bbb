//! How much lies between two positions of a shard.

use shardmill_core::UnixMillis;

/// What lies between two positions of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Records.
    pub records: u64,
    /// Bytes of their keys and data. Of a block that lies only partly between the positions, its
    /// bytes count in proportion to its records; whole blocks count exactly.
    pub bytes: u64,
    /// When the oldest of them arrived; `None` when there is none.
    pub oldest: Option<UnixMillis>,
}

/// Of a block of `bytes` at positions `first..end`, what counts before position `at`.
pub(crate) fn portion(bytes: u64, (first, end): (u64, u64), at: u64) -> u64 {
    let records = u128::from(end.saturating_sub(first).max(1));
    let before = u128::from(at.clamp(first, end.max(first)) - first);
    // At most `bytes`, as `before` is at most `records`.
    u64::try_from(u128::from(bytes) * before / records).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_of_a_block_join_to_the_whole() {
        for (bytes, first, end) in [(10, 1, 4), (7, 5, 6), (0, 3, 9), (u64::MAX, 1, 3)] {
            let at = |at| portion(bytes, (first, end), at);
            assert_eq!(
                (at(0), at(first), at(end), at(u64::MAX)),
                (0, 0, bytes, bytes)
            );
            let parts: u64 = (first..end).map(|n| at(n + 1) - at(n)).sum();
            assert_eq!(parts, bytes);
        }
    }
}
