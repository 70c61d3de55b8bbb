//! New versions of a function in a mapping: each is on trial in its first batches, and when too
//! many of them fail the mapping goes back to the version before it.
//!
//! Laws:
//! - the first versions that a mapping runs are not on trial: there is nothing to go back to;
//! - a version that has passed is not tried again while the mapping runs it;
//! - what was rolled back stays so until what the mapping names changes, or a person resumes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::UnixMillis;

/// What a mapping asks of a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Share of failed batches at which it is given up, 1 … 100 %.
    pub failure_percent: u32,
    /// How many batches are looked at, 1 … 10,000.
    pub batches: u32,
}

/// A version on trial: its attempts so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Attempts that ended.
    pub batches: u32,
    /// Those among them that failed.
    pub failed: u32,
}

/// How a trial stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not decided.
    Open,
    /// The share stays below what is asked, whatever comes.
    Passed,
    /// The share is reached, however the rest ends.
    Failed,
}

impl Trial {
    /// How it stands. It ends as soon as no further batch can change the answer.
    pub fn standing(self, demand: Demand) -> Standing {
        let reaches = |failed: u32| {
            u64::from(failed) * 100 >= u64::from(demand.failure_percent) * u64::from(demand.batches)
        };
        let left = demand.batches.saturating_sub(self.batches);
        if reaches(self.failed) {
            Standing::Failed
        } else if left == 0 || !reaches(self.failed.saturating_add(left)) {
            Standing::Passed
        } else {
            Standing::Open
        }
    }
}

/// A version that a mapping went back from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The version that failed.
    pub from: u64,
    /// The version that runs instead; `None`: none can, and the mapping stands still.
    pub to: Option<u64>,
    /// What the mapping named then, with its state: another one lifts the roll-back.
    pub of: String,
    /// When.
    pub at: UnixMillis,
    /// How the trial stood.
    pub trial: Trial,
    /// For people.
    pub reason: String,
}

/// What a mapping runs of what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// All of it.
    AsNamed,
    /// Only this version.
    Back(u64),
    /// Nothing.
    StandStill,
}

/// What an ended attempt leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing that has to be kept.
    None,
    /// The version is one of those that passed now: to be kept.
    Trusted,
    /// The version failed its trial; the mapping is to go back to this one, if it can.
    GoBack(u64, Trial),
}

/// The versions of a mapping: what is stored of it, as JSON, and the trials that are going on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Versions that need no trial: those that the mapping runs and that passed.
    pub trusted: Vec<u64>,
    /// The version that it ran last and trusts: the one to go back to.
    pub last: Option<u64>,
    /// What it went back from.
    pub rolled_back: Option<RolledBack>,
    /// Counted since the host started: a restart begins them anew.
    #[serde(skip)]
    pub trials: BTreeMap<u64, Trial>,
}

impl Rollout {
    /// What runs while the mapping names `named`.
    pub fn course(&self, named: &str) -> Course {
        match self.rolled_back.as_ref().filter(|back| back.of == named) {
            None => Course::AsNamed,
            Some(RolledBack { to: None, .. }) => Course::StandStill,
            Some(RolledBack { to: Some(to), .. }) => Course::Back(*to),
        }
    }

    /// Takes note of an attempt of `version` that ended, while the mapping runs `running`.
    pub fn note(&mut self, version: u64, failed: bool, running: &[u64], demand: Demand) -> Step {
        if self.trusted.is_empty() {
            self.trust(version, running);
            return Step::Trusted;
        }
        // One that is not run any more was begun before.
        if self.trusted.contains(&version) || !running.contains(&version) {
            return Step::None;
        }
        let trial = self.trials.entry(version).or_default();
        trial.batches += 1;
        trial.failed += u32::from(failed);
        let trial = *trial;
        match trial.standing(demand) {
            Standing::Open => Step::None,
            Standing::Passed => {
                self.trust(version, running);
                Step::Trusted
            }
            Standing::Failed => {
                self.trials.remove(&version);
                // Beside it, if the two share the requests; else what ran before.
                let beside = running.iter().find(|n| self.trusted.contains(n));
                match beside.copied().or(self.last) {
                    Some(back) => Step::GoBack(back, trial),
                    None => Step::None,
                }
            }
        }
    }

    /// Lets a version that was rolled back be tried once more. Says whether there was one.
    pub fn resume(&mut self) -> bool {
        self.trials.clear();
        self.rolled_back.take().is_some()
    }

