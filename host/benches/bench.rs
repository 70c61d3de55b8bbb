//! One run of the benchmarks: where it works, how thorough it is, what it has found.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tempfile::TempDir;

use crate::machine::Machine;
use crate::row::Row;

/// A run.
pub(crate) struct Bench {
    quick: bool,
    dir: PathBuf,
    guests: PathBuf,
    group: &'static str,
    heading: String,
    spinner: ProgressBar,
    report: Report,
}

/// What a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) quick: bool,
    pub(crate) rows: Vec<Row>,
}

impl Bench {
    /// Works below `dir`, with the handlers in `guests`.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub(crate) fn new(dir: &Path, guests: &Path, quick: bool) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let spinner = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            spinner.set_style(style);
        }
        if std::io::stderr().is_terminal() {
            spinner.enable_steady_tick(Duration::from_millis(120));
        }
        Ok(Self {
            quick,
            dir: dir.to_owned(),
            guests: guests.to_owned(),
            group: "",
            heading: String::new(),
            spinner,
            report: Report {
                machine: Machine::read(dir),
                quick,
                rows: Vec::new(),
            },
        })
    }

    /// Begins a group of rows.
    pub(crate) fn begin(&mut self, group: &'static str, number: usize, groups: usize) {
        self.group = group;
        self.heading = format!("{number}/{groups} {group}");
        self.say("");
        if self.spinner.is_hidden() {
            eprintln!("bench: {}", self.heading);
        }
    }

    /// Says what is under way: one turn of several. Only a terminal shows it.
    pub(crate) fn turn(&self, what: &str, turn: usize, turns: usize) {
        self.say(&format!(": {what} {}/{turns}", turn + 1));
    }

    fn say(&self, text: &str) {
        self.spinner.set_message(format!("{}{text}", self.heading));
    }

    /// Adds a row, and shows it.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        row: impl FnOnce(&'static str, String) -> Row,
    ) {
        let row = row(self.group, name.into());
        let line = format!(
            "{}: {}: {} {}",
            row.group,
            row.name,
            row.measured,
            row.verdict()
        );
        self.spinner
            .suspend(|| eprintln!("bench: {}", line.trim_end()));
        self.report.rows.push(row);
    }

    /// How often, or how much: the first in a full run, the second in a quick one.
    pub(crate) fn choose<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// An empty folder on the disk that is measured; removed when it is dropped.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn folder(&self) -> anyhow::Result<TempDir> {
        let folder = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&self.dir);
        folder.with_context(|| format!("make a folder in {}", self.dir.display()))
    }

    /// A built handler's file.
    pub(crate) fn guest_file(&self, name: &str) -> PathBuf {
        self.guests.join(format!("{name}.wasm"))
    }

    /// A built handler.
    ///
    /// # Errors
    /// It is not there.
    pub(crate) fn guest(&self, name: &str) -> anyhow::Result<Bytes> {
        let file = self.guest_file(name);
        let wasm = std::fs::read(&file);
        let wasm = wasm.with_context(|| {
            format!(
                "read {}: build it with `cargo xtask guests`",
                file.display()
            )
        })?;
        Ok(wasm.into())
    }

    /// Ends the run.
    pub(crate) fn finish(mut self) -> Report {
        self.spinner.finish_and_clear();
        self.report.machine.note_end();
        self.report
    }
}
