//! What follows from an outcome: which records are done, which are given up, and which are to be
//! tried again, in what parts.

use std::ops::Range;
use std::time::Duration;

use crate::batch::Batch;
use crate::effects::Effects;
use crate::mapping::{ItemFailures, Part, Policy, Position, Span, backoff, read_item_failures};
use crate::outcome::{Cause, Failure, Outcome};
use crate::time::UnixMillis;

/// An outcome as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Every record is done.
    Success,
    /// The records below the index are done; the one at it failed.
    Partial(usize),
    /// A function error. Uses an attempt.
    Failed(Failure),
    /// The host's own shortage. Uses no attempt.
    Throttled(String),
}

/// Reads an outcome: a JSON response for its item failures, a partial answer for its lowest
/// index and for effects that cannot be told apart.
pub fn judge(outcome: Outcome, effects: &Effects, batch: &Batch, policy: &Policy) -> Judgement {
    let failed = |cause| {
        Judgement::Failed(Failure {
            cause,
            record: None,
        })
    };
    let records = match outcome {
        Outcome::Ok { .. } => return Judgement::Success,
        Outcome::Failed(failure) => return Judgement::Failed(failure),
        Outcome::Throttled { reason } => return Judgement::Throttled(reason),
        Outcome::Json { .. } if !policy.report_batch_item_failures => return Judgement::Success,
        Outcome::Json { text } => match read_item_failures(&text, batch) {
            ItemFailures::None => return Judgement::Success,
            ItemFailures::Malformed(reason) => return failed(Cause::BadAnswer { reason }),
            ItemFailures::Records(records) => records,
        },
        Outcome::Partial { failed, .. } => failed,
    };
    let Some(lowest) = records.into_iter().min() else {
        return Judgement::Success;
    };
    if effects.has_untagged() {
        return failed(Cause::BadAnswer {
            reason: "a partial answer, but an effect was made before `progress` named a record: \
                     it belongs to no record, so it can be neither kept nor dropped"
                .into(),
        });
    }
    if effects.goes_back(lowest) {
        return failed(Cause::BadAnswer {
            reason: "a partial answer, but `progress` went back to a record that is done after \
                     one that is not had written state: what was written then may depend on it"
                .into(),
        });
    }
    Judgement::Partial(lowest as usize)
}

/// What is known of the attempt beside its outcome.
#[derive(Clone, Copy, Debug)]
pub struct Attempted {
    /// Records of the batch, at least 1.
    pub len: usize,
    /// Failed attempts before this one.
    pub attempts: u32,
    /// Whether the handler takes one record after the other, so that those before the one at
    /// fault are done.
    pub record_mode: bool,
    /// See [`Part::doubted`].
    pub doubted: bool,
}

/// What follows. `done`, `given_up` and `rest` tile the batch in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Next {
    /// Records `0..done` are done; effects tagged below are kept.
    pub done: usize,
    /// Records whose attempts ended; empty when there are none.
    pub given_up: Range<usize>,
    /// What is to be tried again, in order.
    pub rest: Vec<Rest>,
}

/// Records that are to be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The records.
    pub records: Range<usize>,
    /// Failed attempts that count against them.
    pub attempts: u32,
    /// How long they wait.
    pub delay: Duration,
    /// Whether this is the batch unchanged: it keeps its request id.
    pub unchanged: bool,
    /// See [`Part::doubted`].
    pub doubted: bool,
}

/// What follows from the final invocation of a window, which has no records. Given up means that
/// the window is: its state is dropped.
pub fn after_final(judgement: &Judgement, attempts: u32, policy: &Policy) -> AfterFinal {
    match judgement {
        Judgement::Success | Judgement::Partial(_) => AfterFinal::Closed,
        Judgement::Throttled(_) => AfterFinal::Again {
            attempts,
            delay: backoff(1),
        },
        Judgement::Failed(_) if policy.is_exhausted(attempts + 1) => AfterFinal::GivenUp,
        Judgement::Failed(_) => AfterFinal::Again {
            attempts: attempts + 1,
            delay: backoff(attempts + 1),
        },
    }
}

/// What follows from the final invocation of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum AfterFinal {
    /// The window is closed.
    Closed,
    /// It is invoked again.
    Again {
        /// Failed attempts that count.
        attempts: u32,
        /// How long it waits.
        delay: Duration,
    },
    /// Its attempts ended.
    GivenUp,
}

/// The parts that `next` leaves of a part: `boundary` gives the position where the record with an
/// index begins, so that the whole span is covered whatever lies between the records.
pub fn parts_of(
    next: &Next,
    part: &Part,
    boundary: impl Fn(usize) -> Position,
    now: UnixMillis,
    mut request_id: impl FnMut() -> String,
) -> Vec<Part> {
    let parts = next.rest.iter().map(|rest| {
        let at_head = rest.records.start == 0;
        let span = Span {
            from: boundary(rest.records.start),
            to: boundary(rest.records.end),
        };
        let inside = |at: &&Position| (span.from..span.to).contains(*at);
        Part {
            span,
            without: part.without.iter().filter(inside).copied().collect(),
            attempts: rest.attempts,
            invocations: match at_head {
                true => part.invocations + 1,
                false => u32::from(rest.attempts > 0),
            },
            not_before: now.plus(rest.delay),
            request_id: match rest.unchanged {
                true => part.request_id.clone(),
                false => request_id(),
            },
            doubted: rest.doubted,
        }
    });
    parts.collect()
}

