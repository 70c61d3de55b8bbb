//! What a seed means: the settings of a mapping, the records that are put, what the handler does
//! with each of them, and what happens to the host meanwhile. Small, so that thousands run in a
//! minute.
//!
//! Instants lie on a grid of [`GRID_MS`]: records are put on it, handlers end a few milliseconds
//! behind it, each shard's at an instant of its own, and every other step of a plan has its own
//! before the next line. Waits of the host are multiples of the grid, so no two of them meet, and
//! the order in which the runtime wakes pollers, which is not in our hand, changes nothing.

use std::ops::Range;
use std::time::Duration;

use shardmill_core::HashKey;
use shardmill_core::mapping::{OnExhausted, Policy, Shadow};
use shardmill_core::sandbox::{Carrier, Mode};

/// Milliseconds that every wait of the host is a multiple of.
pub(super) const GRID_MS: u64 = 200;

/// Instants of the grid from here on belong to steps, and to what draining does: one each.
pub(super) const HELP_SLOTS: u64 = 140;
const STEP_SLOTS: u64 = 180;

/// The function that runs beside.
pub(super) const SHADOW: &str = "shadow";

/// Without an end.
pub(super) const ALWAYS: u32 = u32::MAX;

/// A scenario.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) shards: u32,
    pub(super) carrier: Carrier,
    pub(super) policy: Policy,
    /// Whether the stream that handlers emit to is there.
    pub(super) has_target: bool,
    /// How often the final invocation of each window fails.
    pub(super) final_faults: u32,
    /// Whether the final invocation of each window emits.
    pub(super) final_emits: bool,
    /// The host dies at this commit of its operators, counted from 1: before or after it is done.
    pub(super) operator_crash: Option<(u32, bool)>,
    pub(super) records: Vec<Planned>,
    pub(super) steps: Vec<Step>,
}

/// A record, by its number the index in [`Plan::records`].
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) key: String,
    pub(super) hash: Option<HashKey>,
    /// Whether the filter criteria, if there are any, let it through.
    pub(super) kept: bool,
    /// Whether it adds its number to the list in its key's state.
    pub(super) adds: bool,
    pub(super) emits: bool,
    pub(super) fault: Option<Fault>,
}

/// What goes wrong at a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    /// So many times it is reached.
    pub(super) times: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    Trap,
    /// A failure that names no record.
    Hidden,
    Error,
    /// Uses up what the whole batch may use.
    Spin,
    /// Uses it up unless the record is the first.
    Heavy,
    /// The answer names it as failed; a trap where answers cannot.
    Named,
    /// An answer that cannot be read.
    Malformed,
    /// With a window, an answer without its state; otherwise an error.
    Stateless,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// After the beginning, ms; leaps of the clock not counted.
    pub(super) at: u64,
    pub(super) act: Act,
}

#[derive(Clone, Debug)]
pub(super) enum Act {
    Put(Range<usize>),
    /// Splits the n-th open shard.
    Split(u32),
    /// Merges the n-th open shard with its neighbour.
    Merge(u32),
    /// The host dies at its n-th commit from now on: before it is done, or after it is done and
    /// before anybody hears of it.
    Crash {
        commits: u32,
        after: bool,
    },
    /// The store refuses the next commits of each writer.
    Refuse(u32),
    /// The sandbox has no room for the next attempts of each shard.
    Throttle(u32),
    Update(Box<Policy>),
    Disable,
    Enable,
    Resume,
    /// Lets all parked keys go on.
    Release,
    Deploy,
    /// The clock leaps, ms.
    Jump(u64),
    /// Drops the older part of the n-th shard, in percent.
    Trim {
        shard: u32,
        percent: u32,
    },
}

