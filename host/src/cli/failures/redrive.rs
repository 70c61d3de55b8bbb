//! `shardmill failures redrive` and `delete`: one entry, or some, or all, the oldest first.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::filter::{Filter, Redriven, ids};
use crate::cli::client::{Client, escaped};
use crate::cli::print;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The entry, or the beginning of its id if there is only one such
    #[arg(conflicts_with = "all")]
    id: Option<String>,
    /// Every entry that can be redriven
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Put the records to their stream again, behind what is there: every mapping of the stream
    /// sees them once more
    #[arg(long)]
    to_stream: bool,
    /// At most so many entries a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: Option<u32>,
    /// Go on when an entry fails again
    #[arg(long)]
    keep_going: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Delete {
    /// The entry, or the beginning of its id if there is only one such
    #[arg(conflicts_with = "all")]
    id: Option<String>,
    /// Every entry
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Also entries that were redriven, or only them
    #[arg(long, default_value = "no", default_missing_value = "also", num_args = 0..=1, require_equals = true)]
    redriven: Redriven,
}

/// What was done so far.
#[derive(Default)]
struct Sum {
    done: usize,
    records: u64,
    failed: usize,
}

pub(super) async fn run(
    client: &Client,
    arguments: Arguments,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let Arguments {
        id,
        all,
        filter,
        to_stream,
        rate,
        keep_going,
    } = arguments;
    let chosen = Chosen {
        id,
        all,
        filter,
        more: "&can_redrive=true",
        redriven: Redriven::No,
    };
    let ids = chosen.ids(client).await?;
    let bar = bar(ids.len());
    let mut ticks = rate.map(|rate| {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    });
    let (mut sum, mut answers) = (Sum::default(), Vec::new());
    for id in &ids {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let path = format!("failures/{}/redrive?to_stream={to_stream}", escaped(id));
        let told = match client.native(Method::POST, &path, None).await {
            Ok(answer) => answer,
            // One is asked for by its name: what is wrong with it is all there is to say.
            Err(error) if ids.len() == 1 => return Err(error.into()),
            Err(error) => json!({ "outcome": "failed", "cause": error.to_string() }),
        };
        let done = told["outcome"] == "done";
        if done {
            sum.done += 1;
            sum.records += told["records"].as_u64().unwrap_or(0);
        } else {
            sum.failed += 1;
        }
        say(&bar, id, told, (json, &mut answers))?;
        bar.inc(1);
        if !done && !keep_going {
            break;
        }
    }
    bar.finish_and_clear();
    let left = ids.len() - sum.done - sum.failed;
    if json {
        print::line(json!({
            "redriven": answers, "done": sum.done, "records": sum.records,
            "failed": sum.failed, "left": left,
        }))?;
    } else if ids.is_empty() {
        print::line("no failures to redrive")?;
    } else if ids.len() > 1 {
        let (done, records) = (sum.done as u64, print::count(sum.records, "record"));
        let mut text = format!("{} redriven ({records})", print::count(done, "failure"));
        text += &format!(", {} failed again", sum.failed);
        if left > 0 {
            text += &format!(", {left} left: --keep-going goes on after one that fails again");
        }
        print::line(text)?;
    }
    Ok(match sum.failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Says what came of an entry.
fn say(
    bar: &ProgressBar,
    id: &str,
    mut told: Value,
    (json, answers): (bool, &mut Vec<Value>),
) -> anyhow::Result<()> {
    if json {
        told["id"] = id.into();
        answers.push(told);
        return Ok(());
    }
    let text = if told["outcome"] == "done" {
        let records = told["records"].as_u64().unwrap_or(0);
        format!("{id}: {} done", print::count(records, "record"))
    } else {
        format!("{id}: failed again: {}", print::cell(&told["cause"]))
    };
    bar.suspend(|| print::line(text))
}

pub(super) async fn delete(
    client: &Client,
    arguments: Delete,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let Delete {
        id,
        all,
        filter,
        redriven,
    } = arguments;
    let chosen = Chosen {
        id,
        all,
        filter,
        more: "",
        redriven,
    };
    let ids = chosen.ids(client).await?;
    let bar = bar(ids.len());
    for id in &ids {
        let path = format!("failures/{}", escaped(id));
        client.native(Method::DELETE, &path, None).await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let text = format!("{} deleted", print::count(ids.len() as u64, "failure"));
    print::done(json, &json!({ "deleted": ids }), &text)?;
    Ok(ExitCode::SUCCESS)
}

/// The entries that a command is for.
struct Chosen {
    id: Option<String>,
    all: bool,
    filter: Filter,
    more: &'static str,
    redriven: Redriven,
}

impl Chosen {
    async fn ids(self, client: &Client) -> anyhow::Result<Vec<String>> {
        match (self.id, self.filter.is_empty()) {
            (Some(id), true) => Ok(vec![id]),
            (Some(_), false) => bail!("an id and filters: give one or the others"),
            (None, true) if !self.all && self.redriven == Redriven::No => {
                bail!("which failures? give an id, filters as --mapping NAME, or --all")
            }
            (None, _) => ids(client, &self.filter, self.more, self.redriven).await,
        }
    }
}

/// A progress bar on the terminal, for several entries.
fn bar(len: usize) -> ProgressBar {
    if len < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} failures, {eta} left");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len as u64).with_style(style)
}
