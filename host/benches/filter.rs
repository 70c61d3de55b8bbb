//! Filter criteria on JSON records of 200 B and of 1 KB: three fields, one of them nested and one
//! a range of numbers, of which a quarter of the records match all.
//!
//! The limits stand for what a host without a matcher of its own would do, and for the least that
//! must be done: a parse into `serde_json::Value`, before any rule is looked at; and serde_json's
//! own way over the text (`IgnoredAny`), which checks it and keeps nothing. Both limits begin with
//! the same block of records. The ratio is the filter's CPU over the limit's. Everything runs on
//! one core, and within a turn the three take turns every few milliseconds.

use std::hint::black_box;
use std::time::Duration;

use anyhow::ensure;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::de::IgnoredAny;
use shardmill_core::block::{Placement, RecordRef};
use shardmill_core::mapping::filter::{FilterCriteria, Verdict};
use shardmill_core::{Block, Records, ShardId, UnixMillis};

use crate::bench::Bench;
use crate::cpu::{OneCore, cost_of};
use crate::figure::{Figure, Unit};
use crate::row::Row;

/// Records of a pass.
const RECORDS: usize = 500;
/// How often the sides change within a turn.
const SLICES: usize = 8;

const PATTERN: &str = r#"{"data": {
    "status": ["FAILED", "REFUSED"],
    "customer": {"tier": ["gold", "silver"]},
    "total": [{"numeric": [">", 100]}]
}}"#;

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let _one_core = OneCore::take()?;
    let criteria = FilterCriteria::compile(&[PATTERN])?;
    let (turns, passes) = bench.choose((25, 40), (3, 10));
    for (size, padding) in [("200 B", 0), ("1 KB", 800)] {
        let block = block(padding)?;
        let matching = block.iter().filter(|r| criteria.check(r) == Verdict::Match);
        let share = matching.count() as f64 / RECORDS as f64;
        ensure!(
            (0.15..0.35).contains(&share),
            "{share} of the records match"
        );
        let mut sides = [const { Vec::new() }; 3];
        for turn in 0..turns {
            bench.turn(size, turn, turns);
            let mut spent = [Duration::ZERO; 3];
            for _ in 0..SLICES {
                spent[0] += pass(&block, passes, |r| criteria.check(r));
                spent[1] += pass(&block, passes, |r| {
                    serde_json::from_slice::<serde_json::Value>(r.parts.data).is_ok()
                });
                spent[2] += pass(&block, passes, |r| {
                    serde_json::from_slice::<IgnoredAny>(r.parts.data).is_ok()
                });
            }
            let records = (SLICES * passes * RECORDS) as f64;
            for (side, spent) in sides.iter_mut().zip(spent) {
                side.push(spent.as_secs_f64() / records);
            }
        }
        let [filter, parse, skip] = sides;
        for (what, limit) in [
            ("a full parse", ("serde_json::Value", parse)),
            ("skipping", ("IgnoredAny", skip)),
        ] {
            let ratio = Figure::of_ratios(filter.iter().copied(), limit.1.iter().copied());
            let measured = Figure::of(Unit::Seconds, filter.iter().copied());
            bench.add(
                format!("{size} of JSON against {what}, CPU per record"),
                |group, name| {
                    Row::new(group, name, measured)
                        .limit(limit.0, Figure::of(Unit::Seconds, limit.1))
                        .ratio(ratio)
                },
            );
        }
    }
    Ok(())
}

fn pass<T>(block: &Block, passes: usize, look: impl Fn(&RecordRef<'_>) -> T) -> Duration {
    let look_at_all = || {
        for _ in 0..passes {
            for record in block.iter() {
                black_box(look(black_box(&record)));
            }
        }
    };
    cost_of(look_at_all).1.cpu
}

/// Orders of about 200 B, and as much more of items and notes; the same on every run.
fn block(padding: usize) -> anyhow::Result<Block> {
    let mut random = ChaCha8Rng::seed_from_u64(200);
    let mut records = Records::default();
    for number in 0..RECORDS {
        let status = ["SHIPPED", "FAILED", "PAID", "REFUSED"][random.random_range(0..4)];
        let tier = ["gold", "silver", "bronze"][random.random_range(0..3)];
        let cents = random.random_range(1_000..60_000);
        let (customer, count) = (random.random_range(0..100_000), random.random_range(1..9));
        let mut text = format!(
            "{{\"order\":\"o-{number:08}\",\"at\":\"2026-11-23T13:28:{:02}.123Z\",\"status\":\"{status}\",\
             \"customer\":{{\"id\":{customer},\"tier\":\"{tier}\"}},\"total\":{}.{:02},\
             \"currency\":\"CHF\",\"count\":{count}",
            number % 60,
            cents / 100,
            cents % 100,
        );
        let aim = text.len() + padding;
        if padding > 0 {
            text += ",\"notes\":\"left at the neighbour's, second floor \\\"B\\\"; ring twice\",\"items\":[";
            while text.len() < aim {
                let sku = random.random_range(0..1_000_000);
                text += &format!(
                    "{{\"sku\":\"sku-{sku:07}\",\"name\":\"a thing with a name\",\"count\":{},\"price\":{}.95}},",
                    sku % 7,
                    sku % 100
                );
            }
            text.pop();
            text.push(']');
        }
        text += ",\"region\":\"eu-central-1\"}";
        records.push(&format!("customer-{customer}"), None, text.as_bytes());
    }
    let (index, blob) = records.into_parts();
    let placement = Placement {
        shard: ShardId(0),
        created_seconds: 1_700_000_000,
        first: 1,
        arrival: UnixMillis(1_700_000_000_000),
    };
    Ok(Block::new(placement, index.into(), blob.into())?)
}
