//! Tumbling windows: which window a record belongs to, when a window ends, and the state that an
//! invocation hands to the next one.
//!
//! Rules: Lambda developer guide, "Implementing stateful Kinesis Data Streams processing in
//! Lambda"; windows lie on a grid from the epoch, as all examples there do. A shard's arrival times
//! never go back, so a window is over when a record of a later one is there, when the shard is
//! closed and read, or by the clock.

use std::time::Duration;

use serde_json::Value;

use crate::mapping::OpenWindow;
use crate::outcome::Outcome;
use crate::time::UnixMillis;

/// How long after its end a window of an idle shard is closed: a record that arrived in it may
/// still be on its way to the disk. AWS takes up to two minutes.
pub const CLOSING_GRACE: Duration = Duration::from_secs(1);

/// The largest state, bytes of JSON: beyond it the window ends before its time.
pub const MAX_WINDOW_STATE_BYTES: usize = 1 << 20;

/// What a shard with windows does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowStep {
    /// Nothing: no window is open and no record is there.
    Idle,
    /// The records that are there belong to the window that begins here.
    Records(UnixMillis),
    /// The open window is over: its final invocation is due.
    Close,
    /// The open window ends at this instant, unless records come before.
    CloseAt(UnixMillis),
}

/// The beginning of the window of `length` that a record belongs to that arrived at `arrival`.
/// Not before `closed_to`: a record that comes late goes into the first window that is not closed.
pub fn window_start(arrival: UnixMillis, length: Duration, closed_to: UnixMillis) -> UnixMillis {
    let length = (length.as_millis() as u64).max(1);
    UnixMillis(arrival.0 - arrival.0 % length).max(closed_to)
}

/// The end, exclusive, of the window of `length` that begins at `start`: where the grid goes on,
/// for a window too that begins late because one of another length was closed there.
pub fn window_end(start: UnixMillis, length: Duration) -> UnixMillis {
    let length = (length.as_millis() as u64).max(1);
    UnixMillis(start.0 - start.0 % length + length)
}

/// What is known of a shard when the next step of its windows is asked for.
#[derive(Clone, Copy, Debug)]
pub struct WindowView<'a> {
    /// The window that is open.
    pub open: Option<&'a OpenWindow>,
    /// See [`crate::mapping::Cursor::windows_closed_to`].
    pub closed_to: UnixMillis,
    /// When the first record arrived that is read and not delivered.
    pub first: Option<UnixMillis>,
    /// Whether the shard is closed and everything in it is read.
    pub at_end: bool,
    /// The mapping's window.
    pub length: Duration,
}

/// What comes next.
pub fn window_step(view: WindowView<'_>, now: UnixMillis) -> WindowStep {
    let first = view
        .first
        .map(|a| window_start(a, view.length, view.closed_to));
    match (view.open, first) {
        (None, None) => WindowStep::Idle,
        (None, Some(start)) => WindowStep::Records(start),
        (Some(open), _) if open.ended_early => WindowStep::Close,
        (Some(open), Some(_)) if view.first >= Some(open.end) => WindowStep::Close,
        (Some(open), Some(_)) => WindowStep::Records(open.start),
        (Some(_), None) if view.at_end => WindowStep::Close,
        (Some(open), None) => {
            let due = open.end.plus(CLOSING_GRACE);
            if now >= due {
                WindowStep::Close
            } else {
                WindowStep::CloseAt(due)
            }
        }
    }
}

/// The state in an outcome: the member `state` of a JSON response, or the text of a packed
/// answer. `None` where the handler gave none, which with a window is a function error.
pub fn state_in(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Json { text } => match serde_json::from_str(text) {
            Ok(Value::Object(mut members)) => match members.remove("state") {
                None | Some(Value::Null) => None,
                Some(state) => Some(state.to_string()),
            },
            _ => None,
        },
        Outcome::Ok { text } | Outcome::Partial { text, .. } => {
            let is_json = || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            (!text.is_empty() && is_json()).then(|| text.clone())
        }
        Outcome::Failed(_) | Outcome::Throttled { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(120);

    fn open(start: u64) -> OpenWindow {
        OpenWindow {
            start: UnixMillis(start),
            end: UnixMillis(start).plus(LENGTH),
            state: "{}".into(),
            ended_early: false,
        }
    }

    #[test]
    fn windows_lie_on_a_grid_and_a_closed_one_never_opens_again() {
        for (arrival, closed_to, start) in [
            (0, 0, 0),
            (119_999, 0, 0),
            (120_000, 0, 120_000),
            (119_999, 120_000, 120_000),
            (250_000, 120_000, 240_000),
        ] {
            let got = window_start(UnixMillis(arrival), LENGTH, UnixMillis(closed_to));
            assert_eq!(got, UnixMillis(start), "arrival {arrival}");
        }
        for (start, end) in [(0, 120_000), (120_000, 240_000), (130_000, 240_000)] {
            let got = window_end(UnixMillis(start), LENGTH);
            assert_eq!(got, UnixMillis(end), "start {start}");
        }
    }

    #[test]
    fn a_window_ends_by_a_later_record_by_the_clock_and_with_its_shard() {
        let early = OpenWindow {
            ended_early: true,
            ..open(0)
        };
        let zero = open(0);
        for (name, open, first, at_end, now, want) in [
            ("nothing there", None, None, false, 0, WindowStep::Idle),
            (
                "first record",
                None,
                Some(130_000),
                false,
                130_000,
                WindowStep::Records(UnixMillis(120_000)),
            ),
            (
                "same window",
                Some(&zero),
                Some(5),
                false,
                500_000,
                WindowStep::Records(UnixMillis(0)),
            ),
            (
                "later record",
                Some(&zero),
                Some(130_000),
                false,
                130_000,
                WindowStep::Close,
            ),
            (
                "idle, not over",
                Some(&zero),
                None,
                false,
                5,
                WindowStep::CloseAt(UnixMillis(121_000)),
            ),
            (
                "idle, in the grace",
                Some(&zero),
                None,
                false,
                120_500,
                WindowStep::CloseAt(UnixMillis(121_000)),
            ),
            (
                "idle, over",
                Some(&zero),
                None,
                false,
                121_000,
                WindowStep::Close,
            ),
            (
                "end of the shard",
                Some(&zero),
                None,
                true,
                5,
                WindowStep::Close,
            ),
            (
                "state too large",
                Some(&early),
                Some(5),
                false,
                5,
                WindowStep::Close,
            ),
        ] {
            let view = WindowView {
                open,
                closed_to: UnixMillis(0),
                first: first.map(UnixMillis),
                at_end,
                length: LENGTH,
            };
            assert_eq!(window_step(view, UnixMillis(now)), want, "{name}");
        }
    }

    #[test]
    fn a_response_without_state_has_none() {
        let json = |text: &str| Outcome::Json { text: text.into() };
        let ok = |text: &str| Outcome::Ok { text: text.into() };
        for (outcome, state) in [
            (json(r#"{"state":{"1":282}}"#), Some(r#"{"1":282}"#)),
            (json(r#"{"batchItemFailures":[]}"#), None),
            (json(r#"{"state":null}"#), None),
            (json("[]"), None),
            (json(""), None),
            (ok(r#"{"n":1}"#), Some(r#"{"n":1}"#)),
            (ok(""), None),
            (ok("not json"), None),
        ] {
            assert_eq!(state_in(&outcome).as_deref(), state, "{outcome:?}");
        }
    }
}
