//! `shardmill failures redrive`: one entry, or some, or all, the oldest first.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::filter::{Chosen, Filter, Redriven, all};
use crate::cli::client::{CallError, Client, escaped};
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

/// What was done so far.
#[derive(Default)]
struct Sum {
    done: usize,
    records: u64,
    failed: usize,
    /// Redriven or deleted by somebody else meanwhile.
    skipped: usize,
    /// Those of a tumbling window, which can only be put to their stream.
    windows: usize,
}

/// How often an entry is tried that the host has no room for: for about a minute.
const THROTTLE_TRIES: u32 = 16;
/// The first wait, which doubles, and the longest.
const THROTTLE_WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

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
    let named = id.is_some();
    let wanted = Wanted { id, all, filter };
    let chosen = wanted.find(client, "&can_redrive=true", Redriven::No);
    let ids: Vec<String> = chosen.await?.into_iter().map(|found| found.id).collect();
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
        let answer = match redrive(client, &path).await {
            Ok(answer) => answer,
            // What is wrong with the one that is named is all there is to say.
            Err(error) if named => return Err(error.into()),
            Err(error) if error.has_code("tumbling_window") => {
                sum.windows += 1;
                bar.inc(1);
                continue;
            }
            Err(error) if error.has_code("redriven") || error.is_not_found() => {
                sum.skipped += 1;
                bar.inc(1);
                continue;
            }
            Err(error @ CallError::Refused { .. }) if !error.has_code("throttled") => {
                json!({ "outcome": "failed", "cause": error.to_string() })
            }
            Err(error) => {
                bar.finish_and_clear();
                return Err(error).with_context(|| told(&sum, ids.len()));
            }
        };
        let done = answer["outcome"] == "done";
        if done {
            sum.done += 1;
            sum.records += answer["records"].as_u64().unwrap_or(0);
        } else {
            sum.failed += 1;
        }
        say(&bar, id, answer, (json, &mut answers))?;
        bar.inc(1);
        if !done && !keep_going {
            break;
        }
    }
    bar.finish_and_clear();
    let left = ids.len() - sum.done - sum.failed - sum.skipped - sum.windows;
    if json {
        print::line(json!({
            "redriven": answers, "done": sum.done, "records": sum.records,
            "failed": sum.failed, "skipped": sum.skipped, "windows": sum.windows, "left": left,
        }))?;
    } else if ids.is_empty() {
        print::line("no failures to redrive")?;
    } else if ids.len() > 1 {
        let mut text = told(&sum, ids.len());
        if left > 0 {
            text += ": --keep-going goes on after one that fails again";
        }
        print::line(text)?;
    }
    Ok(match sum.failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Redrives an entry; waits while the host has no room for it.
async fn redrive(client: &Client, path: &str) -> Result<Value, CallError> {
    let client = client.patient();
    let (mut wait, longest) = THROTTLE_WAITS;
    for _ in 1..THROTTLE_TRIES {
        match client.native(Method::POST, path, None).await {
            Err(error) if error.has_code("throttled") => tokio::time::sleep(wait).await,
            answer => return answer,
        }
        wait = longest.min(wait * 2);
    }
    client.native(Method::POST, path, None).await
}

/// What came of several entries.
fn told(sum: &Sum, all: usize) -> String {
    let records = print::count(sum.records, "record");
    let done = print::count(sum.done as u64, "failure");
    let mut text = format!("{done} redriven ({records}), {} failed again", sum.failed);
    if sum.windows > 0 {
        text += &format!(
            ", {} of tumbling windows passed over (--to-stream puts them again)",
            sum.windows
        );
    }
    if sum.skipped > 0 {
        text += &format!(", {} redriven or deleted meanwhile", sum.skipped);
    }
    match all - sum.done - sum.failed - sum.skipped - sum.windows {
        0 => {}
        left => text += &format!(", {left} left"),
    }
    text
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

/// The entries that a command is for.
pub(super) struct Wanted {
    pub(super) id: Option<String>,
    /// Whether it was said that all are meant.
    pub(super) all: bool,
    pub(super) filter: Filter,
}

impl Wanted {
    /// Looks for them, the oldest first. One that is named by its id is not looked at.
    pub(super) async fn find(
        self,
        client: &Client,
        more: &str,
        redriven: Redriven,
    ) -> anyhow::Result<Vec<Chosen>> {
        match (self.id, self.filter.is_empty()) {
            (Some(id), true) => Ok(vec![Chosen { id, redriven: true }]),
            (Some(_), false) => bail!("an id and filters: give one or the others"),
            (None, true) if !self.all => {
                bail!("which failures? give an id, filters as --mapping NAME, or --all")
            }
            (None, _) => all(client, &self.filter, more, redriven).await,
        }
    }
}

/// A progress bar on the terminal, for several entries.
pub(super) fn bar(len: usize) -> ProgressBar {
    if len < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} failures, {eta} left");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len as u64).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::tests::host;

    const THROTTLED: &str = r#"{"error": {"code": "throttled", "message": "no room"}}"#;
    const REDRIVEN: &str = r#"{"error": {"code": "redriven", "message": "it was"}}"#;
    const DONE: &str = r#"{"outcome": "done", "records": 1}"#;

    fn everything() -> Arguments {
        Arguments {
            id: None,
            all: true,
            filter: Filter::default(),
            to_stream: false,
            rate: None,
            keep_going: false,
        }
    }

    #[tokio::test]
    async fn a_throttle_is_waited_for_and_what_others_redrove_is_passed_over() {
        let (client, asked) = host(&[
            (200, r#"{"failures": [{"id": "b"}, {"id": "a"}]}"#),
            (409, REDRIVEN),
            (503, THROTTLED),
            (503, THROTTLED),
            (200, DONE),
        ])
        .await;
        let code = run(&client, everything(), true).await.unwrap();
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
        let asked = asked.await.unwrap();
        let redriven = |id: &str| format!("POST /_shardmill/failures/{id}/redrive?to_stream=false");
        assert_eq!(asked[1], redriven("a"));
        assert_eq!(asked[2..], [redriven("b"), redriven("b"), redriven("b")]);
    }
}
