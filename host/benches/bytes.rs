//! What durability costs in bytes.
//!
//! - *overhead*: bytes of journal frames beyond keys and data, for each byte of keys and data; in
//!   groups of 500 records over four shards, and for a record alone. Exact, so without a range.
//! - *device bytes*: what the process wrote to its disk, as the kernel counts it
//!   (`/proc/self/io`, pages made dirty), for each byte of frames: journal, tables and an orderly
//!   close. The file system's own journal is not in it. The limit is 1.

use std::sync::Arc;

use anyhow::Context as _;
use shardmill::clock::Clock;
use shardmill_core::stream::StreamMode;
use shardmill_core::{Records, Scope, Stream, StreamId};
use shardmill_store::{Append, Route, Store, StreamChange, Tx};
use tokio::runtime::Runtime;

use crate::bench::Bench;
use crate::figure::{Figure, Unit};
use crate::row::{Goal, Row};
use crate::{input, server};

/// Transactions that are under way at a time while device bytes are counted.
const IN_FLIGHT: usize = 8;

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    for (count, data_bytes) in [(500, 100), (500, 1024), (1, 1024)] {
        overhead(bench, &runtime, count, data_bytes)?;
    }
    device_bytes_of_groups(bench, &runtime)
}

fn overhead(
    bench: &mut Bench,
    runtime: &Runtime,
    count: usize,
    data_bytes: usize,
) -> anyhow::Result<()> {
    let folder = bench.folder()?;
    let store = server::embedded(folder.path(), Clock::system())?;
    let stream = runtime.block_on(create_stream(&*store, "bench", 4))?;
    let records = records(count, data_bytes);
    let payload = records.blob().len() as f64;
    let before = store.stats().frame_bytes;
    runtime.block_on(put(&*store, stream, records))?;
    let frame = (store.stats().frame_bytes - before) as f64;
    runtime.block_on(store.close());
    let records = if count == 1 { "record" } else { "records" };
    let name = format!("overhead per payload byte, {count} {records} of {data_bytes} B");
    bench.add(name, |group, name| {
        Row::new(
            group,
            name,
            Figure::of(Unit::Ratio, [(frame - payload) / payload]),
        )
    });
    Ok(())
}

fn device_bytes_of_groups(bench: &mut Bench, runtime: &Runtime) -> anyhow::Result<()> {
    let (turns, transactions) = bench.choose((5, 512), (2, 128));
    let mut ratios = Vec::new();
    for turn in 0..turns {
        bench.turn("device bytes", turn, turns);
        let folder = bench.folder()?;
        let store = server::embedded(folder.path(), Clock::system())?;
        let stream = runtime.block_on(create_stream(&*store, "bench", 4))?;
        let (device, frames) = (device_bytes()?, store.stats().frame_bytes);
        runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..IN_FLIGHT {
                let store = Arc::clone(&store);
                tasks.spawn(async move {
                    for _ in 0..transactions / IN_FLIGHT {
                        put(&*store, stream, records(500, 1024)).await?;
                    }
                    anyhow::Ok(())
                });
            }
            while let Some(ended) = tasks.join_next().await {
                ended??;
            }
            store.close().await;
            anyhow::Ok(())
        })?;
        let frames = store.stats().frame_bytes - frames;
        ratios.push((device_bytes()? - device) as f64 / frames as f64);
    }
    bench.add("device bytes per frame byte, 500 × 1 KB", |group, name| {
        Row::new(group, name, Figure::of(Unit::Ratio, ratios)).goal(Goal::AtMost(1.05))
    });
    Ok(())
}

/// What this process has written to disks so far, as the kernel counts it.
///
/// # Errors
/// `/proc` does not say.
pub(crate) fn device_bytes() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io").context("read /proc/self/io")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    let bytes = line.and_then(|bytes| bytes.parse().ok());
    bytes.context("find write_bytes in /proc/self/io")
}

/// Records with keys of 8 bytes and data that does not compress.
pub(crate) fn records(count: usize, data_bytes: usize) -> Records {
    let data = input::noise(7, data_bytes);
    let mut records = Records::with_capacity(count, count * (data_bytes + 8));
    for number in 0..count {
        records.push(&input::key(number), None, &data);
    }
    records
}

/// Makes a stream, active at once.
///
/// # Errors
/// The store's.
pub(crate) async fn create_stream(
    store: &dyn Store,
    name: &str,
    shards: u32,
) -> anyhow::Result<StreamId> {
    let now = Clock::system().now();
    let stream = Stream {
        id: StreamId(0),
        scope: Scope::default(),
        name: name.parse().context("a stream's name")?,
        created: now,
        active_from: now,
        deleted: None,
        mode: StreamMode::Provisioned,
        retention_hours: Stream::DEFAULT_RETENTION_HOURS,
        max_record_size_kib: Stream::DEFAULT_MAX_RECORD_SIZE_KIB,
        tags: Default::default(),
        revision: 0,
        updating_until: None,
        count_updates: Vec::new(),
        shards: Stream::initial_shards(shards, now),
    };
    let tx = Tx {
        streams: vec![StreamChange::Create(Box::new(stream))],
        ..Tx::default()
    };
    let receipt = store.commit(tx).await?;
    receipt.created.first().copied().context("a stream's id")
}

/// Puts records where their keys say.
///
/// # Errors
/// The store's.
pub(crate) async fn put(
    store: &dyn Store,
    stream: StreamId,
    records: Records,
) -> anyhow::Result<()> {
    let append = Append {
        stream,
        route: Route::HashKey,
        records,
    };
    let tx = Tx {
        appends: vec![append],
        ..Tx::default()
    };
    store.commit(tx).await?;
    Ok(())
}
