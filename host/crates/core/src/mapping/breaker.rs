//! A circuit breaker: after so many failed batches in a row a mapping invokes nothing for a
//! while, then tries one batch, and goes on only when that one succeeds. An attempt that is not
//! made uses none.

use std::time::Duration;

use serde::Serialize;

use crate::time::UnixMillis;

/// How long an open circuit waits before it lets one batch through.
pub const BREAKER_WAIT: Duration = Duration::from_secs(30);

/// The breaker of one mapping; all its shards share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    state: State,
    failures: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open(UnixMillis),
    /// One batch is under way; the instant after which another one may try, should that one
    /// never report.
    HalfOpen(UnixMillis),
}

/// What the breaker says to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may run.
    Run,
    /// Not before this instant.
    Wait(UnixMillis),
}

/// The state for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// Batches run.
    Closed,
    /// Batches wait.
    Open,
    /// One batch tries.
    HalfOpen,
}

impl Breaker {
    /// Asks for leave to run a batch. `Run` from an open circuit is for this one batch.
    pub fn admit(&mut self, now: UnixMillis) -> Admission {
        match self.state {
            State::Closed => Admission::Run,
            State::Open(until) | State::HalfOpen(until) if now < until => Admission::Wait(until),
            State::Open(_) | State::HalfOpen(_) => {
                self.state = State::HalfOpen(now.plus(BREAKER_WAIT));
                Admission::Run
            }
        }
    }

    /// Notes how a batch ended that was admitted. Opens after `threshold` failures in a row, or
    /// when the batch failed that tried an open circuit. Says whether the circuit changed.
    pub fn ended(&mut self, failed: bool, threshold: u32, now: UnixMillis) -> bool {
        let before = self.circuit();
        if failed {
            self.failures = self.failures.saturating_add(1);
            let tried = matches!(self.state, State::HalfOpen(_));
            if tried || self.failures >= threshold {
                self.state = State::Open(now.plus(BREAKER_WAIT));
            }
        } else {
            *self = Self::default();
        }
        self.circuit() != before
    }

    /// Notes that a batch that was admitted was not run after all: the next one may try.
    pub fn not_run(&mut self, now: UnixMillis) {
        if let State::HalfOpen(_) = self.state {
            self.state = State::Open(now);
        }
    }

    /// The state for people.
    pub fn circuit(&self) -> Circuit {
        match self.state {
            State::Closed => Circuit::Closed,
            State::Open(_) => Circuit::Open,
            State::HalfOpen(_) => Circuit::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_half_opens_for_one_batch() {
        let mut breaker = Breaker::default();
        let at = |seconds: u64| UnixMillis(seconds * 1000);
        for failed in [true, true, false, true, true] {
            assert_eq!(breaker.admit(at(0)), Admission::Run);
            assert!(!breaker.ended(failed, 3, at(0)), "not three in a row");
        }
        assert!(breaker.ended(true, 3, at(1)));
        assert_eq!(breaker.circuit(), Circuit::Open);
        assert_eq!(breaker.admit(at(2)), Admission::Wait(at(31)));
        assert_eq!(breaker.admit(at(31)), Admission::Run);
        assert_eq!(breaker.circuit(), Circuit::HalfOpen);
        assert_eq!(
            breaker.admit(at(32)),
            Admission::Wait(at(61)),
            "one batch tries"
        );
        breaker.not_run(at(33));
        assert_eq!(breaker.admit(at(33)), Admission::Run, "it was not run");
        breaker.ended(true, 3, at(33));
        assert_eq!(breaker.admit(at(40)), Admission::Wait(at(63)));
        assert_eq!(breaker.admit(at(63)), Admission::Run);
        assert!(breaker.ended(false, 3, at(64)));
        assert_eq!(breaker.admit(at(64)), Admission::Run);
        assert!(!breaker.ended(true, 3, at(65)), "counting began anew");
    }
}
