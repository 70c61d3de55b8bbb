//! A sandbox that does with each record what the plan says, in every form that the seam allows,
//! and checks what it is given: no record is too old, and no child comes before its parents.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::effects::{CounterAdd, Effects, Emit, StateRead, StateWrite, Tag};
use shardmill_core::outcome::{Cause, Failure, Outcome};
use shardmill_core::sandbox::{
    BoxFuture, Carrier, Input, Invocation, LoadError, Mode, Module, Report, Sandbox, Usage,
};
use shardmill_core::{ShardId, UnixMillis};

use super::log::Log;
use super::plan::{Fault, FaultKind, GRID_MS, Plan};
use super::truth::Truth;
use crate::clock::Clock;

/// Name of the keyed state that holds the numbers of a key's records.
pub(super) const LIST: &str = "list";

/// How much older than the limit a record may be when it is invoked: the wait for the function.
const AGE_SLACK: Duration = Duration::from_secs(10);

/// One invocation, as the laws need it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) began: UnixMillis,
    pub(super) takes: Duration,
    pub(super) shard: u32,
    pub(super) request_id: String,
    pub(super) records: Vec<usize>,
    /// Whether it used an attempt, and which record it was held against.
    pub(super) ended: CallEnd,
    pub(super) is_final: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallEnd {
    Done,
    Partial,
    /// Failed; in record mode the record at fault, unless the limit was the batch's.
    Failed(Option<usize>),
    Throttled,
}

/// The handler, and what survives the host: it is the world's.
pub(super) struct Handler {
    pub(super) plan: Arc<Plan>,
    pub(super) log: Arc<Log>,
    pub(super) clock: Clock,
    pub(super) truth: Truth,
    /// Nothing fails any more.
    pub(super) mended: AtomicBool,
    pub(super) seen: Mutex<Seen>,
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) calls: Vec<Call>,
    /// How often a record, or the final invocation of a window, has failed.
    tries: BTreeMap<(u32, u64), u32>,
    /// Attempts to be throttled, by shard.
    pub(super) throttles: BTreeMap<u32, u32>,
    /// Deploys make modules of their own.
    pub(super) version: u64,
}

struct Loaded(Carrier, String);

impl Module for Loaded {
    fn digest(&self) -> &str {
        &self.1
    }
    fn carrier(&self) -> Carrier {
        self.0
    }
}

/// A record as the handler sees it.
struct Seeing {
    number: usize,
    sequence_number: String,
    arrival: UnixMillis,
}

impl Sandbox for Handler {
    fn load(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        let digest = format!("{:020}", wasm.len());
        let module: Arc<dyn Module> = Arc::new(Loaded(self.plan.carrier, digest));
        Box::pin(std::future::ready(Ok(module)))
    }

    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        let Some(shard) = ShardId::parse_lenient(&invocation.context.shard) else {
            // The dry run of a deploy.
            return Box::pin(std::future::ready(report(
                ok(String::new()),
                Effects::default(),
            )));
        };
        let (report, takes) = self.run(shard, &invocation);
        Box::pin(async move {
            tokio::time::sleep(takes).await;
            report
        })
    }
}

impl Handler {
    fn run(&self, shard: ShardId, invocation: &Invocation) -> (Report, Duration) {
        let records = records_of(&invocation.input);
        let context = &invocation.context;
        let now = self.clock.now();
        self.check(shard, &records, now);
        let window = Window::of(invocation);
        let mut seen = self.seen.lock().unwrap();
        let left = seen.throttles.entry(shard.0).or_default();
        let (report, ended) = if *left > 0 {
            *left -= 1;
            let reason = "no room".into();
            let report = report(Outcome::Throttled { reason }, Effects::default());
            (report, CallEnd::Throttled)
        } else {
            let mut attempt = Attempt {
                handler: self,
                invocation,
                seen: &mut seen,
                window: window.as_ref(),
                effects: Effects::default(),
                lists: BTreeMap::new(),
            };
            match window.as_ref().filter(|w| w.is_final) {
                Some(window) => attempt.close(shard, window),
                None => attempt.deliver(&records),
            }
        };
        let numbers: Vec<usize> = records.iter().map(|r| r.number).collect();
        let salt = numbers.first().copied().unwrap_or(0) + context.attempt as usize;
        let takes = self.takes(shard, now, salt);
        self.log.note(now, shard.0, || {
            let window = window.as_ref().map_or(String::new(), |w| {
                let last = if w.is_final { ", final" } else { "" };
                format!(" window {}{last} {:?}", w.start.0, w.list)
            });
            let attempt = context.attempt;
            format!("attempt {attempt} at {numbers:?}{window}: {ended:?}, takes {takes:?}")
        });
        seen.calls.push(Call {
            began: now,
            takes,
            shard: shard.0,
            request_id: context.request_id.clone(),
            records: numbers,
            ended,
            is_final: window.is_some_and(|w| w.is_final),
        });
        (report, takes)
    }

