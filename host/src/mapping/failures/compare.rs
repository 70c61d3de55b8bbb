//! Whether a replay came to the recorded outcome: cause, record, fuel and standard error. An
//! attempt that its wall clock had cut off ends as out of fuel, at the fuel that it had used.

use serde::Serialize;
use shardmill_core::outcome::{Cause, Outcome};
use shardmill_core::sandbox::Report;

use super::Replay;
use crate::mapping::differences::{is_same_cause, told};

/// Something that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `cause`, `record`, `fuel` or `stderr`.
    pub what: &'static str,
    /// As it was.
    pub recorded: String,
    /// As it is now.
    pub replayed: String,
}

/// Whether the wall clock ended the attempt, not the guest.
pub(super) fn was_cut_off(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Failed(failure) => matches!(failure.cause, Cause::TimedOut { .. }),
        Outcome::Ok { .. }
        | Outcome::Json { .. }
        | Outcome::Partial { .. }
        | Outcome::Throttled { .. } => false,
    }
}

/// What differs. `exact`: inputs and engine are those of the attempt, so that fuel counts.
pub(super) fn compare(
    recorded: &Outcome,
    replay: &Replay,
    report: &Report,
    exact: bool,
) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut differ = |what, recorded: String, replayed: String| {
        differences.push(Difference {
            what,
            recorded,
            replayed,
        });
    };
    let (before, now) = (told(recorded), told(&report.outcome));
    let cut_off = was_cut_off(recorded);
    let stopped = matches!(
        &report.outcome,
        Outcome::Failed(failure) if matches!(failure.cause, Cause::OutOfFuel { .. } | Cause::TimedOut { .. })
    );
    let ended_alike = if cut_off {
        stopped
    } else {
        alike(recorded, &report.outcome, exact)
    };
    if !ended_alike {
        differ("cause", before, now);
    }
    let record = |outcome: &Outcome| match outcome {
        Outcome::Failed(failure) => failure.record,
        _ => None,
    };
    let (before, now) = (record(recorded), record(&report.outcome));
    if exact && before != now {
        let index = |record: Option<u32>| record.map_or("none".into(), |r| format!("{r}"));
        differ("record", index(before), index(now));
    }
    if exact && replay.fuel != report.usage.fuel {
        differ(
            "fuel",
            replay.fuel.to_string(),
            report.usage.fuel.to_string(),
        );
    }
    if replay.stderr_tail != report.stderr_tail {
        differ(
            "stderr",
            replay.stderr_tail.clone(),
            report.stderr_tail.clone(),
        );
    }
    differences
}

/// Whether two outcomes are the same. Figures and frames in them count only when all else is
/// the same, too.
fn alike(recorded: &Outcome, replayed: &Outcome, exact: bool) -> bool {
    if exact {
        return recorded == replayed;
    }
    match (recorded, replayed) {
        (Outcome::Failed(before), Outcome::Failed(now)) => is_same_cause(&before.cause, &now.cause),
        (before, now) => std::mem::discriminant(before) == std::mem::discriminant(now),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shardmill_core::UnixMillis;
    use shardmill_core::effects::Effects;
    use shardmill_core::limits::FunctionLimits;
    use shardmill_core::outcome::Failure;
    use shardmill_core::sandbox::Usage;

    use super::*;

    fn failed(cause: Cause, record: u32) -> Outcome {
        let record = Some(record);
        Outcome::Failed(Failure { cause, record })
    }

    fn trap(name: &str) -> Cause {
        Cause::Trap {
            trap: name.into(),
            message: String::new(),
            frames: Vec::new(),
        }
    }

    fn replay(fuel: u64) -> Replay {
        Replay {
            seed: String::new(),
            now: UnixMillis(0),
            fuel,
            fuel_allowed: 1000,
            memory_bytes: 0,
            duration_micros: 0,
            limits: FunctionLimits::default(),
            batch_len: 1,
            given_up_from: 0,
            engine: String::new(),
            stderr_tail: "said".into(),
            inexact: None,
        }
    }

    fn report(outcome: Outcome, fuel: u64, stderr: &str) -> Report {
        let usage = Usage {
            fuel,
            ..Usage::default()
        };
        Report {
            outcome,
            effects: Effects::default(),
            usage,
            log: Vec::new(),
            stderr_tail: stderr.into(),
            record_fuel: Vec::new(),
            output_cut_bytes: 0,
        }
    }

    #[test]
    fn whatever_is_not_as_it_was_is_named() {
        let timeout = || Cause::TimedOut {
            allowed: Duration::from_secs(1),
            fuel_used: 7,
        };
        let spent = |allowed| Cause::OutOfFuel {
            allowed,
            frames: Vec::new(),
        };
        let ok = || Outcome::Ok {
            text: String::new(),
        };
        /// Recorded; replayed: outcome, fuel, stderr; whether it is exact; what differs.
        type Case = (
            Outcome,
            Outcome,
            u64,
            &'static str,
            bool,
            &'static [&'static str],
        );
        let cases: [Case; 10] = [
            (
                failed(trap("a"), 1),
                failed(trap("a"), 1),
                7,
                "said",
                true,
                &[],
            ),
            (
                failed(trap("a"), 1),
                failed(trap("b"), 1),
                7,
                "said",
                true,
                &["cause"],
            ),
            (
                failed(trap("a"), 1),
                failed(trap("a"), 2),
                7,
                "said",
                true,
                &["cause", "record"],
            ),
            (
                failed(trap("a"), 1),
                failed(trap("a"), 1),
                8,
                "said",
                true,
                &["fuel"],
            ),
            (
                failed(trap("a"), 1),
                failed(trap("a"), 0),
                8,
                "said",
                false,
                &[],
            ),
            (
                failed(trap("a"), 1),
                failed(trap("a"), 1),
                7,
                "else",
                false,
                &["stderr"],
            ),
            (failed(trap("a"), 1), ok(), 7, "said", false, &["cause"]),
            (
                failed(timeout(), 1),
                failed(spent(7), 1),
                7,
                "said",
                true,
                &[],
            ),
            (
                failed(timeout(), 1),
                ok(),
                5,
                "said",
                true,
                &["cause", "record", "fuel"],
            ),
            (
                failed(spent(7), 1),
                failed(spent(7), 1),
                7,
                "said",
                true,
                &[],
            ),
        ];
        for (recorded, outcome, fuel, stderr, exact, want) in cases {
            let report = report(outcome, fuel, stderr);
            let found = compare(&recorded, &replay(7), &report, exact);
            let what: Vec<&str> = found.iter().map(|d| d.what).collect();
            assert_eq!(what, want, "{recorded:?} {report:?}");
        }
    }
}
