//! `shardmill usage`: the fuel that functions burnt, by function, mapping, day or tenant, or by
//! partition key.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::client::escaped;
use super::{Connection, print};
use crate::usage::{KEPT_DAYS, MAX_KEYS, SHOWN_KEYS};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[arg(long, value_name = "N", default_value_t = 0, help = format!("From this many days before today (UTC), at most {KEPT_DAYS}"))]
    days: u64,
    /// What makes up a line
    #[arg(long, value_enum, default_value_t = By::Function)]
    by: By,
    /// Of all accounts and regions, for operators; `--by tenant` asks for it, too
    #[arg(long)]
    all: bool,
    /// Show the partition keys of this function that burnt the most since the host started; an
    /// estimate, for handlers in record mode
    #[arg(long, value_name = "FUNCTION", conflicts_with_all = ["days", "by", "all"])]
    keys: Option<String>,
    #[arg(long, value_name = "N", default_value_t = SHOWN_KEYS, requires = "keys", help = format!("With --keys, how many, at most {MAX_KEYS}"))]
    top: usize,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum By {
    Function,
    Mapping,
    Day,
    Tenant,
}

/// What is shown of a line, and added up.
const FIGURES: [&str; 7] = [
    "fuel",
    "invocations",
    "cancelled",
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
    let all = arguments.all || arguments.by == By::Tenant;
    let answer = client
        .get(&format!("usage?days={}&all={all}", arguments.days))
        .await?;
    if arguments.connection.json {
        return print::line(answer);
    }
    let rows = answer["usage"].as_array().cloned().unwrap_or_default();
    let lines = added_up(&rows, arguments.by, all);
    let fuels = lines.iter().map(|(_, sums)| sums[0]);
    let total = fuels.fold(0, u64::saturating_add);
    let head = match arguments.by {
        By::Function => "function",
        By::Mapping => "mapping",
        By::Day => "day",
        By::Tenant => "account",
    };
    let mut table = print::table(&[
        head,
        "fuel",
        "share",
        "per record",
        "invocations",
        "cancelled",
        "errors",
        "throttles",
        "records",
        "time",
    ]);
    for (
        name,
        [
            fuel,
            invocations,
            cancelled,
            errors,
            throttles,
            records,
            micros,
        ],
    ) in lines
    {
        let share = 100.0 * fuel as f64 / total.max(1) as f64;
        let per_record = fuel.checked_div(records).map_or("-".into(), grouped);
        table.add_row([
            name,
            grouped(fuel),
            format!("{share:.1} %"),
            per_record,
            grouped(invocations),
            grouped(cancelled),
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
    print::rows(
        &table_of_keys(answer),
        "no record-mode attempt since the host started",
    )
}

fn table_of_keys(answer: &Value) -> comfy_table::Table {
    let mut table = print::table(&["partition key", "fuel, about", "of it maybe others'"]);
    for key in answer["keys"].as_array().into_iter().flatten() {
        table.add_row([
            text(&key["partition_key"]),
            grouped(key["fuel"].as_u64().unwrap_or_default()),
            grouped(key["doubt"].as_u64().unwrap_or_default()),
        ]);
    }
    right(&mut table);
    table
}

/// A name or a key, which nothing in it makes two lines.
fn text(value: &Value) -> String {
    print::in_line(value.as_str().unwrap_or_default())
}

/// The rows' sums by what makes up a line: by day in order, else who burnt the most first. Of all
/// accounts, functions and mappings are told apart by theirs.
fn added_up(rows: &[Value], by: By, all: bool) -> Vec<(String, [u64; FIGURES.len()])> {
    let mut sums: BTreeMap<String, [u64; FIGURES.len()]> = BTreeMap::new();
    for row in rows {
        let account = || text(&row["account"]);
        let of_account = |name: String| match all {
            true => format!("{} {} {name}", account(), text(&row["region"])),
            false => name,
        };
        let name = match by {
            By::Function => of_account(text(&row["function"])),
            By::Mapping if row["mapping"].is_null() => of_account("(by hand)".into()),
            By::Mapping => of_account(text(&row["mapping"])),
            By::Day => date(row["day"].as_u64().unwrap_or_default()),
            By::Tenant => account(),
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
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
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
        let row = |account, day, function, mapping: Value, fuel: u64| {
            json!({
                "account": account, "region": "r", "day": day, "function": function,
                "mapping": mapping, "fuel": fuel, "invocations": 1,
            })
        };
        let rows = [
            row("1", 20_000, "a", json!("m"), 5),
            row("1", 20_001, "a", Value::Null, 1),
            row("2", 20_001, "b", json!("n"), 9),
            row("2", 20_001, "a", json!("n"), 3),
        ];
        let lines = |by, all| -> Vec<(String, u64)> {
            let lines = added_up(&rows, by, all).into_iter();
            lines.map(|(name, sums)| (name, sums[0])).collect()
        };
        let of = |lines: &[(&str, u64)]| -> Vec<(String, u64)> {
            let lines = lines.iter();
            lines
                .map(|(name, fuel)| ((*name).to_owned(), *fuel))
                .collect()
        };
        for (by, all, want) in [
            (By::Function, false, of(&[("a", 9), ("b", 9)])),
            (
                By::Function,
                true,
                of(&[("2 r b", 9), ("1 r a", 6), ("2 r a", 3)]),
            ),
            (
                By::Mapping,
                false,
                of(&[("n", 12), ("m", 5), ("(by hand)", 1)]),
            ),
            (By::Day, true, of(&[("2024-10-04", 5), ("2024-10-05", 13)])),
            (By::Tenant, true, of(&[("2", 12), ("1", 6)])),
        ] {
            assert_eq!(lines(by, all), want, "{by:?}, all: {all}");
        }
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn no_key_or_name_forges_a_line() {
        let keys = json!({ "keys": [{ "partition_key": "a\n9,999\tb\u{1b}", "fuel": u64::MAX }] });
        let table = table_of_keys(&keys).to_string();
        assert_eq!(table.lines().count(), 2, "{table}");
        assert!(table.contains("a\\n9,999\\tb\\u{1b}"), "{table}");
        for by in [By::Function, By::Mapping, By::Tenant] {
            let evil = "a\nb";
            let row = json!({ "account": evil, "function": evil, "mapping": evil });
            assert_eq!(added_up(&[row], by, false)[0].0, "a\\nb", "{by:?}");
        }
    }
}
