//! `shardmill mappings`: how far event source mappings are, and what a person may do to them.

mod dry_run;
mod shadow;

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
    #[command(visible_alias = "show")]
    Describe {
        /// Its name or UUID
        name: String,
    },
    /// Make a mapping with the manifest's defaults. Unlike one of the manifest, it does not stand
    /// still when the failure store is full: what it gives up then leaves only the reason
    Create {
        /// Its name
        name: String,
        /// The stream that it reads
        #[arg(long)]
        stream: String,
        /// The function that it invokes: NAME, NAME:VERSION or NAME:ALIAS
        #[arg(long)]
        function: String,
        /// Records of a batch, 1 to 10000
        #[arg(long, value_name = "N")]
        batch_size: Option<u64>,
        /// TRIM_HORIZON or LATEST
        #[arg(long, value_name = "POSITION")]
        starting_position: Option<String>,
        /// Where what it gives up is reported: a queue's ARN, s3://…, file://…, https://…
        #[arg(long, value_name = "DESTINATION")]
        on_failure: Option<String>,
        /// Any other setting of the manifest's [[mapping]], as `parallelization_factor=4`
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
        settings: Vec<(String, Value)>,
    },
    /// Change settings of a mapping; running batches finish under the old ones
    Update {
        /// Its name or UUID
        name: String,
        /// A setting of the manifest's [[mapping]], as `batch_size=500` or `on_exhausted=park`
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting, required = true)]
        settings: Vec<(String, Value)>,
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
    /// List the parked partition keys of a mapping
    Parked {
        /// Its name or UUID
        name: String,
    },
    /// Let parked partition keys go on, in order
    Unpark {
        /// The mapping's name or UUID
        name: String,
        /// The partition key
        #[arg(required_unless_present = "all")]
        key: Option<String>,
        /// All parked keys
        #[arg(long, conflicts_with = "key")]
        all: bool,
    },
    /// Move a mapping to another place in its stream; what runs now does not count
    Rewind {
        /// Its name or UUID
        name: String,
        /// TRIM_HORIZON, LATEST, a time as 2026-01-31T12:00:00Z, or a sequence number
        #[arg(long, value_name = "PLACE")]
        to: String,
        /// Keep the function's keyed state and counters, so that records that are delivered again
        /// count again
        #[arg(long, conflicts_with = "reset_state")]
        keep_state: bool,
        /// Delete the function's keyed state and counters first
        #[arg(long)]
        reset_state: bool,
        /// Drop the records of parked keys, which stand in the way otherwise
        #[arg(long)]
        drop_parked: bool,
    },
    /// Try other filters, or another module, on the records that are there; changes nothing
    DryRun(dry_run::Arguments),
    /// Tell how the version that runs beside a mapping compares: `update NAME --set shadow=:3` sets
    /// one, `--set shadow=` takes it away
    Shadow {
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
            on_failure,
            settings,
        } => {
            let mut body = Map::from_iter(settings);
            body.insert("stream".into(), stream.into());
            body.insert("function".into(), function.into());
            body.extend(batch_size.map(|n| ("batch_size".into(), n.into())));
            body.extend(starting_position.map(|p| ("starting_position".into(), p.into())));
            body.extend(on_failure.map(|d| ("on_failure".into(), d.into())));
            let path = format!("{}?create=true", path(&name));
            let answer = client.send(Method::PUT, &path, &body.into()).await?;
            print::done(json, &answer, &format!("mapping {name} created"))
        }
        Command::Update { name, settings } => {
            // A name that is not there would make a mapping.
            client.get(&path(&name)).await?;
            let body = Map::from_iter(settings).into();
            let answer = client.send(Method::PUT, &path(&name), &body).await?;
            print::done(json, &answer, &format!("mapping {name} changed"))
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
        Command::Parked { name } => {
            let answer = client.get(&format!("{}/parked", path(&name))).await?;
            if json {
                return print::line(answer);
            }
            parked(&answer)
        }
        Command::Unpark { name, key, all: _ } => {
            let body = serde_json::json!({ "key": key });
            let path = format!("{}/unpark", path(&name));
            let answer = client.send(Method::POST, &path, &body).await?;
            let text = match answer["keys"].as_u64() {
                Some(1) => "1 key goes on".to_owned(),
                keys => format!("{} keys go on", keys.unwrap_or(0)),
            };
            print::done(json, &answer, &text)
        }
        Command::Rewind {
            name,
            to,
            keep_state,
            reset_state,
            drop_parked,
        } => {
            let reset_state = reset_state || (!keep_state && asks_for_reset(&name)?);
            let mut body = place(&to);
            body["reset_state"] = reset_state.into();
            body["drop_parked"] = drop_parked.into();
            let path = format!("{}/rewind", path(&name));
            let answer = client.send(Method::POST, &path, &body).await?;
            let count = answer["shards"].as_array().map_or(0, Vec::len);
            let shards = if count == 1 { "shard" } else { "shards" };
            let text = format!("mapping {name} moved in {count} {shards}");
            print::done(json, &answer, &text)
        }
        Command::Shadow { name } => {
            let answer = client.get(&format!("{}/shadow", path(&name))).await?;
            if json {
                return print::line(answer);
            }
            shadow::show(&answer)
        }
        Command::DryRun(arguments) => dry_run::run(&client, arguments, json).await,
        Command::Delete { name } => {
            let answer = client.native(Method::DELETE, &path(&name), None).await?;
            print::done(json, &answer, &format!("mapping {name} deleted"))
        }
    }
}

