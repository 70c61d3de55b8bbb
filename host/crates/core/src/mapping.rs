//! The rules of an event source mapping: how a batch is cut, what follows from its outcome, and
//! how progress is kept. Pure functions; the host's pollers act on what they say.
//!
//! Laws, each tested by seeded runs:
//! - within one epoch progress never goes back;
//! - what follows from an outcome tiles the batch: every record is done, given up or kept for
//!   another attempt, exactly once and in order;
//! - every record ends in exactly one way.
//!
//! Rules: Lambda developer guide, "Process Amazon Kinesis Data Streams records with Lambda",
//! and where AWS is silent, what `docs/parity.md` says.

pub mod filter;

mod backoff;
mod batching;
mod breaker;
mod cursor;
mod lanes;
mod next;
mod policy;
mod response;
mod rollout;
mod routing;
mod shadow;
mod window;

pub use backoff::backoff;
pub use batching::{Cut, Ready, cut, expired_len, ready};
pub use breaker::{Admission, BREAKER_WAIT, Breaker, Circuit};
pub use cursor::{Cursor, FirstOf, Lane, OpenWindow, Part, Paused, Position, Span, lane_of};
pub use filter::{
    BadFilter, Explanation, FilterCriteria, MAX_FILTER_STEPS, Mismatch, Verdict, Warning,
};
pub use lanes::{FirstRead, Intake, Lanes, Sorted, Work};
pub use next::{AfterFinal, Attempted, Judgement, Next, Rest, after, after_final, judge, parts_of};
pub use policy::{BadPolicy, OnExhausted, Policy, Reason, StartingPosition};
pub use response::{ItemFailures, read_item_failures};
pub use rollout::{Course, Demand, RolledBack, Rollout, Standing, Step, Trial};
pub use routing::{BadWeight, Weight};
pub use shadow::{FuelBudget, Shadow};
pub use window::{
    CLOSING_GRACE, MAX_WINDOW_STATE_BYTES, WindowStep, WindowView, state_in, window_end,
    window_start, window_step,
};

#[cfg(test)]
mod laws;

/// Whether a mapping may have this name: 1 to 128 bytes of anything but control characters, which
/// would command the terminal of whoever lists it.
pub fn may_be_named(name: &str) -> bool {
    (1..=128).contains(&name.len()) && !name.contains(char::is_control)
}