    fn check(&self, shard: ShardId, records: &[Seeing], now: UnixMillis) {
        if !self.truth.parents_done(shard) {
            let text = format!("{shard} was invoked before its parents were done");
            self.log.violation(text);
        }
        let Some(limit) = self.plan.policy.maximum_record_age else {
            return;
        };
        for record in records {
            let age = now.since(record.arrival);
            // Age does not run while a key is parked.
            let key = &self.plan.records[record.number].key;
            if age > limit + AGE_SLACK && !self.truth.is_parked(key) {
                let number = record.number;
                let text = format!("record {number} was invoked {age:?} old, {limit:?} allowed");
                self.log.violation(text);
            }
        }
    }

    /// How long an attempt takes, so that it ends at an instant that only this shard has.
    fn takes(&self, shard: ShardId, now: UnixMillis, salt: usize) -> Duration {
        let own = 3 + 4 * (u64::from(shard.0) % 30);
        let grids = [0, 0, 1, 2, 0, 5, 0][salt % 7];
        let wait = (own + GRID_MS - now.0 % GRID_MS) % GRID_MS;
        Duration::from_millis(wait + GRID_MS * grids)
    }
}

/// One attempt on its way.
struct Attempt<'a> {
    handler: &'a Handler,
    invocation: &'a Invocation,
    seen: &'a mut Seen,
    window: Option<&'a Window>,
    effects: Effects,
    lists: BTreeMap<String, String>,
}

