//! What an invocation costs before the handler does anything, and what a record costs on its way
//! into the guest's memory.
//!
//! - *fresh invoke*: one record, a new instance under fuel, memory and deadline, and everything
//!   around it: admission, hand-over to the invoker's thread, the report. CPU of all threads. With
//!   a handler that does nothing, and with `clickstream`, whose limit is the same Rust native.
//! - *boundary*: 10,000 records of 1 KB and of 100 B, packed into a fresh instance and touched by
//!   a handler that sums a few bytes of each. Limit: one `memcpy` of the same buffer.
//!
//! Everything runs on one core.

use std::hint::black_box;
use std::time::Duration;

use shardmill_core::Batch;

use crate::bench::Bench;
use crate::cpu::{OneCore, cost_of};
use crate::figure::{Figure, Unit};
use crate::guests::{self, Guests, NOTHING, SUM};
use crate::handler::native;
use crate::input;
use crate::row::{Goal, Row};

/// Attempts in a turn.
const INVOKES: usize = 2_000;
/// Records of a batch at the boundary.
const RECORDS: usize = 10_000;

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let _one_core = OneCore::take()?;
    let guests = Guests::start()?;
    let turns = bench.choose(15, 3);
    fresh(bench, &guests, turns)?;
    for data_bytes in [1024, 100] {
        boundary(bench, &guests, turns, data_bytes)?;
    }
    Ok(())
}

fn fresh(bench: &mut Bench, guests: &Guests, turns: usize) -> anyhow::Result<()> {
    let nothing = guests.load_text(NOTHING)?;
    let clickstream = guests.load(bench.guest("clickstream")?)?;
    let lines = input::lines();
    let line = lines.first().map(|l| (&l.client[..], l.text.as_bytes()));
    let batch = guests::batch(line)?;
    let (mut of_nothing, mut of_clickstream, mut of_native) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..turns {
        bench.turn("one record", turn, turns);
        let per_invoke = |cpu: Duration| cpu / INVOKES as u32;
        of_nothing.push(per_invoke(guests.cost(&nothing, &batch, INVOKES)?.cpu));
        of_clickstream.push(per_invoke(guests.cost(&clickstream, &batch, INVOKES)?.cpu));
        let (done, cost) = cost_of(|| (0..INVOKES).try_for_each(|_| native(&batch).map(drop)));
        done?;
        of_native.push(per_invoke(cost.cpu));
    }
    bench.add("fresh invoke, one record, CPU", |group, name| {
        Row::new(group, name, Figure::of_spans(of_nothing)).goal(Goal::AtMost(25e-6))
    });
    bench.add(
        "fresh invoke, one record, clickstream, CPU",
        |group, name| {
            Row::new(group, name, Figure::of_spans(of_clickstream))
                .limit("native", Figure::of_spans(of_native))
                .goal(Goal::AtMost(25e-6))
        },
    );
    Ok(())
}

fn boundary(
    bench: &mut Bench,
    guests: &Guests,
    turns: usize,
    data_bytes: usize,
) -> anyhow::Result<()> {
    let sum = guests.load_text(SUM)?;
    let data = input::noise(3, data_bytes);
    let keys: Vec<String> = (0..RECORDS).map(input::key).collect();
    let batch = guests::batch(keys.iter().map(|key| (&key[..], &data[..])))?;
    let packed = pack(&batch);
    let mut copy = packed.clone();
    let invokes = bench.choose(20, 5);
    let (mut of_guest, mut of_memcpy) = (Vec::new(), Vec::new());
    for turn in 0..turns {
        bench.turn(&format!("{data_bytes} B over the boundary"), turn, turns);
        let per_record = |cpu: Duration| cpu.as_secs_f64() / (invokes * RECORDS) as f64;
        of_guest.push(per_record(guests.cost(&sum, &batch, invokes)?.cpu));
        let ((), cost) = cost_of(|| {
            for _ in 0..invokes {
                black_box(&mut copy[..]).copy_from_slice(black_box(&packed));
            }
        });
        of_memcpy.push(per_record(cost.cpu));
    }
    let bytes = packed.len() as f64 / RECORDS as f64;
    let speeds = |spans: &[f64]| -> Vec<f64> { spans.iter().map(|span| bytes / span).collect() };
    let name = format!("boundary, fresh, 10,000 × {data_bytes} B, CPU per record");
    bench.add(name, |group, name| {
        let row = Row::new(
            group,
            name,
            Figure::of(Unit::Seconds, of_guest.iter().copied()),
        )
        .limit(
            "memcpy",
            Figure::of(Unit::Seconds, of_memcpy.iter().copied()),
        )
        .ratio(Figure::of_ratios(
            of_guest.iter().copied(),
            of_memcpy.iter().copied(),
        ));
        if data_bytes == 1024 {
            row.goal(Goal::AtMost(220e-9))
        } else {
            row
        }
    });
    bench.add(
        format!("boundary, fresh, 10,000 × {data_bytes} B"),
        |group, name| {
            Row::new(
                group,
                name,
                Figure::of(Unit::BytesPerSecond, speeds(&of_guest)),
            )
            .limit(
                "memcpy",
                Figure::of(Unit::BytesPerSecond, speeds(&of_memcpy)),
            )
        },
    );
    Ok(())
}

/// The buffer that a batch is in a guest's memory.
pub(crate) fn pack(batch: &Batch) -> Vec<u8> {
    let context = guests::context();
    let mut buffer = vec![0; batch.packed_len(&context)];
    batch.write_packed(&context, &mut buffer);
    buffer
}
