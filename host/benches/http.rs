//! PutRecords of 500 records of 1 KB over HTTP, on loopback, durable when it is answered.
//!
//! Limit: the same server with the store that acknowledges at once (`Memory`), in turns. Sixteen
//! blocking connections send requests that are ready; they share the machine with the server, on
//! both sides alike. *Server CPU* is that of the process without the clients' threads: reading,
//! parsing, the store with its threads, the answer, the kernel's copies.

use shardmill::clock::Clock;
use tokio::runtime::Runtime;

use crate::bench::Bench;
use crate::client::{Load, load};
use crate::figure::{Figure, Unit};
use crate::row::{Goal, Row};
use crate::server::{self, Server};
use crate::{bodies, input};

const STREAM: &str = "bench";
const SHARDS: u32 = 4;
const RECORDS: usize = 500;
const RECORD_BYTES: usize = 1024;
const CONNECTIONS: usize = 16;
/// Different requests.
const REQUESTS: usize = 16;

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let requests: Vec<Vec<u8>> = (0..REQUESTS).map(request).collect();
    let folder = bench.folder()?;
    let clock = Clock::system();
    let store = server::embedded(folder.path(), clock)?;
    let durable_server = Server::start(&runtime, store.clone(), clock)?;
    server::create_stream(durable_server.address(), STREAM, SHARDS)?;
    let (turns, count) = bench.choose((20, 200), (3, 60));
    let (mut durable, mut at_once) = (Vec::new(), Vec::new());
    for turn in 0..turns {
        bench.turn("PutRecords", turn, turns);
        for side in 0..2 {
            if (turn + side) % 2 == 0 {
                let address = durable_server.address();
                durable.push(load(address, &requests, count, CONNECTIONS)?);
            } else {
                // A store of its own for each turn: what is in memory is not trimmed.
                let server = Server::start(&runtime, server::memory(clock), clock)?;
                server::create_stream(server.address(), STREAM, SHARDS)?;
                at_once.push(load(server.address(), &requests, count, CONNECTIONS)?);
                server.stop(&runtime)?;
            }
        }
    }
    durable_server.stop(&runtime)?;
    runtime.block_on(store.close());
    let records = (count * RECORDS) as f64;
    let speeds = |loads: &[Load]| -> Vec<f64> {
        let speed = |load: &Load| records / load.wall.as_secs_f64();
        loads.iter().map(speed).collect()
    };
    let cpu = |loads: &[Load]| {
        let per_record = |load: &Load| load.host_cpu.as_secs_f64() / records;
        Figure::of(Unit::Seconds, loads.iter().map(per_record))
    };
    bench.add("durable PutRecords, 500 × 1 KB", |group, name| {
        let figure = |loads: &[Load]| Figure::of(Unit::RecordsPerSecond, speeds(loads));
        Row::new(group, name, figure(&durable))
            .limit("the same, store in memory", figure(&at_once))
            .ratio(Figure::of_ratios(speeds(&durable), speeds(&at_once)))
            .goal(Goal::RatioAtLeast(0.8))
    });
    bench.add("server CPU per record", |group, name| {
        Row::new(group, name, cpu(&durable))
            .limit("the same, store in memory", cpu(&at_once))
            .goal(Goal::AtMost(2.5e-6))
    });
    bench.add("client CPU per record", |group, name| {
        let per_record = |load: &Load| load.client_cpu.as_secs_f64() / records;
        let figure = Figure::of(Unit::Seconds, durable.iter().map(per_record));
        Row::new(group, name, figure)
    });
    Ok(())
}

fn request(number: usize) -> Vec<u8> {
    let data: Vec<Vec<u8>> = (0..RECORDS)
        .map(|record| input::noise((number * RECORDS + record) as u64, RECORD_BYTES))
        .collect();
    let keys: Vec<String> = (0..RECORDS)
        .map(|record| input::key(number * RECORDS + record))
        .collect();
    let records = keys.iter().zip(&data);
    bodies::put_records(STREAM, records.map(|(key, data)| (&key[..], &data[..])))
}
