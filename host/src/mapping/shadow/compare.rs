//! What two runs on one batch did otherwise: one difference of each kind.

use std::collections::BTreeMap;

use bytes::Bytes;
use shardmill_core::Batch;
use shardmill_core::effects::{Effects, Emit, Tag};
use shardmill_core::mapping::{ItemFailures, Judgement, read_item_failures};
use shardmill_core::outcome::Outcome;
use shardmill_core::sandbox::{Report, Usage};

use crate::mapping::differences::{self, is_same_cause, shown, shown_emit, told};

/// The kinds of differences.
pub(super) const KINDS: [&str; 7] = [
    "outcome", "error", "records", "answer", "emits", "counters", "state",
];

/// What one version made of a batch.
pub(in crate::mapping) struct Side {
    pub(in crate::mapping) judgement: Judgement,
    pub(in crate::mapping) outcome: Outcome,
    /// Those that count then; what was read is of no interest.
    pub(in crate::mapping) effects: Effects,
    pub(in crate::mapping) usage: Usage,
}

/// Something that the two did otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Apart {
    /// One of [`KINDS`].
    pub(super) what: &'static str,
    /// The record it is about, as an index; `None`: the whole batch.
    pub(super) record: Option<u32>,
    pub(super) primary: String,
    pub(super) shadow: String,
}

impl Side {
    /// Of an attempt whose report has only the effects that count left.
    pub(in crate::mapping) fn new(judgement: Judgement, report: Report) -> Self {
        let Report {
            outcome,
            mut effects,
            usage,
            ..
        } = report;
        effects.reads = Vec::new();
        Self {
            judgement,
            outcome,
            effects,
            usage,
        }
    }

    pub(super) fn failed(&self) -> bool {
        self.judgement != Judgement::Success
    }

    fn word(&self) -> &'static str {
        match self.judgement {
            Judgement::Success => "success",
            Judgement::Partial(_) => "partial",
            Judgement::Failed(_) => "failed",
            Judgement::Throttled(_) => "throttled",
        }
    }

    /// How it ended, in words.
    fn told(&self) -> String {
        match &self.judgement {
            Judgement::Failed(failure) => {
                let text = failure.cause.to_string();
                shown(text.lines().next().unwrap_or_default().as_bytes())
            }
            Judgement::Partial(_) => told(&self.outcome),
            Judgement::Success | Judgement::Throttled(_) => self.word().into(),
        }
    }

    /// The answer's text: a response, or a window's state.
    pub(super) fn text(&self) -> &str {
        match &self.outcome {
            Outcome::Ok { text } | Outcome::Json { text } | Outcome::Partial { text, .. } => text,
            Outcome::Failed(_) | Outcome::Throttled { .. } => "",
        }
    }

    /// The records that failed, as indices in order: those that are named, or the one at fault.
    fn records(&self, batch: &Batch) -> Vec<u32> {
        let mut records = match (&self.judgement, &self.outcome) {
            (Judgement::Failed(failure), _) => failure.record.into_iter().collect(),
            (Judgement::Partial(_), Outcome::Partial { failed, .. }) => failed.clone(),
            (Judgement::Partial(_), Outcome::Json { text }) => {
                match read_item_failures(text, batch) {
                    ItemFailures::Records(records) => records,
                    ItemFailures::None | ItemFailures::Malformed(_) => Vec::new(),
                }
            }
            _ => Vec::new(),
        };
        records.sort_unstable();
        records.dedup();
        records
    }
}

