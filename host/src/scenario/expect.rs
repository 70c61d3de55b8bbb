//! Expectations: from what is written to what is meant, one by one, each with its line.

use std::fmt;

use serde::Deserialize;
use shardmill_core::mapping::Reason;
use toml::Spanned;

use super::data::{Data, Forms};
use super::error::{BadScenario, Source};
use super::table::{BoundTable, EmittedTable, ExpectTable, FailureTable};
use crate::manifest::{Manifest, closest};

/// One expectation.
#[derive(Clone, Debug)]
pub(super) struct Expectation {
    /// Its line in the file.
    pub(super) line: usize,
    /// Where it stands: `step 2: counters.done`.
    pub(super) path: String,
    pub(super) what: What,
}

/// What is expected. Figures are since the start of the scenario.
#[derive(Clone, Debug)]
pub(super) enum What {
    Invocations(Bound),
    FunctionErrors(Bound),
    WindowsClosed(Bound),
    MaxFuelPerRecord(u64),
    MaxFuelPerInvocation(u64),
    /// Every record but these.
    AllRecords(WantedFate, Vec<String>),
    Record(String, WantedFate),
    Outcome(WantedFate, Bound),
    Counter(String, i64),
    /// No counter but these.
    NoOtherCounters(Vec<String>),
    State(String, String, Data),
    AbsentState(String, Vec<String>),
    /// No value but these, by partition key and name.
    NoOtherState(Vec<(String, String)>),
    Emitted(String, Vec<(Option<String>, Data)>),
    EmittedCount(String, Bound),
    Failures(Vec<WantedFailure>),
    ParkedKeys(Vec<String>),
}

/// Bounds of a count, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) least: u64,
    pub(super) most: u64,
}

/// What is to have become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WantedFate {
    Waiting,
    Done,
    Filtered,
    Parked,
    /// For this reason; without one, for any.
    GivenUp(Option<Reason>),
}

/// An entry of the failure store; what is absent may be anything.
#[derive(Clone, Debug, Default)]
pub(super) struct WantedFailure {
    pub(super) reason: Option<Reason>,
    pub(super) cause: Option<String>,
    pub(super) records: Option<u64>,
    pub(super) message: Option<String>,
    pub(super) invocations: Option<u32>,
    pub(super) parked: Option<bool>,
}

const FATES: [&str; 5] = ["waiting", "done", "filtered", "parked", "given_up"];
const REASONS: [&str; 5] = [
    "RetryAttemptsExhausted",
    "RecordAgeExceeded",
    "RecordTooLarge",
    "Expired",
    "ProcessDied",
];
const CAUSES: [&str; 10] = [
    "handler_error",
    "trap",
    "out_of_fuel",
    "timed_out",
    "out_of_memory",
    "exited",
    "effects_exceeded",
    "response_too_large",
    "bad_answer",
    "effects_refused",
];

