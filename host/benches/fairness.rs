//! What a tenant gets beside neighbours that spin, flood and fail for ever, against what it gets
//! beside as many that behave.
//!
//! All neighbours always want more than their share: eight attempts of each are under way, or are
//! wanted, at any time.
//!
//! - *good*: attempts of a few milliseconds of fuel that succeed.
//! - *spin*: attempts that never end by themselves, each cut off at a billion units of fuel.
//! - *flood*: 64 attempts at a time instead of eight, that do nothing.
//! - *fail*: attempts that touch 16 MiB of fresh memory, trap, and come again at once.
//! - *touch*: one attempt at a time instead of eight, which touches 512 MiB of fresh memory: slices
//!   of a hundred milliseconds that burn hardly any fuel.
//! - *nap*: 64 attempts at a time that burn a little and sleep for a moment, over and over.
//!
//! The tenant that is watched asks for attempts of a few milliseconds. *Share*: eight at a time;
//! attempts that it ends in a second beside bad neighbours, over its share of what it ends alone.
//! (Good neighbours would be no measure: they pause between attempts.) *Wait*: one at a
//! time, each after a pause of a millisecond; from asking to the report, less what the attempt ran
//! itself, 99th percentile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use shardmill_core::limits::FunctionLimits;
use shardmill_core::sandbox::{Invocation, Module, Owner, Sandbox};
use shardmill_core::{Batch, Outcome, Scope, TenantId};
use shardmill_sandbox::{SandboxConfig, WasmSandbox};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::bench::Bench;
use crate::figure::{Figure, Unit};
use crate::guests;
use crate::row::{Goal, Row};

/// Attempts of a tenant at a time.
const AT_A_TIME: usize = 8;
/// Attempts of a tenant that floods.
const FLOOD: usize = 64;
/// The account of the tenant that is watched.
const WATCHED: u64 = 999_999;

const GOOD: &str = "(local.set $n (i64.const 6000000))
    (loop $l (br_if $l (i64.gt_s (local.tee $n (i64.sub (local.get $n) (i64.const 1))) (i64.const 0))))";
const SPIN: &str = "(loop $l (br $l))";
const NOTHING: &str = "";
const FAIL: &str = "(drop (memory.grow (i32.const 256)))
    (loop $l (i32.store (i32.add (i32.const 131072) (local.get $i)) (i32.const 1))
        (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4096))) (i32.const 16777216))))
    (unreachable)";

const TOUCH: &str = "(drop (memory.grow (i32.const 8192)))
    (loop $l (i32.store (i32.add (i32.const 131072) (local.get $i)) (i32.const 1))
        (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4096))) (i32.const 536870912))))";
const NAP: &str = "(i32.store (i32.const 0x110) (i32.const 1)) (i64.store (i32.const 0x118) (i64.const 20000))
    (loop $again (local.set $n (i64.const 100000))
        (loop $l (br_if $l (i64.gt_s (local.tee $n (i64.sub (local.get $n) (i64.const 1))) (i64.const 0))))
        (drop (call $poll (i32.const 0x100) (i32.const 0x180) (i32.const 1) (i32.const 0x1f0)))
        (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 200))))";

const KINDS: [(&str, &str, usize); 5] = [
    ("spin", SPIN, AT_A_TIME),
    ("flood", NOTHING, FLOOD),
    ("fail", FAIL, AT_A_TIME),
    ("touch", TOUCH, 1),
    ("nap", NAP, FLOOD),
];

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let host = Host::start()?;
    let good = host.load(GOOD)?;
    let turns = bench.choose(5, 1);
    for (kind, body, at_a_time) in KINDS {
        let bad = host.load(body)?;
        for neighbours in bench
            .choose(&[1, 10, 100][..], &[1, 10][..])
            .iter()
            .copied()
        {
            let mut taken = [Taken::default(), Taken::default()];
            let mut alone = Vec::new();
            for turn in 0..turns {
                bench.turn(&format!("{neighbours} that {kind}"), turn, turns);
                alone.push(rate_of(&host, &good, bench.choose(3.0, 1.0)) / (neighbours + 1) as f64);
                for (side, module, at_a_time) in [(0, &good, AT_A_TIME), (1, &bad, at_a_time)] {
                    let crowd = host.crowd(neighbours, module, at_a_time);
                    taken_of(
                        &mut taken[side],
                        &host,
                        &good,
                        (bench.choose(3.0, 1.0), bench.choose(400, 100)),
                    );
                    drop(crowd);
                    host.drain()?;
                }
            }
            let [beside_good, beside_bad] = taken;
            bench.add(
                format!("attempts a second beside {neighbours} that {kind}"),
                |group, name| {
                    let rates = || beside_bad.rates.iter().copied();
                    let of = |rates: Vec<f64>| Figure::of(Unit::RecordsPerSecond, rates);
                    Row::new(group, name, of(rates().collect()))
                        .limit("its share of what it ends alone", of(alone.clone()))
                        .ratio(Figure::of_ratios(rates(), alone.iter().copied()))
                        .goal(Goal::RatioAtLeast(0.9))
                },
            );
            bench.add(
                format!("wait, p99, beside {neighbours} that {kind}"),
                |group, name| {
                    let waits = |taken: &Taken| taken.waits.clone();
                    Row::new(group, name, Figure::of_spans(waits(&beside_bad)))
                        .limit(
                            format!("beside {neighbours} good ones"),
                            Figure::of_spans(waits(&beside_good)),
                        )
                        .ratio(Figure::of_ratios(
                            waits(&beside_bad).iter().map(Duration::as_secs_f64),
                            waits(&beside_good).iter().map(Duration::as_secs_f64),
                        ))
                        .goal(Goal::RatioAtMost(2.0))
                },
            );
        }
    }
    Ok(())
}

