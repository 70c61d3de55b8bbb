//! The engine on real and simulated disks: the contract, crashes, rot, full disks, failed syncs.

mod contract;
mod crash;
mod faults;

use std::sync::Arc;

use shardmill_core::{Block, Scope, ShardId, ShardKey, StreamId};

use super::*;
use crate::io::SimIo;
use crate::test_support::{TestClock, records, stream_of};
use crate::tx::{Append, CounterAdd, Route, StreamChange, Value};
use crate::{ReadLimit, Table};

/// Small segments, and tables that are written when a test says so.
fn options() -> Options {
    Options {
        segment_bytes: 256 << 10,
        low_water_bytes: 0,
        table_sync_interval: Duration::from_secs(3600),
        prepare: Prepare::Writer,
        new_store_id: 77,
        ..Options::default()
    }
}

fn try_open(io: &SimIo, options: Options) -> Result<Arc<Embedded>, OpenError> {
    Embedded::open(
        Arc::new(io.clone()),
        options,
        TestClock::default().as_clock(),
    )
}

fn open(io: &SimIo) -> Arc<Embedded> {
    try_open(io, options()).expect("the store opens")
}

async fn create(store: &Embedded, name: &str, shards: u32) -> StreamId {
    let tx = Tx {
        streams: vec![StreamChange::Create(Box::new(stream_of(name, shards)))],
        ..Tx::default()
    };
    store.commit(tx).await.expect("a stream").created[0]
}

fn shard(stream: StreamId, index: u32) -> ShardKey {
    ShardKey {
        stream,
        shard: ShardId(index),
    }
}

fn append(stream: StreamId, index: u32, keys: impl IntoIterator<Item = String>) -> Append {
    Append {
        stream,
        route: Route::Shard(ShardId(index)),
        records: records(keys),
    }
}

/// A record of a few KiB whose data follows from its key.
fn large(stream: StreamId, index: u32, key: &str) -> Append {
    let mut records = shardmill_core::Records::default();
    records.push(key, None, &large_data(key));
    Append {
        stream,
        route: Route::Shard(ShardId(index)),
        records,
    }
}

fn large_data(key: &str) -> Vec<u8> {
    key.bytes().cycle().take(4000).collect()
}

fn state(name: &str) -> Key {
    Key::new(Table::State, &Scope::default())
        .part("f")
        .part(name)
}

fn write(name: &str, value: &str) -> (Key, Value) {
    let value = Value::Inline(Bytes::copy_from_slice(value.as_bytes()));
    (state(name), value)
}

fn count(name: &str, amount: i64) -> CounterAdd {
    CounterAdd {
        scope: Scope::default(),
        function: "f".into(),
        name: name.into(),
        amount,
    }
}

const ALL: ReadLimit = ReadLimit {
    records: usize::MAX,
    bytes: usize::MAX,
};

/// All records of a shard that are not trimmed, as position and key.
async fn records_of(store: &Embedded, shard: ShardKey) -> Vec<(u64, String)> {
    let floor = store.seek(shard, Seek::TrimHorizon).await.expect("a floor");
    let end = store.seek(shard, Seek::Latest).await.expect("an end");
    let mut found: Vec<(u64, String)> = Vec::new();
    loop {
        let next = found.last().map_or(floor, |(last, _)| last + 1);
        if next >= end {
            return found;
        }
        let blocks = store.read(shard, next, ALL).await.expect("a read");
        let all = blocks.iter().flat_map(Block::iter);
        found.extend(
            all.filter(|record| record.position >= next)
                .map(|record| (record.position, record.parts.key.to_owned())),
        );
    }
}
