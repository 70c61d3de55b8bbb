//! `shardmill state`: the values that a function keeps for a partition key.

use anyhow::Context;

use super::client::escaped;
use super::{Connection, print};

/// Bytes that are shown of a value.
const SHOWN_BYTES: usize = 2000;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The function
    function: String,
    /// The partition key
    #[arg(long)]
    key: String,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let client = arguments.connection.client()?;
    let (function, key) = (escaped(&arguments.function), escaped(&arguments.key));
    let answer = client.get(&format!("state/{function}?key={key}")).await?;
    if arguments.connection.json {
        return print::line(answer);
    }
    let mut table = print::table(&["name", "bytes", "revision", "value"]);
    for value in answer["state"].as_array().into_iter().flatten() {
        let data = value["data"].as_str().unwrap_or_default();
        let data = base64_simd::STANDARD
            .decode_to_vec(data)
            .context("data that is not base64")?;
        table.add_row([
            print::cell(&value["name"]),
            data.len().to_string(),
            print::cell(&value["revision"]),
            print::data(&data, SHOWN_BYTES),
        ]);
    }
    print::rows(&table, "no state for this key")
}
