//! Records per second through the whole host: lines of an access log, put over HTTP into a stream
//! of 4 shards, through the clickstream handler, effects committed.
//!
//! - *put and process*: from the first put to the last record's commit. Limit: the same puts into
//!   the same kind of host with the mapping switched off, in turns.
//! - *backlog*: the mapping alone, over records that are in the store already. Limit: the handler
//!   in the sandbox without a store, on every core at once (from the batches of this size).

use std::sync::Arc;
use std::time::{Duration, Instant};

use shardmill_sandbox::{SandboxConfig, WasmSandbox};

use crate::bench::Bench;
use crate::bodies;
use crate::client;
use crate::cpu;
use crate::figure::{Figure, Unit};
use crate::guests::{self, Guests};
use crate::host::{Host, STREAM, Setup};
use crate::input;
use crate::row::Row;

const SHARDS: u32 = 4;
const BATCH_SIZE: u32 = 1_000;
const CONNECTIONS: usize = 4;

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let lines = input::lines();
    let requests = bodies::puts_of_lines(STREAM, &lines);
    // Ten times the log: pages, clients and sessions come again, as they do in a long stream.
    let rounds = bench.choose(10, 2);
    let count = requests.len() * rounds;
    let records = (lines.len() * rounds) as f64;
    let turns = bench.choose(5, 2);
    let wasm = bench.guest("clickstream")?;
    let start = |bench: &Bench, enabled| -> anyhow::Result<_> {
        let folder = bench.folder()?;
        let sandbox = Arc::new(WasmSandbox::new(SandboxConfig::default())?);
        let setup = Setup {
            shards: SHARDS,
            wasm: wasm.clone(),
            batch_size: BATCH_SIZE,
            enabled,
        };
        Ok((Host::start(folder.path(), sandbox, setup)?, folder))
    };
    let (mut both, mut puts, mut backlog, mut cpus) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for turn in 0..turns {
        bench.turn("clickstream through 4 shards", turn, turns);
        let (host, _folder) = start(bench, true)?;
        let started = Instant::now();
        client::load(host.address(), &requests, count, CONNECTIONS)?;
        host.wait_until_done()?;
        both.push(started.elapsed());
        host.stop()?;

        let (host, _folder) = start(bench, false)?;
        let load = client::load(host.address(), &requests, count, CONNECTIONS)?;
        puts.push(load.wall);
        let (started, used) = (Instant::now(), cpu::process());
        host.enable_mapping()?;
        host.wait_until_done()?;
        backlog.push(started.elapsed());
        cpus.push(cpu::process() - used);
        host.stop()?;
    }
    let speeds = |spans: &[Duration]| -> Vec<f64> {
        let speed = |span: &Duration| records / span.as_secs_f64();
        spans.iter().map(speed).collect()
    };
    let figure = |spans: &[Duration]| Figure::of(Unit::RecordsPerSecond, speeds(spans));
    let alone = sandbox_alone(bench, &wasm, &lines)?;
    bench.add("put and process, 4 shards, clickstream", |group, name| {
        Row::new(group, name, figure(&both))
            .limit("puts alone", figure(&puts))
            .ratio(Figure::of_ratios(speeds(&both), speeds(&puts)))
    });
    bench.add("backlog, 4 shards, clickstream", |group, name| {
        Row::new(group, name, figure(&backlog))
            .limit("the handler alone, every core", alone)
            .ratio_of_medians()
    });
    bench.add("backlog, CPU per record", |group, name| {
        let per_record = cpus.iter().map(|cpu| cpu.as_secs_f64() / records);
        Row::new(group, name, Figure::of(Unit::Seconds, per_record))
    });
    Ok(())
}

/// Records per second that the sandbox runs the handler on, if every core does nothing else.
fn sandbox_alone(
    bench: &Bench,
    wasm: &bytes::Bytes,
    lines: &[input::Line],
) -> anyhow::Result<Figure> {
    let guests = Guests::start()?;
    let module = guests.load(wasm.clone())?;
    let some = lines.iter().cycle().take(BATCH_SIZE as usize);
    let batch = guests::batch(some.map(|l| (&l.client[..], l.text.as_bytes())))?;
    let invokes = bench.choose(60, 10);
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let mut speeds = Vec::new();
    for turn in 0..5 {
        bench.turn("the handler alone", turn, 5);
        let cost = guests.cost(&module, &batch, invokes)?;
        let records = (invokes * batch.len()) as f64;
        speeds.push(cores * records / cost.cpu.as_secs_f64());
    }
    Ok(Figure::of(Unit::RecordsPerSecond, speeds))
}
