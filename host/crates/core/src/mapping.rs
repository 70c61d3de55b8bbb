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

mod backoff;
mod batching;
mod cursor;
mod next;
mod policy;
mod response;

pub use backoff::backoff;
pub use batching::{Cut, Ready, cut, expired_len, ready};
pub use cursor::{Cursor, Part, Paused, Position, Span};
pub use next::{Attempted, Judgement, Next, Rest, after, judge};
pub use policy::{OnExhausted, Policy, Reason, StartingPosition};
pub use response::{ItemFailures, read_item_failures};

#[cfg(test)]
mod laws;
