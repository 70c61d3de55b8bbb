//! The command line: one file per command. All but `new`, `build`, `serve`, `test` and `repair` are clients of a running
//! host, over its HTTP interface, and do not look at its files.
//!
//! Exit codes: 0 done; 1 a mistake, or the host could not do it; 2 bad arguments.

mod aliases;
mod build;
mod client;
mod counters;
mod deliveries;
mod dev;
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
mod tenants;
mod test;
mod top;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use shardmill_core::{Region, Scope, TenantId};

use crate::auth::Credentials;
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
    /// Run the host for one handler, and build and deploy it again whenever its sources change
    Dev(dev::Arguments),
    /// Put the lines of a file, or of standard input, into a stream
    Put(put::Arguments),
    /// Show a stream's records as they arrive
    Tail(tail::Arguments),
    /// Run a function by hand; its effects are shown, not kept
    Invoke(invoke::Arguments),
    /// List, create, delete and describe streams
    Streams(streams::Arguments),
    /// List, deploy, publish, delete and describe functions and their versions
    Functions(functions::Arguments),
    /// List, set, delete and describe aliases of functions
    Aliases(aliases::Arguments),
    /// List, create, pause, resume, delete and describe event source mappings
    Mappings(mappings::Arguments),
    /// Watch mappings and their shards on the whole screen
    Top(top::Arguments),
    /// Show the fuel that functions burnt, by function, mapping, day or partition key
    Usage(usage::Arguments),
    /// Show a function's counters
    Counters(counters::Arguments),
    /// Show the keyed state of a partition key
    State(state::Arguments),
    /// List, show, replay, redrive, export and delete what was given up
    Failures(failures::Arguments),
    /// List, retry and drop reports to on-failure destinations
    Deliveries(deliveries::Arguments),
    /// Show tenants, their quotas and what they use of them
    Tenants(tenants::Arguments),
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
    /// The account to act for, 12 digits [default: the key's own; 000000000000 without a key]
    #[arg(long, env = "SHARDMILL_ACCOUNT", global = true)]
    account: Option<TenantId>,
    /// The region to act in [default: us-east-1; with an access key, AWS_REGION]
    #[arg(long, env = "SHARDMILL_REGION", global = true)]
    region: Option<Region>,
    /// Sign requests with this access key; needs its secret in AWS_SECRET_ACCESS_KEY
    #[arg(
        long,
        value_name = "ID",
        env = "AWS_ACCESS_KEY_ID",
        hide_env_values = true,
        global = true
    )]
    access_key: Option<String>,
    /// Trust the certificates in this PEM file, and no others, where the endpoint is https
    #[arg(long, value_name = "FILE", env = "SHARDMILL_CA_FILE", global = true)]
    ca_file: Option<PathBuf>,
    /// Answer with JSON, for scripts
    #[arg(long, global = true)]
    json: bool,
}

impl Connection {
    fn client(&self) -> anyhow::Result<Client> {
        let secret = std::env::var(SECRET).ok().filter(|text| !text.is_empty());
        let id = self.access_key.as_ref().filter(|id| !id.is_empty());
        // Without a key requests are not signed, and an open host takes any signature.
        let credentials = id.zip(secret).map(|(id, secret)| Credentials {
            id: id.clone(),
            secret: secret.into(),
        });
        let region = match (&self.region, &credentials) {
            (Some(region), _) => region.clone(),
            // They come from the surroundings that AWS's own tools use.
            (None, Some(_)) => region_of_environment()?,
            (None, None) => Region::default(),
        };
        let scope = Scope {
            tenant: self.account.unwrap_or(TenantId::DEFAULT),
            region,
        };
        let client = Client::new(&self.endpoint, scope, self.ca_file.as_deref())?;
        Ok(match credentials {
            Some(credentials) => client.signing(credentials, self.account.is_some()),
            None => client,
        })
    }
}

fn region_of_environment() -> anyhow::Result<Region> {
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        match std::env::var(name) {
            Ok(text) if !text.is_empty() => return text.parse().with_context(|| name.to_owned()),
            _ => {}
        }
    }
    Ok(Region::default())
}

/// Environment variable: the secret of the access key. There is no flag for it: others on the
/// machine see a process' arguments.
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";

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
        Command::Dev(arguments) => dev::run(arguments, sandbox).await?,
        Command::Put(arguments) => put::run(arguments).await?,
        Command::Tail(arguments) => tail::run(arguments).await?,
        Command::Invoke(arguments) => return invoke::run(arguments).await,
        Command::Streams(arguments) => streams::run(arguments).await?,
        Command::Functions(arguments) => functions::run(arguments).await?,
        Command::Aliases(arguments) => aliases::run(arguments).await?,
        Command::Mappings(arguments) => mappings::run(arguments).await?,
        Command::Top(arguments) => top::run(arguments).await?,
        Command::Usage(arguments) => usage::run(arguments).await?,
        Command::Counters(arguments) => counters::run(arguments).await?,
        Command::State(arguments) => state::run(arguments).await?,
        Command::Deliveries(arguments) => deliveries::run(arguments).await?,
        Command::Tenants(arguments) => tenants::run(arguments).await?,
        Command::Repair(arguments) => repair::run(&arguments)?,
        Command::Failures(arguments) => return failures::run(arguments).await,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_can_be_parsed() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
