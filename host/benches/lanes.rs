//! Lanes: what a parallelization factor brings, and what it costs a batch to be scattered.
//!
//! - *records per second* of one shard with batches of 100 and a handler that waits for 20 ms, as
//!   one does that asks a database. Limit: factor × what one lane came to in the same turn; the
//!   ratio is to that.
//! - *packing* of a batch whose records are every tenth of their blocks, as a lane of ten has it,
//!   into a guest's memory. Limit: as many records that are neighbours. CPU, on one core.

use std::time::{Duration, Instant};

use shardmill::clock::Clock;
use shardmill_core::mapping::{Policy, lane_of};
use shardmill_core::{Batch, Slice};

use crate::bench::Bench;
use crate::cpu::{OneCore, cost_of};
use crate::figure::{Figure, Unit};
use crate::guests;
use crate::input;
use crate::invoke::pack;
use crate::pollers::Pollers;
use crate::row::{Goal, Row};
use crate::server;

/// How long the handler waits.
const WAIT: Duration = Duration::from_millis(20);
const BATCH_SIZE: usize = 100;
const LANES: usize = 10;
/// Records of the batch that is packed.
const PACKED: usize = 10_000;

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (turns, batches) = bench.choose((3, 50), (1, 25));
    let mut speeds = [const { Vec::new() }; 3];
    let factors = [1, 2, LANES];
    for turn in 0..turns {
        for (speeds, factor) in speeds.iter_mut().zip(factors) {
            bench.turn(&format!("{factor} lanes"), turn, turns);
            speeds.push(speed(factor, batches * BATCH_SIZE * factor)?);
        }
    }
    let [one, ..] = speeds.clone();
    for (speeds, factor) in speeds.into_iter().zip(factors) {
        bench.add(
            format!("a handler that waits 20 ms, factor {factor}"),
            |group, name| {
                let figure = Figure::of(Unit::RecordsPerSecond, speeds.iter().copied());
                let row = Row::new(group, name, figure);
                if factor == 1 {
                    return row;
                }
                let best = || one.iter().map(|speed| speed * factor as f64);
                row.limit(
                    format!("{factor} × factor 1"),
                    Figure::of(Unit::RecordsPerSecond, best()),
                )
                .ratio(Figure::of_ratios(speeds, best()))
                .goal(Goal::RatioAtLeast(0.9))
            },
        );
    }
    packing(bench)
}

/// Records per second of one shard whose records are all there.
fn speed(factor: usize, records: usize) -> anyhow::Result<f64> {
    let clock = Clock::system();
    let pollers = Pollers::start(server::memory(clock), clock, 1, WAIT)?;
    for first in (0..records).step_by(500) {
        let mut block = shardmill_core::Records::default();
        for number in first..records.min(first + 500) {
            block.push(&input::key(number), None, b"a record");
        }
        pollers.put(0, block)?;
    }
    pollers.expect(records as u64);
    let started = Instant::now();
    pollers.map(Policy {
        batch_size: BATCH_SIZE as u32,
        parallelization_factor: factor as u32,
        ..Policy::manifest()
    })?;
    pollers.wait()?;
    let speed = records as f64 / started.elapsed().as_secs_f64();
    pollers.wait_until_done()?;
    pollers.stop()?;
    Ok(speed)
}

fn packing(bench: &mut Bench) -> anyhow::Result<()> {
    let _one_core = OneCore::take()?;
    let data = input::noise(7, 100);
    let keys: Vec<String> = (0..PACKED * LANES).map(input::key).collect();
    let all = guests::batch(keys.iter().map(|key| (&key[..], &data[..])))?;
    let neighbours = all.cut(0..PACKED);
    let every = all.slices().flat_map(|slice| {
        let records = (0..).zip(slice.block.iter());
        records.map(|(index, record)| (&slice.block, index, record))
    });
    let of_lane = every.filter(|(.., record)| lane_of(record.parts.key, LANES) == 0);
    let scattered = Batch::new(of_lane.map(|(block, from, _)| Slice {
        block: block.clone(),
        from,
        to: from + 1,
    }));
    let (turns, passes) = bench.choose((15, 10), (3, 3));
    let mut sides = [const { Vec::new() }; 2];
    for turn in 0..turns {
        bench.turn("packing", turn, turns);
        for (side, batch) in sides.iter_mut().zip([&scattered, &neighbours]) {
            let ((), cost) = cost_of(|| {
                for _ in 0..passes {
                    std::hint::black_box(pack(std::hint::black_box(batch)));
                }
            });
            side.push(cost.cpu.as_secs_f64() / (passes * batch.len()) as f64);
        }
    }
    let [scattered, neighbours] = sides;
    bench.add(
        "packing one lane of ten, 10,000 × 100 B, CPU per record",
        |group, name| {
            let ratio = Figure::of_ratios(scattered.iter().copied(), neighbours.iter().copied());
            Row::new(group, name, Figure::of(Unit::Seconds, scattered))
                .limit("neighbours", Figure::of(Unit::Seconds, neighbours))
                .ratio(ratio)
        },
    );
    Ok(())
}
