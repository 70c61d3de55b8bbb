//! What two runs on the same records did otherwise. Dry runs, replays and shadows compare with it.

use std::collections::{BTreeMap, BTreeSet};

use shardmill_core::effects::Emit;
use shardmill_core::outcome::{Cause, Outcome};

/// Characters of a value that are shown.
const SHOWN_CHARS: usize = 120;

/// An outcome in words.
pub(super) fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok { .. } | Outcome::Json { .. } => "success".into(),
        Outcome::Partial { failed, .. } => format!("named {} records as failed", failed.len()),
        Outcome::Failed(failure) => failure.cause.to_string(),
        Outcome::Throttled { reason } => format!("throttled: {reason}"),
    }
}

/// Whether two causes are the same, but for figures and frames, which depend on the module.
pub(super) fn is_same_cause(before: &Cause, now: &Cause) -> bool {
    match (before, now) {
        (
            Cause::Trap { trap, message, .. },
            Cause::Trap {
                trap: now,
                message: said,
                ..
            },
        ) => trap == now && message == said,
        (before @ Cause::HandlerError { .. }, now) => before == now,
        (before, now) => before.name() == now.name(),
    }
}

/// The emitted records that differ, place by place. `None`: one of them emits fewer.
pub(super) fn emits<'a>(
    before: &'a [Emit],
    now: &'a [Emit],
) -> impl Iterator<Item = (Option<&'a Emit>, Option<&'a Emit>)> {
    let places = 0..before.len().max(now.len());
    let both = places.map(|place| (before.get(place), now.get(place)));
    both.filter(|(before, now)| before != now)
}

/// What both add to each counter.
pub(super) fn counters<'a>(
    before: &'a BTreeMap<Box<str>, i64>,
    now: &'a BTreeMap<Box<str>, i64>,
) -> impl Iterator<Item = (&'a str, i64, i64)> {
    let names: BTreeSet<&Box<str>> = before.keys().chain(now.keys()).collect();
    let of = |all: &BTreeMap<Box<str>, i64>, name: &str| all.get(name).copied().unwrap_or(0);
    names
        .into_iter()
        .map(move |name| (name.as_ref(), of(before, name), of(now, name)))
}

/// An emitted record, short enough to be shown.
pub(super) fn shown_emit(emit: &Emit) -> String {
    let (stream, key) = (&emit.stream, shown(emit.key.as_bytes()));
    format!("{stream} {key}: {}", shown(&emit.data))
}

/// A value, short enough to be shown.
pub(super) fn shown(value: &[u8]) -> String {
    // A character takes at most four bytes.
    let begin = &value[..value.len().min(4 * SHOWN_CHARS)];
    let text = String::from_utf8_lossy(begin);
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if begin.len() < value.len() || shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_value_is_bounded_and_says_that_it_was_cut() {
        for (value, want) in [
            ("".to_owned(), String::new()),
            ("x".repeat(SHOWN_CHARS), "x".repeat(SHOWN_CHARS)),
            ("x".repeat(121), format!("{}…", "x".repeat(120))),
            ("€".repeat(500), format!("{}…", "€".repeat(120))),
        ] {
            assert_eq!(shown(value.as_bytes()), want);
        }
    }
}
