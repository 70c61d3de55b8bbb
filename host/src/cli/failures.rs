//! `shardmill failures`: what was given up, why, and a second chance. One file per command.

mod delete;
mod filter;
mod list;
mod redrive;
mod replay;
mod show;
mod transfer;

use std::process::ExitCode;

use clap::Subcommand;

use super::Connection;

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
    List(list::Arguments),
    /// Show an entry with its trap report and its records
    Show(show::Arguments),
    /// Run an entry's attempt again, without any effect, and compare the outcome
    Replay(replay::Arguments),
    /// Run the records of entries through their function as it is now; what succeeds is marked
    Redrive(redrive::Arguments),
    /// Delete entries with their records
    Delete(delete::Arguments),
    /// Write an entry to a file, for a bug report
    Export(transfer::Export),
    /// Add the entry in an exported file, to show and to replay
    Import(transfer::Import),
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments {
        command,
        connection,
    } = arguments;
    let client = connection.client()?;
    let json = connection.json;
    match command {
        Command::List(arguments) => list::run(&client, arguments, json).await?,
        Command::Show(arguments) => show::run(&client, arguments, json).await?,
        Command::Replay(arguments) => return replay::run(&client, arguments, json).await,
        Command::Redrive(arguments) => return redrive::run(&client, arguments, json).await,
        Command::Delete(arguments) => return delete::run(&client, arguments, json).await,
        Command::Export(arguments) => transfer::export(&client, arguments, json).await?,
        Command::Import(arguments) => transfer::import(&client, arguments, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}
