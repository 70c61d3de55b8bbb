//! `shardmill mappings dry-run`: what other filters, or another module, would have made of the
//! records that are there.

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::Context;
use hyper::Method;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::place;
use crate::cli::client::{Client, escaped};
use crate::cli::print;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Its name or UUID
    name: String,
    /// A filter to try instead of the mapping's; may be given several times
    #[arg(long, value_name = "PATTERN")]
    filter: Vec<String>,
    /// A module to compare with the function's current version
    #[arg(long, value_name = "FILE.wasm")]
    with: Option<PathBuf>,
    /// TRIM_HORIZON, a time as 2026-01-31T12:00:00Z, or a sequence number
    #[arg(long, value_name = "PLACE", default_value = "TRIM_HORIZON")]
    from: String,
    /// Records at the most, 1 to 1000000
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    limit: u64,
}

pub(super) async fn run(client: &Client, arguments: Arguments, json: bool) -> anyhow::Result<()> {
    let Arguments {
        name,
        filter,
        with,
        from,
        limit,
    } = arguments;
    let mut body = place(&from);
    if !filter.is_empty() {
        body["filters"] = filter.into();
    }
    if let Some(file) = &with {
        let wasm = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        body["module"] = base64_simd::STANDARD.encode_to_string(wasm).into();
    }
    body["limit"] = limit.into();
    let path = format!("mappings/{}/dry-run", escaped(&name));
    let client = client.patient();
    let mut page = client.send(Method::POST, &path, &body).await?;
    let bar = bar(page["total"].as_u64().unwrap_or(0));
    while page["done"] != true {
        if let Some(bar) = &bar {
            bar.set_position(page["records"].as_u64().unwrap_or(0));
        }
        let id = page["id"].as_str().unwrap_or_default();
        let path = format!("{path}/{}", escaped(id));
        page = client.native(Method::POST, &path, None).await?;
    }
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    if json {
        return print::line(page);
    }
    show(&page)
}

/// Progress for somebody who looks on.
fn bar(total: u64) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} records, {eta} left").ok()?;
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    Some(bar.with_style(style))
}

fn array<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of[key].as_array().map_or(&[], Vec::as_slice)
}

fn number(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or(0)
}

fn show(page: &Value) -> anyhow::Result<()> {
    let looked = print::count(number(page, "records"), "record");
    print::line(format!("{looked} looked at; nothing was moved or kept"))?;
    if !page["filter"].is_null() {
        filter(&page["filter"])?;
    }
    if !page["new"].is_null() {
        versions(page)?;
    }
    Ok(())
}

fn filter(report: &Value) -> anyhow::Result<()> {
    print::line("\nfilters")?;
    for (label, key) in [
        ("match", "matched"),
        ("do not match", "not_matched"),
        ("are not JSON", "not_json"),
    ] {
        print::line(format!("  {label:<24} {}", number(report, key)))?;
    }
    for warning in array(report, "warnings") {
        print::line(format!("  warning: {}", print::cell(warning)))?;
    }
    if !array(report, "fields").is_empty() {
        print::line("\nin the way of the first that do not match")?;
        for field in array(report, "fields") {
            let path = print::cell(&field["path"]);
            print::line(format!("  {path:<24} {}", number(field, "records")))?;
        }
    }
    for (label, key) in [
        ("match", "matching"),
        ("do not match", "not_matching"),
        ("are not JSON", "unreadable"),
    ] {
        if !array(report, key).is_empty() {
            print::line(format!("\nsome that {label}"))?;
        }
        for sample in array(report, key) {
            let text = |key: &str| print::one_line(&print::cell(&sample[key]));
            print::line(format!(
                "  {} {}  {}",
                text("shard"),
                text("sequence_number"),
                text("data")
            ))?;
            for filter in array(sample, "filters") {
                for field in array(filter, "mismatches") {
                    let text = |key: &str| print::cell(&field[key]);
                    let rules = match text("rules") {
                        rules if rules.is_empty() => rules,
                        rules => format!(" {rules}"),
                    };
                    let (path, reason) = (text("path"), text("reason"));
                    let filter = number(filter, "filter");
                    print::line(format!("    filter {filter}: {path}{rules}: {reason}"))?;
                }
            }
        }
    }
    Ok(())
}

fn versions(page: &Value) -> anyhow::Result<()> {
    let (current, new, differences) = (&page["current"], &page["new"], &page["differences"]);
    let mut table = print::table(&["", "current", "new"]);
    for key in [
        "records",
        "failed_records",
        "batches",
        "failed_batches",
        "invocations",
        "fuel",
        "fuel_max",
        "fuel_max_per_record",
        "memory_max_bytes",
        "duration_micros",
        "state_writes",
        "emits",
    ] {
        let label = key.replace('_', " ");
        table.add_row([label, print::cell(&current[key]), print::cell(&new[key])]);
    }
    print::line("")?;
    print::rows(&table, "")?;
    for (label, version) in [("current", current), ("new", new)] {
        for cause in array(version, "causes") {
            let text = |key: &str| print::one_line(&print::cell(&cause[key]));
            print::line(format!(
                "{label}: {} in {} fail: {} (first: {})",
                print::count(number(cause, "records"), "record"),
                match number(cause, "batches") {
                    1 => "1 batch".to_owned(),
                    n => format!("{n} batches"),
                },
                text("message"),
                text("first"),
            ))?;
        }
    }
    print::line("\ndifferences")?;
    for (label, key) in [
        ("records as before", "same_outcome"),
        ("records that fail now", "fail_now"),
        ("records that are mended", "mended"),
        ("records that fail otherwise", "fail_otherwise"),
        ("batches: other response", "responses"),
        ("batches: other emits", "emits"),
        ("values of state", "state"),
        ("counters that are the same", "same_counters"),
    ] {
        print::line(format!("  {label:<28} {}", number(differences, key)))?;
    }
    first_differences(differences)
}

fn first_differences(differences: &Value) -> anyhow::Result<()> {
    let none = |value: &Value| match value {
        Value::Null => "nothing".to_owned(),
        value => print::one_line(&print::cell(value)),
    };
    let both = |of: &Value| format!("{} → {}", none(&of["current"]), none(&of["new"]));
    for counter in array(differences, "counters") {
        let name = print::cell(&counter["name"]);
        print::line(format!("  counter {name}: {}", both(counter)))?;
    }
    for record in array(differences, "outcomes") {
        let (shard, number) = (&record["shard"], &record["sequence_number"]);
        let place = format!("{} {}", print::cell(shard), print::cell(number));
        print::line(format!("  record {place}: {}", both(record)))?;
    }
    for value in array(differences, "state_values") {
        let (key, name) = (print::cell(&value["key"]), print::cell(&value["name"]));
        print::line(format!("  state {key} {name}: {}", both(value)))?;
    }
    for emit in array(differences, "emitted") {
        print::line(format!("  emitted: {}", both(emit)))?;
    }
    Ok(())
}
