//! `shardmill failures list`.

use serde_json::{Value, json};

use super::filter::{Filter, Redriven, find};
use crate::cli::client::Client;
use crate::cli::print;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    filter: Filter,
    /// Also entries that were redriven, or only them
    #[arg(long, default_value = "no", default_missing_value = "also", num_args = 0..=1, require_equals = true)]
    redriven: Redriven,
    /// Only entries older than this one: the next page
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

pub(super) async fn run(client: &Client, arguments: Arguments, json: bool) -> anyhow::Result<()> {
    let Arguments {
        filter,
        redriven,
        before,
        limit,
    } = arguments;
    let found = find(client, &filter, "", (redriven, before, limit as usize)).await?;
    if json {
        return print::line(json!({
            "failures": found.entries,
            "before": found.before,
            "used_bytes": found.answer["used_bytes"],
            "allowed_bytes": found.answer["allowed_bytes"],
        }));
    }
    table(&found.entries)?;
    match found.before {
        Some(before) => print::line(format!("… there are older ones: --before {before}")),
        None => Ok(()),
    }
}

fn table(entries: &[Value]) -> anyhow::Result<()> {
    let headings = [
        "id", "mapping", "function", "shard", "records", "reason", "cause", "created",
    ];
    let mut table = print::table(&headings);
    for entry in entries {
        let text = |key: &str| print::cell(&entry[key]);
        let reason = if !entry["redriven"].is_null() {
            "redriven".into()
        } else if !entry["imported"].is_null() {
            format!("{}, imported", text("reason"))
        } else {
            text("reason")
        };
        table.add_row([
            text("id"),
            text("mapping"),
            text("function"),
            text("shard"),
            text("records"),
            reason,
            print::cell(&entry["cause"]["cause"]),
            print::time(&entry["created"]),
        ]);
    }
    print::rows(&table, "no failures")
}