/// Reads `KEY=VALUE`; what is no JSON is a text.
fn setting(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE expected")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((key.to_owned(), value))
}

/// A place in a stream, in the words of the API.
fn place(to: &str) -> Value {
    let is_number = to.len() > 20 && to.bytes().all(|b| b.is_ascii_digit());
    let member = match to {
        "TRIM_HORIZON" | "LATEST" => "position",
        _ if is_number => "sequence_number",
        _ => "timestamp",
    };
    serde_json::json!({ member: to })
}

/// Asks a person whether keyed state and counters go; a script has to say it.
fn asks_for_reset(name: &str) -> anyhow::Result<bool> {
    use std::io::{IsTerminal, Write};
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        anyhow::bail!("rewind {name}: say --keep-state or --reset-state");
    }
    let mut out = std::io::stderr();
    write!(
        out,
        "Records that {name} gets again change keyed state and counters again.\n\
         Delete the function's state and counters first? [y/N] "
    )?;
    out.flush()?;
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn parked(answer: &Value) -> anyhow::Result<()> {
    let mut table = print::table(&["key", "since", "records", "bytes", "state", "reason"]);
    for key in answer["keys"].as_array().into_iter().flatten() {
        let release = &key["release"];
        let state = match release["releasing"].as_bool() {
            Some(true) => "goes on",
            _ => "parked",
        };
        table.add_row([
            print::cell(&key["key"]),
            print::time(&key["since"]),
            print::cell(&key["records"]),
            print::cell(&key["bytes"]),
            state.into(),
            print::cell(&key["reason"]),
        ]);
    }
    print::rows(&table, "no key is parked")
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
        "undelivered",
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
            text("deliveries_pending"),
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
        ("circuit breaker", "circuit"),
        ("parked keys", "parked_keys"),
        ("parked records", "parked_records"),
        ("parked bytes", "parked_bytes"),
        ("on failure", "on_failure"),
        ("problem there", "delivery_problem"),
    ] {
        if !mapping[key].is_null() {
            print::line(format!("{label:<26} {}", text(key)))?;
        }
    }
    if let Some(reason) = mapping["roll_back"]["reason"].as_str() {
        let (at, reason) = (
            print::time(&mapping["roll_back"]["at"]),
            print::one_line(reason),
        );
        print::line(format!("{:<26} at {at}: {reason}", "rolled back"))?;
    }
    for trial in mapping["trials"].as_array().into_iter().flatten() {
        print::line(format!(
            "{:<26} version {}: {} of {} batches failed",
            "on trial",
            print::cell(&trial["version"]),
            trial["failed"],
            trial["batches"]
        ))?;
    }
    let beside = &mapping["shadow"];
    if let Some(function) = beside["function"].as_str() {
        let number = |key: &str| beside[key].as_u64().unwrap_or(0);
        print::line(format!(
            "{:<26} {}: {} batches compared, {} differ, {} uncertain, {} dropped",
            "shadow",
            print::one_line(function),
            number("compared"),
            number("different"),
            number("uncertain"),
            number("dropped"),
        ))?;
    }
    for (key, value) in mapping["policy"].as_object().into_iter().flatten() {
        if value.is_null() {
            continue;
        }
        print::line(format!(
            "{:<26} {}",
            key.replace('_', " "),
            print::cell(value)
        ))?;
    }
    print::line("\nsince the host started")?;
    for key in [
        "polled",
        "filtered_out",
        "not_json",
        "first_invoked",
        "unsent",
        "put_back",
        "waiting_records",
        "processed",
        "invoked",
        "failed_records",
        "retried",
        "split",
        "given_up",
        "failures_dropped",
        "parked",
        "expired",
        "invocations",
        "errors",
        "throttles",
        "conflicts",
        "roll_backs",
        "fuel",
        "delivered",
        "delivery_failures",
        "deliveries_pending",
    ] {
        print::line(format!("  {:<24} {}", key.replace('_', " "), text(key)))?;
    }
    let (waited, handled) = times(mapping);
    print::line(format!("  {:<24} {waited}", "wait per record"))?;
    print::line(format!("  {:<24} {handled}", "time per invocation"))?;
    print::line("")?;
    print::rows(&progress(mapping), "no shards")?;
    troubles(mapping)
}

