//! The mapping loop on simulated time: the store in memory, a scripted sandbox.

mod failures;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::effects::{CounterAdd, Effects, Emit, StateRead, StateWrite, Tag};
use shardmill_core::mapping::{OnExhausted, Policy, Reason, StartingPosition};
use shardmill_core::outcome::{Cause, Failure, Outcome};
use shardmill_core::sandbox::{
    BoxFuture, Carrier, Input, Invocation, LoadError, Mode, Module, Report, Sandbox, Usage,
};
use shardmill_core::stream::StreamMode;
use shardmill_core::{Records, Scope, Stream, StreamId, UnixMillis};
use shardmill_store::{
    Append, CommitError, Key, Memory, ReadLimit, Receipt, Route, Seek, Store, StreamChange, Tx,
    Versioned,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::Clock;
use crate::functions::{FunctionSettings, Functions};

mod contract;
mod dry_run;
mod lanes;
mod operate;
mod parked;
mod parts;
mod shadow;
mod versions;
mod watching;
mod windows;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

/// A handler that obeys its records: `ok`, `trap`, `spin`, `slow`, `huge`, `exit`, `error`,
/// `panic` (of the host), `emit NAME`, `add` (adds one to the key's value of keyed state). Every
/// record that is done adds one to `done`.
struct Script {
    carrier: Carrier,
    /// Records of each invocation, and the request id.
    seen: Mutex<Vec<(Vec<String>, String)>>,
    /// Windows of each invocation: start, state, final, ended early; and when it was.
    windows: Mutex<Vec<(UnixMillis, String, u32, UnixMillis)>>,
    takes: Duration,
    /// What the next invocation takes beside that.
    next_takes: Mutex<Duration>,
    /// The response of an event-mode handler; see [`contract`].
    response: Mutex<Option<String>>,
    /// How many of the next invocations the host has no room for.
    throttles: AtomicUsize,
    /// Request ids of those.
    throttled: Mutex<Vec<String>>,
    /// How many of the next final invocations of windows fail.
    failing_finals: AtomicUsize,
    /// Whether records that are bad are taken as good.
    healed: std::sync::atomic::AtomicBool,
    /// The stream that the final invocation of a window emits to, after it has counted `closed`.
    at_the_end: Mutex<Option<String>>,
    /// Whether every invocation fails behind its last record.
    fails_at_the_end: std::sync::atomic::AtomicBool,
    /// Bytes that the last invocation's answer might have had.
    allowed: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

struct Scripted {
    carrier: Carrier,
}

impl Module for Scripted {
    fn digest(&self) -> &str {
        "00000000000000000000"
    }
    fn carrier(&self) -> Carrier {
        self.carrier
    }
}

impl Sandbox for Script {
    fn load(&self, _: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        let module: Arc<dyn Module> = Arc::new(Scripted {
            carrier: self.carrier,
        });
        Box::pin(async move { Ok(module) })
    }

    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        Box::pin(async move {
            let at_once = self.at_once.fetch_add(1, SeqCst) + 1;
            self.most_at_once.fetch_max(at_once, SeqCst);
            let takes = self.takes + std::mem::take(&mut *self.next_takes.lock().unwrap());
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            self.at_once.fetch_sub(1, SeqCst);
            let left = |n: usize| n.checked_sub(1);
            if self.throttles.fetch_update(SeqCst, SeqCst, left).is_ok() {
                let reason = "no room".into();
                let id = invocation.context.request_id.clone();
                self.throttled.lock().unwrap().push(id);
                return report(Outcome::Throttled { reason }, Effects::default());
            }
            self.run(&invocation)
        })
    }
}

impl Script {
    fn run(&self, invocation: &Invocation) -> Report {
        let record_mode = self.carrier.is_record_mode();
        let records: Vec<(String, String)> = match &invocation.input {
            Input::Records(batch) => batch
                .iter()
                .map(|r| {
                    (
                        r.parts.key.to_owned(),
                        String::from_utf8_lossy(r.parts.data).into_owned(),
                    )
                })
                .collect(),
            Input::Event { json, .. } => records_of(json),
        };
        if !records.is_empty() {
            let all = records.iter().map(|(_, data)| data.clone()).collect();
            self.seen
                .lock()
                .unwrap()
                .push((all, invocation.context.request_id.clone()));
        }
        let mut effects = Effects::default();
        self.allowed.store(invocation.limits.answer_bytes, SeqCst);
        if let Some(stream) = self.at_the_end.lock().unwrap().clone()
            && invocation.context.flags & 1 == 1
        {
            let add = CounterAdd {
                name: "closed".into(),
                amount: 1,
            };
            let emit = Emit {
                stream: stream.into(),
                key: "k".into(),
                data: Bytes::new(),
            };
            effects.counters.push((None, add));
            effects.emits.push((None, emit));
        }
        let mut state: BTreeMap<String, u64> = BTreeMap::new();
        for (index, (key, data)) in records.iter().enumerate() {
            let at = index as u32;
            let word = match self.healed.load(SeqCst) {
                true => "ok",
                false => data.split(' ').next().unwrap_or_default(),
            };
            let bad = match word {
                "panic" => panic!("a bug in the host"),
                "trap" => Some(Cause::Trap {
                    trap: "unreachable".into(),
                    message: String::new(),
                    frames: Vec::new(),
                }),
                "spin" => Some(Cause::OutOfFuel {
                    allowed: 7,
                    frames: Vec::new(),
                }),
                "slow" => Some(Cause::TimedOut {
                    allowed: Duration::from_secs(3),
                    fuel_used: 7,
                }),
                "huge" => Some(Cause::OutOfMemory {
                    asked: 2,
                    allowed: 1,
                    frames: Vec::new(),
                }),
                "exit" => Some(Cause::Exited { code: 1 }),
                "error" => Some(Cause::HandlerError {
                    error_type: "Bad".into(),
                    message: data.clone(),
                }),
                "emit" => {
                    let stream = data.split(' ').nth(1).unwrap_or("out").into();
                    let emit = Emit {
                        stream,
                        key: key.as_str().into(),
                        data: Bytes::from_static(b"ok"),
                    };
                    effects.emits.push((Some(at), emit));
                    None
                }
                "add" => {
                    let value = state.entry(key.clone()).or_insert_with(|| {
                        let found = invocation.state.get(key, "n").unwrap();
                        effects.reads.push(StateRead {
                            key: key.as_str().into(),
                            name: "n".into(),
                            revision: found.as_ref().map(|f| f.1),
                            first_record: at,
                        });
                        found.map_or(0, |f| std::str::from_utf8(&f.0).unwrap().parse().unwrap())
                    });
                    *value += 1;
                    let write = StateWrite {
                        key: key.as_str().into(),
                        name: "n".into(),
                        value: Some(value.to_string().into()),
                    };
                    effects.state.push((Some(at), write));
                    None
                }
                _ => None,
            };
            if let Some(cause) = bad {
                let effects = if record_mode {
                    folded(effects.below(at))
                } else {
                    Effects::default()
                };
                let hint = !self.carrier.takes_json();
                return report(
                    Outcome::Failed(Failure {
                        cause,
                        record: hint.then_some(at),
                    }),
                    effects,
                );
            }
            effects.counters.push((
                Some(at),
                CounterAdd {
                    name: "done".into(),
                    amount: 1,
                },
            ));
        }
        if self.fails_at_the_end.load(SeqCst) {
            let cause = Cause::HandlerError {
                error_type: "Down".into(),
                message: "the database is down".into(),
            };
            let record = records.len().checked_sub(1).map(|last| last as u32);
            let failed = Outcome::Failed(Failure { cause, record });
            return report(failed, Effects::default());
        }
        if record_mode {
            effects = folded(effects);
        }
        let text = match invocation.context.window.1 {
            UnixMillis(0) => String::new(),
            _ => self.window(invocation, records.len()),
        };
        let is_final = invocation.context.flags & 1 == 1;
        let left = |n: usize| n.checked_sub(1);
        if is_final
            && self
                .failing_finals
                .fetch_update(SeqCst, SeqCst, left)
                .is_ok()
        {
            let cause = Cause::Exited { code: 1 };
            let failure = Failure {
                cause,
                record: None,
            };
            return report(Outcome::Failed(failure), Effects::default());
        }
        let response = self.response.lock().unwrap().clone();
        if let (Some(response), Input::Event { json, .. }) = (response, &invocation.input) {
            let text = with_numbers(&response, json);
            return report(Outcome::Json { text }, effects);
        }
        report(Outcome::Ok { text }, effects)
    }

    /// Counts the window's records in its state; a record `grow` makes that larger than allowed.
    fn window(&self, invocation: &Invocation, records: usize) -> String {
        let context = &invocation.context;
        let state = context.window_state.clone();
        let short = state.chars().take(20).collect();
        let seen = (context.window.0, short, context.flags, invocation.now);
        self.windows.lock().unwrap().push(seen);
        let grow = match &invocation.input {
            Input::Records(batch) => batch.iter().any(|r| r.parts.data == b"grow"),
            Input::Event { .. } => false,
        };
        if grow {
            return format!("\"{}\"", "x".repeat(1 << 20));
        }
        let count: usize = state.parse().unwrap_or(0);
        (count + records).to_string()
    }

    /// Answers with this from now on.
    fn answer(&self, response: &str) {
        *self.response.lock().unwrap() = Some(response.into());
    }

    /// Emits to this stream at the end of each window.
    fn emit_at_the_end(&self, stream: &str) {
        *self.at_the_end.lock().unwrap() = Some(stream.into());
    }

    /// Fails behind the last record of every batch.
    fn fail_at_the_end(&self) {
        self.fails_at_the_end.store(true, SeqCst);
    }

    /// Has no room for the next `count` invocations.
    fn throttle(&self, count: usize) {
        self.throttles.store(count, SeqCst);
    }

    /// Fails the next `count` final invocations of windows.
    fn fail_finals(&self, count: usize) {
        self.failing_finals.store(count, SeqCst);
    }

    /// From now on every record is good.
    fn heal(&self) {
        self.healed.store(true, SeqCst);
        self.fails_at_the_end.store(false, SeqCst);
    }

    fn invocations(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// As the sandbox does in record mode: one entry per counter and value, tagged with the last
/// record.
fn folded(mut effects: Effects) -> Effects {
    let mut counters: Vec<(Tag, CounterAdd)> = Vec::new();
    for (tag, add) in effects.counters {
        match counters.iter_mut().find(|(_, c)| c.name == add.name) {
            Some(sum) => {
                *sum = (
                    tag,
                    CounterAdd {
                        amount: sum.1.amount + add.amount,
                        ..add
                    },
                )
            }
            None => counters.push((tag, add)),
        }
    }
    effects.counters = counters;
    let mut state: Vec<(Tag, StateWrite)> = Vec::new();
    for (tag, write) in effects.state {
        state.retain(|(_, w)| (&w.key, &w.name) != (&write.key, &write.name));
        state.push((tag, write));
    }
    effects.state = state;
    effects
}

/// Puts sequence numbers in for `{0}`, `{1}` …: those of the records `ok 0`, `ok 1` ….
fn with_numbers(response: &str, json: &[u8]) -> String {
    let event: serde_json::Value = serde_json::from_slice(json).unwrap();
    let mut response = response.to_owned();
    for (record, (_, data)) in event["Records"]
        .as_array()
        .unwrap()
        .iter()
        .zip(records_of(json))
    {
        let number = record["kinesis"]["sequenceNumber"].as_str().unwrap();
        let place = data.replace("ok ", "{") + "}";
        response = response.replace(&place, number);
    }
    // What names a record of another batch is left out.
    let foreign = (0..10).any(|n| response.contains(&format!("{{{n}}}")));
    if foreign { "{}".into() } else { response }
}

fn records_of(json: &[u8]) -> Vec<(String, String)> {
    let event: serde_json::Value = serde_json::from_slice(json).unwrap();
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    let data = |v: &serde_json::Value| {
        String::from_utf8(
            base64_simd::STANDARD
                .decode_to_vec(v.as_str().unwrap())
                .unwrap(),
        )
        .unwrap()
    };
    let all = event["Records"].as_array().unwrap();
    all.iter()
        .map(|r| {
            (
                text(&r["kinesis"]["partitionKey"]),
                data(&r["kinesis"]["data"]),
            )
        })
        .collect()
}

fn report(outcome: Outcome, effects: Effects) -> Report {
    Report {
        outcome,
        effects,
        usage: Usage::default(),
        log: Vec::new(),
        record_fuel: Vec::new(),
        stderr_tail: String::new(),
        output_cut_bytes: 0,
    }
}

const RECORD: Carrier = Carrier::Packed {
    mode: Mode::Record,
    uses_state: true,
};
const BATCH: Carrier = Carrier::Packed {
    mode: Mode::Batch,
    uses_state: true,
};
const EVENT: Carrier = Carrier::Packed {
    mode: Mode::Event,
    uses_state: true,
};

/// A host without HTTP.
struct World {
    store: Arc<dyn Store>,
    script: Arc<Script>,
    functions: Arc<Functions>,
    mappings: Mappings,
    clock: Clock,
    stop: CancellationToken,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl World {
    /// One stream `in` of `shards` shards, and the function `f`.
    async fn new(carrier: Carrier, shards: u32) -> Self {
        Self::with(carrier, shards, Duration::ZERO).await
    }

    /// The same, with a handler that takes its time.
    async fn with(carrier: Carrier, shards: u32, takes: Duration) -> Self {
        let clock = Clock::starting_at(NOW);
        let store = Arc::new(Memory::new(Arc::new(move || clock.now())));
        let world = Self::taking(store, carrier, clock, takes);
        world.create_stream("in", shards).await;
        world
            .functions
            .deploy(
                &Scope::default(),
                "f",
                Bytes::new(),
                FunctionSettings::default(),
            )
            .await
            .unwrap();
        world
    }

    fn over(store: Arc<dyn Store>, carrier: Carrier, clock: Clock) -> Self {
        Self::taking(store, carrier, clock, Duration::ZERO)
    }

    fn taking(store: Arc<dyn Store>, carrier: Carrier, clock: Clock, takes: Duration) -> Self {
        let script = Arc::new(Script {
            carrier,
            seen: Mutex::default(),
            windows: Mutex::default(),
            takes,
            next_takes: Mutex::default(),
            response: Mutex::default(),
            throttles: AtomicUsize::new(0),
            throttled: Mutex::default(),
            failing_finals: AtomicUsize::new(0),
            healed: false.into(),
            at_the_end: Mutex::default(),
            fails_at_the_end: false.into(),
            allowed: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        });
        let sandbox: Arc<dyn Sandbox> = script.clone();
        let functions = Arc::new(Functions::new(store.clone(), sandbox.clone(), clock));
        let mappings = Mappings::new(store.clone(), sandbox, functions.clone(), clock);
        Self {
            store,
            script,
            functions,
            mappings,
            clock,
            stop: CancellationToken::new(),
            running: None,
        }
    }

    /// The stream `in`.
    fn stream(&self) -> Arc<Stream> {
        let name = "in".parse().unwrap();
        self.store.stream(&Scope::default(), &name).unwrap()
    }

    async fn create_stream(&self, name: &str, shards: u32) {
        let stream = Stream {
            id: StreamId(0),
            scope: Scope::default(),
            name: name.parse().unwrap(),
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
        self.store
            .commit(Tx {
                streams,
                ..Tx::default()
            })
            .await
            .unwrap();
    }

    async fn map(&self, policy: Policy) -> Mapping {
        self.map_as(Origin::Manifest, policy, StartingPosition::TrimHorizon)
            .await
    }

    async fn map_from(&self, policy: Policy, starting_position: StartingPosition) -> Mapping {
        self.map_as(Origin::Manifest, policy, starting_position)
            .await
    }

    async fn map_by(&self, origin: Origin, policy: Policy) -> Mapping {
        self.map_as(origin, policy, StartingPosition::TrimHorizon)
            .await
    }

    async fn map_as(
        &self,
        origin: Origin,
        policy: Policy,
        starting_position: StartingPosition,
    ) -> Mapping {
        let request = CreateMapping {
            starting_position,
            origin,
            ..request(policy)
        };
        let created = self.mappings.create(&Scope::default(), request).await;
        created.unwrap()
    }

    async fn change_policy(&self, policy: Policy) {
        let change = UpdateMapping {
            policy: Some(policy),
            ..UpdateMapping::default()
        };
        let changed = self.mappings.update(&Scope::default(), "m", change).await;
        changed.unwrap();
    }

    async fn put(&self, records: impl IntoIterator<Item = (String, String)>) {
        let mut packed = Records::default();
        for (key, data) in records {
            packed.push(&key, None, data.as_bytes());
        }
        self.put_records(packed).await;
    }

    async fn put_records(&self, packed: Records) {
        let stream = self
            .store
            .stream(&Scope::default(), &"in".parse().unwrap())
            .unwrap()
            .id;
        let appends = vec![Append {
            stream,
            route: Route::HashKey,
            records: packed,
        }];
        self.store
            .commit(Tx {
                appends,
                ..Tx::default()
            })
            .await
            .unwrap();
    }

    /// Puts records under one key.
    async fn put_all(&self, records: impl IntoIterator<Item = impl ToString>) {
        self.put(records.into_iter().map(|r| ("k".to_owned(), r.to_string())))
            .await;
    }

    fn start(&mut self) {
        let (mappings, stop) = (self.mappings.clone(), self.stop.clone());
        let run = async move { mappings.run(stop, CancellationToken::new()).await };
        self.running = Some(tokio::spawn(run));
    }

    async fn view(&self) -> MappingView {
        let mapping = self.mappings.get(&Scope::default(), "m").unwrap();
        self.mappings.view(mapping).await.unwrap()
    }

    /// Waits until every shard is read to its end.
    async fn drained(&self) {
        self.until(async |world: &Self| {
            world
                .view()
                .await
                .shards
                .iter()
                .all(|s| s.records_behind == 0)
        })
        .await;
    }

    async fn until(&self, condition: impl AsyncFn(&Self) -> bool) {
        for _ in 0..200_000 {
            if condition(self).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never: {:#?}", self.view().await);
    }

    fn counter(&self, name: &str) -> i64 {
        let all = self.store.counters(&Scope::default(), "f").unwrap();
        all.into_iter()
            .find(|(n, _)| n == name)
            .map_or(0, |(_, value)| value)
    }

    fn failures(&self) -> Vec<FailureEntry> {
        let failures = self.failure_store();
        let all = FailureFilter::default();
        let page = failures.list(&Scope::default(), &all, None, 1000).unwrap();
        page.entries
    }

    fn failure_store(&self) -> Failures {
        Failures::of(&self.mappings)
    }

    /// Trims the first shard to its end.
    async fn trim_all(&self) {
        let name = "in".parse().unwrap();
        let shard = shardmill_core::ShardKey {
            stream: self.store.stream(&Scope::default(), &name).unwrap().id,
            shard: shardmill_core::ShardId(0),
        };
        let before = self.store.seek(shard, Seek::Latest).await.unwrap();
        let tx = Tx {
            trims: vec![shardmill_store::Trim { shard, before }],
            ..Tx::default()
        };
        self.store.commit(tx).await.unwrap();
    }

    /// Splits the stream's only shard in two.
    async fn split_shard(&self) {
        let name = "in".parse().unwrap();
        let stream = self.store.stream(&Scope::default(), &name).unwrap();
        let mut split = (*stream).clone();
        let now = self.clock.now().seconds();
        split.shards[0].closed_seconds = Some(now + 1);
        for (index, range) in (1..).zip(shardmill_core::HashKeyRange::tiling(2)) {
            split.shards.push(shardmill_core::Shard {
                id: shardmill_core::ShardId(index),
                range,
                created_seconds: now + 2,
                parents: vec![shardmill_core::ShardId(0)],
                closed_seconds: None,
            });
        }
        let streams = vec![StreamChange::Update(Box::new(split))];
        let tx = Tx {
            streams,
            ..Tx::default()
        };
        self.store.commit(tx).await.unwrap();
    }

    fn cursor(&self) -> shardmill_core::mapping::Cursor {
        let cursors = self
            .store
            .scan(&Key::table_prefix(shardmill_store::Table::Cursor), None, 1);
        serde_json::from_slice(&cursors.unwrap()[0].1.value).unwrap()
    }

    fn parked(&self) -> Vec<ParkedKey> {
        let mapping = self.mappings.get(&Scope::default(), "m").unwrap();
        self.mappings.inner.parked_of(&mapping).unwrap().list()
    }

    async fn unpark(&self, key: Option<&str>) -> usize {
        let released = self.mappings.unpark(&Scope::default(), "m", key).await;
        released.unwrap()
    }

    async fn rewind(
        &self,
        to: RewindTo,
        options: RewindOptions,
    ) -> Result<Vec<shardmill_core::ShardId>, MappingError> {
        let scope = Scope::default();
        self.mappings.rewind(&scope, "m", to, options).await
    }

    /// Keys of the store in which parked records lie.
    fn side_log(&self) -> Vec<Key> {
        let prefix = Key::table_prefix(shardmill_store::Table::Parked);
        let found = self.store.scan(&prefix, None, usize::MAX).unwrap();
        found.into_iter().map(|(key, _)| key).collect()
    }

    async fn until_gone(&self) {
        for _ in 0..10_000 {
            if self.mappings.get(&Scope::default(), "m").is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the mapping is not gone");
    }

    /// The sequence number of the record at a position of the first shard.
    async fn sequence_number(&self, position: u64) -> shardmill_core::SequenceNumber {
        let name = "in".parse().unwrap();
        let stream = self.store.stream(&Scope::default(), &name).unwrap().id;
        let shard = shardmill_core::ShardKey {
            stream,
            shard: shardmill_core::ShardId(0),
        };
        let limit = ReadLimit {
            records: 1,
            bytes: 1,
        };
        let blocks = self.store.read(shard, position, limit).await.unwrap();
        blocks[0].sequence_number(position)
    }

    /// Records of each invocation.
    fn seen(&self) -> Vec<Vec<String>> {
        let seen = self.script.seen.lock().unwrap();
        seen.iter().map(|(records, _)| records.clone()).collect()
    }

    fn sizes(&self) -> Vec<usize> {
        self.seen().iter().map(Vec::len).collect()
    }

    async fn finish(mut self) {
        self.stop.cancel();
        self.running.take().unwrap().await.unwrap();
    }
}

/// The mapping `m` of `in` and `f`.
fn request(policy: Policy) -> CreateMapping {
    CreateMapping {
        name: Some("m".into()),
        stream: "in".parse().unwrap(),
        function: "f".into(),
        starting_position: StartingPosition::TrimHorizon,
        policy,
        enabled: true,
        origin: Origin::Manifest,
        on_failure: None,
    }
}

fn policy(batch_size: u32) -> Policy {
    Policy {
        batch_size,
        ..Policy::manifest()
    }
}

#[tokio::test(start_paused = true)]
async fn a_poison_record_among_ten_thousand_is_all_that_is_lost() {
    // The counts are those of design: the poison's own attempts, and what isolating it costs.
    for (name, carrier, poison, invocations) in [
        ("record mode, trap", RECORD, "trap", 1 + 2 + 1),
        ("record mode, spinner", RECORD, "spin", 1 + 3 + 1),
        ("batch mode, trap", BATCH, "trap", 3 + 3),
        ("batch mode, spinner", BATCH, "spin", 3 + 3),
        // Without a hint AWS halves: 10,000 is halved 13 or 14 times down to record 6,000.
        ("event mode, trap", EVENT, "trap", 13 + 3 + 13),
    ] {
        let mut world = World::new(carrier, 1).await;
        world.map(policy(10_000)).await;
        world
            .put_all((0..10_000).map(|i| {
                if i == 6_000 {
                    poison.into()
                } else {
                    format!("ok {i}")
                }
            }))
            .await;
        world.start();
        world.drained().await;
        assert_eq!(world.script.invocations(), invocations, "{name}");
        assert_eq!(world.counter("done"), 9_999, "{name}");
        let failures = world.failures();
        assert_eq!(failures.len(), 1, "{name}");
        assert_eq!(
            (failures[0].reason, failures[0].records),
            (Reason::RetryAttemptsExhausted, 1),
            "{name}"
        );
        let kept = world
            .failure_store()
            .payload(&Scope::default(), &failures[0].id)
            .await
            .unwrap();
        assert_eq!(kept.get(0).unwrap().parts.data, poison.as_bytes(), "{name}");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_batch_keeps_its_request_id_and_a_part_gets_a_new_one() {
    let mut world = World::new(BATCH, 1).await;
    world
        .map(Policy {
            bisect_batch_on_function_error: false,
            ..policy(10)
        })
        .await;
    world.put_all(["ok", "error"]).await;
    world.start();
    world.drained().await;
    let seen = world.script.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 3);
    assert!(
        seen.iter().all(|(_, id)| *id == seen[0].1),
        "three attempts, one request id"
    );
    assert_eq!(
        world.failures()[0].records,
        2,
        "without bisect the batch is given up whole"
    );
    world.put_all(["ok", "error", "ok"]).await;
    let update = UpdateMapping {
        policy: Some(policy(10)),
        ..UpdateMapping::default()
    };
    world
        .mappings
        .update(&Scope::default(), "m", update)
        .await
        .unwrap();
    world.until(async |w| w.failures().len() == 2).await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn retries_wait_twice_as_long_each_time_until_the_record_is_too_old() {
    let mut world = World::new(RECORD, 1).await;
    let hour = Duration::from_secs(3600);
    let aws = Policy {
        maximum_record_age: Some(hour),
        ..Policy::aws()
    };
    world.map(aws).await;
    world.put_all(["trap", "ok"]).await;
    world.start();
    let started = world.clock.now();
    world.drained().await;
    let took = world.clock.now().since(started);
    assert!(
        took >= hour && took < hour + Duration::from_secs(2),
        "{took:?}"
    );
    // 0.2 + 0.4 + … + 51.2 s are 9 waits and 102 s; then one a minute.
    let attempts = world.script.invocations();
    assert!((66..=69).contains(&attempts), "{attempts}");
    assert_eq!(world.failures()[0].reason, Reason::RecordAgeExceeded);
    // The second record is as old as the first: it is cut off with it, before it could be tried.
    assert_eq!(world.failures()[0].records, 2);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_its_window_and_goes_when_it_is_full() {
    let mut world = World::new(RECORD, 1).await;
    world
        .map(Policy {
            batching_window: Duration::from_secs(60),
            ..policy(3)
        })
        .await;
    world.start();
    world.put_all(["ok 1"]).await;
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(world.script.invocations(), 0, "the window is open");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.script.invocations(), 1, "the window is over");
    world.put_all(["ok 2", "ok 3", "ok 4", "ok 5"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = world.script.seen.lock().unwrap().clone();
    assert_eq!(
        seen[1].0,
        ["ok 2", "ok 3", "ok 4"],
        "a full batch does not wait"
    );
    assert_eq!(seen.len(), 2, "the rest waits for its own window");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_young_record_behind_one_that_is_too_old_is_delivered() {
    // It was given back to be read again, and nobody read until the next record was put.
    let mut world = World::new(RECORD, 1).await;
    let aging = Policy {
        batching_window: Duration::from_secs(100),
        maximum_record_age: Some(Duration::from_secs(60)),
        ..policy(10)
    };
    world.map(aging).await;
    world.put_all(["ok old"]).await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    world.put_all(["ok young"]).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.start();
    world.drained().await;
    assert_eq!((world.counter("done"), world.failures().len()), (1, 1));
    assert_eq!(world.failures()[0].reason, Reason::RecordAgeExceeded);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn keyed_state_is_exact_when_shards_meet_on_a_key() {
    let mut world = World::new(RECORD, 4).await;
    world.map(policy(7)).await;
    // One key by its name, put into every shard by explicit hash keys.
    let stream = world
        .store
        .stream(&Scope::default(), &"in".parse().unwrap())
        .unwrap();
    for _ in 0..25 {
        for shard in &stream.shards {
            let mut records = Records::default();
            for _ in 0..4 {
                records.push("meeting", Some(shard.range.start), b"add");
            }
            let append = Append {
                stream: stream.id,
                route: Route::HashKey,
                records,
            };
            world
                .store
                .commit(Tx {
                    appends: vec![append],
                    ..Tx::default()
                })
                .await
                .unwrap();
        }
    }
    world.start();
    world.drained().await;
    let key = Key::new(shardmill_store::Table::State, &Scope::default())
        .part("f")
        .part("meeting")
        .part("n");
    assert_eq!(world.store.get(&key).unwrap().unwrap().value, "400");
    assert_eq!(world.counter("done"), 400);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_emit_to_a_missing_stream_fails_its_record_until_the_stream_is_there() {
    let mut world = World::new(RECORD, 1).await;
    world.map(policy(10)).await;
    world.put_all(["ok", "emit out", "ok"]).await;
    world.start();
    world.drained().await;
    assert_eq!(world.counter("done"), 2, "its neighbours are done");
    let failure = world.failures().remove(0);
    assert!(
        matches!(failure.cause, Some(Cause::EffectsRefused { .. })),
        "{failure:?}"
    );
    world.create_stream("out", 2).await;
    let failures = world.failure_store();
    let outcome = failures
        .redrive(&Scope::default(), &failure.id)
        .await
        .unwrap();
    assert_eq!(outcome, RedriveOutcome::Done { records: 1 });
    assert_eq!(world.counter("done"), 3);
    assert!(world.failures().is_empty(), "the entry is marked");
    assert!(matches!(
        failures.redrive(&Scope::default(), &failure.id).await,
        Err(FailuresError::Redriven(_))
    ));
    let out = world
        .store
        .stream(&Scope::default(), &"out".parse().unwrap())
        .unwrap();
    let shard = out
        .open_shard(shardmill_core::HashKey::of_partition_key("k"))
        .unwrap();
    let key = shardmill_core::ShardKey {
        stream: out.id,
        shard: shard.id,
    };
    assert_eq!(
        world.store.seek(key, Seek::Latest).await.unwrap(),
        2,
        "one record was emitted"
    );
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_runs_in_a_circle_is_stopped() {
    let mut world = World::new(RECORD, 1).await;
    world.map(policy(10)).await;
    world.put_all(["emit in"]).await;
    // The script emits "ok", so make the circle by hand: a record that was emitted 16 times.
    let stream = world
        .store
        .stream(&Scope::default(), &"in".parse().unwrap())
        .unwrap()
        .id;
    let mut records = Records::default();
    records.push_emitted("k", shardmill_core::block::MAX_HOPS, b"emit in");
    let append = Append {
        stream,
        route: Route::HashKey,
        records,
    };
    world
        .store
        .commit(Tx {
            appends: vec![append],
            ..Tx::default()
        })
        .await
        .unwrap();
    world.start();
    world.drained().await;
    let failures = world.failures();
    assert_eq!(failures.len(), 1);
    assert!(
        failures[0]
            .cause
            .as_ref()
            .unwrap()
            .to_string()
            .contains("loop"),
        "{failures:?}"
    );
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_shard_goes_on_where_it_stopped() {
    let mut world = World::new(RECORD, 1).await;
    world
        .map(Policy {
            on_exhausted: OnExhausted::Pause,
            ..policy(10)
        })
        .await;
    world.put_all(["ok", "trap", "ok"]).await;
    world.start();
    world
        .until(async |w| w.view().await.state == MappingState::Paused)
        .await;
    assert_eq!((world.counter("done"), world.script.invocations()), (1, 3));
    let seen = world.script.seen.lock().unwrap().clone();
    assert_eq!(seen[2].0, ["trap", "ok"]);
    assert_eq!(
        world.mappings.resume(&Scope::default(), "m").await.unwrap(),
        1
    );
    world
        .until(async |w| {
            w.script.invocations() == 6 && w.view().await.state == MappingState::Paused
        })
        .await;
    let resumed = world.script.seen.lock().unwrap()[3].clone();
    assert_eq!(resumed.0, ["trap"]);
    assert_ne!(resumed.1, seen[2].1, "a part is a batch of its own");
    let update = UpdateMapping {
        policy: Some(policy(10)),
        ..UpdateMapping::default()
    };
    world
        .mappings
        .update(&Scope::default(), "m", update)
        .await
        .unwrap();
    world.mappings.resume(&Scope::default(), "m").await.unwrap();
    world.drained().await;
    assert_eq!((world.counter("done"), world.failures().len()), (2, 1));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_mapping_that_says_disabled_has_stopped() {
    let mut world = World::new(RECORD, 1).await;
    world.map(policy(1)).await;
    world.start();
    world.put_all(["ok 1"]).await;
    world.drained().await;
    let disable = UpdateMapping {
        enabled: Some(false),
        ..UpdateMapping::default()
    };
    world
        .mappings
        .update(&Scope::default(), "m", disable)
        .await
        .unwrap();
    world
        .until(async |w| w.view().await.state == MappingState::Disabled)
        .await;
    world.put_all(["ok 2"]).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.counter("done"), 1);
    let enable = UpdateMapping {
        enabled: Some(true),
        ..UpdateMapping::default()
    };
    world
        .mappings
        .update(&Scope::default(), "m", enable)
        .await
        .unwrap();
    world.drained().await;
    assert_eq!((world.counter("done"), world.script.invocations()), (2, 2));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn children_of_a_split_wait_for_their_parent() {
    let mut world = World::new(RECORD, 1).await;
    world
        .map(Policy {
            maximum_retry_attempts: Some(3),
            ..policy(1)
        })
        .await;
    world
        .put_all(["ok before", "trap", "ok last of the parent"])
        .await;
    world.split_shard().await;
    world.put_all(["ok first of the child"]).await;
    world.start();
    world.until(async |w| w.counter("done") == 3).await;
    let seen: Vec<String> = world
        .script
        .seen
        .lock()
        .unwrap()
        .iter()
        .flat_map(|(r, _)| r.clone())
        .collect();
    let child = seen
        .iter()
        .position(|r| r == "ok first of the child")
        .unwrap();
    let parent = seen
        .iter()
        .rposition(|r| r == "ok last of the parent")
        .unwrap();
    assert!(parent < child, "{seen:?}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_version_of_the_function_resumes_a_paused_shard() {
    let mut world = World::new(RECORD, 1).await;
    let pause = Policy {
        on_exhausted: OnExhausted::Pause,
        ..policy(10)
    };
    world.map(pause).await;
    world.put_all(["trap"]).await;
    world.start();
    world
        .until(async |w| w.view().await.state == MappingState::Paused)
        .await;
    assert_eq!(world.script.invocations(), 3);
    let mut settings = FunctionSettings::default();
    settings.environment.insert("MENDED".into(), "1".into());
    let deployed = world
        .functions
        .deploy(&Scope::default(), "f", Bytes::new(), settings)
        .await;
    assert!(deployed.is_ok());
    world.until(async |w| w.script.invocations() == 6).await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn records_that_were_trimmed_before_delivery_leave_one_entry() {
    let mut world = World::new(RECORD, 1).await;
    world.map(policy(10)).await;
    world.put_all(["ok 1", "ok 2"]).await;
    let stream = world
        .store
        .stream(&Scope::default(), &"in".parse().unwrap())
        .unwrap();
    let shard = shardmill_core::ShardKey {
        stream: stream.id,
        shard: stream.shards[0].id,
    };
    let trims = vec![shardmill_store::Trim { shard, before: 3 }];
    world
        .store
        .commit(Tx {
            trims,
            ..Tx::default()
        })
        .await
        .unwrap();
    world.start();
    world.drained().await;
    let failures = world.failures();
    assert_eq!(
        (failures.len(), failures[0].reason, failures[0].records),
        (1, Reason::Expired, 2)
    );
    assert_eq!(world.view().await.metrics.expired, 2);
    world.finish().await;
}

/// A store that dies at its n-th commit: before it is done, or after it is done and before
/// anybody hears of it.
struct Dying {
    store: Arc<dyn Store>,
    /// What somebody else commits just before a transaction, if anything.
    before: fn(&dyn Store, &Tx) -> Option<Tx>,
    left: AtomicUsize,
    after: bool,
    died: CancellationToken,
}

impl Store for Dying {
    fn commit(&self, tx: Tx) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        let left = self.left.load(SeqCst);
        self.left.store(left.saturating_sub(1), SeqCst);
        Box::pin(async move {
            // As a store that has to wait for its disk.
            tokio::task::yield_now().await;
            if let Some(before) = (self.before)(self.store.as_ref(), &tx) {
                self.store.commit(before).await?;
            }
            if left > 1 {
                return self.store.commit(tx).await;
            }
            if left == 1 && self.after {
                self.store.commit(tx).await?;
            }
            self.died.cancel();
            std::future::pending().await
        })
    }

    shardmill_store::pass_on!(store: read seek extent subscribe get scan scan_back blob has_room catalog);
}

#[tokio::test(start_paused = true)]
async fn effects_are_there_exactly_once_whichever_commit_is_the_last() {
    let records = || (0..40).map(|i| if i % 13 == 7 { "trap" } else { "add" });
    let mut deaths = 0;
    for carrier in [RECORD, BATCH] {
        for after in [false, true] {
            for last in 1..=24 {
                let world = World::new(carrier, 1).await;
                world.map(policy(10)).await;
                world.put_all(records()).await;
                let died = CancellationToken::new();
                let dying = Dying {
                    before: |_, _| None,
                    store: world.store.clone(),
                    left: AtomicUsize::new(last),
                    after,
                    died: died.clone(),
                };
                let mut first = World::over(Arc::new(dying), carrier, world.clock);
                first.start();
                // Either the store dies, or the work is done before it can.
                tokio::select! {
                    () = died.cancelled() => deaths += 1,
                    () = first.drained() => {}
                }
                first.running.take().unwrap().abort();
                let mut second = World::over(world.store.clone(), carrier, world.clock);
                second.start();
                second.drained().await;
                assert_eq!(second.counter("done"), 37, "commit {last}, after: {after}");
                let key = Key::new(shardmill_store::Table::State, &Scope::default())
                    .part("f")
                    .part("k")
                    .part("n");
                assert_eq!(
                    second.store.get(&key).unwrap().unwrap().value,
                    "37",
                    "commit {last}, after: {after}"
                );
                assert_eq!(second.failures().len(), 3, "commit {last}, after: {after}");
                second.finish().await;
            }
        }
    }
    assert!(deaths > 40, "{deaths}");
}
