//! Things that several tests make.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shardmill_core::stream::StreamMode;
use shardmill_core::{Records, Scope, Stream, StreamId, UnixMillis};

use crate::Clock;

/// When test streams are created.
pub(crate) const CREATED: UnixMillis = UnixMillis(1_700_000_000_000);

/// A stream that the store has not seen.
pub(crate) fn stream_of(name: &str, shards: u32) -> Stream {
    Stream {
        id: StreamId(0),
        scope: Scope::default(),
        name: name.parse().expect("a stream's name"),
        created: CREATED,
        active_from: CREATED,
        deleted: None,
        mode: StreamMode::Provisioned,
        retention_hours: Stream::DEFAULT_RETENTION_HOURS,
        max_record_size_kib: Stream::DEFAULT_MAX_RECORD_SIZE_KIB,
        tags: Default::default(),
        revision: 0,
        updating_until: None,
        count_updates: Vec::new(),
        shards: Stream::initial_shards(shards, CREATED),
    }
}

/// Records with these keys, each with "data of KEY" as its data.
pub(crate) fn records(keys: impl IntoIterator<Item = String>) -> Records {
    let mut records = Records::default();
    for key in keys {
        records.push(&key, None, format!("data of {key}").as_bytes());
    }
    records
}

/// A clock that tests move.
#[derive(Clone, Debug)]
pub(crate) struct TestClock(Arc<AtomicU64>);

impl Default for TestClock {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(CREATED.0)))
    }
}

impl TestClock {
    pub(crate) fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }

    pub(crate) fn set(&self, millis: u64) {
        self.0.store(millis, Ordering::SeqCst);
    }

    pub(crate) fn advance(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }

    pub(crate) fn as_clock(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}
