//! What the demo shows: a live line while records are on their way, then the counters and the
//! failure entries as tables. It reads the command line's JSON and decides only what to leave out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// How many counters of one family, such as the hits of each page, are shown.
const FAMILY_ROW_COUNT: usize = 8;

/// How many failure entries are shown with their reports.
const REPORT_COUNT: usize = 5;

/// How often a line is printed where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(2);

/// How far a mapping is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Snapshot {
    processed: u64,
    retried: u64,
    given_up: u64,
    /// Records that are stored and not yet dealt with.
    pub(super) behind: u64,
    iterator_age_ms: u64,
}

impl Snapshot {
    /// Reads the answer of `shardmill mappings --json`.
    ///
    /// # Errors
    /// It does not have the mapping.
    pub(super) fn of(answer: &Value, mapping: &str) -> Result<Self> {
        let mapping = list(&answer["mappings"])
            .find(|one| one["name"] == mapping)
            .with_context(|| format!("the host has no mapping {mapping}"))?;
        let shards = || list(&mapping["shards"]);
        Ok(Self {
            processed: number(&mapping["processed"]),
            retried: number(&mapping["retried"]),
            given_up: number(&mapping["given_up"]),
            behind: shards().map(|one| number(&one["records_behind"])).sum(),
            iterator_age_ms: shards()
                .map(|one| number(&one["iterator_age_ms"]))
                .max()
                .unwrap_or(0),
        })
    }

    /// Records that are done or given up.
    pub(super) fn dealt_with(&self) -> u64 {
        self.processed + self.given_up
    }

    fn text(&self) -> String {
        format!(
            "{} put, {} processed, {} retried, {} given up, iterator age {} ms",
            self.dealt_with() + self.behind,
            self.processed,
            self.retried,
            self.given_up,
            self.iterator_age_ms
        )
    }
}

/// The live line.
pub(super) struct Live {
    bar: ProgressBar,
    printed: Instant,
    last: String,
}

impl Live {
    pub(super) fn start(lines: u64) -> Self {
        let bar = ProgressBar::new(lines);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            printed: Instant::now(),
            last: String::new(),
        }
    }

    pub(super) fn show(&mut self, now: &Snapshot) {
        self.last = now.text();
        self.bar.set_position(now.dealt_with());
        self.bar.set_message(self.last.clone());
        if self.bar.is_hidden() && self.printed.elapsed() >= PLAIN_EVERY {
            self.printed = Instant::now();
            eprintln!("{}", self.last);
        }
    }

    /// Leaves the last figures standing.
    pub(super) fn finish(self) {
        self.bar.finish_and_clear();
        println!("{}", self.last);
    }
}

/// Prints the counters, the largest of each family first.
pub(super) fn counters(answer: &Value) {
    let mut families: BTreeMap<String, Vec<(String, i64)>> = BTreeMap::new();
    for counter in list(&answer["counters"]) {
        let name = counter["name"].as_str().unwrap_or_default();
        families.entry(family(name)).or_default().push((
            name.to_owned(),
            counter["value"].as_i64().unwrap_or_default(),
        ));
    }
    let mut table = table(&["counter", "value"]);
    for counters in families.values_mut() {
        counters.sort_by(|(a_name, a), (b_name, b)| b.cmp(a).then(a_name.cmp(b_name)));
        for (name, value) in counters.iter().take(FAMILY_ROW_COUNT) {
            table.add_row([name, &value.to_string()]);
        }
        if counters.len() > FAMILY_ROW_COUNT {
            let rest = counters.len() - FAMILY_ROW_COUNT;
            table.add_row([format!("… {rest} more like these"), String::new()]);
        }
    }
    if let Some(values) = table.column_mut(1) {
        values.set_cell_alignment(CellAlignment::Right);
    }
    println!("\n{table}");
}

/// Prints the failure entries and returns the ids of those whose reports are worth showing.
pub(super) fn failures(answer: &Value) -> Vec<String> {
    let entries: Vec<&Value> = list(&answer["failures"]).collect();
    if entries.is_empty() {
        println!("\nno failure entries");
        return Vec::new();
    }
    let mut table = table(&["failure", "mapping", "shard", "reason"]);
    for entry in &entries {
        table.add_row(["id", "mapping", "shard", "reason"].map(|field| text(&entry[field])));
    }
    println!("\n{table}");
    entries
        .iter()
        .take(REPORT_COUNT)
        .map(|entry| text(&entry["id"]))
        .collect()
}

/// What stands before the first separator: `page` of `page:/index.html`.
fn family(name: &str) -> String {
    name.split([':', '/', '=', ' '])
        .next()
        .unwrap_or(name)
        .to_owned()
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_BORDERS_ONLY)
        .set_header(header);
    table
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mappings_shards_are_added_up_and_the_oldest_tells_the_age() {
        let answer = json!({"mappings": [
            {"name": "other", "shards": [], "processed": 9},
            {"name": "m", "processed": 5, "retried": 2, "given_up": 1, "shards": [
                {"records_behind": 3, "iterator_age_ms": 10},
                {"records_behind": 4, "iterator_age_ms": 70},
            ]},
        ]});
        let now = Snapshot::of(&answer, "m").unwrap();
        assert_eq!((now.behind, now.dealt_with()), (7, 6));
        assert_eq!(
            now.text(),
            "13 put, 5 processed, 2 retried, 1 given up, iterator age 70 ms"
        );
        assert!(Snapshot::of(&answer, "absent").is_err());
    }

    #[test]
    fn counters_of_one_kind_are_one_family() {
        assert_eq!(family("page:/a/b"), "page");
        assert_eq!(family("hits"), "hits");
    }
}