    fn trust(&mut self, version: u64, running: &[u64]) {
        self.trials.remove(&version);
        self.trials.retain(|n, _| running.contains(n));
        self.trusted.retain(|n| running.contains(n));
        self.trusted.push(version);
        self.last = Some(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_OF_TEN: Demand = Demand {
        failure_percent: 50,
        batches: 10,
    };

    #[test]
    fn a_trial_ends_as_soon_as_it_is_decided() {
        let demand = |failure_percent, batches| Demand {
            failure_percent,
            batches,
        };
        for (name, batches, failed, demand, standing) in [
            ("nothing yet", 0, 0, HALF_OF_TEN, Standing::Open),
            ("half of half", 5, 2, HALF_OF_TEN, Standing::Open),
            ("five of any", 5, 5, HALF_OF_TEN, Standing::Failed),
            ("the last one decides", 10, 5, HALF_OF_TEN, Standing::Failed),
            ("one short", 10, 4, HALF_OF_TEN, Standing::Passed),
            ("six that did not fail", 6, 0, HALF_OF_TEN, Standing::Passed),
            (
                "one failure is too many",
                1,
                1,
                demand(1, 100),
                Standing::Failed,
            ),
            ("all must fail", 9, 9, demand(100, 10), Standing::Open),
            ("all failed", 10, 10, demand(100, 10), Standing::Failed),
            ("the only batch", 1, 0, demand(100, 1), Standing::Passed),
            (
                "the largest",
                10_000,
                9_999,
                demand(100, 10_000),
                Standing::Passed,
            ),
        ] {
            let trial = Trial { batches, failed };
            assert_eq!(trial.standing(demand), standing, "{name}");
        }
    }

    /// Notes attempts of one version: `true` failed. Gives the last step.
    fn run(rollout: &mut Rollout, version: u64, running: &[u64], failed: &[bool]) -> Step {
        let mut last = Step::None;
        for failed in failed {
            last = rollout.note(version, *failed, running, HALF_OF_TEN);
        }
        last
    }

    #[test]
    fn the_first_version_is_not_on_trial() {
        let mut rollout = Rollout::default();
        assert_eq!(run(&mut rollout, 7, &[7], &[true]), Step::Trusted);
        assert_eq!(run(&mut rollout, 7, &[7], &[true; 30]), Step::None);
        assert_eq!((rollout.last, &rollout.trusted[..]), (Some(7), &[7][..]));
    }

    #[test]
    fn a_version_that_fails_goes_back_to_the_last_that_passed() {
        let mut rollout = Rollout::default();
        run(&mut rollout, 1, &[1], &[false]);
        assert_eq!(run(&mut rollout, 2, &[2], &[false; 6]), Step::Trusted);
        assert_eq!(run(&mut rollout, 3, &[3], &[true; 4]), Step::None);
        let trial = Trial {
            batches: 5,
            failed: 5,
        };
        assert_eq!(run(&mut rollout, 3, &[3], &[true]), Step::GoBack(2, trial));
        assert_eq!(rollout.trusted, [2], "version 1 is not run any more");
    }

    #[test]
    fn a_canary_that_fails_goes_back_to_what_runs_beside_it() {
        let mut rollout = Rollout::default();
        run(&mut rollout, 3, &[3], &[false]);
        run(&mut rollout, 3, &[3, 4], &[false; 30]);
        let step = run(&mut rollout, 4, &[3, 4], &[true; 5]);
        assert!(matches!(step, Step::GoBack(3, _)), "{step:?}");

        let mut rollout = Rollout::default();
        run(&mut rollout, 3, &[3], &[false]);
        assert_eq!(run(&mut rollout, 4, &[3, 4], &[false; 6]), Step::Trusted);
        assert_eq!(
            run(&mut rollout, 3, &[3, 4], &[true; 30]),
            Step::None,
            "both are trusted"
        );
    }

    #[test]
    fn what_was_begun_before_the_roll_back_does_not_count() {
        let mut rollout = Rollout::default();
        run(&mut rollout, 1, &[1], &[false]);
        run(&mut rollout, 2, &[2], &[true; 5]);
        assert_eq!(run(&mut rollout, 2, &[1], &[true; 20]), Step::None);
        assert!(rollout.trials.is_empty());
    }

    #[test]
    fn a_roll_back_holds_until_another_thing_is_named_or_somebody_resumes() {
        let mut rollout = Rollout {
            rolled_back: Some(RolledBack {
                from: 3,
                to: Some(2),
                of: "$LATEST@3".into(),
                at: UnixMillis(1),
                trial: Trial::default(),
                reason: String::new(),
            }),
            ..Rollout::default()
        };
        assert_eq!(rollout.course("$LATEST@3"), Course::Back(2));
        assert_eq!(rollout.course("$LATEST@4"), Course::AsNamed);
        let json = serde_json::to_string(&rollout).expect("json");
        let read: Rollout = serde_json::from_str(&json).expect("json");
        assert_eq!(
            read.course("$LATEST@3"),
            Course::Back(2),
            "a restart keeps it"
        );
        if let Some(back) = &mut rollout.rolled_back {
            back.to = None;
        }
        assert_eq!(rollout.course("$LATEST@3"), Course::StandStill);
        assert!(rollout.resume());
        assert_eq!(rollout.course("$LATEST@3"), Course::AsNamed);
    }
}
