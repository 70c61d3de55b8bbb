//! A sandbox that does with each record what the plan says, in every form that the seam allows,
//! and checks what it is given: no record is too old, and no child comes before its parents.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::effects::{CounterAdd, Effects, Emit, StateWrite};
use shardmill_core::outcome::{Cause, Failure, Outcome};
use shardmill_core::sandbox::{
    BoxFuture, Carrier, Input, Invocation, LoadError, Module, Report, Sandbox,
};
use shardmill_core::{ShardId, UnixMillis};

use super::attempt::{Attempt, ok, report};
use super::log::Log;
use super::plan::{GRID_MS, Plan, SHADOW};
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
    /// Attempts of the shadow.
    pub(super) shadowed: AtomicUsize,
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) calls: Vec<Call>,
    /// How often a record, or the final invocation of a window, has failed.
    pub(super) tries: BTreeMap<(u32, u64), u32>,
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
pub(super) struct Seeing {
    pub(super) number: usize,
    pub(super) sequence_number: String,
    pub(super) arrival: UnixMillis,
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
        let (report, takes) = match invocation.context.function == SHADOW {
            true => self.run_shadow(&invocation),
            false => self.run(shard, &invocation),
        };
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

    /// Runs as the shadow: whatever can go wrong does, and nothing of it may be seen.
    fn run_shadow(&self, invocation: &Invocation) -> (Report, Duration) {
        self.shadowed.fetch_add(1, SeqCst);
        let records = records_of(&invocation.input);
        let first = records.first().map_or(0, |record| record.number);
        let mut effects = Effects::default();
        for record in &records {
            let (number, key) = (record.number, &self.plan.records[record.number].key);
            let found = invocation.state.get(key, LIST).expect("a state");
            let (name, amount) = (format!("r{number}").into(), 1);
            effects.counters.push((None, CounterAdd { name, amount }));
            let emit = Emit {
                stream: "out".into(),
                key: key.as_str().into(),
                data: Bytes::from(number.to_string()),
            };
            effects.emits.push((None, emit));
            let write = StateWrite {
                key: key.as_str().into(),
                name: LIST.into(),
                value: found.map(|(value, _)| value.slice(value.len() / 2..)),
            };
            effects.state.push((None, write));
        }
        let takes = match first % 11 {
            7 => Duration::from_secs(60),
            n => Duration::from_millis(n as u64 * 31),
        };
        let failed = |cause| {
            let record = Some(0);
            Outcome::Failed(Failure { cause, record })
        };
        let outcome = match first % 6 {
            0 => failed(Cause::Exited { code: 1 }),
            1 => failed(Cause::TimedOut {
                allowed: takes,
                fuel_used: 7,
            }),
            2 => Outcome::Throttled {
                reason: "no room".into(),
            },
            3 => Outcome::Partial {
                failed: vec![0],
                text: "{".into(),
            },
            _ => ok("{\"list\": [7]}".into()),
        };
        (report(outcome, effects), takes)
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

/// The window of an invocation.
pub(super) struct Window {
    pub(super) start: UnixMillis,
    pub(super) is_final: bool,
    pub(super) list: Vec<usize>,
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
