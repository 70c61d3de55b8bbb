//! A handler that obeys its records, as the module's bytes say: in record or batch mode, or
//! `mended`, which takes every record for good.
//!
//! `ok`, `error`, `count NAME`, `state NAME`, `emit STREAM DATA`, `sleep MS`, `random` (uses fuel
//! and counts as its seed says), `finally STREAM` (the final invocation of the window puts a record
//! there). A record costs 1,000 units of fuel.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::Outcome;
use shardmill_core::effects::{CounterAdd, Effects, Emit, StateRead, StateWrite};
use shardmill_core::outcome::{Cause, Failure};
use shardmill_core::sandbox::{
    BoxFuture, Carrier, Input, Invocation, LoadError, Mode, Module, Report, Sandbox, Usage,
};

pub(super) struct Script;

struct Scripted {
    mode: Mode,
    mended: bool,
}

impl Module for Scripted {
    fn digest(&self) -> &str {
        match (self.mended, self.mode) {
            (true, _) => "1000000000000000",
            (_, Mode::Record) => "2000000000000000",
            _ => "3000000000000000",
        }
    }

    fn carrier(&self) -> Carrier {
        Carrier::Packed {
            mode: self.mode,
            uses_state: true,
        }
    }
}

impl Sandbox for Script {
    fn load(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        let module: Arc<dyn Module> = Arc::new(Scripted {
            mode: match wasm.as_ref() {
                b"batch" => Mode::Batch,
                _ => Mode::Record,
            },
            mended: wasm.as_ref() == b"mended",
        });
        Box::pin(async move { Ok(module) })
    }

    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        Box::pin(async move { run(&invocation) })
    }
}

fn run(invocation: &Invocation) -> Report {
    let Input::Records(batch) = &invocation.input else {
        panic!("this handler takes records");
    };
    let mended = invocation.module.digest().starts_with('1');
    let record_mode = invocation.module.carrier().is_record_mode();
    let mut effects = Effects::default();
    let mut usage = Usage::default();
    let mut state = "{}".to_owned();
    for (at, record) in (0..).zip(batch.iter()) {
        usage.fuel += 1000;
        let text = std::str::from_utf8(record.parts.data).unwrap();
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let key = record.parts.key;
        let mut count = |name: &str| {
            let (name, amount) = (name.into(), 1);
            effects
                .counters
                .push((Some(at), CounterAdd { name, amount }));
        };
        match word {
            "error" if !mended => {
                let cause = Cause::HandlerError {
                    error_type: "Bad".into(),
                    message: "it says error".into(),
                };
                let effects = match record_mode {
                    true => effects.below(at),
                    false => Effects::default(),
                };
                let failure = Failure {
                    cause,
                    record: Some(at),
                };
                return report(Outcome::Failed(failure), effects, usage);
            }
            "count" => count(rest),
            "random" => {
                usage.fuel += u64::from(invocation.seed[0]);
                count("random");
                count(&format!("random:{}", invocation.seed[1]));
            }
            "sleep" => usage.duration += Duration::from_millis(rest.parse().unwrap()),
            "emit" => {
                let (stream, data) = rest.split_once(' ').unwrap();
                let emit = Emit {
                    stream: stream.into(),
                    key: key.into(),
                    data: Bytes::copy_from_slice(data.as_bytes()),
                };
                effects.emits.push((Some(at), emit));
            }
            "finally" => state = format!("\"{rest}\""),
            "state" => {
                let before = effects.state.iter().rev().find(|(_, w)| &*w.key == key);
                let before = before.and_then(|(_, write)| write.value.clone());
                let before = before.or_else(|| {
                    let found = invocation.state.get(key, rest).unwrap();
                    effects.reads.push(StateRead {
                        key: key.into(),
                        name: rest.into(),
                        revision: found.as_ref().map(|(_, revision)| *revision),
                        first_record: at,
                    });
                    found.map(|(value, _)| value)
                });
                let before =
                    before.map_or(0, |v| std::str::from_utf8(&v).unwrap().parse().unwrap());
                let write = StateWrite {
                    key: key.into(),
                    name: rest.into(),
                    value: Some((before + 1).to_string().into()),
                };
                effects.state.push((Some(at), write));
            }
            _ => {}
        }
    }
    let text = match invocation.context.window.1.0 {
        0 => String::new(),
        _ => state,
    };
    let context = &invocation.context;
    if context.flags & 1 == 1 && context.window_state != "{}" {
        let emit = Emit {
            stream: context.window_state.trim_matches('"').into(),
            key: "window".into(),
            data: Bytes::from_static(b"closed"),
        };
        effects.emits.push((None, emit));
    }
    report(Outcome::Ok { text }, effects, usage)
}

fn report(outcome: Outcome, effects: Effects, usage: Usage) -> Report {
    Report {
        outcome,
        effects,
        usage,
        log: Vec::new(),
        record_fuel: Vec::new(),
        stderr_tail: String::new(),
        output_cut_bytes: 0,
    }
}
