//! The laws of `mapping`, on seeded runs of a handler with poison records.

use std::collections::BTreeMap;

use super::*;
use crate::outcome::{Cause, Failure};

/// A small generator whose seed a failure prints.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What a scripted handler does at a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poison {
    Trap,
    Spin,
}

fn failure(poison: Poison, record: Option<u32>) -> Judgement {
    let cause = match poison {
        Poison::Trap => Cause::Trap {
            trap: "unreachable".into(),
            message: String::new(),
            frames: Vec::new(),
        },
        Poison::Spin => Cause::OutOfFuel {
            allowed: 1,
            frames: Vec::new(),
        },
    };
    Judgement::Failed(Failure { cause, record })
}

/// How a handler tells which record was at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Record,
    BatchWithHint,
    BatchWithout,
    PartialAnswer,
}

struct Run {
    invocations: usize,
    done: Vec<usize>,
    given_up: Vec<usize>,
}

/// Runs a batch of `len` records to its end against `poison`.
fn run(len: usize, poison: &BTreeMap<usize, Poison>, shape: Shape, policy: &Policy) -> Run {
    let mut out = Run {
        invocations: 0,
        done: Vec::new(),
        given_up: Vec::new(),
    };
    let mut parts = vec![(0..len, 0u32)];
    while !parts.is_empty() {
        let (records, attempts) = parts.remove(0);
        out.invocations += 1;
        assert!(out.invocations < 100_000, "a batch that never ends");
        let bad = poison.range(records.clone()).next();
        let judgement = match bad {
            None => Judgement::Success,
            Some((at, kind)) => {
                let at = at - records.start;
                match shape {
                    Shape::Record | Shape::BatchWithHint => failure(*kind, Some(at as u32)),
                    Shape::BatchWithout => failure(*kind, None),
                    Shape::PartialAnswer => Judgement::Partial(at),
                }
            }
        };
        let record_mode = shape == Shape::Record;
        let attempted = Attempted {
            len: records.len(),
            attempts,
            record_mode,
            doubted: false,
        };
        let next = after(&judgement, attempted, policy);
        let offset = |r: std::ops::Range<usize>| r.start + records.start..r.end + records.start;
        let mut at = 0;
        out.done.extend(offset(0..next.done));
        at += next.done;
        assert_eq!(next.given_up.start, at, "given up behind done");
        out.given_up.extend(offset(next.given_up.clone()));
        at = next.given_up.end;
        let mut rest = Vec::new();
        for part in next.rest {
            assert_eq!(part.records.start, at, "parts join");
            assert!(!part.records.is_empty(), "parts are not empty");
            at = part.records.end;
            rest.push((offset(part.records), part.attempts));
        }
        assert_eq!(at, records.len(), "the whole batch is accounted for");
        parts.splice(0..0, rest);
    }
    out
}

fn policy(retries: u32, bisect: bool) -> Policy {
    Policy {
        maximum_retry_attempts: Some(retries),
        bisect_batch_on_function_error: bisect,
        ..Policy::aws()
    }
}

#[test]
fn every_record_ends_exactly_once_and_in_order() {
    for seed in 1..2_000u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let len = 1 + dice.roll(40) as usize;
        let mut poison = BTreeMap::new();
        for _ in 0..dice.roll(4) {
            let kind = if dice.roll(2) == 0 {
                Poison::Trap
            } else {
                Poison::Spin
            };
            poison.insert(dice.roll(len as u64) as usize, kind);
        }
        let shape = [
            Shape::Record,
            Shape::BatchWithHint,
            Shape::BatchWithout,
            Shape::PartialAnswer,
        ][dice.roll(4) as usize];
        let bisect = dice.roll(2) == 0;
        let run = run(len, &poison, shape, &policy(dice.roll(4) as u32, bisect));
        let mut all: Vec<usize> = run.done.iter().chain(&run.given_up).copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..len).collect::<Vec<_>>(), "seed {seed}: {shape:?}");
        assert!(run.done.is_sorted(), "seed {seed}: order holds");
        assert!(
            poison.keys().all(|p| run.given_up.contains(p)),
            "seed {seed}: poison is given up"
        );
        if shape == Shape::Record || bisect {
            assert_eq!(
                run.given_up.len(),
                poison.len(),
                "seed {seed}: {shape:?} only poison is given up"
            );
        }
    }
}

