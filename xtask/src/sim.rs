//! `cargo xtask sim`: many seeds of the mapping simulator, or one with its log. The simulator is a
//! test of the host's library (`host/src/mapping/sim.rs`); this builds it with optimisation, tells it
//! by its environment what to run, and shows how far it is.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{paths, program};

/// The test that runs seeds.
const TEST: &str = "mapping::sim::laws_hold_whatever_the_seed";

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this seed alone and print what happens
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
}

/// Runs seeds. The exit code says whether every law held.
///
/// # Errors
/// The simulator cannot be built or started.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut test = program::cargo();
    test.current_dir(paths::workspace())
        .args([
            "test",
            "--quiet",
            "--release",
            "--package",
            "shardmill",
            "--lib",
        ])
        .args(["--", "--exact", "--nocapture", TEST])
        .env("RUST_BACKTRACE", "0");
    let held = match arguments.seed {
        Some(seed) => {
            test.env("SHARDMILL_SIM_SEED", seed.to_string());
            program::streamed(&mut test, |_| {})?.success()
        }
        None => run_many(&mut test, arguments)?,
    };
    Ok(match held {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn run_many(test: &mut Command, arguments: &Arguments) -> Result<bool> {
    test.env("SHARDMILL_SIM_SEEDS", arguments.seeds.to_string())
        .env("SHARDMILL_SIM_FROM", arguments.from.to_string());
    let bar = bar(arguments.seeds);
    let mut child = test
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start the simulator")?;
    let mut failed = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            match Line::read(&line.context("read the simulator's output")?) {
                Line::Progress(done) => bar.set_position(done),
                Line::Broken(seed, law) => {
                    bar.suspend(|| println!("seed {seed}: {law}"));
                    failed.push(seed);
                }
                Line::Other => {}
            }
        }
    }
    let ended = child.wait().context("wait for the simulator")?;
    bar.finish_and_clear();
    let (from, to) = (arguments.from, arguments.from + arguments.seeds);
    if ended.success() {
        println!("seeds {from}..{to}: every law held");
    } else if let Some(seed) = failed.first() {
        println!("run one again with its log: cargo xtask sim --seed {seed}");
    } else {
        println!("the simulator did not end well: cargo test --release -p shardmill --lib {TEST}");
    }
    Ok(ended.success())
}

/// A line of the simulator's output.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    /// So many seeds are done.
    Progress(u64),
    /// A seed, and the law that it breaks.
    Broken(u64, &'a str),
    Other,
}

impl<'a> Line<'a> {
    /// Reads `sim: 500 of 2000 seeds` and `sim: seed 7 breaks a law: …`.
    fn read(line: &'a str) -> Self {
        // The test's name may stand before the first one.
        let Some((_, text)) = line.split_once("sim: ") else {
            return Self::Other;
        };
        let broken = || {
            let (seed, law) = text.strip_prefix("seed ")?.split_once(" breaks a law: ")?;
            Some(Self::Broken(seed.parse().ok()?, law))
        };
        let progress = || Some(Self::Progress(text.split_once(" of ")?.0.parse().ok()?));
        broken().or_else(progress).unwrap_or(Self::Other)
    }
}

fn bar(seeds: u64) -> ProgressBar {
    let bar = ProgressBar::new(seeds);
    let style = "{bar:40} {pos} of {len} seeds ({elapsed}, {eta} left)";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulators_lines_are_told_apart() {
        for (line, want) in [
            ("sim: 500 of 2000 seeds", Line::Progress(500)),
            (
                "sim: seed 7 breaks a law: record 3 ended in []",
                Line::Broken(7, "record 3 ended in []"),
            ),
            ("running 1 test", Line::Other),
            ("test sim: 1 of 2 seeds", Line::Progress(1)),
        ] {
            assert_eq!(Line::read(line), want, "{line}");
        }
    }
}