/// The time that records waited for their first invocation, and the time in the handler, on
/// average since the host started.
fn times(of: &Value) -> (String, String) {
    let number = |key: &str| of[key].as_u64().unwrap_or(0);
    let mean = |sum: &str, count: &str| number(sum).checked_div(number(count));
    let waited = mean("waited_millis", "first_invoked").map_or_else(String::new, print::span);
    let handled = mean("duration_micros", "invocations");
    let handled = handled.map_or_else(String::new, |micros| match micros {
        0..10_000 => format!("{micros} µs"),
        _ => print::span(micros / 1000),
    });
    (waited, handled)
}

fn progress(mapping: &Value) -> comfy_table::Table {
    let mut table = print::table(&[
        "shard",
        "state",
        "position",
        "behind",
        "bytes",
        "age",
        "expires in",
        "wait",
        "handler",
        "lanes",
    ]);
    for shard in shards(mapping) {
        let (waited, handled) = times(shard);
        let number = |key: &str| shard[key].as_u64();
        table.add_row([
            print::cell(&shard["shard"]),
            print::cell(&shard["state"]),
            print::cell(&shard["low"]),
            print::cell(&shard["records_behind"]),
            print::size(number("bytes_behind").unwrap_or(0)),
            print::span(number("iterator_age_ms").unwrap_or(0)),
            number("expires_in_ms").map_or_else(String::new, print::span),
            waited,
            handled,
            shard["lanes"].as_array().map_or(0, Vec::len).to_string(),
        ]);
    }
    table
}

/// What holds shards up, which versions ran in them, and what went wrong.
fn troubles(mapping: &Value) -> anyhow::Result<()> {
    for shard in shards(mapping) {
        let name = print::cell(&shard["shard"]);
        let lanes = shard["lanes"].as_array().map_or(&[][..], Vec::as_slice);
        let waiting: u64 = lanes.iter().filter_map(|l| l["waiting"].as_u64()).sum();
        if let Some(reason) = shard["paused"].as_str() {
            print::line(format!("{name}: paused: {}", print::one_line(reason)))?;
        } else if waiting > 0 {
            let attempts = shard["attempts"].as_u64().unwrap_or(0);
            let when = match print::time(&shard["not_before"]) {
                time if time.is_empty() => "now".to_owned(),
                time => format!("at {time}"),
            };
            print::line(format!(
                "{name}: blocked at position {}: attempt {} {when}; {} waiting",
                print::cell(&shard["low"]),
                attempts + 1,
                print::count(waiting, "part"),
            ))?;
        }
        for version in shard["versions"].as_array().into_iter().flatten() {
            print::line(format!(
                "{name}: version {} since {}, from sequence number {}",
                print::cell(&version["version"]),
                print::time(&version["at"]),
                print::cell(&version["first_sequence_number"]),
            ))?;
        }
        if let Some(message) = shard["last_error"]["message"].as_str() {
            let (at, message) = (
                print::time(&shard["last_error"]["at"]),
                print::one_line(message),
            );
            print::line(format!("{name}: last error at {at}: {message}"))?;
        }
    }
    Ok(())
}
