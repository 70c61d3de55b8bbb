//! `shardmill failures show`: the trap report with source lines, and the records.

use anyhow::Context;
use clap::ValueEnum;
use serde_json::Value;

use crate::cli::client::{Client, escaped};
use crate::cli::print;

/// Bytes of data that are shown of a record.
const SHOWN_BYTES: usize = 2000;
/// Records that are shown of an entry.
const SHOWN_RECORDS: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The entry, or the beginning of its id if there is only one such
    id: String,
    /// How many records to show
    #[arg(long, default_value_t = SHOWN_RECORDS, value_name = "N", conflicts_with = "all")]
    records: usize,
    /// Show all records, and all of their data
    #[arg(long)]
    all: bool,
    /// How to show data; by default whichever fits each record
    #[arg(long)]
    data: Option<Data>,
}

/// How data is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Data {
    /// As it is, where it is text
    Text,
    /// Indented, where it is JSON
    Json,
    /// In hexadecimal
    Hex,
    /// Not at all
    None,
}

pub(super) async fn run(client: &Client, arguments: Arguments, json: bool) -> anyhow::Result<()> {
    let records = match arguments.all {
        true => usize::MAX,
        false => arguments.records,
    };
    let path = format!("failures/{}?records={records}", escaped(&arguments.id));
    let answer = client.get(&path).await?;
    if json {
        return print::line(answer);
    }
    report(&answer)?;
    print::line("")?;
    let bytes = if arguments.all {
        usize::MAX
    } else {
        SHOWN_BYTES
    };
    payload(&answer, arguments.data, bytes)
}

fn field(label: &str, value: impl AsRef<str>) -> anyhow::Result<()> {
    match value.as_ref() {
        "" => Ok(()),
        value => print::line(format!("{label:<12} {value}")),
    }
}

fn report(entry: &Value) -> anyhow::Result<()> {
    let text = |key: &str| print::cell(&entry[key]);
    let version = match entry["version"].as_u64() {
        Some(0) => "$LATEST".into(),
        _ => text("version"),
    };
    field("failure", text("id"))?;
    field("created", print::time(&entry["created"]))?;
    field("mapping", text("mapping"))?;
    field(
        "function",
        format!(
            "{} version {}, sha256 {}",
            text("function"),
            version,
            text("digest")
        ),
    )?;
    field("shard", format!("{} {}", text("stream"), text("shard")))?;
    field("reason", text("reason"))?;
    field("cause", text("message"))?;
    frames(&entry["cause"]["frames"])?;
    field("invocations", text("invocations"))?;
    let replay = &entry["replay"];
    if !replay.is_null() {
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        field(
            "fuel",
            format!(
                "{} used, {} allowed",
                replay["fuel"], replay["fuel_allowed"]
            ),
        )?;
        field(
            "memory",
            format!(
                "{} used, {} allowed",
                print::size(number(&replay["memory_bytes"])),
                print::size(number(&replay["limits"]["memory_bytes"]))
            ),
        )?;
        field("duration", format!("{} us", replay["duration_micros"]))?;
        let stderr = print::cell(&replay["stderr_tail"]);
        for line in stderr.trim_end().lines() {
            field("stderr", line)?;
        }
        let (len, from) = (
            number(&replay["batch_len"]),
            number(&replay["given_up_from"]),
        );
        if len > 1 {
            field(
                "attempted",
                format!("a batch of {len} records, given up from index {from}"),
            )?;
        }
        field("engine", print::cell(&replay["engine"]))?;
        field("inexact", print::cell(&replay["inexact"]))?;
    }
    let redriven = print::time(&entry["redriven"]);
    match text("redriven_to") {
        stream if !stream.is_empty() => {
            field("redriven", format!("{redriven} to stream {stream}"))?
        }
        _ => field("redriven", redriven)?,
    }
    let imported = &entry["imported"];
    if !imported.is_null() {
        let at = print::time(&imported["created"]);
        let (tenant, id) = (&imported["scope"]["tenant"], &imported["id"]);
        let (tenant, id) = (print::cell(tenant), print::cell(id));
        field("imported", format!("{id} of account {tenant}, made {at}"))?;
    }
    Ok(())
}

