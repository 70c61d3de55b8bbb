//! What the mapping loop costs for each record without a handler: the supervisor and pollers at
//! work on one shard, and a sandbox that answers at once. CPU of all threads, from the mapping's
//! making to its last commit; the records are in the store before, in blocks of 500.
//!
//! Limit: the same blocks read from the same store and each record looked at once, by a plain
//! loop, in turns. With a filter the loop asks the filter, too. Lanes have to look at the
//! partition keys besides, which their limit does not. Everything runs on one core.
//!
//! The store is the one in memory, where a commit costs least, so that the figure is the loop's;
//! two rows are on the embedded one, whose commits count, too.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use shardmill::clock::Clock;
use shardmill_core::mapping::Policy;
use shardmill_core::mapping::filter::{FilterCriteria, Verdict};
use shardmill_core::{Records, ShardId, ShardKey};
use shardmill_store::{ReadLimit, Seek, Store};

use crate::bench::Bench;
use crate::cpu::{OneCore, cost_of};
use crate::figure::{Figure, Unit};
use crate::input;
use crate::pollers::Pollers;
use crate::row::Row;
use crate::server;

/// Records of a block.
const BLOCK: usize = 500;
/// Bytes of one read, as the pollers have it.
const READ_BYTES: usize = 4 << 20;
/// Half of the records match it.
const PATTERN: &str = r#"{"data":{"status":["FAILED"]}}"#;

/// A row.
struct Case {
    batch_size: u32,
    factor: u32,
    filter: bool,
}

const PLAIN: [Case; 2] = [case(100), case(10_000)];
const WITH_LANES: [Case; 2] = [
    Case {
        factor: 10,
        ..case(100)
    },
    Case {
        factor: 10,
        ..case(10_000)
    },
];
const WITH_FILTER: [Case; 2] = [
    Case {
        filter: true,
        ..case(100)
    },
    Case {
        filter: true,
        ..case(10_000)
    },
];

const fn case(batch_size: u32) -> Case {
    Case {
        batch_size,
        factor: 1,
        filter: false,
    }
}

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let _one_core = OneCore::take()?;
    for data_bytes in [100, 1024] {
        let clock = Clock::system();
        let store = server::memory(clock);
        let cases = [PLAIN, WITH_FILTER, WITH_LANES];
        let cases = cases.as_flattened();
        measure(bench, (store, clock), "", data_bytes, cases)?;
    }
    let folder = bench.folder()?;
    let clock = Clock::system();
    let store = server::embedded(folder.path(), clock)?;
    measure(bench, (store, clock), ", embedded store", 100, &PLAIN)
}

fn measure(
    bench: &mut Bench,
    (store, clock): (Arc<dyn Store>, Clock),
    on: &str,
    data_bytes: usize,
    cases: &[Case],
) -> anyhow::Result<()> {
    let payload = bench.choose(100_000_000, 20_000_000);
    let count = payload / (data_bytes + 100) / BLOCK * BLOCK;
    let turns = bench.choose(9, 3);
    let pollers = Pollers::start(store, clock, 1, Duration::ZERO)?;
    for first in (0..count).step_by(BLOCK) {
        pollers.put(0, orders(first, data_bytes))?;
    }
    for case in cases {
        let what = name(case, data_bytes, on);
        let (mut of_loop, mut of_walk) = (Vec::new(), Vec::new());
        for turn in 0..turns {
            bench.turn(&what, turn, turns);
            let per_record = |cpu: Duration, passes: usize| cpu / (passes * count) as u32;
            let passes = bench.choose(20, 5);
            let (walked, cost) = cost_of(|| walk(&pollers, case, passes));
            anyhow::ensure!(walked? == passes * count, "a walk that missed records");
            of_walk.push(per_record(cost.cpu, passes));
            let wanted = if case.filter { count / 2 } else { count };
            pollers.expect(wanted as u64);
            let (done, cost) = cost_of(|| {
                pollers.map(policy(case))?;
                pollers.wait_until_done()
            });
            done?;
            of_loop.push(per_record(cost.cpu, 1));
            if case.filter {
                // What is dropped behind the last match is committed within a second.
                pollers.pause(Duration::from_millis(1_100));
            }
            pollers.unmap()?;
        }
        let seconds =
            |spans: &[Duration]| -> Vec<f64> { spans.iter().map(Duration::as_secs_f64).collect() };
        let (of_loop, of_walk) = (seconds(&of_loop), seconds(&of_walk));
        let limit = if case.filter {
            "read, filtered"
        } else {
            "read, counted"
        };
        bench.add(what, |group, name| {
            let ratio = Figure::of_ratios(of_loop.iter().copied(), of_walk.iter().copied());
            Row::new(group, name, Figure::of(Unit::Seconds, of_loop))
                .limit(limit, Figure::of(Unit::Seconds, of_walk))
                .ratio(ratio)
        });
    }
    pollers.stop()
}

fn name(case: &Case, data_bytes: usize, on: &str) -> String {
    let with = match (case.filter, case.factor) {
        (true, _) => ", a filter",
        (false, 1) => "",
        (false, _) => ", 10 lanes",
    };
    let batch_size = case.batch_size;
    format!("CPU per record of {data_bytes} B, batches of {batch_size}{with}{on}")
}

fn policy(case: &Case) -> Policy {
    Policy {
        batch_size: case.batch_size,
        parallelization_factor: case.factor,
        filter_criteria: case
            .filter
            .then(|| PATTERN.to_owned())
            .into_iter()
            .collect(),
        ..Policy::manifest()
    }
}

/// Looks at every record, so many times. Gives how many there were.
fn walk(pollers: &Pollers, case: &Case, passes: usize) -> anyhow::Result<usize> {
    let criteria = FilterCriteria::compile(&policy(case).filter_criteria)?;
    let shard = ShardKey {
        stream: pollers.stream,
        shard: ShardId(0),
    };
    let limit = ReadLimit {
        records: case.batch_size as usize,
        bytes: READ_BYTES,
    };
    let store = &pollers.store;
    pollers.runtime.block_on(async {
        let mut records = 0;
        for _ in 0..passes {
            let mut at = store.seek(shard, Seek::TrimHorizon).await?;
            let (mut bytes, mut matches) = (0, 0usize);
            loop {
                let blocks = store.read(shard, at, limit).await?;
                let Some(last) = blocks.last() else {
                    break;
                };
                at = last.end();
                for record in blocks.iter().flat_map(shardmill_core::Block::iter) {
                    records += 1;
                    bytes += record.payload_bytes();
                    if case.filter && criteria.check(&record) == Verdict::Match {
                        matches += 1;
                    }
                }
            }
            black_box((bytes, matches));
        }
        Ok(records)
    })
}

/// A block of JSON with a status of which one in two is `FAILED`, each under a key of its own.
fn orders(first: usize, data_bytes: usize) -> Records {
    let mut records = Records::with_capacity(BLOCK, BLOCK * (data_bytes + 8));
    for number in first..first + BLOCK {
        let status = ["FAILED", "DONE"][number % 2];
        let mut text = format!(r#"{{"order":"{number:08}","status":"{status}","note":""#);
        text.extend(std::iter::repeat_n('x', data_bytes - text.len() - 2));
        text += r#""}"#;
        records.push(&input::key(number), None, text.as_bytes());
    }
    records
}
