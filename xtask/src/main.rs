//! The developer's commands, `cargo xtask …`: a map, and the exit code.
//! Each does all the set-up that a fresh machine needs; results go to standard output,
//! progress to standard error.

mod apt;
mod bench;
mod cargo_tool;
mod clients;
mod demo;
mod deny;
mod fuzz;
mod guests;
mod host;
mod paths;
mod program;
mod progress;
mod sim;
mod step;
mod tally;
mod templates;
mod test;
mod wasm_target;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Build, try, prove and measure Shardmill.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a clickstream through a host of its own and show what came out
    Demo(demo::Arguments),
    /// Run everything that proves the project; the last line is `N passed, N failed`
    Test,
    /// Measure, each figure beside its limit
    Bench(bench::Arguments),
    /// Run the mapping simulator on many seeds, or one seed with its log
    Sim(sim::Arguments),
    /// Look for inputs that break a law of `fuzz/laws`, guided by coverage
    Fuzz(fuzz::Arguments),
    /// Hold the dependencies against `deny.toml`: licences, bans, sources, advisories
    Deny,
    /// Find or make the compiler for handlers
    WasmTarget,
    /// Build every handler below `handlers/` to wasm
    Guests,
    /// Write, test, build and run the template of each language
    Templates,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(arguments) => demo::run(&arguments)?,
        Command::Test => return test::run(),
        Command::Bench(arguments) => bench::run(&arguments)?,
        Command::Sim(arguments) => return sim::run(&arguments),
        Command::Fuzz(arguments) => return fuzz::run(&arguments),
        Command::Deny => return test::deny(),
        Command::WasmTarget => {
            println!("{}", wasm_target::describe(&wasm_target::ensure()?));
        }
        Command::Templates => return test::templates(),
        Command::Guests => {
            for file in guests::build()? {
                println!("{}", file.display());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
