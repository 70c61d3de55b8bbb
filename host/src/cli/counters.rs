//! `shardmill counters`: what a function has counted, by name or largest first.

use serde_json::{Value, json};

use super::client::escaped;
use super::{Connection, print};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The function
    function: String,
    /// Only counters whose names begin with this
    #[arg(long, default_value = "")]
    prefix: String,
    /// Only the N largest, largest first
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let client = arguments.connection.client()?;
    let (function, prefix) = (escaped(&arguments.function), escaped(&arguments.prefix));
    let mut answer = client
        .get(&format!("counters/{function}?prefix={prefix}"))
        .await?;
    let mut counters = match answer["counters"].take() {
        Value::Array(counters) => counters,
        _ => Vec::new(),
    };
    if let Some(top) = arguments.top {
        counters.sort_by_key(|counter| std::cmp::Reverse(counter["value"].as_i64()));
        counters.truncate(top);
    }
    if arguments.connection.json {
        return print::line(json!({ "counters": counters }));
    }
    let mut table = print::table(&["counter", "value"]);
    for counter in &counters {
        table.add_row([
            print::cell(&counter["name"]),
            print::cell(&counter["value"]),
        ]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    print::rows(&table, "no counters yet")
}