impl Attempt<'_> {
    fn mode(&self) -> Mode {
        match self.invocation.module.carrier() {
            Carrier::Packed { mode, .. } => mode,
            Carrier::Command => Mode::Event,
        }
    }

    /// Whether `fault` strikes once more.
    fn strikes(&mut self, id: (u32, u64), times: u32) -> bool {
        if self.handler.mended.load(SeqCst) {
            return false;
        }
        let tries = self.seen.tries.entry(id).or_default();
        *tries = tries.saturating_add(1);
        *tries <= times
    }

    fn deliver(&mut self, records: &[Seeing]) -> (Report, CallEnd) {
        let mode = self.mode();
        // A JSON response names failed records only where the mapping reads them.
        let names = match mode {
            Mode::Record => false,
            Mode::Batch => true,
            Mode::Event => self.handler.plan.policy.report_batch_item_failures,
        };
        let mut named = Vec::new();
        let mut answer = None;
        for (index, record) in records.iter().enumerate() {
            let planned = &self.handler.plan.records[record.number];
            let at = index as u32;
            if let Some(Fault { kind, times }) = planned.fault
                && (kind != FaultKind::Heavy || index > 0)
                && self.strikes((0, record.number as u64), times)
            {
                match kind {
                    FaultKind::Named if names => {
                        named.push(at);
                        continue;
                    }
                    FaultKind::Malformed if mode == Mode::Event && names => answer = Some(kind),
                    FaultKind::Stateless if self.window.is_some() => answer = Some(kind),
                    kind => return self.fail(kind, records, index),
                }
            }
            self.do_record(record.number, at);
        }
        self.answer(records, &named, answer)
    }

    fn fail(&mut self, kind: FaultKind, records: &[Seeing], index: usize) -> (Report, CallEnd) {
        let at = index as u32;
        let cause = match kind {
            FaultKind::Spin | FaultKind::Heavy => Cause::OutOfFuel {
                allowed: 7,
                frames: Vec::new(),
            },
            FaultKind::Error | FaultKind::Stateless => Cause::HandlerError {
                error_type: "Bad".into(),
                message: "bad".into(),
            },
            FaultKind::Malformed => Cause::BadAnswer {
                reason: "malformed".into(),
            },
            FaultKind::Trap | FaultKind::Hidden | FaultKind::Named => Cause::Trap {
                trap: "unreachable".into(),
                message: String::new(),
                frames: Vec::new(),
            },
        };
        let hint = kind != FaultKind::Hidden && self.mode() != Mode::Event;
        let counts = hint && (index == 0 || !cause.is_shared_limit());
        let effects = std::mem::take(&mut self.effects);
        let effects = match self.mode() {
            Mode::Record if hint && !cause.breaks_contract() => folded(effects.below(at)),
            Mode::Record => Effects::default(),
            // The real sandbox leaves none; a poller must not depend on it.
            Mode::Batch | Mode::Event => effects,
        };
        let failure = Failure {
            cause,
            record: hint.then_some(at),
        };
        let record = counts.then(|| records[index].number);
        (
            report(Outcome::Failed(failure), effects),
            CallEnd::Failed(record),
        )
    }

    fn answer(
        &mut self,
        records: &[Seeing],
        named: &[u32],
        broken: Option<FaultKind>,
    ) -> (Report, CallEnd) {
        let mut effects = std::mem::take(&mut self.effects);
        let done = named
            .iter()
            .min()
            .map_or(records.len(), |low| *low as usize);
        let state = match (self.window, broken) {
            (Some(window), None | Some(FaultKind::Malformed)) => {
                let new = records[..done].iter().map(|r| r.number);
                let list: Vec<usize> = window.list.iter().copied().chain(new).collect();
                Some(serde_json::json!({ "list": list }))
            }
            _ => None,
        };
        let mut ended = if named.is_empty() {
            CallEnd::Done
        } else {
            CallEnd::Partial
        };
        if broken.is_some() {
            ended = CallEnd::Failed(None);
        }
        let outcome = match self.mode() {
            Mode::Event => {
                let mut failures: Vec<_> = named
                    .iter()
                    .map(|at| serde_json::json!({"itemIdentifier": records[*at as usize].sequence_number}))
                    .collect();
                if broken == Some(FaultKind::Malformed) {
                    failures.push(serde_json::json!({"itemIdentifier": "123"}));
                }
                let mut response = serde_json::json!({ "batchItemFailures": failures });
                if let Some(state) = state {
                    response["state"] = state;
                }
                Outcome::Json {
                    text: response.to_string(),
                }
            }
            Mode::Record | Mode::Batch => {
                let text = state.map_or(String::new(), |s| s.to_string());
                match named {
                    [] => ok(text),
                    named => Outcome::Partial {
                        failed: named.iter().rev().copied().collect(),
                        text,
                    },
                }
            }
        };
        if self.mode() == Mode::Record {
            effects = folded(effects);
        }
        (report(outcome, effects), ended)
    }

    /// What a record that is done has done.
    fn do_record(&mut self, number: usize, at: u32) {
        let planned = &self.handler.plan.records[number];
        self.count(format!("r{number}"), Some(at));
        if self.window.is_some() {
            self.count(format!("v{number}"), Some(at));
        }
        if planned.emits {
            let emit = Emit {
                stream: "out".into(),
                key: planned.key.as_str().into(),
                data: Bytes::from(number.to_string()),
            };
            self.effects.emits.push((Some(at), emit));
        }
        if planned.adds {
            self.add_to_list(&planned.key, number, at);
        }
    }

    fn add_to_list(&mut self, key: &str, number: usize, at: u32) {
        if !self.lists.contains_key(key) {
            let found = self.invocation.state.get(key, LIST).expect("a state");
            self.effects.reads.push(StateRead {
                key: key.into(),
                name: LIST.into(),
                revision: found.as_ref().map(|f| f.1),
                first_record: at,
            });
            let text = found.map_or(String::new(), |f| {
                String::from_utf8_lossy(&f.0).into_owned()
            });
            self.lists.insert(key.into(), text);
        }
        let list = self.lists.get_mut(key).expect("it was put there");
        list.push_str(&format!("{number},"));
        let value = Some(Bytes::from(list.clone()));
        let write = StateWrite {
            key: key.into(),
            name: LIST.into(),
            value,
        };
        self.effects.state.push((Some(at), write));
    }

    /// The final invocation of a window: its list becomes the name of a counter.
    fn close(&mut self, shard: ShardId, window: &Window) -> (Report, CallEnd) {
        let id = (1 + shard.0, window.start.0);
        if self.strikes(id, self.handler.plan.final_faults) {
            return self.fail(FaultKind::Hidden, &[], 0);
        }
        let list: Vec<String> = window.list.iter().map(ToString::to_string).collect();
        let name = format!("W|{}|{}|{}", shard.0, window.start.0, list.join(","));
        self.count(name, None);
        let effects = std::mem::take(&mut self.effects);
        let outcome = match self.mode() {
            Mode::Event => Outcome::Json { text: "{}".into() },
            Mode::Record | Mode::Batch => ok(String::new()),
        };
        (report(outcome, effects), CallEnd::Done)
    }

    fn count(&mut self, name: String, tag: Tag) {
        let name = name.into();
        let amount = 1;
        self.effects
            .counters
            .push((tag, CounterAdd { name, amount }));
    }
}