/// What the watched tenant got, a sample for each turn.
#[derive(Default)]
struct Taken {
    rates: Vec<f64>,
    waits: Vec<Duration>,
}

fn taken_of(
    taken: &mut Taken,
    host: &Host,
    good: &Arc<dyn Module>,
    (seconds, count): (f64, usize),
) {
    taken.rates.push(rate_of(host, good, seconds));
    let again = host.again(&owner(WATCHED), good);
    let mut waits: Vec<Duration> = (0..count)
        .map(|_| {
            sleep(1e-3);
            // One that was throttled has waited for as long as it could.
            let waited = host.runtime.block_on(again.run());
            waited.unwrap_or(Duration::from_secs(10))
        })
        .collect();
    waits.sort();
    taken.waits.push(waits[count * 99 / 100]);
}

/// Attempts that the watched tenant ends in a second.
fn rate_of(host: &Host, good: &Arc<dyn Module>, seconds: f64) -> f64 {
    let me = owner(WATCHED);
    let ended = Arc::new(AtomicU64::new(0));
    let mut set = JoinSet::new();
    for _ in 0..AT_A_TIME {
        let (again, ended) = (host.again(&me, good), Arc::clone(&ended));
        set.spawn_on(
            async move {
                loop {
                    if again.run().await.is_some() {
                        ended.fetch_add(1, Ordering::Relaxed);
                    }
                }
            },
            host.runtime.handle(),
        );
    }
    // Let the shares settle first.
    sleep(seconds / 4.0);
    let (began, before) = (Instant::now(), ended.load(Ordering::Relaxed));
    sleep(seconds);
    let done = ended.load(Ordering::Relaxed) - before;
    let rate = done as f64 / began.elapsed().as_secs_f64();
    host.runtime.block_on(set.shutdown());
    rate
}

fn sleep(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}

struct Host {
    sandbox: Arc<WasmSandbox>,
    runtime: Runtime,
}

/// Attempts of one owner at one module.
#[derive(Clone)]
struct Again {
    sandbox: Arc<WasmSandbox>,
    owner: Arc<Owner>,
    module: Arc<dyn Module>,
    batch: Batch,
    memory_bytes: u64,
}

/// Neighbours. They go away when this is dropped.
struct Crowd {
    _tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Host {
    fn start() -> anyhow::Result<Self> {
        let sandbox = WasmSandbox::new(SandboxConfig::default())?;
        Ok(Self {
            sandbox: Arc::new(sandbox),
            runtime: Runtime::new()?,
        })
    }

    /// A handler with this body.
    fn load(&self, body: &str) -> anyhow::Result<Arc<dyn Module>> {
        let text = format!(
            r#"(module
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 3)
            (data (i32.const 16) "SMA1\01\00\00\00\00\00\00\00\00\00\00\00")
            (func (export "shardmill_abi_v1") (result i32) (i32.const 2))
            (func (export "shardmill_prepare") (param i32) (result i32) (i32.const 65536))
            (func (export "shardmill_handle") (param $ptr i32) (param $len i32) (result i64)
                (local $i i32) (local $n i64) {body} (i64.const 0x0000001000000010)))"#
        );
        let wasm = wat::parse_str(text).context("a handler as text")?;
        let loaded = self
            .runtime
            .block_on(Sandbox::load(&*self.sandbox, wasm.into()));
        loaded.context("load a handler")
    }

    fn again(&self, owner: &Arc<Owner>, module: &Arc<dyn Module>) -> Again {
        Again {
            sandbox: Arc::clone(&self.sandbox),
            owner: Arc::clone(owner),
            module: Arc::clone(module),
            batch: Batch::default(),
            memory_bytes: 32 << 20,
        }
    }

    /// Tenants that always want more.
    fn crowd(&self, neighbours: u64, module: &Arc<dyn Module>, at_a_time: usize) -> Crowd {
        let (mut tasks, stop) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        for tenant in 0..neighbours {
            let mut again = self.again(&owner(tenant), module);
            if at_a_time == 1 {
                again.memory_bytes = 1 << 30;
            }
            for _ in 0..at_a_time {
                let (again, stop) = (again.clone(), Arc::clone(&stop));
                let work = async move {
                    while !stop.load(Ordering::Relaxed) {
                        again.run().await;
                    }
                };
                tasks.spawn_on(work, self.runtime.handle());
            }
        }
        Crowd {
            _tasks: tasks,
            stop,
        }
    }

    /// Waits until nothing runs any more.
    fn drain(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.sandbox.in_use().instances > 0 {
            anyhow::ensure!(
                Instant::now() < deadline,
                "attempts go on: {:?}",
                self.sandbox.in_use()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Again {
    /// One attempt: how long it waited, if it succeeded.
    async fn run(&self) -> Option<Duration> {
        let invocation = Invocation {
            owner: Arc::clone(&self.owner),
            limits: FunctionLimits {
                fuel_base: 1_000_000_000,
                memory_bytes: self.memory_bytes,
                ..FunctionLimits::default()
            },
            ..guests::invocation(&self.module, &self.batch)
        };
        let began = Instant::now();
        let report = Sandbox::invoke(&*self.sandbox, invocation).await;
        let waited = began.elapsed().saturating_sub(report.usage.duration);
        matches!(report.outcome, Outcome::Ok { .. }).then_some(waited)
    }
}

fn owner(tenant: u64) -> Arc<Owner> {
    Arc::new(Owner {
        scope: Scope {
            tenant: TenantId::from_number(tenant).unwrap_or(TenantId::DEFAULT),
            ..Scope::default()
        },
        function: "f".into(),
    })
}
