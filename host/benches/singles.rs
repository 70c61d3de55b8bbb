//! Single records of 1 KB, each acknowledged when it is durable, from 16 clients at once.
//!
//! Limit: the same clients and bytes with the least that group commit can be (`group_log.rs`).
//! Both take turns in one process. *Records per sync* says what group commit makes of 16 clients:
//! one sync for each group, so at most 16. *Device bytes* are as in `bytes.rs`; a sync writes whole
//! pages, so that small groups write their last page more than once, on both sides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shardmill::clock::Clock;
use shardmill_store::io::DiskIo;
use tokio::runtime::Runtime;

use crate::bench::Bench;
use crate::bytes::{create_stream, device_bytes, put, records};
use crate::cpu;
use crate::figure::{Figure, Unit};
use crate::group_log::GroupLog;
use crate::row::{Goal, Row};
use crate::server;

const CLIENTS: usize = 16;
const RECORD_BYTES: usize = 1024;

/// What a turn came to.
#[derive(Clone, Copy)]
struct Turn {
    records_per_second: f64,
    records_per_sync: f64,
    cpu_per_record: f64,
    device_bytes_per_payload_byte: f64,
}

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let folder = bench.folder()?;
    let store = server::embedded(&folder.path().join("store"), Clock::system())?;
    let stream = runtime.block_on(create_stream(&*store, "bench", 4))?;
    let log = Arc::new(GroupLog::create(
        &DiskIo::new(folder.path().join("raw"))?,
        "raw",
    )?);
    let raw_record = Bytes::copy_from_slice(records(1, RECORD_BYTES).blob());
    let (turns, span) = bench.choose(
        (12, Duration::from_millis(1500)),
        (3, Duration::from_millis(300)),
    );
    let (mut durable, mut raw) = (Vec::new(), Vec::new());
    for turn in 0..turns {
        bench.turn("16 clients", turn, turns);
        for side in 0..2 {
            if (turn + side) % 2 == 0 {
                let (put_to, counted) = (Arc::clone(&store), Arc::clone(&store));
                let one = move || {
                    let store = Arc::clone(&put_to);
                    async move { put(&*store, stream, records(1, RECORD_BYTES)).await }
                };
                let syncs = move || counted.stats().groups;
                durable.push(runtime.block_on(turn_of(span, syncs, one))?);
            } else {
                let (append_to, record) = (Arc::clone(&log), raw_record.clone());
                let one = move || {
                    let (log, record) = (Arc::clone(&append_to), record.clone());
                    async move { log.append(record).await }
                };
                raw.push(runtime.block_on(turn_of(span, || log.syncs(), one))?);
            }
        }
    }
    runtime.block_on(store.close());
    let speeds =
        |turns: &[Turn]| -> Vec<f64> { turns.iter().map(|turn| turn.records_per_second).collect() };
    bench.add("durable puts of 1 KB, 16 clients", |group, name| {
        Row::new(
            group,
            name,
            Figure::of(Unit::RecordsPerSecond, speeds(&durable)),
        )
        .limit(
            "raw group commit",
            Figure::of(Unit::RecordsPerSecond, speeds(&raw)),
        )
        .ratio(Figure::of_ratios(speeds(&durable), speeds(&raw)))
        .goal(Goal::RatioAtLeast(0.9))
    });
    let figure =
        |unit, turns: &[Turn], of: fn(&Turn) -> f64| Figure::of(unit, turns.iter().map(of));
    bench.add("records per sync", |group, name| {
        let per_sync = |turns: &[Turn]| figure(Unit::Records, turns, |turn| turn.records_per_sync);
        Row::new(group, name, per_sync(&durable)).limit("raw group commit", per_sync(&raw))
    });
    bench.add("CPU per record, clients included", |group, name| {
        let per_record = |turns: &[Turn]| figure(Unit::Seconds, turns, |turn| turn.cpu_per_record);
        Row::new(group, name, per_record(&durable)).limit("raw group commit", per_record(&raw))
    });
    bench.add("device bytes per payload byte", |group, name| {
        let per_byte = |turns: &[Turn]| {
            figure(Unit::Ratio, turns, |turn| {
                turn.device_bytes_per_payload_byte
            })
        };
        Row::new(group, name, per_byte(&durable)).limit("raw group commit", per_byte(&raw))
    });
    Ok(())
}

/// Lets the clients call `one`, each as soon as its last call has ended.
async fn turn_of<F>(
    span: Duration,
    syncs: impl Fn() -> u64,
    one: impl Fn() -> F + Clone + Send + 'static,
) -> anyhow::Result<Turn>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let payload_bytes = records(1, RECORD_BYTES).blob().len() as f64;
    let device = device_bytes()?;
    let (started, synced, cpu) = (Instant::now(), syncs(), cpu::process());
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let one = one.clone();
        clients.spawn(async move {
            let mut count = 0u64;
            while started.elapsed() < span {
                one().await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(client) = clients.join_next().await {
        count += client??;
    }
    let count = count as f64;
    Ok(Turn {
        records_per_second: count / started.elapsed().as_secs_f64(),
        records_per_sync: count / (syncs() - synced) as f64,
        cpu_per_record: (cpu::process() - cpu).as_secs_f64() / count,
        device_bytes_per_payload_byte: (device_bytes()? - device) as f64 / (payload_bytes * count),
    })
}
