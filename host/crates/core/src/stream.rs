//! A stream: its identity, its settings and its shards.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::hash_key::{HashKey, HashKeyRange};
use crate::shard::{Shard, ShardId};
use crate::tenant::Scope;
use crate::time::UnixMillis;

/// One incarnation of a stream: a stream that is deleted and made again has another one.
/// Assigned by the store, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(pub u64);

/// A stream's name: 1 to 128 of `a-z A-Z 0-9 _ . -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamName(Box<str>);

impl StreamName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not a stream's name.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("stream name {0:?}: 1 to 128 of a-z A-Z 0-9 _ . - expected")]
pub struct BadStreamName(pub String);

impl FromStr for StreamName {
    type Err = BadStreamName;

    fn from_str(text: &str) -> Result<Self, BadStreamName> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if (1..=128).contains(&text.len()) && text.bytes().all(good) {
            Ok(Self(text.into()))
        } else {
            Err(BadStreamName(text.into()))
        }
    }
}

impl TryFrom<String> for StreamName {
    type Error = BadStreamName;

    fn try_from(text: String) -> Result<Self, BadStreamName> {
        text.parse()
    }
}

impl From<StreamName> for String {
    fn from(name: StreamName) -> Self {
        name.0.into()
    }
}

/// How a stream gets its capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StreamMode {
    /// The owner says how many shards there are.
    Provisioned,
    /// The host splits and merges by load.
    OnDemand,
}

/// What a stream's state looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StreamStatus {
    /// Made, not yet usable.
    Creating,
    /// Usable.
    Active,
    /// Usable; its settings or its shards were changed a moment ago.
    Updating,
    /// On its way out.
    Deleting,
}

/// A stream with its shards, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// This incarnation.
    pub id: StreamId,
    /// Account and region.
    pub scope: Scope,
    /// The name in that scope.
    pub name: StreamName,
    /// When CreateStream was accepted.
    pub created: UnixMillis,
    /// From when on the stream is ACTIVE.
    pub active_from: UnixMillis,
    /// When DeleteStream was accepted.
    pub deleted: Option<UnixMillis>,
    /// Provisioned or on demand.
    pub mode: StreamMode,
    /// How long records are kept, 24 … 8,760 hours.
    pub retention_hours: u32,
    /// The largest record (data and partition key), 1,024 … 10,240 KiB.
    pub max_record_size_kib: u32,
    /// Tags, by key.
    #[serde(default)]
    pub tags: std::collections::BTreeMap<String, String>,
    /// Revision of the transaction that wrote this, 0 before the first. The store sets it, and
    /// refuses an update of any other one.
    #[serde(default)]
    pub revision: u64,
    /// Until when the stream is UPDATING.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updating_until: Option<UnixMillis>,
    /// When UpdateShardCount changed it, oldest first; what is older than a day may be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub count_updates: Vec<UnixMillis>,
    /// Every shard that is not expired, by index.
    pub shards: Vec<Shard>,
}

impl Stream {
    /// Records are kept for 24 hours unless the owner asks for more.
    pub const DEFAULT_RETENTION_HOURS: u32 = 24;
    /// The largest record unless the owner asks for more: 1 MiB.
    pub const DEFAULT_MAX_RECORD_SIZE_KIB: u32 = 1024;

    /// The shards of a new stream: `count` tiles, created two seconds before the call, as AWS
    /// has it, so that the first record's number is above the shard's start.
    pub fn initial_shards(count: u32, now: UnixMillis) -> Vec<Shard> {
        let created_seconds = now.seconds().saturating_sub(2);
        HashKeyRange::tiling(count)
            .zip(0..)
            .map(|(range, index)| Shard {
                id: ShardId(index),
                range,
                created_seconds,
                parents: Vec::new(),
                closed_seconds: None,
            })
            .collect()
    }

    /// The state at `now`.
    pub fn status(&self, now: UnixMillis) -> StreamStatus {
        if self.deleted.is_some() {
            StreamStatus::Deleting
        } else if now < self.active_from {
            StreamStatus::Creating
        } else if self.updating_until.is_some_and(|until| now < until) {
            StreamStatus::Updating
        } else {
            StreamStatus::Active
        }
    }

    /// Whether records can be put and read at `now`: ACTIVE or UPDATING.
    pub fn is_usable(&self, now: UnixMillis) -> bool {
        matches!(
            self.status(now),
            StreamStatus::Active | StreamStatus::Updating
        )
    }

    /// `arn:aws:kinesis:REGION:ACCOUNT:stream/NAME`.
    pub fn arn(&self) -> String {
        format!(
            "arn:aws:kinesis:{}:{}:stream/{}",
            self.scope.region, self.scope.tenant, self.name
        )
    }

    /// How long records are kept.
    pub fn retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.retention_hours) * 3600)
    }

    /// Whether a shard was closed longer ago than records are kept: it is no longer shown.
    pub fn is_expired(&self, shard: &Shard, now: UnixMillis) -> bool {
        let horizon = now.minus(self.retention()).seconds();
        shard.closed_seconds.is_some_and(|closed| closed < horizon)
    }

    /// The largest record, data and partition key together, in bytes.
    pub fn max_record_bytes(&self) -> usize {
        self.max_record_size_kib as usize * 1024
    }

    /// The shards that take records, by index.
    pub fn open_shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().filter(|shard| shard.is_open())
    }

    /// The open shard that takes `key`. Open shards tile the hash space.
    pub fn open_shard(&self, key: HashKey) -> Option<&Shard> {
        self.open_shards().find(|shard| shard.range.contains(key))
    }

    /// The shard with this id, open or closed.
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        self.shards
            .binary_search_by_key(&id, |s| s.id)
            .ok()
            .map(|at| &self.shards[at])
    }

    /// The shards that came from `id`.
    pub fn children(&self, id: ShardId) -> impl Iterator<Item = &Shard> {
        self.shards.iter().filter(move |s| s.parents.contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &str = r#"{"id":7,"scope":{"tenant":"000000000000","region":"us-east-1"},
        "name":"s","created":1000,"active_from":2000,"deleted":null,"mode":"PROVISIONED",
        "retention_hours":24,"max_record_size_kib":1024,"tags":{},"shards":[{"id":0,"range":
        {"start":"0","end":"340282366920938463463374607431768211455"},"created_seconds":0,
        "parents":[],"closed_seconds":null}]}"#;

    #[test]
    fn a_stream_that_was_stored_before_it_had_revisions_is_read() {
        let stream: Stream = serde_json::from_str(STORED).expect("a stream");
        assert_eq!((stream.revision, stream.updating_until), (0, None));
        assert_eq!(stream.count_updates, []);
        let again = serde_json::to_string(&stream).expect("JSON");
        assert_eq!(serde_json::from_str(&again).ok(), Some(stream));
    }

    #[test]
    fn a_stream_is_usable_while_it_is_updating() {
        let mut stream: Stream = serde_json::from_str(STORED).expect("a stream");
        stream.updating_until = Some(UnixMillis(9000));
        for (now, want, usable) in [
            (1999, StreamStatus::Creating, false),
            (2000, StreamStatus::Updating, true),
            (8999, StreamStatus::Updating, true),
            (9000, StreamStatus::Active, true),
        ] {
            let now = UnixMillis(now);
            assert_eq!((stream.status(now), stream.is_usable(now)), (want, usable));
        }
        stream.deleted = Some(UnixMillis(8000));
        assert_eq!(stream.status(UnixMillis(8500)), StreamStatus::Deleting);
        assert!(!stream.is_usable(UnixMillis(8500)));
    }
}