/// What differs, at most once of each kind. Of two that end in different ways nothing else is told.
pub(super) fn compare(batch: &Batch, primary: &Side, shadow: &Side) -> Vec<Apart> {
    let mut found = Vec::new();
    let mut differ = |what, record, primary: String, shadow: String| {
        found.push(Apart {
            what,
            record,
            primary,
            shadow,
        });
    };
    let (before, now) = (primary.records(batch), shadow.records(batch));
    let first = before.first().or(now.first()).copied();
    if primary.word() != shadow.word() {
        differ("outcome", first, primary.told(), shadow.told());
        return found;
    }
    if let (Judgement::Failed(a), Judgement::Failed(b)) = (&primary.judgement, &shadow.judgement)
        && !is_same_cause(&a.cause, &b.cause)
    {
        differ("error", first, primary.told(), shadow.told());
    }
    if before != now {
        let other = before.iter().find(|r| !now.contains(r));
        let other = other.or_else(|| now.iter().find(|r| !before.contains(r)));
        differ("records", other.copied(), list(&before), list(&now));
    }
    let is_answered = !matches!(primary.judgement, Judgement::Failed(_));
    if is_answered && primary.text() != shadow.text() {
        let (a, b) = (primary.text(), shadow.text());
        differ("answer", None, shown(a.as_bytes()), shown(b.as_bytes()));
    }
    let (a, b) = (emits(&primary.effects), emits(&shadow.effects));
    if let Some((a, b)) = differences::emits(&a, &b).next() {
        let tag = tag_of(&primary.effects, a).or_else(|| tag_of(&shadow.effects, b));
        let told = |emit: Option<&Emit>| emit.map_or_else(nothing, shown_emit);
        differ("emits", tag, told(a), told(b));
    }
    let (a, b) = (counters(&primary.effects), counters(&shadow.effects));
    if let Some((name, a, b)) = differences::counters(&a, &b).find(|(_, a, b)| a != b) {
        let name = shown(name.as_bytes());
        differ(
            "counters",
            None,
            format!("{name} {a:+}"),
            format!("{name} {b:+}"),
        );
    }
    let (a, b) = (state(&primary.effects), state(&shadow.effects));
    let mut keys = a.keys().chain(b.keys());
    if let Some(key) = keys.find(|key| a.get(*key).map(value) != b.get(*key).map(value)) {
        let tag = a.get(key).or(b.get(key)).and_then(|(tag, _)| *tag);
        let told = |of: &State<'_>| {
            let name = format!("{} {}", shown(key.0.as_bytes()), shown(key.1.as_bytes()));
            match of.get(key) {
                None => format!("{name}: not written"),
                Some((_, None)) => format!("{name}: deleted"),
                Some((_, Some(value))) => format!("{name}: {}", shown(value)),
            }
        };
        differ("state", tag, told(&a), told(&b));
    }
    found
}

fn nothing() -> String {
    "nothing".into()
}

/// Indices of records, the first few of them.
fn list(records: &[u32]) -> String {
    const SHOWN: usize = 10;
    if records.is_empty() {
        return "none".into();
    }
    let some: Vec<String> = records.iter().take(SHOWN).map(u32::to_string).collect();
    let more = if records.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", some.join(", "))
}

fn emits(effects: &Effects) -> Vec<Emit> {
    effects.emits.iter().map(|(_, emit)| emit.clone()).collect()
}

fn tag_of(effects: &Effects, emit: Option<&Emit>) -> Tag {
    let found = effects.emits.iter().find(|(_, e)| Some(e) == emit)?;
    found.0
}

fn counters(effects: &Effects) -> BTreeMap<Box<str>, i64> {
    let mut sums = BTreeMap::<Box<str>, i64>::new();
    for (_, add) in &effects.counters {
        let sum = sums.entry(add.name.clone()).or_default();
        *sum = sum.wrapping_add(add.amount);
    }
    sums
}

type State<'a> = BTreeMap<(&'a str, &'a str), (Tag, Option<&'a Bytes>)>;

/// What is written, by partition key and name: the last write wins.
fn state(effects: &Effects) -> State<'_> {
    let writes = effects.state.iter();
    writes
        .map(|(tag, w)| ((w.key.as_ref(), w.name.as_ref()), (*tag, w.value.as_ref())))
        .collect()
}

fn value<'a>((_, value): &(Tag, Option<&'a Bytes>)) -> Option<&'a Bytes> {
    *value
}

#[cfg(test)]
mod tests {
    use shardmill_core::effects::{CounterAdd, StateWrite};
    use shardmill_core::outcome::{Cause, Failure};

    use super::*;

    fn ok(text: &str) -> Side {
        Side {
            judgement: Judgement::Success,
            outcome: Outcome::Ok { text: text.into() },
            effects: Effects::default(),
            usage: Usage::default(),
        }
    }

    fn trap(trap: &str, record: Option<u32>) -> Side {
        let cause = Cause::Trap {
            trap: trap.into(),
            message: String::new(),
            frames: Vec::new(),
        };
        let failure = Failure { cause, record };
        Side {
            judgement: Judgement::Failed(failure.clone()),
            outcome: Outcome::Failed(failure),
            ..ok("")
        }
    }

