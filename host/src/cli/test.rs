//! `shardmill test`: runs scenarios, on simulated time and without a host. `docs/scenarios.md`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use shardmill_core::Sandbox;

use super::print;
use crate::scenario::{Cached, MAX_TENANTS, Scenario};
use crate::serve::NewSimulated;

/// Folders of this name are looked into below a folder that is named.
const FOLDER: &str = "scenarios";
/// Files in TOML that are something else.
const OTHERS: [&str; 3] = ["Cargo.toml", "shardmill.toml", "clippy.toml"];
/// Folders that hold what was built.
const BUILT: &str = "target";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Scenarios, or folders: the .toml files in them and in folders called `scenarios` below
    #[arg(default_value = ".", value_name = "FILE|FOLDER")]
    paths: Vec<PathBuf>,
    /// Where modules are that do not lie beside their scenario
    #[arg(long, env = "SHARDMILL_GUESTS", value_name = "FOLDER")]
    modules: Option<PathBuf>,
    /// Run each for so many tenants at once on one host, too: none may get other results than alone
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=i64::from(MAX_TENANTS)))]
    tenants: Option<u32>,
    /// Answer with JSON, for scripts
    #[arg(long)]
    json: bool,
}

/// Runs all scenarios, whatever becomes of each. `sandbox` makes one whose guests do not wait.
pub(super) fn run(arguments: &Arguments, sandbox: NewSimulated) -> anyhow::Result<ExitCode> {
    let mut files = Vec::new();
    for path in &arguments.paths {
        let before = files.len();
        if path.is_dir() {
            collect(path, true, &mut files).with_context(|| format!("read {}", path.display()))?;
            if files.len() == before {
                let path = path.display();
                bail!(
                    "{path} holds no scenario: .toml files in it, or in folders called `{FOLDER}` below, expected"
                );
            }
        } else {
            files.push(path.clone());
        }
    }
    let sandbox: Arc<dyn Sandbox> = Arc::new(Cached::new(sandbox()?));
    let (mut passed, mut failed) = (0_u64, 0_u64);
    let mut answers = Vec::new();
    for file in files {
        let scenario = Scenario::load(&file, arguments.modules.as_deref());
        let (good, answer) = match scenario {
            Ok(scenario) => {
                let report = match arguments.tenants {
                    None => scenario.run(Arc::clone(&sandbox)),
                    Some(tenants) => scenario.run_for(&sandbox, tenants),
                };
                let report = report.context("start a runtime")?;
                if !arguments.json {
                    print::text(print::plain(&report.text()))?;
                }
                (report.passed(), report.json())
            }
            Err(error) => {
                if !arguments.json {
                    print::line(format!("FAIL  {error}"))?;
                }
                let answer = json!({
                    "file": file.display().to_string(),
                    "passed": false,
                    "error": error.to_string(),
                });
                (false, answer)
            }
        };
        *(if good { &mut passed } else { &mut failed }) += 1;
        answers.push(answer);
    }
    summarize(arguments.json, answers, passed, failed)?;
    Ok(ExitCode::from(u8::from(failed > 0)))
}

fn summarize(as_json: bool, answers: Vec<Value>, passed: u64, failed: u64) -> anyhow::Result<()> {
    if as_json {
        return print::line(json!({"scenarios": answers, "passed": passed, "failed": failed}));
    }
    let all = print::count(passed + failed, "scenario");
    print::line(format!("{all}: {passed} passed, {failed} failed"))
}

/// The scenarios of a folder, in the order of their names. `taken`: the .toml files in it are
/// scenarios.
fn collect(folder: &Path, taken: bool, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let entries: Result<Vec<_>, _> = std::fs::read_dir(folder)?.collect();
    let mut entries = entries?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        let hidden = name.as_encoded_bytes().starts_with(b".");
        if entry.file_type()?.is_dir() {
            if !hidden && name != BUILT {
                collect(&path, name == FOLDER, files)?;
            }
        } else if taken
            && path.extension() == Some(OsStr::new("toml"))
            && !OTHERS.iter().any(|other| name == *other)
        {
            files.push(path);
        }
    }
    Ok(())
}
