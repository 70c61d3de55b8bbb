//! `shardmill failures`: what was given up, why, and a second chance.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use super::client::{Client, escaped};
use super::{Connection, print};

/// Bytes of data that are shown of a record.
const SHOWN_BYTES: usize = 2000;
/// Records that are shown of an entry.
const SHOWN_RECORDS: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the entries, newest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// Also entries that were redriven
        #[arg(long)]
        redriven: bool,
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
    },
    /// Show an entry with its trap report and its records
    Show {
        /// The entry, or the beginning of its id if there is only one such
        id: String,
        /// How many records to show
        #[arg(long, default_value_t = SHOWN_RECORDS, value_name = "N")]
        records: usize,
    },
    /// Run an entry's records through the function as it is now; what succeeds is marked
    Redrive {
        /// The entry, or the beginning of its id if there is only one such
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// Every entry that was not redriven, oldest first
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        filter: Filter,
    },
}

#[derive(Debug, Default, clap::Args)]
struct Filter {
    /// Only of this mapping
    #[arg(long)]
    mapping: Option<String>,
    /// Only of this function
    #[arg(long)]
    function: Option<String>,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments {
        command,
        connection,
    } = arguments;
    let client = connection.client()?;
    match command {
        Command::List {
            filter,
            redriven,
            limit,
        } => {
            let answer = list(&client, &filter, redriven, limit).await?;
            if connection.json {
                print::line(answer)?;
            } else {
                show_list(&answer)?;
            }
        }
        Command::Show { id, records } => {
            let id = whole_id(&client, id).await?;
            let answer = client
                .get(&format!("failures/{}?records={records}", escaped(&id)))
                .await?;
            if connection.json {
                print::line(answer)?;
            } else {
                show(&answer)?;
            }
        }
        Command::Redrive { id, all: _, filter } => {
            let ids = match id {
                Some(id) => vec![whole_id(&client, id).await?],
                None => open_ids(&client, &filter).await?,
            };
            return redrive(&client, &ids, connection.json).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(
    client: &Client,
    filter: &Filter,
    redriven: bool,
    limit: usize,
) -> anyhow::Result<Value> {
    let mut path = format!("failures?limit={limit}&redriven={redriven}");
    for (name, value) in [("mapping", &filter.mapping), ("function", &filter.function)] {
        if let Some(value) = value {
            path += &format!("&{name}={}", escaped(value));
        }
    }
    Ok(client.get(&path).await?)
}

async fn open_ids(client: &Client, filter: &Filter) -> anyhow::Result<Vec<String>> {
    let answer = list(client, filter, false, 0).await?;
    let newest_first = answer["failures"].as_array().into_iter().flatten();
    let mut ids: Vec<String> = newest_first
        .map(|entry| print::cell(&entry["id"]))
        .collect();
    ids.reverse();
    Ok(ids)
}

/// The id that begins with `id`.
async fn whole_id(client: &Client, id: String) -> anyhow::Result<String> {
    /// Length of an id in full.
    const UUID: usize = 36;
    if id.len() >= UUID {
        return Ok(id);
    }
    let answer = list(client, &Filter::default(), true, 0).await?;
    let ids = answer["failures"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|e| e["id"].as_str());
    let mut ids = ids.filter(|whole| whole.starts_with(&id));
    match (ids.next(), ids.count()) {
        (Some(whole), 0) => Ok(whole.to_owned()),
        (None, _) => {
            bail!("no failure's id begins with {id:?}: `shardmill failures list` shows them")
        }
        (Some(_), more) => bail!(
            "the ids of {} failures begin with {id:?}: give more of it",
            more + 1
        ),
    }
}

async fn redrive(client: &Client, ids: &[String], as_json: bool) -> anyhow::Result<ExitCode> {
    let mut failed = 0;
    let mut answers = Vec::new();
    for id in ids {
        let path = format!("failures/{}/redrive", escaped(id));
        let mut answer = client.native(Method::POST, &path, None).await?;
        let done = answer["outcome"] == "done";
        failed += usize::from(!done);
        if as_json {
            answer["id"] = id.as_str().into();
            answers.push(answer);
        } else if done {
            let records = answer["records"].as_u64().unwrap_or(0);
            print::line(format!("{id}: {} done", print::count(records, "record")))?;
        } else {
            print::line(format!(
                "{id}: failed again: {}",
                print::cell(&answer["cause"])
            ))?;
        }
    }
    if as_json {
        print::line(json!({ "redriven": answers }))?;
    } else if ids.is_empty() {
        print::line("no failures to redrive")?;
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn show_list(answer: &Value) -> anyhow::Result<()> {
    let headings = [
        "id", "mapping", "function", "shard", "records", "reason", "cause", "created",
    ];
    let mut table = print::table(&headings);
    for entry in answer["failures"].as_array().into_iter().flatten() {
        let text = |key: &str| print::cell(&entry[key]);
        let reason = if entry["redriven"].is_null() {
            text("reason")
        } else {
            "redriven".into()
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

fn show(entry: &Value) -> anyhow::Result<()> {
    let text = |key: &str| print::cell(&entry[key]);
    let field = |label: &str, value: String| match value.is_empty() {
        true => Ok(()),
        false => print::line(format!("{label:<12} {value}")),
    };
    field("failure", text("id"))?;
    field("created", print::time(&entry["created"]))?;
    field("mapping", text("mapping"))?;
    field(
        "function",
        format!(
            "{} version {}, sha256 {}",
            text("function"),
            text("version"),
            text("digest")
        ),
    )?;
    field("shard", format!("{} {}", text("stream"), text("shard")))?;
    field("reason", text("reason"))?;
    field("cause", text("message"))?;
    for frame in entry["cause"]["frames"].as_array().into_iter().flatten() {
        print::line(format!("               at {}", print::frame(frame)))?;
    }
    field("invocations", text("invocations"))?;
    let replay = &entry["replay"];
    if !replay.is_null() {
        let limit = replay["limits"]["memory_bytes"].as_u64().unwrap_or(0);
        let used = replay["memory_bytes"].as_u64().unwrap_or(0);
        field(
            "fuel",
            format!(
                "{} used, {} allowed",
                replay["fuel"], replay["fuel_allowed"]
            ),
        )?;
        field(
            "memory",
            format!("{} used, {} allowed", print::size(used), print::size(limit)),
        )?;
        field("duration", format!("{} us", replay["duration_micros"]))?;
        let stderr = print::cell(&replay["stderr_tail"]);
        for line in stderr.trim_end().lines() {
            field("stderr", line.to_owned())?;
        }
    }
    field("redriven", print::time(&entry["redriven"]))?;
    let records = entry["payload"]
        .as_array()
        .map_or([].as_slice(), Vec::as_slice);
    let all = entry["records"].as_u64().unwrap_or(0);
    print::line(format!("\n{}", print::count(all, "record")))?;
    for record in records {
        let data = record["data"].as_str().unwrap_or_default();
        let data = base64_simd::STANDARD
            .decode_to_vec(data)
            .context("data that is not base64")?;
        let head = ["sequence_number", "partition_key"].map(|key| print::cell(&record[key]));
        print::line(format!(
            "{}  {}  key {}",
            head[0],
            print::time(&record["arrival"]),
            head[1]
        ))?;
        print::line(format!("  {}", print::data(&data, SHOWN_BYTES)))?;
    }
    match all.saturating_sub(records.len() as u64) {
        0 => Ok(()),
        _ if records.is_empty() => {
            print::line("  their data is gone: they were trimmed before they were delivered")
        }
        rest => print::line(format!("… {rest} more: --records {all} shows them all")),
    }
}
