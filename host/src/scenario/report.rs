//! What came of a scenario: for people a table of differences, for scripts JSON.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::facts::Facts;
use super::span;

/// What came of a scenario.
#[derive(Clone, Debug)]
pub struct Report {
    /// The file.
    pub path: PathBuf,
    /// The scenario's name.
    pub name: String,
    /// For how many tenants at once it was run.
    pub tenants: u32,
    /// What is not as it was expected, in the order of the file's steps.
    pub mismatches: Vec<Mismatch>,
    /// What it took.
    pub figures: Figures,
    /// How long it took, of real time.
    pub took: Duration,
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Its line in the file.
    pub line: usize,
    /// What was expected of what: `end: counters.done`.
    pub expectation: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

/// What a scenario took; the same in every run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Simulated time.
    pub simulated: Duration,
    /// Records put into the mapping's stream.
    pub records: usize,
    /// Invocations.
    pub invocations: usize,
    /// Fuel of all of them, units.
    pub fuel: u64,
    /// The most fuel per record of an invocation, units, rounded up.
    pub fuel_per_record: u64,
}

impl Figures {
    pub(super) fn of(facts: &Facts, simulated: Duration) -> Self {
        let invocations = &facts.invocations;
        let per_record = invocations
            .iter()
            .filter_map(super::facts::Invoked::fuel_per_record);
        Self {
            simulated,
            records: facts.records.len(),
            invocations: invocations.len(),
            fuel: invocations.iter().map(|invoked| invoked.fuel).sum(),
            fuel_per_record: per_record.max().unwrap_or(0),
        }
    }
}

impl Report {
    /// Whether everything was as expected.
    pub fn passed(&self) -> bool {
        self.mismatches.is_empty()
    }

    /// For people: a line, and below it a table of the differences.
    pub fn text(&self) -> String {
        let word = if self.passed() { "pass" } else { "FAIL" };
        let (name, path, took) = (&self.name, self.path.display(), self.took.as_millis());
        let simulated = whole_seconds(self.figures.simulated);
        let tenants = match self.tenants {
            1 => String::new(),
            tenants => format!(", {tenants} tenants"),
        };
        let mut text = format!("{word}  {name} ({path}), {simulated} in {took} ms{tenants}\n");
        if self.passed() {
            return text;
        }
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(["LINE", "EXPECTATION", "EXPECTED", "FOUND"]);
        for Mismatch {
            line,
            expectation,
            expected,
            found,
        } in &self.mismatches
        {
            table.add_row([&line.to_string(), expectation, expected, found]);
        }
        for line in table.lines() {
            let _ = writeln!(text, "     {}", line.trim_end());
        }
        text
    }

    /// For scripts. `millis` alone differs from run to run.
    pub fn json(&self) -> Value {
        let mismatches = self.mismatches.iter().map(|mismatch| {
            json!({
                "line": mismatch.line,
                "expectation": mismatch.expectation,
                "expected": mismatch.expected,
                "found": mismatch.found,
            })
        });
        json!({
            "file": self.path.display().to_string(),
            "name": self.name,
            "passed": self.passed(),
            "tenants": self.tenants,
            "millis": self.took.as_millis() as u64,
            "simulated_millis": self.figures.simulated.as_millis() as u64,
            "records": self.figures.records,
            "invocations": self.figures.invocations,
            "fuel": self.figures.fuel,
            "fuel_per_record": self.figures.fuel_per_record,
            "mismatches": mismatches.collect::<Vec<_>>(),
        })
    }
}

/// A span without the milliseconds that its steps took.
fn whole_seconds(span: Duration) -> String {
    match span.as_secs() {
        0 => span::format(span),
        seconds => span::format(Duration::from_secs(seconds)),
    }
}
