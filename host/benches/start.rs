//! The real process: from its start to its first answer, and what it holds when it is idle.
//!
//! - *start*: from the spawn to the answer to ListStreams, on an empty store (made anew each
//!   time), on one of 1 GB that was stopped in order, and on the same one killed with -9 in the
//!   midst of puts, where it has to recover what came after its tables were last durable. The
//!   limit is a process that does nothing: `shardmill --version`.
//! - *idle memory*: resident bytes (`VmRSS`, the binary's own pages included) 3 s after the start;
//!   with nothing, and with the clickstream handler deployed and mapped to a stream of 4 shards
//!   and of 1,000: what the second holds more is the cost of a shard and its poller.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::client::{self, Client};
use crate::figure::{Figure, Unit};
use crate::process::Process;
use crate::row::{Goal, Row};
use crate::server::create_stream;
use crate::{bodies, input};

const STREAM: &str = "bench";
const RECORDS: usize = 500;
const RECORD_BYTES: usize = 1024;
const CONNECTIONS: usize = 4;
/// How long a process is left alone before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(3);

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    empty(bench)?;
    full(bench)?;
    with_handler(bench)
}

fn empty(bench: &mut Bench) -> anyhow::Result<()> {
    let turns = bench.choose(9, 3);
    let (mut starts, mut nothing, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..turns {
        bench.turn("an empty store", turn, turns);
        let folder = bench.folder()?;
        let (process, span) = timed_start(folder.path())?;
        starts.push(span);
        // Three looks are enough: memory hardly differs from start to start.
        if turn < 3 {
            std::thread::sleep(SETTLE);
            memory.push(process.memory_bytes("VmRSS")? as f64);
        }
        process.stop()?;
        let started = Instant::now();
        let version = Command::new(env!("CARGO_BIN_EXE_shardmill"))
            .arg("--version")
            .output()?;
        anyhow::ensure!(version.status.success(), "shardmill --version failed");
        nothing.push(started.elapsed());
    }
    bench.add("start to first answer, empty store", |group, name| {
        Row::new(group, name, Figure::of_spans(starts))
            .limit("shardmill --version", Figure::of_spans(nothing))
    });
    bench.add("idle memory, empty store", |group, name| {
        Row::new(group, name, Figure::of(Unit::Bytes, memory)).goal(Goal::AtMost(30.0 * 1048576.0))
    });
    Ok(())
}

fn full(bench: &mut Bench) -> anyhow::Result<()> {
    let (turns, requests_of_all) = bench.choose((5, 2_000), (2, 200));
    let requests: Vec<Vec<u8>> = (0..8).map(request).collect();
    let folder = bench.folder()?;
    let process = Process::start(folder.path(), None)?;
    create_stream(process.address(), STREAM, 4)?;
    client::load(process.address(), &requests, requests_of_all, CONNECTIONS)?;
    process.stop()?;
    let megabytes = requests_of_all * RECORDS * RECORD_BYTES / 1_000_000;
    let (mut orderly, mut killed, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..turns {
        bench.turn("a full store", turn, turns);
        let (process, span) = timed_start(folder.path())?;
        orderly.push(span);
        if turn < 3 {
            std::thread::sleep(SETTLE);
            memory.push(process.memory_bytes("VmRSS")? as f64);
        }
        // About 50 MB more than the tables were told of, then -9.
        client::load(process.address(), &requests, 100, CONNECTIONS)?;
        drop(process);
        let (process, span) = timed_start(folder.path())?;
        killed.push(span);
        process.stop()?;
    }
    bench.add(
        format!("start to first answer, {megabytes} MB store, stopped in order"),
        |group, name| Row::new(group, name, Figure::of_spans(orderly)),
    );
    bench.add(
        format!("start to first answer, {megabytes} MB store, killed with -9"),
        |group, name| Row::new(group, name, Figure::of_spans(killed)),
    );
    bench.add(
        format!("idle memory, {megabytes} MB store"),
        |group, name| Row::new(group, name, Figure::of(Unit::Bytes, memory)),
    );
    Ok(())
}

fn with_handler(bench: &mut Bench) -> anyhow::Result<()> {
    let (mut few, mut more) = (Vec::new(), Vec::new());
    for turn in 0..bench.choose(3, 1) {
        bench.turn("memory with a handler", turn, 3);
        let small = mapped_memory(bench, 4)?;
        few.push(small);
        more.push((mapped_memory(bench, 1_000)? - small) / 996.0);
    }
    bench.add("idle memory, clickstream deployed", |group, name| {
        Row::new(group, name, Figure::of(Unit::Bytes, few))
    });
    bench.add(
        "idle memory, each further shard and poller",
        |group, name| Row::new(group, name, Figure::of(Unit::Bytes, more)),
    );
    Ok(())
}

/// Resident bytes of a host with the clickstream handler mapped to so many shards.
fn mapped_memory(bench: &Bench, shards: u32) -> anyhow::Result<f64> {
    let folder = bench.folder()?;
    let manifest = folder.path().join("shardmill.toml");
    std::fs::copy(
        bench.guest_file("clickstream"),
        folder.path().join("clickstream.wasm"),
    )?;
    std::fs::write(
        &manifest,
        format!(
            r#"[[stream]]
name = "clicks"
shards = {shards}

[[function]]
name = "clickstream"
wasm = "clickstream.wasm"

[[mapping]]
name = "clicks"
stream = "clicks"
function = "clickstream"
"#
        ),
    )?;
    let process = Process::start(folder.path(), Some(&manifest))?;
    std::thread::sleep(SETTLE);
    let memory = process.memory_bytes("VmRSS")? as f64;
    process.stop()?;
    Ok(memory)
}

/// A process, and how long it took from its start to its first answer.
fn timed_start(dir: &Path) -> anyhow::Result<(Process, Duration)> {
    let list = bodies::request("ListStreams", "{}");
    let started = Instant::now();
    let process = Process::start(dir, None)?;
    Client::connect(process.address())?.call(&list)?;
    Ok((process, started.elapsed()))
}

fn request(number: usize) -> Vec<u8> {
    let data = input::noise(number as u64, RECORDS * RECORD_BYTES);
    let keys: Vec<String> = (0..RECORDS)
        .map(|record| input::key(number * RECORDS + record))
        .collect();
    let records = keys.iter().zip(data.chunks(RECORD_BYTES));
    bodies::put_records(STREAM, records.map(|(key, data)| (&key[..], data)))
}
