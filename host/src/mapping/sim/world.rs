//! One run: a host on the store in memory, simulated time, and what the plan does to them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::mapping::{OnExhausted, Policy, StartingPosition};
use shardmill_core::sandbox::Sandbox;
use shardmill_core::stream::StreamMode;
use shardmill_core::{Scope, ShardId, Stream, StreamId, UnixMillis};
use shardmill_store::{Appended, Memory, Store, StreamChange, Tx};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::defect::Defect;
use super::handler::{Handler, Seen};
use super::log::{Log, WORLD};
use super::plan::{GRID_MS, HELP_SLOTS, Plan, SHADOW};
use super::store::{Faults, Shell};
use super::truth::Truth;
use super::{laws, plan};
use crate::clock::Clock;
use crate::functions::{FunctionSettings, Functions};
use crate::mapping::{CreateMapping, Mappings, Origin};

/// When every run begins; on the grid.
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

/// Simulated time that draining may take after the last step.
const DRAIN_LIMIT: Duration = Duration::from_secs(48 * 3600);

/// What came of a run.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) violations: Vec<String>,
    pub(super) log: Vec<String>,
    /// Simulated.
    pub(super) span: Duration,
    pub(super) invocations: usize,
    /// Those of the shadow.
    pub(super) shadowed: usize,
    /// What was met with, and how often.
    pub(super) reached: BTreeMap<&'static str, u64>,
}

/// Runs a plan.
pub(super) fn run(plan: Plan, defect: Option<Defect>, verbose: bool) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut world = World::new(plan, defect, verbose).await;
        world.play().await;
        world.end().await
    })
}

pub(super) struct World {
    pub(super) plan: Arc<Plan>,
    pub(super) log: Arc<Log>,
    pub(super) clock: Clock,
    pub(super) shell: Arc<Shell>,
    pub(super) handler: Arc<Handler>,
    pub(super) truth: Truth,
    /// Where each record was put.
    pub(super) places: BTreeMap<usize, Appended>,
    /// Positions below were trimmed.
    pub(super) trimmed: BTreeMap<ShardId, u64>,
    pub(super) functions: Arc<Functions>,
    /// Whether a shard stood still, so that attempts were counted anew.
    pub(super) was_paused: bool,
    /// How often the host has died.
    pub(super) deaths: usize,
    /// How far the clock has leapt, ms.
    pub(super) leapt: u64,
    defect: Option<Defect>,
    pub(super) mappings: Mappings,
    running: JoinHandle<()>,
    stop: CancellationToken,
}

impl World {
    async fn new(plan: Plan, defect: Option<Defect>, verbose: bool) -> Self {
        let plan = Arc::new(plan);
        let clock = Clock::starting_at(NOW);
        let log = Arc::new(Log::new(NOW, verbose));
        let memory = Arc::new(Memory::new(Arc::new(move || clock.now())));
        create_stream(&memory, "in", plan.shards).await;
        if plan.has_target {
            create_stream(&memory, "out", 1).await;
        }
        let shell = Arc::new(Shell::new(Arc::clone(&memory), Arc::clone(&log), clock));
        let truth = Truth::new(memory);
        let handler = Arc::new(Handler {
            plan: Arc::clone(&plan),
            log: Arc::clone(&log),
            clock,
            truth: truth.clone(),
            mended: false.into(),
            seen: Mutex::new(Seen::default()),
            shadowed: 0.into(),
        });
        let (mappings, functions) = host(&shell, &handler, clock, defect);
        let (scope, settings) = (Scope::default(), FunctionSettings::default());
        for name in ["f", SHADOW] {
            let deployed = functions.deploy(&scope, name, Bytes::new(), settings.clone());
            deployed.await.expect("deployed");
        }
        let request = CreateMapping {
            name: Some("m".into()),
            stream: "in".parse().expect("a name"),
            function: "f".into(),
            starting_position: StartingPosition::TrimHorizon,
            policy: plan.policy.clone(),
            enabled: true,
            origin: Origin::Manifest,
            on_failure: None,
        };
        let mapping = mappings.create(&scope, request).await.expect("mapped");
        truth.is_about(mapping);
        shell.faults.lock().unwrap().operator_crash = plan.operator_crash;
        let stop = CancellationToken::new();
        Self {
            running: start(&mappings, &stop),
            plan,
            log,
            clock,
            shell,
            handler,
            truth,
            places: BTreeMap::new(),
            trimmed: BTreeMap::new(),
            was_paused: false,
            deaths: 0,
            leapt: 0,
            defect,
            mappings,
            functions,
            stop,
        }
    }

    /// Does what the plan says, then helps until everything is delivered or given up.
    async fn play(&mut self) {
        for step in self.plan.clone().steps.iter() {
            self.wait_until(step.at + self.leapt).await;
            self.log
                .note(self.clock.now(), WORLD, || format!("{:?}", step.act));
            self.act(&step.act).await;
        }
        self.drain().await;
    }

    /// Waits until so many ms after the beginning; starts the host again when it dies.
    async fn wait_until(&mut self, at: u64) {
        let at = UnixMillis(NOW.0 + at);
        loop {
            let died = self.shell.died();
            tokio::select! {
                biased;
                () = died.cancelled() => self.restart().await,
                () = self.clock.sleep_until(at) => return,
            }
        }
    }