impl Plan {
    /// The plan of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let dice = &mut Dice::new(seed);
        let policy = policy(dice);
        let carrier = match dice.roll(10) {
            0..4 => Mode::Record,
            4..7 => Mode::Batch,
            _ => Mode::Event,
        };
        let mut plan = Self {
            shards: 1 + dice.roll(3) as u32,
            carrier: Carrier::Packed {
                mode: carrier,
                uses_state: true,
            },
            has_target: dice.percent(70),
            final_faults: dice.pick(&[0, 0, 0, 1, 2, ALWAYS]),
            final_emits: false,
            operator_crash: None,
            policy,
            records: Vec::new(),
            steps: Vec::new(),
        };
        if plan.policy.circuit_breaker > 0 {
            // Shards share it, and which of them it lets through first is not in our hand.
            plan.shards = 1;
        }
        plan.add_steps(dice);
        plan.final_emits = dice.percent(40);
        let crash = (1 + dice.roll(5) as u32, dice.percent(50));
        plan.operator_crash = dice.percent(40).then_some(crash);
        // Not by the dice, which would throw another plan then.
        plan.with_shadow(seed % 5 == 4)
    }

    /// The same with or without a shadow, which must make no difference.
    pub(super) fn with_shadow(mut self, is_there: bool) -> Self {
        let shadow = is_there.then(|| Shadow::of(SHADOW));
        self.policy.shadow.clone_from(&shadow);
        for step in &mut self.steps {
            if let Act::Update(policy) = &mut step.act {
                policy.shadow.clone_from(&shadow);
            }
        }
        self
    }

    fn add_steps(&mut self, dice: &mut Dice) {
        let mut kinds = Kinds::of(dice);
        kinds.reshards &= self.policy.circuit_breaker == 0;
        let keys = 1 + dice.roll(5);
        // Keys that stand in several shards at once.
        let spread = dice.percent(20);
        let faulty = dice.pick(&[5, 15, 15, 30]);
        let mut slot = 0;
        for _ in 0..5 + dice.roll(9) {
            slot += match dice.roll(10) {
                0..6 => dice.roll(5),
                6..9 => dice.roll(30),
                _ => dice.roll(600),
            };
            let at = slot * GRID_MS;
            if dice.percent(50) || slot == 0 {
                let from = self.records.len();
                for _ in 0..1 + dice.roll(8) {
                    let record = planned(dice, keys, spread, faulty);
                    self.records.push(record);
                }
                let act = Act::Put(from..self.records.len());
                self.steps.push(Step { at, act });
            } else {
                let act = kinds.act(dice, &self.policy);
                let at = at + STEP_SLOTS + self.steps.len() as u64;
                self.steps.push(Step { at, act });
                slot += 1;
            }
        }
    }

    /// Whether nothing starts an attempt's count anew or takes back what was noted of it.
    pub(super) fn is_calm(&self) -> bool {
        let calm = |step: &Step| {
            matches!(
                step.act,
                Act::Put(_) | Act::Split(_) | Act::Merge(_) | Act::Jump(_) | Act::Throttle(_)
            )
        };
        self.steps.iter().all(calm) && self.policy.on_exhausted != OnExhausted::Pause
    }

    /// Whether attempts are counted as if nothing happened, but for those whose commit died with
    /// the host.
    pub(super) fn keeps_count(&self) -> bool {
        let keeps = |step: &Step| {
            matches!(
                step.act,
                Act::Put(_)
                    | Act::Split(_)
                    | Act::Merge(_)
                    | Act::Jump(_)
                    | Act::Throttle(_)
                    | Act::Crash { .. }
            )
        };
        self.steps.iter().all(keeps) && self.policy.on_exhausted != OnExhausted::Pause
    }

    /// Whether a record waits without an end, unless it is mended.
    pub(super) fn needs_mending(&self) -> bool {
        let endless = |policy: &Policy| {
            policy.maximum_retry_attempts.is_none() && policy.maximum_record_age.is_none()
        };
        let updated = |step: &Step| matches!(&step.act, Act::Update(policy) if endless(policy));
        endless(&self.policy) || self.steps.iter().any(updated)
    }
}

/// Which of the rarer things a plan has in it.
struct Kinds {
    trims: bool,
    reshards: bool,
    crashes: bool,
    updates: bool,
}

impl Kinds {
    fn of(dice: &mut Dice) -> Self {
        Self {
            trims: dice.percent(25),
            reshards: dice.percent(40),
            crashes: dice.percent(50),
            updates: dice.percent(40),
        }
    }