/// The window of an invocation.
struct Window {
    start: UnixMillis,
    is_final: bool,
    list: Vec<usize>,
}

impl Window {
    fn of(invocation: &Invocation) -> Option<Self> {
        let context = &invocation.context;
        if context.window == (UnixMillis(0), UnixMillis(0)) {
            return None;
        }
        let state: serde_json::Value = serde_json::from_str(&context.window_state).expect("JSON");
        let list = state["list"].as_array().into_iter().flatten();
        Some(Self {
            start: context.window.0,
            is_final: context.flags & 1 == 1,
            list: list
                .filter_map(|n| n.as_u64())
                .map(|n| n as usize)
                .collect(),
        })
    }
}

fn records_of(input: &Input) -> Vec<Seeing> {
    match input {
        Input::Records(batch) => batch
            .iter()
            .map(|record| Seeing {
                number: number_of(record.parts.data),
                sequence_number: String::new(),
                arrival: record.arrival,
            })
            .collect(),
        Input::Event { json, .. } => {
            let event: serde_json::Value = serde_json::from_slice(json).expect("an event");
            let records = event["Records"].as_array().expect("records");
            let text = |v: &serde_json::Value| v.as_str().expect("a text").to_owned();
            let seeing = |record: &serde_json::Value| {
                let kinesis = &record["kinesis"];
                let data = base64_simd::STANDARD.decode_to_vec(text(&kinesis["data"]));
                let seconds = kinesis["approximateArrivalTimestamp"].as_f64();
                Seeing {
                    number: number_of(&data.expect("base64")),
                    sequence_number: text(&kinesis["sequenceNumber"]),
                    arrival: UnixMillis((seconds.expect("a number") * 1000.0).round() as u64),
                }
            };
            records.iter().map(seeing).collect()
        }
    }
}

/// The number in a record's data, `{"n":7,…}`.
pub(super) fn number_of(data: &[u8]) -> usize {
    let digits = data.iter().skip(5).take_while(|b| b.is_ascii_digit());
    digits.fold(0, |n, b| n * 10 + usize::from(b - b'0'))
}

fn ok(text: String) -> Outcome {
    Outcome::Ok { text }
}

/// As the sandbox does in record mode: one write per value, tagged with the last record. Counters
/// have a name for each record, so there is nothing to sum up.
fn folded(mut effects: Effects) -> Effects {
    let mut state: Vec<(Tag, StateWrite)> = Vec::new();
    for (tag, write) in effects.state {
        state.retain(|(_, w)| (&w.key, &w.name) != (&write.key, &write.name));
        state.push((tag, write));
    }
    effects.state = state;
    effects
}

fn report(outcome: Outcome, effects: Effects) -> Report {
    Report {
        outcome,
        effects,
        usage: Usage::default(),
        log: Vec::new(),
        stderr_tail: String::new(),
        output_cut_bytes: 0,
    }
}
