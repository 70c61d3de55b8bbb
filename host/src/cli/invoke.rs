//! `shardmill invoke`: one invocation by hand. The response goes to standard output, what the
//! handler logged and used to standard error.

use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, bail};
use hyper::Method;
use serde_json::{Value, json};

use super::client::escaped;
use super::{Connection, print};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The function
    function: String,
    /// The event: JSON, the name of a file that holds it, or - for standard input. A handler of
    /// records takes Lambda's event of a Kinesis batch
    #[arg(long, default_value = "{}", value_name = "JSON|FILE")]
    event: String,
    /// Instead of an event, a batch of records with this data; may be repeated
    #[arg(long, value_name = "DATA", conflicts_with = "event")]
    record: Vec<String>,
    /// The partition key of these records
    #[arg(long, default_value = "key", requires = "record")]
    key: String,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = arguments.connection.client()?;
    let event = if arguments.record.is_empty() {
        event(&arguments.event)?
    } else {
        batch(&arguments.record, &arguments.key)
    };
    let path = format!("functions/{}/invoke", escaped(&arguments.function));
    let answer = client.patient().send(Method::POST, &path, &event).await?;
    let failed = answer["outcome"] == "failed" || answer["outcome"] == "throttled";
    let code = if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    };
    if arguments.connection.json {
        print::line(answer)?;
        return Ok(code);
    }
    for log in answer["logs"].as_array().into_iter().flatten() {
        eprintln!(
            "[{}] {}",
            print::cell(&log["level"]),
            print::cell(&log["text"])
        );
    }
    for (name, value) in answer["effects"]["counters"]
        .as_object()
        .into_iter()
        .flatten()
    {
        eprintln!(
            "counter {name} {value:+}",
            name = print::plain(name),
            value = value.as_i64().unwrap_or(0)
        );
    }
    eprintln!(
        "{} in {} us, fuel {} of {}, memory {}",
        print::cell(&answer["outcome"]),
        answer["duration_micros"],
        answer["fuel_used"],
        answer["fuel_allowed"],
        print::size(answer["memory_bytes"].as_u64().unwrap_or(0)),
    );
    if failed {
        eprintln!("error: {}", print::cell(&answer["message"]));
        for frame in answer["failure"]["frames"].as_array().into_iter().flatten() {
            eprintln!("  at {}", print::frame(frame));
        }
    } else if !answer["response"].is_null() {
        print::line(&answer["response"])?;
    }
    Ok(code)
}

/// JSON as it stands, or in a file.
fn event(text: &str) -> anyhow::Result<Value> {
    if text == "-" {
        let mut event = String::new();
        std::io::stdin()
            .read_to_string(&mut event)
            .context("read standard input")?;
        return serde_json::from_str(&event).context("the event on standard input");
    }
    if let Ok(event) = serde_json::from_str(text) {
        return Ok(event);
    }
    match std::fs::read(text) {
        Ok(event) => serde_json::from_slice(&event).with_context(|| format!("the event in {text}")),
        Err(error) => {
            bail!("--event {text:?} is neither JSON nor a file that can be read: {error}")
        }
    }
}

fn batch(records: &[String], key: &str) -> Value {
    let record = |data: &String| {
        let data = base64_simd::STANDARD.encode_to_string(data.as_bytes());
        json!({"eventSource": "aws:kinesis", "kinesis": {"partitionKey": key, "data": data}})
    };
    json!({"Records": records.iter().map(record).collect::<Vec<_>>()})
}
