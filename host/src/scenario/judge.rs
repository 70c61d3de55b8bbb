//! Compares what is expected with the facts. Pure; what it says of a difference is for people.

use bytes::Bytes;

use super::data::shown;
use super::expect::{Bound, Expectation, WantedFailure, WantedFate, What};
use super::facts::{Facts, Invoked, RecordFact};
use super::report::Mismatch;
use crate::mapping::{FailureEntry, Fate};

/// Things of a kind that are listed before the rest is counted.
const LISTED: usize = 3;

impl Expectation {
    /// What is different; `None` when it holds.
    pub(super) fn judge(&self, facts: &Facts) -> Option<Mismatch> {
        let (expected, found) = self.what.difference(facts)?;
        Some(Mismatch {
            line: self.line,
            expectation: self.path.clone(),
            expected,
            found,
        })
    }
}

impl What {
    /// What is expected and what was found, where that is not the same.
    fn difference(&self, facts: &Facts) -> Option<(String, String)> {
        match self {
            Self::Invocations(bound) => count(*bound, facts.invocations.len()),
            Self::FunctionErrors(bound) => count(*bound, facts.function_errors as usize),
            Self::WindowsClosed(bound) => count(*bound, facts.windows_closed as usize),
            Self::MaxFuelPerRecord(most) => {
                let worst = facts.worst(Invoked::fuel_per_record);
                fuel(*most, worst, |invoked| match invoked.records {
                    1 => "of 1 record".to_owned(),
                    records => format!("of {records} records"),
                })
            }
            Self::MaxFuelPerInvocation(most) => {
                let worst = facts.worst(|invoked| Some(invoked.fuel));
                fuel(*most, worst, |invoked| match invoked.records {
                    1 => "with 1 record".to_owned(),
                    records => format!("with {records} records"),
                })
            }
            Self::AllRecords(wanted, others) => {
                let is_other = |r: &RecordFact| r.name.as_ref().is_some_and(|n| others.contains(n));
                let own = facts.records.iter().enumerate();
                let mut own = own.filter(|(_, r)| !is_other(r)).peekable();
                let expected = format!("{wanted}, all of them");
                if own.peek().is_none() {
                    return Some((expected, "no record was put that has no name here".into()));
                }
                let wrong = own.filter(|(_, r)| !wanted.is(&r.fate));
                let wrong: Vec<String> = wrong.map(|(at, r)| r.words(at)).collect();
                let found = list(&wrong, "; ")?;
                Some((expected, found))
            }
            Self::Record(name, wanted) => {
                let named = |r: &&RecordFact| r.name.as_ref() == Some(name);
                let mut fates = facts.records.iter().filter(named).peekable();
                if fates.peek().is_none() {
                    return Some((wanted.to_string(), "it was not put".into()));
                }
                let wrong = fates.find(|r| !wanted.is(&r.fate))?;
                Some((wanted.to_string(), fate_words(&wrong.fate)))
            }
            Self::Outcome(wanted, bound) => count(
                *bound,
                facts.records.iter().filter(|r| wanted.is(&r.fate)).count(),
            ),
            Self::Counter(name, wanted) => {
                let found = facts.counters.get(name);
                let same = found.copied().unwrap_or(0) == *wanted;
                let words = found.map_or_else(|| "no such counter".to_owned(), i64::to_string);
                (!same).then(|| (wanted.to_string(), words))
            }
            Self::NoOtherCounters(named) => {
                let others = facts
                    .counters
                    .iter()
                    .filter(|(name, _)| !named.contains(name));
                let others: Vec<String> = others.map(|(name, n)| format!("{name} = {n}")).collect();
                let found = list(&others, ", ")?;
                Some(("no others".into(), found))
            }
            Self::State(key, name, wanted) => {
                let found = facts.state.get(&(key.clone(), name.clone()));
                if found.is_some_and(|found| wanted.matches(found)) {
                    return None;
                }
                let found = found.map_or_else(|| "no such value".to_owned(), |v| shown(v));
                Some((wanted.to_string(), found))
            }
            Self::AbsentState(key, names) => {
                let kept = names.iter().filter_map(|name| {
                    let value = facts.state.get(&(key.clone(), name.clone()))?;
                    Some(format!("{name} = {}", shown(value)))
                });
                let found = list(&kept.collect::<Vec<_>>(), ", ")?;
                Some((format!("none of {}", names.join(", ")), found))
            }
            Self::NoOtherState(named) => {
                let others = facts
                    .state
                    .iter()
                    .filter(|(place, _)| !named.contains(place));
                let words = |((key, name), value): (&(String, String), &Bytes)| {
                    format!("{key:?}.{name} = {}", shown(value))
                };
                let others: Vec<String> = others.map(words).collect();
                let found = list(&others, ", ")?;
                Some(("no other".into(), found))
            }
            Self::Emitted(stream, wanted) => {
                let found = facts.emitted.get(stream).map_or(&[][..], Vec::as_slice);
                let mut pairs = wanted.iter().zip(found);
                let differs = pairs.position(|((key, data), (found_key, found_data))| {
                    key.as_ref().is_some_and(|key| key != found_key) || !data.matches(found_data)
                });
                if let Some(at) = differs {
                    let ((key, data), (found_key, found_data)) = (&wanted[at], &found[at]);
                    let wanted = key.as_ref().map_or(String::new(), |key| format!("{key}: "));
                    return Some((
                        format!("record {}: {wanted}{data}", at + 1),
                        format!("{found_key}: {}", shown(found_data)),
                    ));
                }
                let (wanted, found) = (wanted.len(), found.len());
                (wanted != found).then(|| (records(wanted), records(found)))
            }
            Self::EmittedCount(stream, bound) => {
                count(*bound, facts.emitted.get(stream).map_or(0, Vec::len))
            }
            Self::Failures(wanted) => failures(wanted, &facts.failures),
            Self::ParkedKeys(wanted) => {
                let same = *wanted == facts.parked_keys;
                (!same).then(|| (keys(wanted), keys(&facts.parked_keys)))
            }
        }
    }
}

