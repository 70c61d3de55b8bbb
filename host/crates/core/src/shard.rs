//! A shard: a range of the hash space with records in order.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::hash_key::HashKeyRange;
use crate::sequence::{Fields, LAST_COUNTER, SequenceNumber};
use crate::stream::StreamId;

/// A shard's index in its stream, 0 … 2^31 − 1. Indices grow and are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub u32);

impl ShardId {
    /// Reads an id as leniently as Kinesis: the text after the first hyphen, or the whole text,
    /// must be a decimal number up to 2^31 − 1.
    pub fn parse_lenient(text: &str) -> Option<Self> {
        let digits = text.split_once('-').map_or(text, |(_, rest)| rest);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let significant = digits.trim_start_matches('0');
        if significant.is_empty() {
            return Some(Self(0));
        }
        significant
            .parse()
            .ok()
            .filter(|index| *index <= i32::MAX as u32)
            .map(Self)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shardId-{:012}", self.0)
    }
}

/// A shard of one incarnation of a stream, in one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardKey {
    /// The stream.
    pub stream: StreamId,
    /// The shard in it.
    pub shard: ShardId,
}

impl fmt::Display for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {} {}", self.stream.0, self.shard)
    }
}

/// What is known of a shard beside its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its index.
    pub id: ShardId,
    /// Its part of the hash space.
    pub range: HashKeyRange,
    /// When it was created, seconds since the epoch: part of its sequence numbers.
    pub created_seconds: u64,
    /// None, one (split) or two (merge: parent, adjacent parent) shards that it came from.
    pub parents: Vec<ShardId>,
    /// When it was closed, seconds since the epoch; it takes no records since.
    pub closed_seconds: Option<u64>,
}

impl Shard {
    /// Whether it takes records.
    pub fn is_open(&self) -> bool {
        self.closed_seconds.is_none()
    }

    /// The number of the record at `counter` that arrived at `seconds`.
    pub fn sequence_number(&self, counter: u64, seconds: u64) -> SequenceNumber {
        SequenceNumber::new(Fields {
            created_seconds: self.created_seconds,
            shard_index: self.id.0,
            counter,
            seconds,
        })
    }

    /// The number before every record of the shard.
    pub fn starting_sequence_number(&self) -> SequenceNumber {
        self.sequence_number(0, self.created_seconds)
    }

    /// The number after every record, when the shard is closed.
    pub fn ending_sequence_number(&self) -> Option<SequenceNumber> {
        self.closed_seconds
            .map(|seconds| self.sequence_number(LAST_COUNTER, seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_leniently_as_aws_does() {
        for (text, index) in [
            ("shardId-000000000003", Some(3)),
            ("0", Some(0)),
            ("anything-7", Some(7)),
            ("-00002147483647", Some(2_147_483_647)),
            ("shardId-2147483648", None),
            ("shardId-", None),
            ("shardId-1-2", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(ShardId::parse_lenient(text), index.map(ShardId), "{text}");
        }
    }
}
