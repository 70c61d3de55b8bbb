//! The clickstream handler in the sandbox against the same Rust code native, on lines of an
//! access log: batches of 100, 1,000 and 10,000 records.
//!
//! Both begin with the batch's blocks, pack them, run the handler and end with its effects, ready
//! to be committed. In the sandbox, that is a fresh instance under every limit, the hand-over
//! between threads included; native, the handler is called with a host in the same process that
//! keeps effects by the same rules (`memory_host.rs`). Keyed state is empty at the start on both
//! sides. The ratio is native CPU over sandbox CPU: the speed that is left. Everything runs on one
//! core, and within a turn the sides change every few milliseconds, so that a processor that is
//! slower for a while is so for both.

use std::time::Duration;

use anyhow::ensure;
use shardmill_core::Batch;

use crate::bench::Bench;
use crate::cpu::{OneCore, cost_of};
use crate::figure::{Figure, Unit};
use crate::guests::{self, Guests};
use crate::input;
use crate::invoke::pack;
use crate::memory_host::{Effects, MemoryHost};
use crate::row::{Goal, Row};

/// How often the sides change within a turn.
const SLICES: usize = 8;

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let _one_core = OneCore::take()?;
    let guests = Guests::start()?;
    let clickstream = guests.load(bench.guest("clickstream")?)?;
    let lines = input::lines();
    let turns = bench.choose(25, 3);
    for (count, goal) in [(100, 0.42), (1_000, 0.50), (10_000, 0.54)] {
        let records = lines.iter().cycle().take(count);
        let batch = guests::batch(records.map(|l| (&l.client[..], l.text.as_bytes())))?;
        let invokes = (10_000 / count).max(1);
        let (mut in_sandbox, mut in_native) = (Vec::new(), Vec::new());
        for turn in 0..turns {
            bench.turn(&format!("{count} records"), turn, turns);
            let (mut sandbox, mut alone) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..SLICES {
                sandbox += guests.cost(&clickstream, &batch, invokes)?.cpu;
                let (done, cost) =
                    cost_of(|| (0..invokes).try_for_each(|_| native(&batch).map(drop)));
                done?;
                alone += cost.cpu;
            }
            in_sandbox.push(sandbox);
            in_native.push(alone);
        }
        let per_record = |cpu: &Duration| cpu.as_secs_f64() / (SLICES * invokes * count) as f64;
        let spans = |cpu: &[Duration]| cpu.iter().map(per_record).collect::<Vec<_>>();
        let (in_sandbox, in_native) = (spans(&in_sandbox), spans(&in_native));
        let ratio = Figure::of_ratios(in_native.iter().copied(), in_sandbox.iter().copied());
        bench.add(
            format!("clickstream, {count} records, CPU per record"),
            |group, name| {
                Row::new(group, name, Figure::of(Unit::Seconds, in_sandbox))
                    .limit("native", Figure::of(Unit::Seconds, in_native))
                    .ratio(ratio)
                    .goal(Goal::RatioAtLeast(goal))
            },
        );
    }
    Ok(())
}

/// The handler on a batch, without a sandbox.
///
/// # Errors
/// It failed.
pub(crate) fn native(batch: &Batch) -> anyhow::Result<Effects> {
    let buffer = pack(batch);
    let mut host = MemoryHost::new(batch);
    let answer = shardmill_guest::run::record(clickstream::on_hit, &buffer, &mut host);
    let status = answer.get(6..8);
    ensure!(
        status == Some(&[0, 0][..]),
        "the handler failed: {}",
        String::from_utf8_lossy(&answer)
    );
    Ok(host.finish())
}
