//! `shardmill deliveries`: reports to on-failure destinations that have not been made.

use clap::Subcommand;
use hyper::Method;
use serde_json::Value;

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
    /// List those that wait and those that were given up (the default)
    List {
        /// Only of this mapping
        #[arg(long)]
        mapping: Option<String>,
    },
    /// Try one at once; one that was given up begins anew
    Retry {
        /// Its id
        id: String,
    },
    /// Drop one; the failure store keeps its entry
    Drop {
        /// Its id
        id: String,
    },
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        command,
        connection,
    } = arguments;
    let client = connection.client()?;
    let json = connection.json;
    match command.unwrap_or(Command::List { mapping: None }) {
        Command::List { mapping } => {
            let of = mapping.map_or_else(String::new, |m| format!("?mapping={}", escaped(&m)));
            let answer = client.get(&format!("deliveries{of}")).await?;
            if json {
                print::line(answer)
            } else {
                list(&answer)
            }
        }
        Command::Retry { id } => {
            let path = format!("deliveries/{}/retry", escaped(&id));
            let answer = client.native(Method::POST, &path, None).await?;
            print::done(json, &answer, &format!("delivery {id} is tried again"))
        }
        Command::Drop { id } => {
            let path = format!("deliveries/{}", escaped(&id));
            let answer = client.native(Method::DELETE, &path, None).await?;
            let text =
                format!("delivery {id} dropped; `shardmill failures show {id}` has its records");
            print::done(json, &answer, &text)
        }
    }
}

fn list(answer: &Value) -> anyhow::Result<()> {
    let mut table = print::table(&[
        "delivery",
        "mapping",
        "destination",
        "records",
        "given up",
        "state",
        "why",
    ]);
    for delivery in answer["deliveries"].as_array().into_iter().flatten() {
        let text = |key: &str| print::cell(&delivery[key]);
        table.add_row([
            text("id"),
            text("mapping"),
            text("destination"),
            text("records"),
            print::time(&delivery["created"]),
            text("state"),
            print::one_line(&print::cell(&delivery["undeliverable"]["why"])),
        ]);
    }
    print::rows(&table, "no deliveries: all have been made")
}
