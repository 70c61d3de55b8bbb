//! A thousand shards of one stream with one mapping, each shard with a poller of its own.
//!
//! - *CPU per record* of a backlog in batches of 100, the sandbox answering at once. Limit: as
//!   many records in 8 shards. The pollers run already, and wait with a batch of one record each
//!   until the rest is in the store; blocks have 500 records on both sides. On one core.
//! - *idle*: CPU of the whole process over five seconds in which nothing is put, in cores.

use std::time::Duration;

use shardmill::clock::Clock;
use shardmill_core::mapping::Policy;

use crate::bench::Bench;
use crate::bytes;
use crate::cpu::{OneCore, cost_of};
use crate::figure::{Figure, Unit};
use crate::pollers::Pollers;
use crate::row::{Goal, Row};
use crate::server;

const MANY: u32 = 1_000;
const FEW: u32 = 8;
const DATA_BYTES: usize = 100;
const BLOCK: usize = 500;
/// A whole number of blocks for each of either count of shards.
const RECORDS: usize = MANY as usize * BLOCK;
const IDLE: Duration = Duration::from_secs(5);

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let turns = bench.choose(7, 2);
    let (mut many, mut few) = (Vec::new(), Vec::new());
    {
        let _one_core = OneCore::take()?;
        for turn in 0..turns {
            bench.turn("a backlog", turn, turns);
            for (side, shards) in [(&mut many, MANY), (&mut few, FEW)] {
                side.push(backlog(bench, shards)?);
            }
        }
    }
    let ratio = Figure::of_ratios(many.iter().copied(), few.iter().copied());
    bench.add("1,000 shards, CPU per record", |group, name| {
        Row::new(group, name, Figure::of(Unit::Seconds, many))
            .limit("8 shards", Figure::of(Unit::Seconds, few))
            .ratio(ratio)
            .goal(Goal::RatioAtMost(1.2))
    });
    idle(bench)
}

/// CPU seconds per record.
fn backlog(bench: &Bench, shards: u32) -> anyhow::Result<f64> {
    let rounds = bench.choose(2, 1);
    let clock = Clock::system();
    let pollers = Pollers::start(server::memory(clock), clock, shards, Duration::ZERO)?;
    pollers.close_gate();
    for shard in 0..shards {
        pollers.put(shard, bytes::records(1, DATA_BYTES))?;
    }
    map(&pollers)?;
    // Every poller has a batch at the gate when nothing moves any more.
    settle(&pollers);
    let per_shard = rounds * RECORDS / shards as usize;
    for shard in 0..shards {
        for _ in 0..per_shard / BLOCK {
            pollers.put(shard, bytes::records(BLOCK, DATA_BYTES))?;
        }
    }
    settle(&pollers);
    let records = shards as usize * (per_shard + 1);
    pollers.expect(records as u64);
    let (done, cost) = cost_of(|| {
        pollers.open_gate();
        pollers.wait_until_done()
    });
    done?;
    let behind = pollers.behind()?;
    anyhow::ensure!(behind == 0, "{behind} records are left");
    pollers.stop()?;
    Ok(cost.cpu.as_secs_f64() / records as f64)
}

fn idle(bench: &mut Bench) -> anyhow::Result<()> {
    let clock = Clock::system();
    let pollers = Pollers::start(server::memory(clock), clock, MANY, Duration::ZERO)?;
    settle(&pollers);
    map(&pollers)?;
    settle(&pollers);
    let mut shares = Vec::new();
    let turns = bench.choose(2, 1);
    for turn in 0..turns {
        bench.turn("idle", turn, turns);
        let ((), cost) = cost_of(|| pollers.pause(IDLE));
        shares.push(cost.cpu.as_secs_f64() / cost.wall.as_secs_f64());
    }
    bench.add("1,000 idle shards, cores", |group, name| {
        Row::new(group, name, Figure::of(Unit::Ratio, shares)).goal(Goal::AtMost(0.01))
    });
    // They are there, and awake at once.
    pollers.expect(u64::from(MANY));
    for shard in 0..MANY {
        pollers.put(shard, bytes::records(1, DATA_BYTES))?;
    }
    pollers.wait_until_done()?;
    pollers.stop()
}

fn map(pollers: &Pollers) -> anyhow::Result<()> {
    pollers.map(Policy {
        batch_size: 100,
        ..Policy::manifest()
    })
}

/// Lets a loop come to rest that has nothing to do but to start its pollers.
fn settle(pollers: &Pollers) {
    let quiet = Duration::from_millis(200);
    loop {
        let ((), cost) = cost_of(|| pollers.pause(quiet));
        if cost.cpu < quiet / 20 {
            return;
        }
    }
}
