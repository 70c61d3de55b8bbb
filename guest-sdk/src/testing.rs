//! Runs handlers natively, in plain `cargo test`: a host in memory that follows the real one's
//! rules.
//!
//! Every run goes through the packed batch and the packed answer, so it tests the bytes too. What
//! holds here as in the sandbox: state belongs to the partition key; effects of a record that
//! fails are dropped; record mode keeps the prefix; lengths are refused alike. What only the
//! sandbox has: fuel, memory, deadline, and the bound on the effects of a batch.
//!
//! ```
//! use shardmill_guest::testing::{TestHost, record};
//! use shardmill_guest::{Context, Error, Record};
//!
//! fn count(record: &Record, ctx: &mut Context) -> Result<(), Error> {
//!     let seen: u64 = ctx.state().get("seen")?.unwrap_or(0);
//!     ctx.counter_add("numbers", record.text()?.parse()?);
//!     ctx.state().set("seen", seen + 1)
//! }
//!
//! let mut host = TestHost::default();
//! let outcome = host.run_record(count, &[record("k", "40"), record("k", "2"), record("k", "x")]);
//! assert_eq!(outcome.failed_at, Some(2));
//! assert_eq!(outcome.counters["numbers"], 42);
//! assert_eq!(host.state_text("k", "seen"), Some("2"));
//! ```

mod call;
mod no_host;
mod pack;
mod read_answer;

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::host::HostRef;
use crate::testing::call::{Call, Done, Effect};
use crate::testing::read_answer::Answer;
use crate::{Batch, BatchResponse, Context, Error, Level, Record, run};

pub use no_host::NoHost;
pub use pack::{INVOCATION, TestRecord, pack, pack_event, record};

/// A function's kept state: partition key, then name.
type KeyedState = BTreeMap<(String, String), Vec<u8>>;

/// What one invocation did.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Outcome {
    /// What was added to each counter and is kept.
    pub counters: BTreeMap<String, i64>,
    /// The records that were emitted and are kept, in order.
    pub emitted: Vec<Emitted>,
    /// Every log line, kept or not: a log is no effect.
    pub logs: Vec<(Level, String)>,
    /// The first record that is not done: it and everything after it would be delivered again.
    /// `None` when the batch is done, and for an event.
    pub failed_at: Option<usize>,
    /// Why the invocation failed; `None` after a partial answer. A panic has the type `Panic`.
    pub error: Option<Error>,
    /// The response of an event-mode handler, or the window's state.
    pub response: Option<Value>,
    state: KeyedState,
}

/// A record that a handler emitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The stream's name.
    pub stream: String,
    /// The partition key.
    pub partition_key: String,
    /// The data.
    pub data: Vec<u8>,
}

impl Outcome {
    /// What is kept for `key` under `name` after the run.
    pub fn state(&self, key: &str, name: &str) -> Option<&[u8]> {
        state(&self.state, key, name)
    }

    /// The same as text; panics where it is none.
    pub fn state_text(&self, key: &str, name: &str) -> Option<&str> {
        self.state(key, name)
            .map(|value| str::from_utf8(value).expect("state is UTF-8"))
    }
}

/// Runs a record-mode handler once, on a host that keeps nothing yet.
pub fn run_record<F>(handler: F, records: &[TestRecord]) -> Outcome
where
    F: Fn(&Record<'_>, &mut Context<'_>) -> Result<(), Error>,
{
    TestHost::default().run_record(handler, records)
}

/// Runs a batch-mode handler once, on a host that keeps nothing yet.
pub fn run_batch<F, R>(handler: F, records: &[TestRecord]) -> Outcome
where
    F: Fn(&Batch<'_>, &mut Context<'_>) -> Result<R, Error>,
    R: Into<BatchResponse>,
{
    TestHost::default().run_batch(handler, records)
}

