//! `shardmill mappings`: how far event source mappings are, and what a person may do to them.

use clap::Subcommand;
use hyper::Method;
use serde_json::{Map, Value};

use super::client::escaped;
use super::{Connection, print};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the mappings with their progress (the default)
    List,
    /// Show a mapping shard by shard
    Describe {
        /// Its name or UUID
        name: String,
    },
    /// Make a mapping; it retries as one in the manifest does
    Create {
        /// Its name
        name: String,
        /// The stream that it reads
        #[arg(long)]
        stream: String,
        /// The function that it invokes
        #[arg(long)]
        function: String,
        /// Records of a batch, 1 to 10000
        #[arg(long, value_name = "N")]
        batch_size: Option<u64>,
        /// TRIM_HORIZON or LATEST
        #[arg(long, value_name = "POSITION")]
        starting_position: Option<String>,
    },
    /// Stop a mapping when its running batches have ended
    Pause {
        /// Its name or UUID
        name: String,
    },
    /// Let a paused mapping, or its paused shards, go on
    Resume {
        /// Its name or UUID
        name: String,
    },
    /// Delete a mapping with its progress
    Delete {
        /// Its name or UUID
        name: String,
    },
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        command,
        connection,
    } = arguments;
    let client = connection.client()?;
    let json = connection.json;
    let path = |name: &str| format!("mappings/{}", escaped(name));
    match command.unwrap_or(Command::List) {
        Command::List => {
            let answer = client.get("mappings").await?;
            if json {
                print::line(answer)
            } else {
                list(&answer)
            }
        }
        Command::Describe { name } => {
            let answer = client.get(&path(&name)).await?;
            if json {
                print::line(answer)
            } else {
                describe(&answer)
            }
        }
        Command::Create {
            name,
            stream,
            function,
            batch_size,
            starting_position,
        } => {
            let mut body = Map::new();
            body.insert("stream".into(), stream.into());
            body.insert("function".into(), function.into());
            body.extend(batch_size.map(|n| ("batch_size".into(), n.into())));
            body.extend(starting_position.map(|p| ("starting_position".into(), p.into())));
            let answer = client.send(Method::PUT, &path(&name), &body.into()).await?;
            print::done(json, &answer, &format!("mapping {name} created"))
        }
        Command::Pause { name } => {
            let answer = client
                .native(Method::POST, &format!("{}/pause", path(&name)), None)
                .await?;
            print::done(json, &answer, &format!("mapping {name} paused"))
        }
        Command::Resume { name } => {
            let answer = client
                .native(Method::POST, &format!("{}/resume", path(&name)), None)
                .await?;
            print::done(json, &answer, &format!("mapping {name} resumed"))
        }
        Command::Delete { name } => {
            let answer = client.native(Method::DELETE, &path(&name), None).await?;
            print::done(json, &answer, &format!("mapping {name} deleted"))
        }
    }
}

fn shards(mapping: &Value) -> impl Iterator<Item = &Value> {
    mapping["shards"].as_array().into_iter().flatten()
}

fn list(answer: &Value) -> anyhow::Result<()> {
    let mut table = print::table(&[
        "mapping",
        "stream",
        "function",
        "state",
        "behind",
        "age",
        "processed",
        "retried",
        "given up",
        "last result",
    ]);
    for mapping in answer["mappings"].as_array().into_iter().flatten() {
        let behind: u64 = shards(mapping)
            .filter_map(|s| s["records_behind"].as_u64())
            .sum();
        let age = shards(mapping)
            .filter_map(|s| s["iterator_age_ms"].as_u64())
            .max();
        let text = |key: &str| print::cell(&mapping[key]);
        table.add_row([
            text("name"),
            text("stream"),
            text("function"),
            text("state"),
            behind.to_string(),
            print::span(age.unwrap_or(0)),
            text("processed"),
            text("retried"),
            text("given_up"),
            text("last_processing_result"),
        ]);
    }
    print::rows(
        &table,
        "no mappings: a manifest or `shardmill mappings create NAME` makes one",
    )
}

fn describe(mapping: &Value) -> anyhow::Result<()> {
    let text = |key: &str| print::cell(&mapping[key]);
    for (label, key) in [
        ("mapping", "name"),
        ("uuid", "id"),
        ("stream", "stream"),
        ("function", "function"),
        ("state", "state"),
        ("last result", "last_processing_result"),
    ] {
        print::line(format!("{label:<16} {}", text(key)))?;
    }
    for (key, value) in mapping["policy"].as_object().into_iter().flatten() {
        print::line(format!(
            "{:<16} {}",
            key.replace('_', " "),
            print::cell(value)
        ))?;
    }
    print::line("\nsince the host started")?;
    for key in [
        "processed",
        "retried",
        "given_up",
        "expired",
        "invocations",
        "errors",
        "throttles",
        "conflicts",
        "fuel",
    ] {
        print::line(format!("  {:<14} {}", key.replace('_', " "), text(key)))?;
    }
    let mut table = print::table(&[
        "shard", "position", "behind", "age", "attempts", "next try", "paused",
    ]);
    for shard in shards(mapping) {
        table.add_row([
            print::cell(&shard["shard"]),
            print::cell(&shard["low"]),
            print::cell(&shard["records_behind"]),
            print::span(shard["iterator_age_ms"].as_u64().unwrap_or(0)),
            print::cell(&shard["attempts"]),
            print::time(&shard["not_before"]),
            print::cell(&shard["paused"]),
        ]);
    }
    print::line("")?;
    print::rows(&table, "no shards")
}