/// The guest's stack: functions that were inlined stand above those that they are in.
pub(super) fn frames(frames: &Value) -> anyhow::Result<()> {
    for frame in frames.as_array().into_iter().flatten() {
        let lines = frame["lines"].as_array().map_or(&[][..], Vec::as_slice);
        let Some((last, inlined)) = lines.split_last() else {
            print::line(format!("               at {}", print::frame(frame)))?;
            continue;
        };
        for line in inlined {
            let function = print::cell(&line["function"]);
            print::line(format!("               at {function} ({})", place(line)))?;
        }
        let function = print::cell(&frame["function"]);
        print::line(format!("               at {function} ({})", place(last)))?;
    }
    Ok(())
}

/// `src/lib.rs:58:18`, or where the function begins.
fn place(line: &Value) -> String {
    let mut place = format!("{}:{}", print::cell(&line["file"]), line["line"]);
    if line["whole_function"] == true {
        return format!("somewhere in the function at {place}");
    }
    if let Some(column) = line["column"].as_u64() {
        place += &format!(":{column}");
    }
    place
}

fn payload(entry: &Value, data: Option<Data>, bytes: usize) -> anyhow::Result<()> {
    let records = entry["payload"].as_array().map_or(&[][..], Vec::as_slice);
    let all = entry["records"].as_u64().unwrap_or(0);
    print::line(print::count(all, "record"))?;
    for record in records {
        let head = ["sequence_number", "partition_key"].map(|key| print::cell(&record[key]));
        let arrival = print::time(&record["arrival"]);
        print::line(format!("{}  {arrival}  key {}", head[0], head[1]))?;
        let encoded = record["data"].as_str().unwrap_or_default();
        let decoded = base64_simd::STANDARD
            .decode_to_vec(encoded)
            .context("data that is not base64")?;
        if let Some(text) = shown(&decoded, data, bytes) {
            for line in text.lines() {
                print::line(format!("  {line}"))?;
            }
        }
    }
    match all.saturating_sub(records.len() as u64) {
        0 => Ok(()),
        _ if records.is_empty() && entry["withheld"].is_string() => {
            print::line(format!("  not kept: {}", print::cell(&entry["withheld"])))
        }
        _ if records.is_empty() && entry["first_sequence_number"].is_null() => {
            print::line("  their data is gone: they were trimmed before they were delivered")
        }
        rest => print::line(format!("… {rest} more: --all shows them all")),
    }
}

/// Data as it was asked for, or as it fits: JSON that is an object or a list, text, hexadecimal.
fn shown(data: &[u8], how: Option<Data>, bytes: usize) -> Option<String> {
    let json = || {
        let value: Value = serde_json::from_slice(data).ok()?;
        let whole = value.is_object() || value.is_array() || how == Some(Data::Json);
        let text = whole.then(|| serde_json::to_string_pretty(&value).ok())??;
        Some(print::data(text.as_bytes(), bytes))
    };
    match how {
        Some(Data::None) => None,
        Some(Data::Hex) => Some(print::hex(data, bytes)),
        Some(Data::Text) => Some(print::data(String::from_utf8_lossy(data).as_bytes(), bytes)),
        Some(Data::Json) | None => Some(json().unwrap_or_else(|| print::data(data, bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_shown_as_it_fits_or_as_it_was_asked_for() {
        let object = b"{\"a\":1}".as_slice();
        for (data, how, want) in [
            (object, None, Some("{\n  \"a\": 1\n}")),
            (object, Some(Data::Text), Some("{\"a\":1}")),
            (object, Some(Data::Hex), Some("0x7b2261223a317d")),
            (object, Some(Data::None), None),
            (b"17", None, Some("17")),
            (b"plain", Some(Data::Json), Some("plain")),
            (b"\xff\x00", None, Some("0xff00")),
        ] {
            assert_eq!(shown(data, how, 100).as_deref(), want, "{how:?}");
        }
    }
}