/// What follows from a judgement.
pub fn after(judgement: &Judgement, attempted: Attempted, policy: &Policy) -> Next {
    match judgement {
        Judgement::Success => done_up_to(attempted.len),
        Judgement::Throttled(_) => Next {
            rest: vec![Rest {
                records: 0..attempted.len,
                attempts: attempted.attempts,
                delay: backoff(1),
                unchanged: true,
                doubted: attempted.doubted,
            }],
            ..done_up_to(0)
        },
        Judgement::Partial(lowest) => after_partial(*lowest, attempted, policy),
        Judgement::Failed(failure) if attempted.record_mode && !failure.cause.breaks_contract() => {
            match failure.record.map(|r| (r as usize).min(attempted.len - 1)) {
                // The effects of the records before it were summed up with its own: run them apart.
                Some(at) if failure.cause.is_refusal() && attempted.len > 1 => {
                    split([0..at, at..at + 1, at + 1..attempted.len])
                }
                // Nobody had been reached: which record is too much shows when there are fewer.
                None if attempted.len > 1 => split(halves(attempted.len)),
                at => after_record_failure(at.unwrap_or(0), &failure.cause, attempted, policy),
            }
        }
        Judgement::Failed(failure) => {
            let suspect = failure
                .record
                .map(|r| r as usize)
                .filter(|r| *r < attempted.len);
            after_batch_failure(suspect, attempted, policy)
        }
    }
}

/// The attempts belong to the record at fault. A limit that the whole batch shares counts
/// against a record only when it was the first, so that a batch merely too long gets on.
fn after_record_failure(at: usize, cause: &Cause, attempted: Attempted, policy: &Policy) -> Next {
    let Attempted { len, attempts, .. } = attempted;
    let attempts = match (at, cause.is_shared_limit()) {
        (0, _) => attempts + 1,
        (_, false) => 1,
        (_, true) => 0,
    };
    if policy.is_exhausted(attempts) {
        return Next {
            given_up: at..at + 1,
            rest: fresh(at + 1..len),
            ..done_up_to(at)
        };
    }
    let delay = if attempts == 0 {
        Duration::ZERO
    } else {
        backoff(attempts)
    };
    let rest = Rest {
        records: at..len,
        attempts,
        delay,
        unchanged: at == 0,
        doubted: attempted.doubted,
    };
    Next {
        rest: vec![rest],
        ..done_up_to(at)
    }
}

/// AWS's suffix rule: what is behind the lowest index is a new batch. With nothing before it,
/// the batch is unchanged and its attempts count; with bisect the named record is set apart.
fn after_partial(lowest: usize, attempted: Attempted, policy: &Policy) -> Next {
    if lowest == 0 {
        return after_batch_failure(Some(0), attempted, policy);
    }
    Next {
        rest: fresh(lowest..attempted.len),
        ..done_up_to(lowest)
    }
}

/// With bisect the first failure splits: at the suspect into the records before it, itself and
/// those behind it; without one, or where hints have misled before, into AWS's halves. Otherwise
/// the batch is retried whole.
fn after_batch_failure(suspect: Option<usize>, attempted: Attempted, policy: &Policy) -> Next {
    let Attempted {
        len,
        attempts,
        doubted,
        ..
    } = attempted;
    let attempts = attempts + 1;
    if policy.bisect_batch_on_function_error && len > 1 {
        return match suspect.filter(|_| !doubted) {
            Some(at) => doubting_first(split([0..at, at..at + 1, at + 1..len]), at > 0),
            None => doubting(split(halves(len)), doubted),
        };
    }
    if policy.is_exhausted(attempts) {
        return Next {
            given_up: 0..len,
            ..done_up_to(0)
        };
    }
    let rest = Rest {
        records: 0..len,
        attempts,
        delay: backoff(attempts),
        unchanged: true,
        doubted,
    };
    Next {
        rest: vec![rest],
        ..done_up_to(0)
    }
}

/// The records before a suspect should do: if they fail, the hint was wrong.
fn doubting_first(mut next: Next, is_before: bool) -> Next {
    if let Some(first) = next.rest.first_mut() {
        first.doubted = is_before;
    }
    next
}

fn doubting(mut next: Next, doubted: bool) -> Next {
    next.rest.iter_mut().for_each(|rest| rest.doubted = doubted);
    next
}

fn halves(len: usize) -> [Range<usize>; 3] {
    [0..len / 2, len / 2..len, len..len]
}

/// Nothing is done; every part is a new batch. Empty parts are left out.
fn split(parts: [Range<usize>; 3]) -> Next {
    Next {
        rest: parts.into_iter().flat_map(fresh).collect(),
        ..done_up_to(0)
    }
}

fn done_up_to(done: usize) -> Next {
    Next {
        done,
        given_up: done..done,
        rest: Vec::new(),
    }
}

/// A new batch with a new budget, or none when there is no record.
fn fresh(records: Range<usize>) -> Vec<Rest> {
    if records.is_empty() {
        return Vec::new();
    }
    vec![Rest {
        records,
        attempts: 0,
        delay: Duration::ZERO,
        unchanged: false,
        doubted: false,
    }]
}