/// Reads a table of expectations; `place` is `end` or a step's label.
///
/// # Errors
/// The value that makes no sense, with its line, or that nothing is expected.
pub(super) fn read(
    table: Spanned<ExpectTable>,
    place: &str,
    source: &Source<'_>,
    manifest: &Manifest,
) -> Result<Vec<Expectation>, BadScenario> {
    let table_at = table.span().start;
    let table = table.into_inner();
    let mut all = List {
        place,
        source,
        manifest,
        found: Vec::new(),
    };
    all.bound("invocations", table.invocations, What::Invocations)?;
    all.bound(
        "function_errors",
        table.function_errors,
        What::FunctionErrors,
    )?;
    all.bound("windows_closed", table.windows_closed, What::WindowsClosed)?;
    if let Some(fuel) = table.max_fuel_per_record {
        let what = What::MaxFuelPerRecord(*fuel.get_ref());
        all.add(&fuel, "max_fuel_per_record", what);
    }
    if let Some(fuel) = table.max_fuel_per_invocation {
        let what = What::MaxFuelPerInvocation(*fuel.get_ref());
        all.add(&fuel, "max_fuel_per_invocation", what);
    }
    if let Some(word) = table.all_records {
        let fate = all.fate(&word, word.get_ref())?;
        let others = table.records.keys().cloned().collect();
        all.add(&word, "all_records", What::AllRecords(fate, others));
    }
    for (name, word) in table.records {
        let fate = all.fate(&word, word.get_ref())?;
        all.add(&word, format!("records.{name}"), What::Record(name, fate));
    }
    for (word, count) in table.outcomes {
        let fate = all.fate(&count, &word)?;
        let path = format!("outcomes.{word}");
        all.bound(&path, Some(count), |bound| What::Outcome(fate, bound))?;
    }
    let named: Vec<String> = table.counters.keys().cloned().collect();
    for (name, value) in table.counters {
        let path = format!("counters.{name}");
        let what = What::Counter(name, *value.get_ref());
        all.add(&value, path, what);
    }
    all.no_other("no_other_counters", table.no_other_counters, || {
        What::NoOtherCounters(named)
    })?;
    let mut named = Vec::new();
    for (key, values) in table.state {
        for (name, value) in values {
            named.push((key.clone(), name.clone()));
            let path = format!("state.{key:?}.{name}");
            let data = Data::of_state(value.get_ref().clone());
            let data = data.map_err(|why| all.bad(&value, why))?;
            all.add(&value, path, What::State(key.clone(), name, data));
        }
    }
    all.no_other("no_other_state", table.no_other_state, || {
        What::NoOtherState(named)
    })?;
    for (key, names) in table.absent_state {
        if names.get_ref().is_empty() {
            let message = format!("absent_state.{key:?}: at least one name expected");
            return Err(all.bad(&names, message));
        }
        let what = What::AbsentState(key.clone(), names.get_ref().clone());
        all.add(&names, format!("absent_state.{key:?}"), what);
    }
    for (stream, records) in table.emitted {
        let path = format!("emitted.{stream}");
        all.stream(&records, &path, &stream)?;
        let mut wanted = Vec::new();
        for (index, record) in records.get_ref().iter().enumerate() {
            let read = emitted(record);
            wanted.push(read.map_err(|why| all.bad(&records, format!("{path}[{index}]: {why}")))?);
        }
        all.add(&records, path, What::Emitted(stream, wanted));
    }
    for (stream, count) in table.emitted_counts {
        let path = format!("emitted_counts.{stream}");
        all.stream(&count, &path, &stream)?;
        all.bound(&path, Some(count), |b| What::EmittedCount(stream, b))?;
    }
    if let Some(entries) = table.failures {
        let mut wanted = Vec::new();
        for entry in entries.get_ref() {
            let read = all.failure(entry.get_ref());
            wanted.push(read.map_err(|why| all.bad(entry, why))?);
        }
        all.add(&entries, "failures", What::Failures(wanted));
    }
    if let Some(keys) = table.parked_keys {
        let mut wanted = keys.get_ref().clone();
        wanted.sort_unstable();
        all.add(&keys, "parked_keys", What::ParkedKeys(wanted));
    }
    if all.found.is_empty() {
        return Err(source.bad(table_at, "expect is empty: an expectation expected"));
    }
    all.found.sort_by_key(|expectation| expectation.line);
    Ok(all.found)
}

/// The expectations that were read so far.
struct List<'a> {
    place: &'a str,
    source: &'a Source<'a>,
    manifest: &'a Manifest,
    found: Vec<Expectation>,
}

impl List<'_> {
    fn add<T>(&mut self, at: &Spanned<T>, path: impl fmt::Display, what: What) {
        self.found.push(Expectation {
            line: self.source.line(at.span().start),
            path: format!("{}: {path}", self.place),
            what,
        });
    }

    fn bad<T>(&self, at: &Spanned<T>, message: impl Into<String>) -> BadScenario {
        self.source.bad(at.span().start, message)
    }

    fn bound(
        &mut self,
        path: &str,
        table: Option<Spanned<BoundTable>>,
        what: impl FnOnce(Bound) -> What,
    ) -> Result<(), BadScenario> {
        let Some(table) = table else { return Ok(()) };
        let bound = match table.get_ref() {
            BoundTable::Exactly(count) => Bound {
                least: *count,
                most: *count,
            },
            BoundTable::Between(between) => Bound {
                least: between.at_least.unwrap_or(0),
                most: between.at_most.unwrap_or(u64::MAX),
            },
        };
        if bound.least > bound.most {
            return Err(self.bad(&table, format!("{path}: no number is {bound}")));
        }
        if (bound.least, bound.most) == (0, u64::MAX) {
            let message = format!("{path}: every number is that: at_least or at_most expected");
            return Err(self.bad(&table, message));
        }
        self.add(&table, path, what(bound));
        Ok(())
    }

    fn no_other(
        &mut self,
        key: &str,
        only: Option<Spanned<bool>>,
        what: impl FnOnce() -> What,
    ) -> Result<(), BadScenario> {
        let Some(only) = only else { return Ok(()) };
        if !*only.get_ref() {
            return Err(self.bad(&only, format!("{key} = false: leave it out")));
        }
        self.add(&only, key, what());
        Ok(())
    }

    /// The stream is one of the scenario's.
    fn stream<T>(&self, at: &Spanned<T>, path: &str, name: &str) -> Result<(), BadScenario> {
        let streams = self.manifest.streams.iter();
        let known: Vec<&str> = streams.map(|stream| stream.name.as_str()).collect();
        let checked = one_of("stream", name, &known);
        checked.map_err(|why| self.bad(at, format!("{path}: {why}")))
    }

    fn fate<T>(&self, at: &Spanned<T>, word: &str) -> Result<WantedFate, BadScenario> {
        read_fate(word).map_err(|why| self.bad(at, why))
    }

    fn failure(&self, table: &FailureTable) -> Result<WantedFailure, String> {
        if let Some(cause) = &table.cause {
            one_of("cause", cause, &CAUSES)?;
        }
        Ok(WantedFailure {
            reason: table.reason.as_deref().map(read_reason).transpose()?,
            cause: table.cause.clone(),
            records: table.records,
            message: table.message.clone(),
            invocations: table.invocations,
            parked: table.parked,
        })
    }
}

