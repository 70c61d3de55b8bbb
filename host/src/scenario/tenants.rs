//! Isolation: what a scenario gives a tenant among others is what it gives the tenant alone.

use std::fmt::Debug;
use std::sync::Arc;

use shardmill_core::{Sandbox, TenantId};

use super::check::Scenario;
use super::facts::Facts;
use super::judge::entry_words;
use super::report::{Mismatch, Report};
use super::run::Played;

/// Tenants that a scenario may be run for.
pub const MAX_TENANTS: u32 = 1_000;

/// Differences of one tenant that are told.
const TOLD: usize = 5;

impl Scenario {
    /// Runs it for each of the accounts 000000000001, 000000000002, … alone on a host, then for all
    /// of them at once on one. Its expectations must hold for each, and nothing that can be seen of
    /// a tenant may differ: the fate of its records, counters, state, what was emitted, failures,
    /// parked keys, and each invocation's records and fuel. Blocks the thread, as
    /// [`Scenario::run`] does.
    ///
    /// # Errors
    /// The system has no room for a runtime.
    pub fn run_for(&self, sandbox: &Arc<dyn Sandbox>, tenants: u32) -> std::io::Result<Report> {
        let began = tokio::time::Instant::now();
        let accounts = (1..=u64::from(tenants)).filter_map(TenantId::from_number);
        let accounts: Vec<TenantId> = accounts.collect();
        let mut report = Report {
            path: self.path.clone(),
            name: self.name.clone(),
            tenants,
            mismatches: Vec::new(),
            figures: super::report::Figures::default(),
            took: std::time::Duration::ZERO,
        };
        let together = self.play(Arc::clone(sandbox), &accounts, true)?;
        if let Some(first) = together.first() {
            report.figures = first.figures;
        }
        // What fails for a tenant alone is no matter of its neighbours: it is told once. Nothing
        // need be told where nothing fails.
        let mut told = vec![Vec::new()];
        for (account, together) in accounts.iter().zip(together) {
            let alone = self.play(Arc::clone(sandbox), &[*account], true)?;
            let alone = alone.into_iter().next().unwrap_or_default();
            if !told.contains(&alone.mismatches) {
                let named = |mismatch: &Mismatch| Mismatch {
                    expectation: format!("tenant {account} alone: {}", mismatch.expectation),
                    ..mismatch.clone()
                };
                report.mismatches.extend(alone.mismatches.iter().map(named));
                told.push(alone.mismatches.clone());
            }
            let differences = differences(&alone, &together);
            report
                .mismatches
                .extend(
                    differences
                        .into_iter()
                        .take(TOLD)
                        .map(|different| Mismatch {
                            line: self.function_line,
                            expectation: format!("tenant {account}: {}", different.what),
                            expected: format!("{}, as alone", different.alone),
                            found: different.together,
                        }),
                );
        }
        report.took = began.elapsed();
        Ok(report)
    }
}

/// Something that is not the same.
#[derive(Debug, PartialEq, Eq)]
struct Different {
    what: String,
    alone: String,
    together: String,
}

fn differences(alone: &Played, together: &Played) -> Vec<Different> {
    let mut found = Differences(Vec::new());
    let words = |mismatches: &[Mismatch]| -> Vec<String> {
        let words = |m: &Mismatch| format!("{}: {}", m.expectation, m.found);
        mismatches.iter().map(words).collect()
    };
    let (ours, theirs) = (words(&alone.mismatches), words(&together.mismatches));
    found.list("expectations that fail", &ours, &theirs);
    if let (Some(alone), Some(together)) = (&alone.facts, &together.facts) {
        found.facts(alone, together);
    }
    found.0
}

struct Differences(Vec<Different>);

impl Differences {
    fn facts(&mut self, alone: &Facts, together: &Facts) {
        self.list("record", &alone.records, &together.records);
        self.list("invocation", &alone.invocations, &together.invocations);
        self.one(
            "function errors",
            &alone.function_errors,
            &together.function_errors,
        );
        self.one(
            "windows closed",
            &alone.windows_closed,
            &together.windows_closed,
        );
        let all = |facts: &Facts| facts.counters.clone().into_iter().collect::<Vec<_>>();
        self.list("counter", &all(alone), &all(together));
        let all = |facts: &Facts| facts.state.clone().into_iter().collect::<Vec<_>>();
        self.list("state", &all(alone), &all(together));
        let all = |facts: &Facts| facts.emitted.clone().into_iter().collect::<Vec<_>>();
        self.list("emitted", &all(alone), &all(together));
        let all = |facts: &Facts| facts.failures.iter().map(entry_words).collect::<Vec<_>>();
        self.list("failure", &all(alone), &all(together));
        self.list("parked key", &alone.parked_keys, &together.parked_keys);
    }

    fn one<T: Debug + PartialEq>(&mut self, what: &str, alone: &T, together: &T) {
        if alone != together {
            self.0.push(Different {
                what: what.to_owned(),
                alone: format!("{alone:?}"),
                together: format!("{together:?}"),
            });
        }
    }

    /// The first thing of a kind that is not the same.
    fn list<T: Debug + PartialEq>(&mut self, what: &str, alone: &[T], together: &[T]) {
        let most = alone.len().max(together.len());
        let differs = (0..most).find(|at| alone.get(*at) != together.get(*at));
        if let Some(at) = differs {
            let words = |all: &[T]| {
                all.get(at)
                    .map_or_else(|| "none".into(), |one| format!("{one:?}"))
            };
            self.0.push(Different {
                what: format!("{what} {}", at + 1),
                alone: words(alone),
                together: words(together),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_thing_of_each_kind_that_differs_is_told() {
        let facts = |counter: i64, fuel: u64| Facts {
            counters: [("a".to_owned(), 1), ("b".to_owned(), counter)].into(),
            invocations: vec![super::super::facts::Invoked { records: 1, fuel }],
            ..Facts::default()
        };
        let played = |facts| Played {
            facts: Some(facts),
            ..Played::default()
        };
        assert_eq!(differences(&played(facts(2, 3)), &played(facts(2, 3))), []);
        let found = differences(&played(facts(2, 3)), &played(facts(4, 5)));
        let what: Vec<&str> = found.iter().map(|one| one.what.as_str()).collect();
        assert_eq!(what, ["invocation 1", "counter 2"]);
        assert_eq!(
            (&*found[1].alone, &*found[1].together),
            ("(\"b\", 2)", "(\"b\", 4)")
        );
    }
}
