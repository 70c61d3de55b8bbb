//! The command line: one file per command. All but `new`, `build`, `serve`, `test` and `repair` are clients of a running
//! host, over its HTTP interface, and do not look at its files.
//!
//! Exit codes: 0 done; 1 a mistake, or the host could not do it; 2 bad arguments.

mod build;
mod client;
mod counters;
mod deliveries;
mod failures;
mod functions;
mod invoke;
mod mappings;
mod new;
mod print;
mod put;
mod repair;
mod serve;
mod state;
mod streams;
mod tail;
mod test;
mod top;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use shardmill_core::{Region, Scope, TenantId};

use crate::serve::{NewSandbox, NewSimulated};
use client::Client;

/// Runs WebAssembly handlers on streams of records, with the semantics of Kinesis and Lambda.
#[derive(Debug, Parser)]
#[command(name = "shardmill", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: AnyCommand,
}

#[derive(Debug, Subcommand)]
enum AnyCommand {
    #[command(flatten)]
    Now(Box<Command>),
    /// Write a new handler, with a test and a manifest
    New(new::Arguments),
    /// Build the handler in a folder
    Build(build::Arguments),
    /// Run scenarios: tests of handlers on simulated time, without a host
    Test(test::Arguments),
}

/// Those that run on the real clock.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run the host
    Serve(serve::Arguments),
    /// Put the lines of a file, or of standard input, into a stream
    Put(put::Arguments),
    /// Show a stream's records as they arrive
    Tail(tail::Arguments),
    /// Run a function by hand; its effects are shown, not kept
    Invoke(invoke::Arguments),
    /// List, create, delete and describe streams
    Streams(streams::Arguments),
    /// List, deploy, delete and describe functions
    Functions(functions::Arguments),
    /// List, create, pause, resume, delete and describe event source mappings
    Mappings(mappings::Arguments),
    /// Watch mappings and their shards on the whole screen
    Top(top::Arguments),
    /// Show a function's counters
    Counters(counters::Arguments),
    /// Show the keyed state of a partition key
    State(state::Arguments),
    /// List, show, replay, redrive, export and delete what was given up
    Failures(failures::Arguments),
    /// List, retry and drop reports to on-failure destinations
    Deliveries(deliveries::Arguments),
    /// Make a data folder usable again whose journal is damaged
    Repair(repair::Arguments),
}

/// Which host, who is calling, and how to answer.
#[derive(Debug, Args)]
struct Connection {
    /// The host's address
    #[arg(
        long,
        env = "SHARDMILL_ENDPOINT",
        default_value = "http://127.0.0.1:4566",
        global = true
    )]
    endpoint: String,
    /// The account to act for, 12 digits
    #[arg(long, env = "SHARDMILL_ACCOUNT", default_value_t = TenantId::DEFAULT, global = true)]
    account: TenantId,
    /// The region to act in
    #[arg(long, env = "SHARDMILL_REGION", default_value_t = Region::default(), global = true)]
    region: Region,
    /// Answer with JSON, for scripts
    #[arg(long, global = true)]
    json: bool,
}

impl Connection {
    fn client(&self) -> anyhow::Result<Client> {
        let scope = Scope {
            tenant: self.account,
            region: self.region.clone(),
        };
        Client::new(&self.endpoint, scope)
    }
}

/// Parses the arguments and runs the command. `sandbox` makes the machine that `serve` runs
/// guests on, `simulated` one for `test`, where they run on simulated time.
pub fn main(sandbox: NewSandbox, simulated: NewSimulated) -> ExitCode {
    let command = match Arguments::parse().command {
        AnyCommand::Now(command) => *command,
        // Each scenario has a runtime of its own, with a clock of its own.
        AnyCommand::New(arguments) => return exit(new::run(&arguments)),
        AnyCommand::Build(arguments) => return exit(build::run(&arguments)),
        AnyCommand::Test(arguments) => return exit(test::run(&arguments, simulated)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(run(command, sandbox));
            // A read from a terminal cannot be taken back: do not wait for it.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(anyhow::Error::new(error).context("start the runtime")),
    };
    exit(ended)
}

/// The exit code; an error is printed on one line.
fn exit(ended: anyhow::Result<ExitCode>) -> ExitCode {
    match ended {
        Ok(code) => code,
        Err(error) if print::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", print::one_line(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command, sandbox: NewSandbox) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(arguments) => serve::run(arguments, sandbox).await?,
        Command::Put(arguments) => put::run(arguments).await?,
        Command::Tail(arguments) => tail::run(arguments).await?,
        Command::Invoke(arguments) => return invoke::run(arguments).await,
        Command::Streams(arguments) => streams::run(arguments).await?,
        Command::Functions(arguments) => functions::run(arguments).await?,
        Command::Mappings(arguments) => mappings::run(arguments).await?,
        Command::Top(arguments) => top::run(arguments).await?,
        Command::Counters(arguments) => counters::run(arguments).await?,
        Command::State(arguments) => state::run(arguments).await?,
        Command::Deliveries(arguments) => deliveries::run(arguments).await?,
        Command::Repair(arguments) => repair::run(&arguments)?,
        Command::Failures(arguments) => return failures::run(arguments).await,
    }
    Ok(ExitCode::SUCCESS)
}
