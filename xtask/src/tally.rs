//! Counts tests from what test programs print: the lines of Rust's own harness, which the
//! client tests imitate. One grammar:
//!
//! ```text
//! test NAME ... ignored, REASON
//! test result: ok. 12 passed; 0 failed; 1 ignored; …
//! skipped: NAME (REASON)
//! ```
//!
//! The last line is what a Rust test prints that finds it cannot run here. The harness then
//! counts it as passed, so it is taken off again. The harness hides what `println!` prints in
//! a passing test; a test writes the line to `std::io::stdout()` instead.

use std::collections::BTreeSet;

/// What came of the tests so far.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    /// `NAME (REASON)`, reported by the test itself and counted as passed by its harness.
    skipped_inside: BTreeSet<String>,
    /// `NAME (REASON)`, not run by the harness.
    ignored: BTreeSet<String>,
}

impl Tally {
    /// Takes in one line of a test program's output.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
        } else if let Some((_, skipped)) = line.split_once("skipped: ") {
            // With one thread the harness has already begun the line with the test's name.
            self.skipped_inside.insert(skipped.trim().to_owned());
        } else if let Some((name, rest)) = line
            .strip_prefix("test ")
            .and_then(|test| test.split_once(" ... ignored"))
        {
            let reason = rest.trim_start_matches([',', ' ']);
            let reason = if reason.is_empty() { "ignored" } else { reason };
            self.ignored.insert(format!("{name} ({reason})"));
        }
    }

    /// One check that is not made of tests has passed.
    pub(crate) fn pass_one(&mut self) {
        self.passed += 1;
    }

    /// Something that is not made of tests did not run: `NAME (REASON)`.
    pub(crate) fn skip(&mut self, what: &str) {
        self.ignored.insert(what.to_owned());
    }

    /// Something has failed; no matter how, the tally shows at least one failure.
    pub(crate) fn fail_at_least_one(&mut self) {
        self.failed = self.failed.max(1);
    }

    /// Adds another tally to this one.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped_inside.extend(other.skipped_inside);
        self.ignored.extend(other.ignored);
    }

    pub(crate) fn passed(&self) -> u64 {
        self.passed.saturating_sub(self.skipped_inside.len() as u64)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }

    /// Every test that did not run, as `NAME (REASON)`.
    pub(crate) fn skipped(&self) -> impl Iterator<Item = &str> {
        self.skipped_inside
            .iter()
            .chain(&self.ignored)
            .map(String::as_str)
    }
}

/// The number before a word: 12 in `ok. 12 passed; 0 failed` for `passed`.
fn count(counts: &str, word: &str) -> u64 {
    counts
        .split(word)
        .next()
        .and_then(|before| before.split_whitespace().next_back())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally_of(lines: &str) -> Tally {
        let mut tally = Tally::default();
        lines.lines().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn results_of_several_programs_add_up() {
        let tally = tally_of(
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
             test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        );
        assert_eq!((tally.passed(), tally.failed()), (15, 2));
    }

    #[test]
    fn a_skipped_test_is_listed_and_not_passed() {
        for before in ["", "test all::access_log ... "] {
            let tally = tally_of(&format!(
                "{before}skipped: access_log (no SHARDMILL_TEST_DATA)\n\
                 test slow ... ignored, takes an hour\n\
                 test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out"
            ));
            assert_eq!((tally.passed(), tally.failed()), (1, 0), "{before}");
            let skipped: Vec<_> = tally.skipped().collect();
            assert_eq!(
                skipped,
                [
                    "access_log (no SHARDMILL_TEST_DATA)",
                    "slow (takes an hour)"
                ]
            );
        }
    }

    #[test]
    fn a_skipped_check_is_neither_passed_nor_failed() {
        let mut tally = Tally::default();
        tally.skip("advisories (no database)");
        assert_eq!((tally.passed(), tally.failed()), (0, 0));
        assert!(tally.skipped().eq(["advisories (no database)"]));
    }

    #[test]
    fn a_crash_without_a_result_line_is_one_failure() {
        let mut tally = tally_of("running 3 tests");
        tally.fail_at_least_one();
        assert_eq!((tally.passed(), tally.failed()), (0, 1));
    }
}
