//! How fast the store takes records, on this machine's disk: durable PutRecords-sized batches,
//! and single records, from 16 producers, beside the store in memory.
//!
//! `cargo run --release -p shardmill-store --example throughput [FOLDER]`
#![expect(
    clippy::disallowed_methods,
    reason = "a measurement reads the machine's clock"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shardmill_core::stream::StreamMode;
use shardmill_core::{Records, Scope, ShardId, Stream, StreamId, UnixMillis};
use shardmill_store::io::DiskIo;
use shardmill_store::{Append, Clock, Embedded, Memory, Options, Route, Store, StreamChange, Tx};

const PRODUCERS: u32 = 16;
const SHARDS: u32 = 8;
const RECORD_BYTES: usize = 1024;
const RUN: Duration = Duration::from_secs(4);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(
        || std::env::temp_dir().join(format!("shardmill-throughput-{}", std::process::id())),
        PathBuf::from,
    );
    for round in 1..=3 {
        for batch in [500, 1] {
            std::fs::create_dir_all(&folder)?;
            let io = Arc::new(DiskIo::new(&folder)?);
            let before = resident_bytes();
            let store = Embedded::open(io, Options::default(), clock())?;
            let opened = resident_bytes().saturating_sub(before);
            let took = measure(Arc::clone(&store) as Arc<dyn Store>, batch).await?;
            let stats = store.stats();
            println!(
                "round {round}, {batch:>3} records a batch: embedded {took}, {} groups, {:.3} frame bytes per payload byte, {} KiB resident for an empty store",
                stats.groups,
                stats.frame_bytes as f64 / (stats.records * RECORD_BYTES as u64) as f64,
                opened >> 10,
            );
            store.close().await;
            drop(store);
            std::fs::remove_dir_all(&folder)?;
            let memory = Arc::new(Memory::new(clock()));
            let took = measure(memory, batch).await?;
            println!("round {round}, {batch:>3} records a batch: memory   {took}");
        }
    }
    Ok(())
}

fn clock() -> Clock {
    Arc::new(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        UnixMillis(now.map_or(0, |now| now.as_millis() as u64))
    })
}

/// What one run gave.
struct Took {
    records: u64,
    wall: Duration,
    cpu: Duration,
    latencies: Vec<Duration>,
}

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rate = self.records as f64 / self.wall.as_secs_f64();
        let at = |share: f64| {
            let at = (self.latencies.len() as f64 * share) as usize;
            self.latencies[at.min(self.latencies.len() - 1)]
        };
        write!(
            f,
            "{rate:>9.0} records/s, {:.2} CPU µs per record, ack p50 {:.2?} p99 {:.2?}",
            self.cpu.as_secs_f64() * 1e6 / self.records as f64,
            at(0.5),
            at(0.99),
        )
    }
}

async fn measure(store: Arc<dyn Store>, batch: usize) -> Result<Took, Box<dyn std::error::Error>> {
    let tx = Tx {
        streams: vec![StreamChange::Create(Box::new(stream()))],
        ..Tx::default()
    };
    let stream = store.commit(tx).await?.created[0];
    let (started, cpu) = (Instant::now(), cpu_time());
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..PRODUCERS {
        let store = Arc::clone(&store);
        producers.spawn(async move {
            let data = vec![producer as u8; RECORD_BYTES];
            let mut latencies = Vec::new();
            while started.elapsed() < RUN {
                let tx = put(stream, producer, batch, &data);
                let began = Instant::now();
                store.commit(tx).await?;
                latencies.push(began.elapsed());
            }
            Ok::<_, shardmill_store::CommitError>(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = producers.join_next().await {
        latencies.extend(done??);
    }
    let (wall, cpu) = (started.elapsed(), cpu_time() - cpu);
    latencies.sort();
    Ok(Took {
        records: (latencies.len() * batch) as u64,
        wall,
        cpu,
        latencies,
    })
}

fn put(stream: StreamId, producer: u32, batch: usize, data: &[u8]) -> Tx {
    let mut records = Records::with_capacity(batch, batch * (data.len() + 16));
    for n in 0..batch {
        records.push(&format!("key {n}"), None, data);
    }
    Tx {
        appends: vec![Append {
            stream,
            route: Route::Shard(ShardId(producer % SHARDS)),
            records,
        }],
        ..Tx::default()
    }
}

fn stream() -> Stream {
    let now = clock()();
    Stream {
        id: StreamId(0),
        scope: Scope::default(),
        name: "bench".parse().expect("a stream's name"),
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
        shards: Stream::initial_shards(SHARDS, now),
    }
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split(' ').collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or(0)
    };
    // Fields 14 and 15 of the whole line, in ticks of 10 ms.
    Duration::from_millis(10 * (ticks(12) + ticks(13)))
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|f| f.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}
