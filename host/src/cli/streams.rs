//! `shardmill streams`: by the operations of Kinesis where there is one, by the native API where
//! more is shown than Kinesis tells.

mod reshard;

use std::time::Duration;

use anyhow::bail;
use clap::Subcommand;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::client::{Client, escaped};
use super::{Connection, print};

/// How long a stream may take to be made or to be gone.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the streams (the default)
    List,
    /// Make a stream and wait until it is ACTIVE
    Create {
        /// Its name
        name: String,
        /// Its shards
        #[arg(long, default_value_t = 1)]
        shards: u32,
    },
    /// Delete a stream with its records, and wait until it is gone
    Delete {
        /// Its name
        name: String,
    },
    /// Show a stream with its shards, open and closed
    Describe {
        /// Its name
        name: String,
    },
    #[command(flatten)]
    Reshard(reshard::Reshard),
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        command,
        connection,
    } = arguments;
    let client = connection.client()?;
    match command.unwrap_or(Command::List) {
        Command::List => {
            let answer = client.get("streams").await?;
            if connection.json {
                return print::line(answer);
            }
            let mut table = print::table(&[
                "stream",
                "status",
                "shards",
                "records",
                "retention",
                "created",
            ]);
            for stream in answer["streams"].as_array().into_iter().flatten() {
                table.add_row(row(stream));
            }
            print::rows(
                &table,
                "no streams: `shardmill streams create NAME` makes one",
            )
        }
        Command::Create { name, shards } => {
            let body = json!({"StreamName": name, "ShardCount": shards});
            client.kinesis("CreateStream", &body).await?;
            wait(&client, &name, Some("ACTIVE")).await?;
            print::done(
                connection.json,
                &json!({"name": name}),
                &format!(
                    "stream {name} created with {}",
                    print::count(shards.into(), "shard")
                ),
            )
        }
        Command::Delete { name } => {
            client
                .kinesis("DeleteStream", &json!({"StreamName": name}))
                .await?;
            wait(&client, &name, None).await?;
            print::done(
                connection.json,
                &json!({"name": name}),
                &format!("stream {name} deleted"),
            )
        }
        Command::Describe { name } => {
            let answer = client.get(&format!("streams/{}", escaped(&name))).await?;
            if connection.json {
                return print::line(answer);
            }
            describe(&answer)
        }
        Command::Reshard(command) => reshard::run(&client, command, connection.json).await,
    }
}

fn row(stream: &Value) -> Vec<String> {
    let mut row: Vec<String> = ["name", "status", "open_shards", "records"]
        .map(|key| print::cell(&stream[key]))
        .into();
    row.push(format!("{} h", print::cell(&stream["retention_hours"])));
    row.push(print::time(&stream["created"]));
    row
}

fn describe(stream: &Value) -> anyhow::Result<()> {
    for (label, value) in [
        ("stream", print::cell(&stream["name"])),
        ("arn", print::cell(&stream["arn"])),
        ("status", print::cell(&stream["status"])),
        ("created", print::time(&stream["created"])),
        (
            "retention",
            format!("{} h", print::cell(&stream["retention_hours"])),
        ),
        ("records", print::cell(&stream["records"])),
    ] {
        print::line(format!("{label:<10} {value}"))?;
    }
    let mut table = print::table(&[
        "shard",
        "state",
        "parents",
        "records",
        "first hash key",
        "last hash key",
    ]);
    for shard in stream["shards"].as_array().into_iter().flatten() {
        let parents = shard["parents"].as_array().into_iter().flatten();
        let parents: Vec<_> = parents.map(print::cell).collect();
        table.add_row([
            print::cell(&shard["shard"]),
            print::cell(&shard["state"]),
            parents.join(" "),
            print::cell(&shard["records"]),
            print::cell(&shard["starting_hash_key"]),
            print::cell(&shard["ending_hash_key"]),
        ]);
    }
    print::line("")?;
    print::rows(&table, "no shards")
}

/// Waits until the stream has this status; `None`: until it is gone.
async fn wait(client: &Client, name: &str, status: Option<&str>) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        let answer = client
            .kinesis("DescribeStreamSummary", &json!({"StreamName": name}))
            .await;
        let now = match answer {
            Err(error) if error.is_not_found() => None,
            answer => {
                let now = answer?["StreamDescriptionSummary"]["StreamStatus"].take();
                Some(print::cell(&now))
            }
        };
        if now.as_deref() == status {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!(
        "stream {name:?} is not {} after {} s",
        status.unwrap_or("gone"),
        LIMIT.as_secs()
    )
}
