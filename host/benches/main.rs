//! Benchmarks, each figure beside its limit: the best that this machine can do at the same work,
//! measured in the same run. `cargo xtask bench` runs them; what each row measures stands at the
//! top of its file and in `docs/benchmarks.md`.
//!
//! A machine that does other work at the same time moves every figure, so what can be compared is
//! taken in turns in one process, and the ratio is the median of the turns' ratios.
#![expect(
    clippy::disallowed_methods,
    reason = "benchmarks read the real clock, and nothing here is run on simulated time"
)]

mod bench;
mod bodies;
mod bytes;
mod client;
mod cpu;
mod end_to_end;
mod fairness;
mod figure;
mod filter;
mod group_log;
mod guests;
mod handler;
mod host;
mod http;
mod input;
mod invoke;
mod journal;
mod lanes;
mod latency;
mod machine;
mod mapping;
mod memory_host;
mod pollers;
mod process;
mod reload;
mod row;
mod server;
mod shards;
mod singles;
mod start;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use crate::bench::Bench;

/// Measure Shardmill, each figure beside its limit.
#[derive(Parser)]
struct Arguments {
    /// Measure only the groups whose name contains this: journal, bytes, singles, http, invoke,
    /// handler, filter, mapping, lanes, shards, latency, end-to-end, start, fairness, reload
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Fewer and shorter turns: figures to look at, not to quote
    #[arg(long)]
    quick: bool,
    /// Write the rows to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The folder of the built handlers
    #[arg(long, value_name = "DIR", env = "SHARDMILL_GUESTS")]
    guests: PathBuf,
    /// Where stores are made; the disk below it is what is measured
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// A group of rows that are measured together.
type Group = (&'static str, fn(&mut Bench) -> anyhow::Result<()>);

const GROUPS: [Group; 15] = [
    ("journal", journal::run),
    ("bytes", bytes::run),
    ("singles", singles::run),
    ("http", http::run),
    ("invoke", invoke::run),
    ("handler", handler::run),
    ("filter", filter::run),
    ("mapping", mapping::run),
    ("lanes", lanes::run),
    ("shards", shards::run),
    ("latency", latency::run),
    ("end-to-end", end_to_end::run),
    ("start", start::run),
    ("fairness", fairness::run),
    ("reload", reload::run),
];

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let wanted = |name: &str| {
        let filter = arguments.filter.as_deref();
        filter.is_none_or(|text| name.contains(text))
    };
    let groups: Vec<_> = GROUPS.iter().filter(|(name, _)| wanted(name)).collect();
    anyhow::ensure!(!groups.is_empty(), "no group has such a name");
    let mut bench = Bench::new(&arguments.dir, &arguments.guests, arguments.quick)?;
    let mut code = ExitCode::SUCCESS;
    for (number, (name, group)) in groups.iter().enumerate() {
        bench.begin(name, number + 1, groups.len());
        if let Err(error) = group(&mut bench) {
            eprintln!("error: {name}: {error:#}");
            code = ExitCode::FAILURE;
        }
    }
    let report = bench.finish();
    print!("{}", table::render(&report));
    if let Some(file) = &arguments.json {
        let json = serde_json::to_vec_pretty(&report)?;
        std::fs::write(file, json).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(code)
}