impl Facts {
    /// The first invocation for which the figure is largest: its number, from 1, and the figure.
    fn worst(&self, figure: impl Fn(&Invoked) -> Option<u64>) -> Option<(usize, u64, &Invoked)> {
        let all = (1..).zip(&self.invocations);
        let all = all.filter_map(|(n, i)| figure(i).map(|figure| (n, figure, i)));
        all.max_by_key(|(number, figure, _)| (*figure, std::cmp::Reverse(*number)))
    }
}

impl Invoked {
    /// Fuel per record, rounded up; none for an invocation without records.
    pub(super) fn fuel_per_record(&self) -> Option<u64> {
        let records = self.records as u64;
        (records > 0).then(|| self.fuel.div_ceil(records))
    }
}

impl RecordFact {
    fn words(&self, index: usize) -> String {
        let name = self
            .name
            .clone()
            .unwrap_or_else(|| format!("key {}", self.key));
        format!("record {} ({name}): {}", index + 1, fate_words(&self.fate))
    }
}

impl WantedFate {
    fn is(self, fate: &Fate) -> bool {
        match (self, fate) {
            (Self::Waiting, Fate::Waiting)
            | (Self::Done, Fate::Done)
            | (Self::Filtered, Fate::Filtered)
            | (Self::Parked, Fate::Parked) => true,
            (Self::GivenUp(wanted), Fate::GivenUp { reason, .. }) => {
                wanted.is_none_or(|wanted| wanted == *reason)
            }
            _ => false,
        }
    }
}

impl WantedFailure {
    fn is(&self, entry: &FailureEntry) -> bool {
        let cause = entry.cause.as_ref();
        self.reason.is_none_or(|reason| reason == entry.reason)
            && self
                .cause
                .as_deref()
                .is_none_or(|c| cause.is_some_and(|found| found.name() == c))
            && self.records.is_none_or(|n| n == entry.records)
            && self.invocations.is_none_or(|n| n == entry.invocations)
            && self.parked.is_none_or(|parked| parked == entry.parked)
            && self.message.as_ref().is_none_or(|text| {
                cause.is_some_and(|cause| cause.to_string().contains(text.as_str()))
            })
    }
}

fn failures(wanted: &[WantedFailure], found: &[FailureEntry]) -> Option<(String, String)> {
    let entries = |n: usize| match n {
        0 => "no entry".to_owned(),
        1 => "1 entry".to_owned(),
        n => format!("{n} entries"),
    };
    if let Some(at) = wanted.iter().zip(found).position(|(w, f)| !w.is(f)) {
        let expected = format!("entry {}: {}", at + 1, wanted[at]);
        return Some((expected, entry_words(&found[at])));
    }
    if wanted.len() == found.len() {
        return None;
    }
    let rest: Vec<String> = found.iter().skip(wanted.len()).map(entry_words).collect();
    let found = match list(&rest, "; ") {
        Some(rest) => format!("{}; not expected: {rest}", entries(found.len())),
        None => entries(found.len()),
    };
    Some((entries(wanted.len()), found))
}

pub(super) fn entry_words(entry: &FailureEntry) -> String {
    let cause = entry.cause.as_ref();
    let cause = cause.map_or_else(String::new, |c| {
        format!("{} ({}), ", c.name(), shown(c.to_string().as_bytes()))
    });
    let parked = if entry.parked { ", parked" } else { "" };
    let (reason, records, invocations) = (entry.reason, entry.records, entry.invocations);
    format!("{reason:?}, {cause}records {records}, invocations {invocations}{parked}")
}

/// A fate in the words of a scenario, with the cause.
pub(super) fn fate_words(fate: &Fate) -> String {
    match fate {
        Fate::Waiting => "waiting".into(),
        Fate::Done => "done".into(),
        Fate::Filtered => "filtered".into(),
        Fate::Parked => "parked".into(),
        Fate::GivenUp { reason, cause } if cause.is_empty() => format!("given_up: {reason:?}"),
        Fate::GivenUp { reason, cause } => {
            format!("given_up: {reason:?} ({})", shown(cause.as_bytes()))
        }
    }
}

fn count(bound: Bound, found: usize) -> Option<(String, String)> {
    (!bound.holds(found as u64)).then(|| (bound.to_string(), found.to_string()))
}

fn fuel(
    most: u64,
    worst: Option<(usize, u64, &Invoked)>,
    words: impl Fn(&Invoked) -> String,
) -> Option<(String, String)> {
    let found = match worst {
        None => "no invocation".into(),
        Some((_, figure, _)) if figure <= most => return None,
        Some((number, figure, invoked)) => {
            format!("{figure} in invocation {number} {}", words(invoked))
        }
    };
    Some((format!("at most {most}"), found))
}

/// The first few of several; `None` of none.
pub(super) fn list(all: &[String], between: &str) -> Option<String> {
    match all.len() {
        0 => None,
        1..=LISTED => Some(all.join(between)),
        many => {
            let first = all[..LISTED].join(between);
            Some(format!("{first}{between}and {} more", many - LISTED))
        }
    }
}

fn keys(keys: &[String]) -> String {
    match keys.len() {
        0 => "none".into(),
        _ => keys.join(", "),
    }
}

fn records(count: usize) -> String {
    match count {
        1 => "1 record".into(),
        count => format!("{count} records"),
    }
}
