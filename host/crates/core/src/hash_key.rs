//! The 128-bit hash space: which key a record has, and how shards tile the space.
//!
//! Rules: Kinesis Data Streams, "Key concepts" (partition key) and PutRecord (`ExplicitHashKey`).

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

/// A point of the hash space, 0 … 2^128 − 1. Written in decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKey(pub u128);

impl HashKey {
    /// MD5 of the partition key's UTF-8 bytes, as a big-endian integer.
    pub fn of_partition_key(key: &str) -> Self {
        Self(u128::from_be_bytes(Md5::digest(key.as_bytes()).into()))
    }
}

impl std::fmt::Display for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for HashKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HashKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// A shard's part of the space; both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashKeyRange {
    /// The lowest key.
    pub start: HashKey,
    /// The highest key.
    pub end: HashKey,
}

impl HashKeyRange {
    /// Whether `key` belongs to the range.
    pub fn contains(&self, key: HashKey) -> bool {
        self.start <= key && key <= self.end
    }

    /// `count` ranges of width ⌊2^128 / count⌋; the last one takes the remainder.
    pub fn tiling(count: u32) -> impl Iterator<Item = Self> {
        let n = u128::from(count.max(1));
        // 2^128 / n without 129 bits: (2^128 − n) / n + 1.
        let width = if n == 1 {
            0
        } else {
            (u128::MAX - n + 1) / n + 1
        };
        (0..n).map(move |i| Self {
            start: HashKey(i * width),
            end: HashKey(if i + 1 == n {
                u128::MAX
            } else {
                (i + 1) * width - 1
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_join_and_cover_the_space() {
        for count in [1, 2, 3, 4, 5, 7, 10, 64, 1000, 9_999] {
            let tiles: Vec<_> = HashKeyRange::tiling(count).collect();
            assert_eq!(tiles.len(), count as usize);
            assert_eq!(tiles[0].start.0, 0);
            assert_eq!(tiles[tiles.len() - 1].end.0, u128::MAX);
            for pair in tiles.windows(2) {
                assert_eq!(pair[0].end.0 + 1, pair[1].start.0, "{count}");
            }
        }
        let thirds: Vec<_> = HashKeyRange::tiling(3).map(|r| r.end.to_string()).collect();
        assert_eq!(thirds[0], "113427455640312821154458202477256070484");
    }

    #[test]
    fn keys_hash_as_aws_does() {
        for (key, hash) in [
            ("a", "16955237001963240173058271559858726497"),
            ("b", "195289424170611159128911017612795795343"),
            ("ü", "255482112228542481294366945247899473731"),
        ] {
            assert_eq!(HashKey::of_partition_key(key).to_string(), hash);
        }
    }
}