    pub(super) async fn restart(&mut self) {
        self.deaths += 1;
        self.log.reach("died", 1);
        self.log
            .note(self.clock.now(), WORLD, || "the host died".into());
        self.running.abort();
        (&mut self.running).await.ok();
        *self.shell.died.lock().unwrap() = CancellationToken::new();
        (self.mappings, self.functions) = host(&self.shell, &self.handler, self.clock, self.defect);
        self.running = start(&self.mappings, &self.stop);
    }

    async fn drain(&mut self) {
        *self.shell.faults.lock().unwrap() = Faults::default();
        self.handler.seen.lock().unwrap().throttles.clear();
        if self.plan.needs_mending() {
            self.handler.mended.store(true, SeqCst);
            if !self.plan.has_target {
                create_stream(&self.shell.memory, "out", 1).await;
            }
        }
        let began = self.clock.now();
        let (mut step, mut turn) = (5, 0);
        while !self.is_drained() {
            let spent = self.clock.now().since(began);
            if spent > DRAIN_LIMIT {
                let cursors = self.truth.cursors();
                self.log.violation(format!("never drained: {cursors:?}"));
                return;
            }
            self.help().await;
            // An instant of its own for each turn, as for the steps before.
            let now = self.clock.now().since(NOW).as_millis() as u64;
            turn = (turn + 1) % 40;
            self.wait_until((now / GRID_MS + step) * GRID_MS + HELP_SLOTS + turn)
                .await;
            step = (step * 2).min(3600 * 5);
        }
        self.log.note(self.clock.now(), WORLD, || "drained".into());
    }

    /// Enables what is disabled; lets what is paused give up.
    async fn help(&mut self) {
        let scope = Scope::default();
        let mapping = self.mappings.get(&scope, "m").expect("a mapping");
        if !mapping.enabled {
            self.update(None, Some(true)).await;
        }
        if self.truth.cursors().values().any(|c| c.paused.is_some()) {
            self.was_paused = true;
            let policy = Policy {
                on_exhausted: OnExhausted::Discard,
                max_parked_keys: 1000,
                ..mapping.policy
            };
            self.update(Some(policy), None).await;
            self.mappings.resume(&scope, "m").await.expect("resumed");
        }
    }

    fn is_drained(&self) -> bool {
        let stream = self.truth.stream();
        let scope = Scope::default();
        let parked = self.mappings.parked(&scope, "m").expect("a mapping");
        let mut shards = stream.shards.iter();
        parked.iter().all(|key| !key.release.releasing)
            && shards.all(|shard| self.truth.is_done(shard.id))
    }

    async fn reach_metrics(&self) {
        let mapping = self.mappings.get(&Scope::default(), "m");
        let view = self.mappings.view(mapping.expect("a mapping")).await;
        let metrics = view.expect("a view").metrics;
        for (what, times) in [
            ("conflict", metrics.conflicts),
            ("filtered", metrics.filtered_out),
            ("parked", metrics.parked),
            ("split", metrics.split),
            ("throttle", metrics.throttles),
            ("given up", metrics.given_up),
            ("expired", metrics.expired),
        ] {
            self.log.reach(what, times);
        }
        let stream = self.truth.stream();
        let mut shards = stream.shards.iter();
        self.log
            .reach("merged", u64::from(shards.any(|s| s.parents.len() == 2)));
        self.log.reach("paused", u64::from(self.was_paused));
    }

    async fn end(mut self) -> Ended {
        let span = self.clock.now().since(NOW);
        self.stop.cancel();
        if let Err(error) = (&mut self.running).await {
            self.log.violation(format!("the host ended badly: {error}"));
        }
        self.reach_metrics().await;
        laws::check(&self).await;
        Ended {
            violations: self.log.violations(),
            log: self.log.lines(),
            span,
            reached: self.log.reached(),
            invocations: self.handler.seen.lock().unwrap().calls.len(),
            shadowed: self.handler.shadowed.load(SeqCst),
        }
    }
}

fn host(
    shell: &Arc<Shell>,
    handler: &Arc<Handler>,
    clock: Clock,
    defect: Option<Defect>,
) -> (Mappings, Arc<Functions>) {
    let store: Arc<dyn Store> = Arc::clone(shell) as _;
    let sandbox: Arc<dyn Sandbox> = Arc::clone(handler) as _;
    let functions = Arc::new(Functions::new(store.clone(), sandbox.clone(), clock));
    let mappings = Mappings::new(store, sandbox, Arc::clone(&functions), clock);
    if let Some(defect) = defect {
        mappings.inner.defect.set(defect).expect("set once");
    }
    (mappings, functions)
}

fn start(mappings: &Mappings, stop: &CancellationToken) -> JoinHandle<()> {
    let (mappings, stop) = (mappings.clone(), stop.clone());
    tokio::spawn(async move { mappings.run(stop, CancellationToken::new()).await })
}

async fn create_stream(memory: &Memory, name: &str, shards: u32) {
    let stream = Stream {
        id: StreamId(0),
        scope: Scope::default(),
        name: name.parse().expect("a name"),
        created: NOW,
        active_from: NOW,
        deleted: None,
        mode: StreamMode::Provisioned,
        retention_hours: 24,
        max_record_size_kib: 1024,
        tags: BTreeMap::new(),
        revision: 0,
        updating_until: None,
        count_updates: Vec::new(),
        shards: Stream::initial_shards(shards, NOW),
    };
    let streams = vec![StreamChange::Create(Box::new(stream))];
    let made = memory
        .commit(Tx {
            streams,
            ..Tx::default()
        })
        .await;
    made.expect("made");
}

/// So that the constants of a plan are used where they belong.
const _: () = assert!(NOW.0.is_multiple_of(plan::GRID_MS));