/// Runs an event-mode handler once, on a host that keeps nothing yet.
pub fn run_event<F, T, R>(handler: F, event: &impl Serialize) -> Outcome
where
    F: Fn(T, &mut Context<'_>) -> Result<R, Error>,
    T: DeserializeOwned,
    R: Serialize,
{
    TestHost::default().run_event(handler, event)
}

/// A host that keeps one function's state from run to run.
#[derive(Default)]
pub struct TestHost {
    state: KeyedState,
}

impl TestHost {
    /// Runs a record-mode handler on one batch.
    pub fn run_record<F>(&mut self, handler: F, records: &[TestRecord]) -> Outcome
    where
        F: Fn(&Record<'_>, &mut Context<'_>) -> Result<(), Error>,
    {
        let batch = pack(&INVOCATION, records);
        let (answer, ended) = self.call(records, |host| run::record(handler, &batch, host));
        let done = match &answer {
            Answer::Ok { .. } => records.len(),
            // A panic tells no index, but the host knows the current record.
            _ => ended.current.map_or(0, |index| index as usize),
        };
        self.commit(answer, ended, done, records.len())
    }

    /// Runs a batch-mode handler on one batch.
    pub fn run_batch<F, R>(&mut self, handler: F, records: &[TestRecord]) -> Outcome
    where
        F: Fn(&Batch<'_>, &mut Context<'_>) -> Result<R, Error>,
        R: Into<BatchResponse>,
    {
        let batch = pack(&INVOCATION, records);
        let (mut answer, ended) = self.call(records, |host| run::batch(handler, &batch, host));
        if matches!(answer, Answer::Partial { .. }) && ended.effects.iter().any(Effect::is_untagged)
        {
            answer = Answer::Error(Error::new(
                "UntaggedEffect",
                "a partial response, and an effect that belongs to no record",
            ));
        }
        let done = match &answer {
            Answer::Ok { .. } => records.len(),
            Answer::Partial { failed, .. } => failed[0] as usize,
            _ => 0,
        };
        self.commit(answer, ended, done, records.len())
    }

    /// Runs an event-mode handler on one event.
    pub fn run_event<F, T, R>(&mut self, handler: F, event: &impl Serialize) -> Outcome
    where
        F: Fn(T, &mut Context<'_>) -> Result<R, Error>,
        T: DeserializeOwned,
        R: Serialize,
    {
        let event = serde_json::to_string(event).expect("the event can be written as JSON");
        let batch = pack_event(&INVOCATION, &event);
        let (answer, ended) = self.call(&[], |host| run::event(handler, &batch, host));
        self.commit(answer, ended, 0, 0)
    }

    /// What is kept for `key` under `name`.
    pub fn state(&self, key: &str, name: &str) -> Option<&[u8]> {
        state(&self.state, key, name)
    }

    /// The same as text; panics where it is none.
    pub fn state_text(&self, key: &str, name: &str) -> Option<&str> {
        self.state(key, name)
            .map(|value| str::from_utf8(value).expect("state is UTF-8"))
    }

    fn call(
        &self,
        records: &[TestRecord],
        run: impl FnOnce(HostRef<'_>) -> Vec<u8>,
    ) -> (Answer, Done) {
        let mut call = Call::new(&self.state, records);
        let answer = match panic::catch_unwind(AssertUnwindSafe(|| run(&mut call))) {
            Ok(bytes) => read_answer::read(&bytes),
            Err(payload) => Answer::Error(Error::new("Panic", panic_message(&*payload))),
        };
        (answer, call.end())
    }

    /// Keeps the effects of the first `done` records, or every effect of a call that succeeded.
    fn commit(&mut self, answer: Answer, ended: Done, done: usize, count: usize) -> Outcome {
        let whole = matches!(answer, Answer::Ok { .. } | Answer::Json(_));
        let Done { effects, logs, .. } = ended;
        let mut outcome = Outcome {
            logs,
            ..Outcome::default()
        };
        for effect in effects {
            if whole || effect.record.is_some_and(|record| (record as usize) < done) {
                effect.apply(&mut self.state, &mut outcome);
            }
        }
        outcome.failed_at = (done < count).then_some(done);
        match answer {
            Answer::Ok { window_state } | Answer::Partial { window_state, .. } => {
                outcome.response = window_state;
            }
            Answer::Json(response) => outcome.response = Some(response),
            Answer::Error(error) => outcome.error = Some(error),
        }
        outcome.state.clone_from(&self.state);
        outcome
    }
}

fn state<'a>(all: &'a KeyedState, key: &str, name: &str) -> Option<&'a [u8]> {
    all.get(&(key.to_owned(), name.to_owned()))
        .map(Vec::as_slice)
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a text".to_owned()
    }
}