    fn act(&self, dice: &mut Dice, before: &Policy) -> Act {
        match dice.roll(15) {
            0 | 1 if self.reshards => Act::Split(dice.roll(4) as u32),
            2 if self.reshards => Act::Merge(dice.roll(4) as u32),
            3..6 if self.crashes => Act::Crash {
                commits: 1 + dice.roll(6) as u32,
                after: dice.percent(50),
            },
            6 if self.crashes => Act::Refuse(1 + dice.roll(3) as u32),
            7 if self.trims => Act::Trim {
                shard: dice.roll(4) as u32,
                percent: dice.roll(101) as u32,
            },
            8 | 9 if self.updates => Act::Update(Box::new(changed(dice, before))),
            10 if self.updates => dice.pick(&[Act::Disable, Act::Enable, Act::Enable]),
            11 if self.updates => dice.pick(&[Act::Resume, Act::Deploy]),
            12 if before.on_exhausted == OnExhausted::Park => Act::Release,
            13 => Act::Throttle(1 + dice.roll(3) as u32),
            _ => Act::Jump(GRID_MS * (1 + dice.roll(300))),
        }
    }
}

fn policy(dice: &mut Dice) -> Policy {
    let mut policy = Policy {
        batch_size: 1 + dice.roll(8) as u32,
        batching_window: Duration::from_secs(dice.pick(&[0, 0, 0, 1, 3])),
        maximum_retry_attempts: dice.pick(&[Some(0), Some(0), Some(1), Some(2), Some(3), None]),
        maximum_record_age: dice.percent(30).then_some(Duration::from_secs(60)),
        bisect_batch_on_function_error: dice.percent(50),
        report_batch_item_failures: dice.percent(60),
        on_exhausted: on_exhausted(dice),
        circuit_breaker: if dice.percent(12) {
            1 + dice.roll(3) as u32
        } else {
            0
        },
        ..Policy::aws()
    };
    if dice.percent(8) {
        policy.max_parked_keys = 1;
    }
    shape(dice, &mut policy);
    policy
}

/// Lanes, filters or a window: a window goes with neither, nor with parked keys.
fn shape(dice: &mut Dice, policy: &mut Policy) {
    policy.tumbling_window = Duration::ZERO;
    policy.parallelization_factor = 1;
    policy.filter_criteria = Vec::new();
    if dice.percent(25) {
        policy.tumbling_window = Duration::from_secs(dice.pick(&[2, 10, 30]));
        without_parking(policy);
        return;
    }
    policy.parallelization_factor = dice.pick(&[1, 1, 2, 3, 4]);
    if dice.percent(25) {
        policy.filter_criteria = vec![r#"{"data":{"keep":[true]}}"#.into()];
    }
}

/// A change of settings. The age limit stays, so that a handler knows what it is.
fn changed(dice: &mut Dice, before: &Policy) -> Policy {
    let mut policy = before.clone();
    match dice.roll(3) {
        0 => policy.batch_size = 1 + dice.roll(8) as u32,
        1 => {
            policy.on_exhausted = on_exhausted(dice);
            without_parking(&mut policy);
        }
        _ => shape(dice, &mut policy),
    }
    policy
}

/// Keys are not parked with a window.
fn without_parking(policy: &mut Policy) {
    if policy.window().is_some() && policy.on_exhausted == OnExhausted::Park {
        policy.on_exhausted = OnExhausted::Discard;
    }
}

fn on_exhausted(dice: &mut Dice) -> OnExhausted {
    dice.pick(&[
        OnExhausted::Discard,
        OnExhausted::Discard,
        OnExhausted::Discard,
        OnExhausted::Pause,
        OnExhausted::Park,
        OnExhausted::Park,
    ])
}

fn planned(dice: &mut Dice, keys: u64, spread: bool, faulty: u64) -> Planned {
    let (key, hash) = if spread && dice.percent(40) {
        let hash = HashKey((dice.next() as u128) << 64);
        ("spread".to_owned(), Some(hash))
    } else {
        (format!("k{}", dice.roll(keys)), None)
    };
    let fault = dice.percent(faulty).then(|| Fault {
        kind: dice.pick(&[
            FaultKind::Trap,
            FaultKind::Trap,
            FaultKind::Hidden,
            FaultKind::Error,
            FaultKind::Spin,
            FaultKind::Heavy,
            FaultKind::Heavy,
            FaultKind::Named,
            FaultKind::Named,
            FaultKind::Malformed,
            FaultKind::Stateless,
        ]),
        times: dice.pick(&[1, 1, 2, 3, ALWAYS, ALWAYS]),
    });
    Planned {
        key,
        hash,
        kept: dice.percent(75),
        adds: dice.percent(70),
        emits: dice.percent(15),
        fault,
    }
}

/// Chance from a seed: SplitMix64.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5ba0_3d11)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 … `sides` − 1.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.roll(100) < chance
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.roll(choices.len() as u64) as usize].clone()
    }
}