    fn partial(failed: &[u32]) -> Side {
        let lowest = failed.iter().min().copied().unwrap_or_default();
        Side {
            judgement: Judgement::Partial(lowest as usize),
            outcome: Outcome::Partial {
                failed: failed.to_vec(),
                text: String::new(),
            },
            ..ok("")
        }
    }

    fn with(change: impl FnOnce(&mut Effects)) -> Side {
        let mut side = ok("");
        change(&mut side.effects);
        side
    }

    fn emit(key: &str, data: &'static str) -> (Tag, Emit) {
        let (stream, key) = ("out".into(), key.into());
        let data = Bytes::from_static(data.as_bytes());
        (Some(1), Emit { stream, key, data })
    }

    fn add(name: &str, amount: i64) -> (Tag, CounterAdd) {
        let name = name.into();
        (None, CounterAdd { name, amount })
    }

    fn write(name: &str, value: Option<&'static str>) -> (Tag, StateWrite) {
        let (key, name) = ("k".into(), name.into());
        let value = value.map(Bytes::from);
        (Some(2), StateWrite { key, name, value })
    }

    #[test]
    fn whatever_is_not_the_same_is_named_once_of_each_kind() {
        /// Primary, shadow, what differs: kind, record, both in words.
        type Case = (
            Side,
            Side,
            &'static [(&'static str, Option<u32>, &'static str, &'static str)],
        );
        let cases: [Case; 16] = [
            (ok("a"), ok("a"), &[]),
            (ok("a"), ok("b"), &[("answer", None, "a", "b")]),
            (
                ok(""),
                trap("unreachable", Some(3)),
                &[("outcome", Some(3), "success", "trap: unreachable")],
            ),
            (
                partial(&[4, 2]),
                ok(""),
                &[("outcome", Some(2), "named 2 records as failed", "success")],
            ),
            (partial(&[4, 2]), partial(&[2, 4]), &[]),
            (
                partial(&[2]),
                partial(&[2, 5]),
                &[("records", Some(5), "2", "2, 5")],
            ),
            (trap("a", Some(1)), trap("a", Some(1)), &[]),
            (
                trap("a", Some(1)),
                trap("b", Some(1)),
                &[("error", Some(1), "trap: a", "trap: b")],
            ),
            (
                trap("a", Some(1)),
                trap("a", None),
                &[("records", Some(1), "1", "none")],
            ),
            (
                with(|e| e.emits = vec![emit("a", "1"), emit("b", "2")]),
                with(|e| e.emits = vec![emit("a", "1")]),
                &[("emits", Some(1), "out b: 2", "nothing")],
            ),
            (
                with(|e| e.emits = vec![emit("a", "1"), emit("b", "2")]),
                with(|e| e.emits = vec![emit("b", "2"), emit("a", "1")]),
                &[("emits", Some(1), "out a: 1", "out b: 2")],
            ),
            (
                with(|e| e.counters = vec![add("n", 1), add("n", 2), add("z", 0)]),
                with(|e| e.counters = vec![add("n", 3)]),
                &[],
            ),
            (
                with(|e| e.counters = vec![add("n", 1)]),
                with(|e| e.counters = vec![add("m", 1)]),
                &[("counters", None, "m +0", "m +1")],
            ),
            (
                with(|e| e.state = vec![write("n", Some("1")), write("n", Some("2"))]),
                with(|e| e.state = vec![write("n", Some("2"))]),
                &[],
            ),
            (
                with(|e| e.state = vec![write("n", Some("1"))]),
                with(|e| e.state = vec![write("n", None)]),
                &[("state", Some(2), "k n: 1", "k n: deleted")],
            ),
            (
                with(|e| {
                    e.emits = vec![emit("a", "1")];
                    e.counters = vec![add("n", 1)];
                }),
                with(|e| e.state = vec![write("n", Some("1"))]),
                &[
                    ("emits", Some(1), "out a: 1", "nothing"),
                    ("counters", None, "n +1", "n +0"),
                    ("state", Some(2), "k n: not written", "k n: 1"),
                ],
            ),
        ];
        for (primary, shadow, want) in cases {
            let found = compare(&Batch::default(), &primary, &shadow);
            let found: Vec<_> = found
                .iter()
                .map(|d| (d.what, d.record, d.primary.as_str(), d.shadow.as_str()))
                .collect();
            assert_eq!(found, want);
            assert!(found.iter().all(|d| KINDS.contains(&d.0)));
        }
    }
}
