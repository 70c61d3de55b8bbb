//! `shardmill failures delete`: one entry, or some, or all, the oldest first. What was not
//! redriven is asked about: it may be the last copy of its records.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use hyper::Method;
use serde_json::json;

use super::filter::{Filter, Redriven};
use super::redrive::{Wanted, bar};
use crate::cli::client::{Client, escaped};
use crate::cli::print;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The entry, or the beginning of its id if there is only one such
    #[arg(conflicts_with = "all")]
    id: Option<String>,
    /// Every entry
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Only entries that were redriven; with `no`, only those that were not
    #[arg(long, default_value = "also", default_missing_value = "only", num_args = 0..=1, require_equals = true)]
    redriven: Redriven,
    /// Do not ask about entries that were not redriven, whose records are lost with them
    #[arg(long)]
    yes: bool,
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
        redriven,
        yes,
    } = arguments;
    let named = id.is_some();
    let wanted = Wanted {
        id,
        all: all || redriven == Redriven::Only,
        filter,
    };
    let chosen = wanted.find(client, "", redriven).await?;
    let open = chosen.iter().filter(|entry| !entry.redriven).count();
    if open > 0 && !yes && !is_meant(open)? {
        bail!("nothing is deleted");
    }
    let (mut deleted, mut gone) = (Vec::new(), 0);
    let bar = bar(chosen.len());
    for entry in &chosen {
        let path = format!("failures/{}", escaped(&entry.id));
        match client.native(Method::DELETE, &path, None).await {
            Ok(_) => deleted.push(entry.id.as_str()),
            // Expired, or deleted by somebody else.
            Err(error) if error.is_not_found() && !named => gone += 1,
            Err(error) => {
                bar.finish_and_clear();
                return Err(error).with_context(|| told(deleted.len(), gone));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let answer = json!({ "deleted": deleted, "gone": gone });
    print::done(json, &answer, &told(deleted.len(), gone))?;
    Ok(ExitCode::SUCCESS)
}

fn told(deleted: usize, gone: usize) -> String {
    let deleted = format!("{} deleted", print::count(deleted as u64, "failure"));
    match gone {
        0 => deleted,
        gone => format!("{deleted}, {gone} were gone already"),
    }
}

/// Asks a person about entries that were not redriven; a script has to say it.
fn is_meant(open: usize) -> anyhow::Result<bool> {
    let open = format!("{} not redriven", print::count(open as u64, "failure"));
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("{open}: say --yes to delete them with their records");
    }
    let mut out = std::io::stderr();
    write!(out, "{open}: delete them with their records? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::tests::host;

    const GONE: &str = r#"{"error": {"code": "not_found", "message": "it is gone"}}"#;
    const OPEN_AND_REDRIVEN: &str =
        r#"{"failures": [{"id": "b", "redriven": 1}, {"id": "a", "redriven": null}]}"#;

    fn everything(yes: bool) -> Arguments {
        Arguments {
            id: None,
            all: true,
            filter: Filter::default(),
            redriven: Redriven::Also,
            yes,
        }
    }

    #[tokio::test]
    async fn all_means_all_and_what_is_gone_meanwhile_is_passed_over() {
        let (client, asked) = host(&[(200, OPEN_AND_REDRIVEN), (404, GONE), (200, "{}")]).await;
        run(&client, everything(true), true).await.unwrap();
        let asked = asked.await.unwrap();
        assert!(asked[0].contains("redriven=also"), "{asked:?}");
        let delete = |id: &str| format!("DELETE /_shardmill/failures/{id}");
        assert_eq!(asked[1..], [delete("a"), delete("b")]);
    }

    #[tokio::test]
    async fn a_mistake_in_the_middle_tells_how_many_went() {
        const BROKEN: &str = r#"{"error": {"code": "internal", "message": "a bad sector"}}"#;
        let (client, _) = host(&[(200, OPEN_AND_REDRIVEN), (200, "{}"), (500, BROKEN)]).await;
        let error = run(&client, everything(true), true).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "1 failure deleted: a bad sector");
    }
}