fn emitted(table: &EmittedTable) -> Result<(Option<String>, Data), String> {
    let forms = Forms {
        text: table.data.clone(),
        json: table.json.clone(),
        hex: table.hex.clone(),
        base64: table.base64.clone(),
    };
    let data = forms.read()?;
    let data = data.ok_or("one of data, json, hex and base64 expected")?;
    Ok((table.key.clone(), data))
}

/// `done`, `given_up`, `given_up: RecordAgeExceeded` …
fn read_fate(text: &str) -> Result<WantedFate, String> {
    let (word, reason) = match text.split_once(':') {
        Some((word, reason)) => (word.trim(), Some(reason.trim())),
        None => (text, None),
    };
    one_of("outcome", word, &FATES)?;
    match (word, reason) {
        ("given_up", reason) => Ok(WantedFate::GivenUp(reason.map(read_reason).transpose()?)),
        (_, Some(_)) => Err(format!("outcome {text:?}: only given_up has a reason")),
        ("waiting", None) => Ok(WantedFate::Waiting),
        ("filtered", None) => Ok(WantedFate::Filtered),
        ("parked", None) => Ok(WantedFate::Parked),
        (_, None) => Ok(WantedFate::Done),
    }
}

fn read_reason(word: &str) -> Result<Reason, String> {
    one_of("reason", word, &REASONS)?;
    let words = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(word);
    Reason::deserialize(words).map_err(|error| error.to_string())
}

/// Checks a word.
///
/// # Errors
/// It is none of `known`; the message says which was meant perhaps.
pub(super) fn one_of(what: &str, word: &str, known: &[&str]) -> Result<(), String> {
    if known.contains(&word) {
        return Ok(());
    }
    Err(match closest(word, known) {
        Some(meant) => format!("{what} {word:?}: did you mean {meant:?}?"),
        None => format!("{what} {word:?}: one of {} expected", known.join(", ")),
    })
}

impl Bound {
    pub(super) fn holds(self, count: u64) -> bool {
        (self.least..=self.most).contains(&count)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.least, self.most) {
            (least, most) if least == most => write!(f, "{least}"),
            (0, most) => write!(f, "at most {most}"),
            (least, u64::MAX) => write!(f, "at least {least}"),
            (least, most) => write!(f, "at least {least} and at most {most}"),
        }
    }
}

impl fmt::Display for WantedFate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Filtered => "filtered",
            Self::Parked => "parked",
            Self::GivenUp(None) => "given_up",
            Self::GivenUp(Some(reason)) => return write!(f, "given_up: {reason:?}"),
        })
    }
}

impl fmt::Display for WantedFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        words.extend(self.reason.map(|reason| format!("{reason:?}")));
        words.extend(self.cause.clone());
        words.extend(self.records.map(|n| format!("records {n}")));
        words.extend(self.invocations.map(|n| format!("invocations {n}")));
        words.extend(self.parked.map(|parked| format!("parked {parked}")));
        words.extend(
            self.message
                .as_ref()
                .map(|text| format!("message with {text:?}")),
        );
        if words.is_empty() {
            words.push("any".into());
        }
        f.write_str(&words.join(", "))
    }
}
