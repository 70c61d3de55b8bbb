//! One attempt of the simulated handler: what it does with each record, and its answer.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use shardmill_core::ShardId;
use shardmill_core::effects::{CounterAdd, Effects, Emit, StateRead, StateWrite, Tag};
use shardmill_core::outcome::{Cause, Failure, Outcome};
use shardmill_core::sandbox::{Carrier, Invocation, Mode, Report, Usage};

use super::handler::{CallEnd, Handler, LIST, Seeing, Seen, Window};
use super::plan::{Fault, FaultKind};

/// What the final invocation of a window emits.
pub(super) const OF_WINDOW: &str = "of a window";

/// One attempt on its way.
pub(super) struct Attempt<'a> {
    pub(super) handler: &'a Handler,
    pub(super) invocation: &'a Invocation,
    pub(super) seen: &'a mut Seen,
    pub(super) window: Option<&'a Window>,
    pub(super) effects: Effects,
    pub(super) lists: BTreeMap<String, String>,
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

    pub(super) fn deliver(&mut self, records: &[Seeing]) -> (Report, CallEnd) {
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
    pub(super) fn close(&mut self, shard: ShardId, window: &Window) -> (Report, CallEnd) {
        let id = (1 + shard.0, window.start.0);
        let list: Vec<String> = window.list.iter().map(ToString::to_string).collect();
        let name = format!("W|{}|{}|{}", shard.0, window.start.0, list.join(","));
        self.count(name, None);
        if self.strikes(id, self.handler.plan.final_faults) {
            return self.fail(FaultKind::Hidden, &[], 0);
        }
        let mut ended = CallEnd::Done;
        if self.handler.plan.final_emits {
            let emit = Emit {
                stream: "out".into(),
                key: "window".into(),
                data: Bytes::from(OF_WINDOW),
            };
            self.effects.emits.push((None, emit));
            if !self.handler.truth.has_target() {
                // The host refuses it.
                ended = CallEnd::Failed(None);
            }
        }
        let effects = std::mem::take(&mut self.effects);
        let outcome = match self.mode() {
            Mode::Event => Outcome::Json { text: "{}".into() },
            Mode::Record | Mode::Batch => ok(String::new()),
        };
        (report(outcome, effects), ended)
    }

    fn count(&mut self, name: String, tag: Tag) {
        let name = name.into();
        let amount = 1;
        self.effects
            .counters
            .push((tag, CounterAdd { name, amount }));
    }
}

pub(super) fn ok(text: String) -> Outcome {
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

pub(super) fn report(outcome: Outcome, effects: Effects) -> Report {
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
