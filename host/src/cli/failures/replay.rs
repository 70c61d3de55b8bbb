//! `shardmill failures replay`: the attempt once more, beside what was recorded of it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use hyper::Method;
use serde_json::Value;

use super::show;
use crate::cli::client::{Client, escaped};
use crate::cli::print;

/// Bytes of a value that are shown.
const SHOWN_BYTES: usize = 200;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The entry, or the beginning of its id if there is only one such
    id: String,
    /// Run this module on the same inputs instead
    #[arg(long, value_name = "FILE.wasm")]
    with: Option<PathBuf>,
}

/// Exits with 1 when the outcome is not the recorded one, or another module fails.
pub(super) async fn run(
    client: &Client,
    arguments: Arguments,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let body = match &arguments.with {
        Some(file) => {
            let wasm = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
            if wasm.is_empty() {
                bail!("{} is empty: a WebAssembly module expected", file.display());
            }
            Some(("application/wasm", wasm.into()))
        }
        None => None,
    };
    let path = format!("failures/{}/replay", escaped(&arguments.id));
    let answer = client.patient().native(Method::POST, &path, body).await?;
    let good = match answer["same"].as_bool() {
        Some(same) => same,
        None => answer["replayed"]["outcome"] == "ok",
    };
    if json {
        print::line(&answer)?;
    } else {
        told(&answer)?;
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn told(answer: &Value) -> anyhow::Result<()> {
    let (entry, run) = (&answer["failure"], &answer["replayed"]);
    let recorded = &answer["recorded"];
    let replay = &entry["replay"];
    let stderr = |text: &Value| match print::cell(text).trim() {
        "" => "none".to_owned(),
        text => text.to_owned(),
    };
    let mut table = print::table(&["", "recorded", "replayed"]);
    table.add_row(["outcome".to_owned(), outcome(recorded), outcome(run)]);
    table.add_row([
        "record".to_owned(),
        print::cell(&recorded["record"]),
        print::cell(&run["record"]),
    ]);
    table.add_row([
        "fuel".to_owned(),
        print::cell(&replay["fuel"]),
        print::cell(&run["fuel_used"]),
    ]);
    let memory = |value: &Value| print::size(value.as_u64().unwrap_or(0));
    table.add_row([
        "memory".to_owned(),
        memory(&replay["memory_bytes"]),
        memory(&run["memory_bytes"]),
    ]);
    table.add_row([
        "stderr".to_owned(),
        stderr(&replay["stderr_tail"]),
        stderr(&run["stderr_tail"]),
    ]);
    print::rows(&table, "")?;
    if answer["same"].is_null() && run["outcome"] == "failed" {
        show::frames(&run["failure"]["frames"])?;
    }
    effects(&run["effects"])?;
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        print::line(format!("warning: {}", print::cell(warning)))?;
    }
    match answer["same"].as_bool() {
        Some(true) => print::line("the same outcome"),
        Some(false) => {
            let differences = answer["differences"].as_array().into_iter().flatten();
            let what: Vec<String> = differences.map(|d| print::cell(&d["what"])).collect();
            print::line(format!("another outcome: {} differ", what.join(", ")))
        }
        None => print::line(format!(
            "another module, sha256 {}: {}; nothing of it is kept",
            print::cell(&run["digest"]),
            outcome(run)
        )),
    }
}

fn outcome(run: &Value) -> String {
    match run["outcome"].as_str() {
        Some("partial") => {
            let failed = run["failed_records"].as_array().map_or(0, Vec::len);
            format!("{} named as failed", print::count(failed as u64, "record"))
        }
        Some("ok") => "success".into(),
        _ => print::cell(&run["message"]),
    }
}

/// What the handler did, none of which is kept.
fn effects(effects: &Value) -> anyhow::Result<()> {
    let mut table = print::table(&["effect", "name", "value"]);
    for (name, value) in effects["counters"].as_object().into_iter().flatten() {
        let value = format!("{:+}", value.as_i64().unwrap_or(0));
        table.add_row(["counter", &print::plain(name), &value]);
    }
    for write in effects["state"].as_array().into_iter().flatten() {
        let name = format!(
            "{}/{}",
            print::cell(&write["key"]),
            print::cell(&write["name"])
        );
        let value = match write["deleted"] == true {
            true => "deleted".into(),
            false => bytes(write),
        };
        table.add_row(["state", &name, &value]);
    }
    for emit in effects["emitted"].as_array().into_iter().flatten() {
        let (stream, key) = (&emit["stream"], &emit["partition_key"]);
        let name = format!("{} key {}", print::cell(stream), print::cell(key));
        table.add_row(["emit", &name, &bytes(emit)]);
    }
    if table.row_iter().next().is_none() {
        return Ok(());
    }
    print::line("")?;
    print::rows(&table, "")?;
    for (kind, shown, all) in [
        ("state write", "state", "state_writes"),
        ("emitted record", "emitted", "emits"),
    ] {
        let shown = effects[shown].as_array().map_or(0, Vec::len) as u64;
        let rest = effects[all].as_u64().unwrap_or(0).saturating_sub(shown);
        if rest > 0 {
            print::line(format!("… {} more", print::count(rest, kind)))?;
        }
    }
    print::line("")
}

fn bytes(view: &Value) -> String {
    let data = view["data"].as_str().unwrap_or_default();
    let data = base64_simd::STANDARD.decode_to_vec(data);
    print::data(&data.unwrap_or_default(), SHOWN_BYTES)
}
