//! A row of steps with a heading and the elapsed time for each. A failed step is reported,
//! remembered and does not stop the next one; whether a later step makes sense without it is
//! the caller's decision.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::tally::Tally;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Good,
    Bad,
}

/// The steps done so far.
#[derive(Default)]
pub(crate) struct Steps {
    tally: Tally,
    done: Vec<(&'static str, Ending, Duration)>,
}

impl Steps {
    /// Work that prepares: it counts only when it fails.
    pub(crate) fn prepare(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<()>,
    ) -> Ending {
        self.run(name, |_| work())
    }

    /// A check that counts as one.
    pub(crate) fn check(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<()>,
    ) -> Ending {
        self.run(name, |tally| {
            work()?;
            tally.pass_one();
            Ok(())
        })
    }

    /// Tests, which the work counts itself.
    pub(crate) fn run(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut Tally) -> Result<()>,
    ) -> Ending {
        println!("\n== {name}");
        let start = Instant::now();
        let mut tally = Tally::default();
        let ending = match work(&mut tally) {
            Ok(()) if tally.failed() == 0 => Ending::Good,
            Ok(()) => Ending::Bad,
            Err(error) => {
                println!("error: {error:#}");
                tally.fail_at_least_one();
                Ending::Bad
            }
        };
        let elapsed = start.elapsed();
        println!("== {name}: {ending} in {:.1} s", elapsed.as_secs_f64());
        self.tally.add(tally);
        self.done.push((name, ending, elapsed));
        ending
    }

    /// A step that makes no sense after a failed one.
    pub(crate) fn leave_out(name: &'static str, reason: &str) {
        println!("\n== {name}: left out, {reason}");
    }

    /// Prints the steps, the skipped tests, and last `N passed, N failed`.
    pub(crate) fn finish(&self) -> Ending {
        println!();
        for (name, ending, elapsed) in &self.done {
            println!("{name:24} {ending:6} {:>7.1} s", elapsed.as_secs_f64());
        }
        for skipped in self.tally.skipped() {
            println!("skipped: {skipped}");
        }
        let (passed, failed) = (self.tally.passed(), self.tally.failed());
        println!("{passed} passed, {failed} failed");
        if failed == 0 {
            Ending::Good
        } else {
            Ending::Bad
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "ok",
            Self::Bad => "FAILED",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_counted_and_the_next_one_runs() {
        let mut steps = Steps::default();
        assert_eq!(steps.prepare("p", || Ok(())), Ending::Good);
        assert_eq!(steps.check("a", || anyhow::bail!("no")), Ending::Bad);
        assert_eq!(steps.check("b", || Ok(())), Ending::Good);
        assert_eq!((steps.tally.passed(), steps.tally.failed()), (1, 1));
        assert_eq!(steps.finish(), Ending::Bad);
    }
}
