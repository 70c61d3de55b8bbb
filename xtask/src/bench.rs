//! `cargo xtask bench`: builds the handlers, runs the benchmarks of the host and prints their
//! table. A full run also puts it, dated, into `docs/benchmarks.md`, between the two marks there;
//! the words around them stay. What is measured, and how, is `host/benches`' business.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{guests, paths, program};

/// The figures stand between these lines of `docs/benchmarks.md`.
const BEGIN: &str = "<!-- figures: written by `cargo xtask bench` -->\n";
const END: &str = "<!-- end of figures -->\n";

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Measure only the groups whose name contains this: journal, bytes, singles, http, invoke,
    /// handler, filter, mapping, lanes, shards, latency, end-to-end, start
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Fewer and shorter turns: figures to look at, not to quote
    #[arg(long)]
    quick: bool,
    /// Print the rows as JSON instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the benchmarks.
///
/// # Errors
/// Something does not build, or a group of rows could not be measured; the others are printed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let built = guests::build()?;
    let guests = built.first().and_then(|file| file.parent());
    let guests = guests.context("there are no handlers below handlers/")?;
    let dir = tempfile::tempdir().context("make a temporary folder")?;
    let json = dir.path().join("rows.json");

    let mut bench = program::cargo();
    bench
        .current_dir(paths::workspace())
        .args(["bench", "--package", "shardmill", "--bench", "all", "--"])
        .arg("--guests")
        .arg(guests)
        .arg("--json")
        .arg(&json);
    if let Some(filter) = &arguments.filter {
        bench.args(["--filter", filter]);
    }
    if arguments.quick {
        bench.arg("--quick");
    }
    // Standard error shows how far it is.
    let ended = bench
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    let table = String::from_utf8(ended.stdout).context("read the table")?;
    if arguments.json {
        print!("{}", fs::read_to_string(&json).context("read the rows")?);
    } else {
        print!("{table}");
    }
    if !ended.status.success() {
        bail!("the benchmarks ended with {}", ended.status);
    }
    if arguments.filter.is_none() && !arguments.quick {
        let file = paths::workspace().join("docs").join("benchmarks.md");
        publish(&file, &table)?;
        eprintln!("bench: wrote {}", file.display());
    }
    Ok(())
}

/// Puts a table into the document, with what it was taken with.
fn publish(file: &Path, table: &str) -> Result<()> {
    let document = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let said = |command: &mut Command| program::quiet(command).map(|text| text.trim().to_owned());
    let date = said(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))?;
    let rustc = said(Command::new("rustc").arg("--version"))?;
    let commit = said(
        Command::new("git")
            .args(["describe", "--always", "--dirty", "--exclude=*"])
            .current_dir(paths::workspace()),
    )
    .unwrap_or_else(|_| "unknown".to_owned());
    let figures = format!("- taken: {date}, commit {commit}, {rustc}\n{table}");
    let document = replace(&document, &figures)
        .with_context(|| format!("find the marks in {}", file.display()))?;
    fs::write(file, document).with_context(|| format!("write {}", file.display()))
}

/// The document with other figures between its marks; `None` without marks.
fn replace(document: &str, figures: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{figures}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_figures_are_replaced() {
        let document = format!("# Words\n{BEGIN}old\n{END}More words\n");
        let new = replace(&document, "| new |\n").unwrap();
        assert_eq!(
            new,
            format!("# Words\n{BEGIN}\n| new |\n\n{END}More words\n")
        );
        assert_eq!(replace(&new, "| new |\n").as_ref(), Some(&new));
        assert_eq!(replace("# Words\n", "| new |\n"), None);
    }
}
