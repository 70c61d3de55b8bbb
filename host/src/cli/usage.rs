//! `shardmill usage`: the fuel that functions burnt, by function, mapping or day, or by partition
//! key.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::client::escaped;
use super::{Connection, print};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// From this many days before today (UTC), at most 35
    #[arg(long, value_name = "N", default_value_t = 0)]
    days: u64,
    /// What makes up a line
    #[arg(long, value_enum, default_value_t = By::Function)]
    by: By,
    /// Show the partition keys of this function that burnt the most since the host started; an
    /// estimate, for handlers in record mode
    #[arg(long, value_name = "FUNCTION", conflicts_with_all = ["days", "by"])]
    keys: Option<String>,
    /// With --keys, how many
    #[arg(long, value_name = "N", default_value_t = 20, requires = "keys")]
    top: u64,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum By {
    Function,
    Mapping,
    Day,
}

/// What is shown of a line, and added up.
const FIGURES: [&str; 6] = [
    "fuel",
    "invocations",
    "errors",
    "throttles",
    "records",
    "duration_us",
];

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let client = arguments.connection.client()?;
    if let Some(function) = &arguments.keys {
        let path = format!("usage/{}?top={}", escaped(function), arguments.top);
        let answer = client.get(&path).await?;
        return keys(&answer, arguments.connection.json);
    }
    let answer = client
        .get(&format!("usage?days={}", arguments.days))
        .await?;
    if arguments.connection.json {
        return print::line(answer);
    }
    let rows = answer["usage"].as_array().cloned().unwrap_or_default();
    let lines = added_up(&rows, arguments.by);
    let total: u64 = lines.iter().map(|(_, sums)| sums[0]).sum();
    let head = match arguments.by {
        By::Function => "function",
        By::Mapping => "mapping",
        By::Day => "day",
    };
    let mut table = print::table(&[
        head,
        "fuel",
        "share",
        "per record",
        "invocations",
        "errors",
        "throttles",
        "records",
        "time",
    ]);
    for (name, [fuel, invocations, errors, throttles, records, micros]) in lines {
        let share = 100.0 * fuel as f64 / total.max(1) as f64;
        let per_record = fuel
            .checked_div(records)
            .map_or("-".into(), |fuel| grouped(fuel));
        table.add_row([
            name,
            grouped(fuel),
            format!("{share:.1} %"),
            per_record,
            grouped(invocations),
            grouped(errors),
            grouped(throttles),
            grouped(records),
            format!("{:.1} s", micros as f64 / 1e6),
        ]);
    }
    right(&mut table);
    print::rows(&table, "nothing was run in this time")
}

fn keys(answer: &Value, json: bool) -> anyhow::Result<()> {
    if json {
        return print::line(json!({ "keys": answer["keys"] }));
    }
    let mut table = print::table(&["partition key", "fuel, about", "of it maybe others'"]);
    for key in answer["keys"].as_array().into_iter().flatten() {
        table.add_row([
            print::cell(&key["partition_key"]),
            grouped(key["fuel"].as_u64().unwrap_or_default()),
            grouped(key["doubt"].as_u64().unwrap_or_default()),
        ]);
    }
    right(&mut table);
    print::rows(&table, "no record-mode attempt since the host started")
}

/// The rows' sums by what makes up a line: by day in order, else who burnt the most first.
fn added_up(rows: &[Value], by: By) -> Vec<(String, [u64; FIGURES.len()])> {
    let mut sums: BTreeMap<String, [u64; FIGURES.len()]> = BTreeMap::new();
    for row in rows {
        let name = match by {
            By::Function => print::cell(&row["function"]),
            By::Mapping => row["mapping"].as_str().unwrap_or("(by hand)").to_owned(),
            By::Day => date(row["day"].as_u64().unwrap_or_default()),
        };
        let sum = sums.entry(name).or_default();
        for (sum, figure) in sum.iter_mut().zip(FIGURES) {
            *sum = sum.saturating_add(row[figure].as_u64().unwrap_or_default());
        }
    }
    let mut lines: Vec<_> = sums.into_iter().collect();
    if by != By::Day {
        lines.sort_by_key(|(_, sums)| std::cmp::Reverse(sums[0]));
    }
    lines
}

/// A day since 1970 as `2026-11-23`.
fn date(day: u64) -> String {
    let millis = day.saturating_mul(24 * 3600 * 1000);
    let text = shardmill_core::timestamp::format(shardmill_core::UnixMillis(millis));
    text.split('T').next().unwrap_or_default().to_owned()
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn right(table: &mut comfy_table::Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_add_up_what_they_are_of() {
        let row = |day, function, mapping: Value, fuel| json!({ "day": day, "function": function, "mapping": mapping, "fuel": fuel, "invocations": 1 });
        let rows = [
            row(20_000, "a", json!("m"), 5),
            row(20_001, "a", Value::Null, 1),
            row(20_001, "b", json!("n"), 9),
        ];
        let lines = |by| -> Vec<(String, u64)> {
            let lines = added_up(&rows, by).into_iter();
            lines.map(|(name, sums)| (name, sums[0])).collect()
        };
        assert_eq!(lines(By::Function), [("b".into(), 9), ("a".into(), 6)]);
        let by_mapping = [("n".into(), 9), ("m".into(), 5), ("(by hand)".into(), 1)];
        assert_eq!(lines(By::Mapping), by_mapping);
        assert_eq!(
            lines(By::Day),
            [("2024-10-04".into(), 5), ("2024-10-05".into(), 10)]
        );
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