#[test]
fn a_poison_record_costs_what_the_design_counts() {
    for (name, at, kind, shape, retries, bisect, invocations) in [
        (
            "record mode, trap in the middle",
            5_000,
            Poison::Trap,
            Shape::Record,
            2,
            false,
            1 + 2 + 1,
        ),
        (
            "record mode, spinner in the middle",
            5_000,
            Poison::Spin,
            Shape::Record,
            2,
            false,
            1 + 3 + 1,
        ),
        (
            "record mode, trap at the first",
            0,
            Poison::Trap,
            Shape::Record,
            2,
            false,
            3 + 1,
        ),
        (
            "record mode, spinner at the first",
            0,
            Poison::Spin,
            Shape::Record,
            2,
            false,
            3 + 1,
        ),
        (
            "record mode, trap at the last",
            9_999,
            Poison::Trap,
            Shape::Record,
            2,
            false,
            1 + 2,
        ),
        (
            "record mode, spinner at the last",
            9_999,
            Poison::Spin,
            Shape::Record,
            2,
            false,
            1 + 3,
        ),
        (
            "batch mode, hint in the middle",
            5_000,
            Poison::Trap,
            Shape::BatchWithHint,
            2,
            true,
            3 + 3,
        ),
        (
            "batch mode, hint at the first",
            0,
            Poison::Trap,
            Shape::BatchWithHint,
            2,
            true,
            2 + 3,
        ),
        (
            "batch mode, no hint, halves",
            0,
            Poison::Trap,
            Shape::BatchWithout,
            2,
            true,
            13 + 3 + 13,
        ),
        (
            "batch mode, no bisect",
            5_000,
            Poison::Trap,
            Shape::BatchWithHint,
            2,
            false,
            3,
        ),
        (
            "partial answers",
            5_000,
            Poison::Trap,
            Shape::PartialAnswer,
            2,
            true,
            1 + 1 + 3 + 1,
        ),
    ] {
        let poison = BTreeMap::from([(at, kind)]);
        let run = run(10_000, &poison, shape, &policy(retries, bisect));
        assert_eq!(run.invocations, invocations, "{name}");
        let lost = if name == "batch mode, no bisect" {
            10_000
        } else {
            1
        };
        assert_eq!(run.given_up.len(), lost, "{name}");
    }
}

#[test]
fn a_batch_too_long_for_its_budget_always_gets_on() {
    // Fuel for 7 records an attempt: the shared limit strikes at the 8th each time.
    let policy = policy(0, false);
    let (mut left, mut invocations) = (100usize, 0);
    let mut attempts = 0;
    while left > 0 {
        invocations += 1;
        let judgement = if left <= 7 {
            Judgement::Success
        } else {
            failure(Poison::Spin, Some(7))
        };
        let next = after(
            &judgement,
            Attempted {
                len: left,
                attempts,
                record_mode: true,
                doubted: false,
            },
            &policy,
        );
        assert!(next.given_up.is_empty(), "nothing is given up");
        left -= next.done;
        attempts = next.rest.first().map_or(0, |r| r.attempts);
    }
    assert_eq!(invocations, 15);
}

#[test]
fn a_throttle_uses_no_attempt() {
    let throttled = Judgement::Throttled("no slot".into());
    let attempted = Attempted {
        len: 3,
        attempts: 2,
        record_mode: false,
        doubted: false,
    };
    let next = after(&throttled, attempted, &policy(2, true));
    assert_eq!(
        (next.done, next.given_up, next.rest[0].attempts),
        (0, 0..0, 2)
    );
    assert!(next.rest[0].unchanged);
}

#[test]
fn an_effect_of_no_record_makes_a_partial_answer_a_failure() {
    use crate::batch::{Batch, Slice};
    use crate::block::{Block, Placement, Records};
    use crate::effects::{CounterAdd, Effects};
    use crate::outcome::Outcome;

    let mut records = Records::default();
    records.push("k", None, b"one");
    records.push("k", None, b"two");
    let (index, blob) = records.into_parts();
    let placement = Placement {
        shard: crate::ShardId(0),
        created_seconds: 1_700_000_000,
        first: 1,
        arrival: crate::UnixMillis(1_700_000_001_000),
    };
    let block = Block::new(placement, index.into(), blob.into()).expect("a block");
    let second = block.sequence_number(2);
    let batch = Batch::new([Slice {
        block,
        from: 0,
        to: 2,
    }]);
    let add = |tag| Effects {
        counters: vec![(
            tag,
            CounterAdd {
                name: "n".into(),
                amount: 1,
            },
        )],
        ..Effects::default()
    };
    let mut policy = policy(2, false);
    policy.report_batch_item_failures = true;
    let response = format!(r#"{{"batchItemFailures":[{{"itemIdentifier":"{second}"}}]}}"#);
    for (name, outcome) in [
        (
            "packed",
            Outcome::Partial {
                failed: vec![1],
                text: String::new(),
            },
        ),
        ("JSON", Outcome::Json { text: response }),
    ] {
        let judged = judge(outcome.clone(), &add(Some(0)), &batch, &policy);
        assert_eq!(judged, Judgement::Partial(1), "{name}");
        let judged = judge(outcome, &add(None), &batch, &policy);
        assert!(matches!(judged, Judgement::Failed(_)), "{name}: {judged:?}");
    }
}

#[test]
fn what_was_before_a_suspect_is_halved_when_it_fails() {
    let suspect = |record| {
        let cause = crate::outcome::Cause::HandlerError {
            error_type: "Down".into(),
            message: String::new(),
        };
        let record = Some(record);
        Judgement::Failed(crate::outcome::Failure { cause, record })
    };
    let attempted = |len, doubted| Attempted {
        len,
        attempts: 0,
        record_mode: false,
        doubted,
    };
    let parts = |next: crate::mapping::Next| {
        let parts = next.rest.into_iter();
        parts
            .map(|rest| (rest.records, rest.doubted))
            .collect::<Vec<_>>()
    };
    let next = after(&suspect(7), attempted(8, false), &policy(2, true));
    assert_eq!(parts(next), [(0..7, true), (7..8, false)]);
    let next = after(&suspect(6), attempted(7, true), &policy(2, true));
    assert_eq!(parts(next), [(0..3, true), (3..7, true)]);
    let next = after(&suspect(0), attempted(3, false), &policy(2, true));
    assert_eq!(parts(next), [(0..1, false), (1..3, false)]);
}
