//! The simulator: seeded runs of the real pollers, policy and store on simulated time, with
//! handlers that fail in every way, resharding, crashes at any commit and changes of settings. After
//! each run the laws of `laws.rs` are checked.
//!
//! A failure prints its seed. `cargo xtask sim --seed N` runs it again and shows its log;
//! `cargo xtask sim --seeds N` runs many.

mod attempt;
pub(in crate::mapping) mod defect;
mod facts;
mod handler;
mod laws;
mod log;
mod plan;
mod retries;
mod steps;
mod store;
mod truth;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use shardmill_core::mapping::{Policy, Shadow};

use self::defect::Defect;
use self::plan::{ALWAYS, Act, Fault, FaultKind, Plan, Planned, Step};
use self::world::{Ended, run};

/// Runs of a normal test.
const SEEDS: u64 = 2_000;

/// How many failing seeds are told of.
const TOLD: usize = 20;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs seeds on every core until one of them, or all, are found to break a law, as `enough` says.
fn search(seeds: std::ops::Range<u64>, defect: Option<Defect>, enough: usize) -> Vec<(u64, Ended)> {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = seeds.end - seeds.start;
    let report = setting("SHARDMILL_SIM_SEEDS").is_some() && defect.is_none();
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= seeds.end || found.lock().unwrap().len() >= enough {
                        return;
                    }
                    let ended = run(Plan::of(seed), defect, false);
                    if !ended.violations.is_empty() {
                        if report {
                            println!("sim: seed {seed} breaks a law: {}", ended.violations[0]);
                        }
                        found.lock().unwrap().push((seed, ended));
                    }
                    let done = seed + 1 - seeds.start;
                    if report && done.is_multiple_of(500) {
                        println!("sim: {done} of {count} seeds");
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap();
    found.sort_by_key(|(seed, _)| *seed);
    found
}

#[test]
fn laws_hold_whatever_the_seed() {
    if let Some(seed) = setting("SHARDMILL_SIM_SEED") {
        return show(seed);
    }
    let from = setting("SHARDMILL_SIM_FROM").unwrap_or(0);
    let count = setting("SHARDMILL_SIM_SEEDS").unwrap_or(SEEDS);
    let found = search(from..from + count, None, TOLD);
    let told: Vec<String> = found
        .iter()
        .map(|(seed, ended)| {
            let laws = ended.violations.join("\n    ");
            format!("seed {seed} (cargo xtask sim --seed {seed}):\n    {laws}")
        })
        .collect();
    assert!(told.is_empty(), "laws were broken:\n{}", told.join("\n"));
}

/// Runs one seed and prints its log; with the defect that `SHARDMILL_SIM_DEFECT` names.
fn show(seed: u64) {
    let plan = Plan::of(seed);
    println!("{:?}\n{:?}", plan.policy, plan.carrier);
    let named = std::env::var("SHARDMILL_SIM_DEFECT").ok();
    let mut defects = Defect::ALL.into_iter();
    let defect = named.map(|name| {
        defects
            .find(|d| format!("{d:?}") == name)
            .expect("a defect")
    });
    let ended = run(plan, defect, true);
    println!("{}", ended.log.join("\n"));
    assert!(
        ended.violations.is_empty(),
        "seed {seed}:\n{}",
        ended.violations.join("\n")
    );
}

#[test]
fn seeds_that_once_broke_a_law_hold() {
    // A lane that had to stop at a parked record went on in the next block of the same read, and
    // lost what lay between; and keys that were let go on before one was refused stood still.
    for seed in [
        16_911, 19_127, 26_066, 28_201, 30_696, 61_080, 61_431, 65_734,
    ] {
        let ended = run(Plan::of(seed), None, false);
        assert!(
            ended.violations.is_empty(),
            "{seed}: {:?}",
            ended.violations
        );
    }
}

#[test]
fn a_seed_gives_the_same_log_each_time() {
    for seed in 0..300 {
        let [first, second] = [(), ()].map(|()| run(Plan::of(seed), None, true));
        for (a, b) in first.log.iter().zip(&second.log) {
            assert_eq!(a, b, "seed {seed}");
        }
        assert_eq!(first.log.len(), second.log.len(), "seed {seed}");
    }
}

#[test]
fn a_shadow_changes_nothing() {
    let mut shadowed = 0;
    for seed in 0..400 {
        let [without, with] =
            [false, true].map(|is_there| run(Plan::of(seed).with_shadow(is_there), None, true));
        // What a change of settings is changed to is written down, too.
        let without_it = |line: &String| line.replace(&format!("{:?}", shadow()), "None");
        let with_log: Vec<String> = with.log.iter().map(without_it).collect();
        for (a, b) in without.log.iter().zip(&with_log) {
            assert_eq!(a, b, "seed {seed}");
        }
        assert_eq!(without.log.len(), with_log.len(), "seed {seed}");
        assert_eq!(with.violations, without.violations, "seed {seed}");
        assert_eq!(without.shadowed, 0, "seed {seed}");
        shadowed += with.shadowed;
    }
    println!("{shadowed} attempts of shadows");
    assert!(shadowed > 1_000, "{shadowed}");
}

fn shadow() -> Option<Shadow> {
    Some(Shadow::of(plan::SHADOW))
}

#[test]
fn plans_reach_what_they_are_for() {
    let mut reached: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..600 {
        for (what, times) in run(Plan::of(seed), None, false).reached {
            *reached.entry(what).or_default() += times;
        }
    }
    println!("{reached:?}");
    assert_eq!(reached.len(), 16, "{reached:?}");
    assert!(reached.values().all(|times| *times >= 5), "{reached:?}");
}

#[test]
fn every_planted_defect_is_found() {
    for defect in Defect::ALL {
        let found = search(0..SEEDS, Some(defect), 1);
        let (seed, ended) = found
            .first()
            .unwrap_or_else(|| panic!("{defect:?} was not found"));
        println!("{defect:?}: seed {seed}: {}", ended.violations[0]);
    }
}

/// A plan of records under one key, none of which fails.
fn plain(policy: Policy, records: usize, steps: Vec<Step>) -> Plan {
    let record = Planned {
        key: "k".into(),
        hash: None,
        kept: true,
        adds: true,
        emits: false,
        fault: None,
    };
    Plan {
        shards: 1,
        policy,
        records: vec![record; records],
        steps,
        ..Plan::of(0)
    }
}

#[test]
fn expired_records_are_told_of_though_the_store_refuses_it_once() {
    // The lanes had gone on by then, and nobody was told of the gap.
    let acts = [
        Act::Disable,
        Act::Put(0..3),
        Act::Trim {
            shard: 0,
            percent: 100,
        },
        Act::Refuse(1),
        // Refused as well.
        Act::Enable,
        Act::Enable,
        Act::Put(3..5),
    ];
    let steps = (0..).zip(acts).map(|(at, act)| Step {
        at: 1_000 * at,
        act,
    });
    let ended = run(plain(Policy::manifest(), 5, steps.collect()), None, true);
    let log = ended.log.join("\n");
    assert!(ended.violations.is_empty(), "{:?}\n{log}", ended.violations);
    assert_eq!(ended.reached.get("expired"), Some(&3), "{log}");
    assert!(log.contains("refused"), "{log}");
}

#[test]
fn a_day_of_retries_takes_milliseconds() {
    let day = Duration::from_secs(24 * 3600);
    let aging = Policy {
        maximum_record_age: Some(day),
        ..Policy::aws()
    };
    let act = Act::Put(0..1);
    let mut plan = plain(aging, 1, vec![Step { at: 0, act }]);
    plan.records[0].fault = Some(Fault {
        kind: FaultKind::Trap,
        times: ALWAYS,
    });
    #[expect(
        clippy::disallowed_methods,
        reason = "the time that simulating takes is what is measured"
    )]
    let began = std::time::Instant::now();
    let ended = run(plan, None, false);
    let took = began.elapsed();
    let (span, invocations) = (ended.span, ended.invocations);
    println!("{span:?} simulated in {took:?}, {invocations} invocations");
    assert!(ended.violations.is_empty(), "{:?}", ended.violations);
    assert!(
        span >= day && invocations > 1_400,
        "{span:?}, {invocations} invocations"
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
}
