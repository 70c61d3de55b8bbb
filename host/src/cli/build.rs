//! `shardmill build`: from a handler's sources to its module, by its language's own tools. What
//! they say goes to standard error as they say it.

mod recipes;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;

use super::print;
use crate::manifest::{BuildSpec, Language, Manifest};

/// Which file says how.
const MANIFEST: &str = "shardmill.toml";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The handler's folder
    #[arg(default_value = ".", value_name = "FOLDER")]
    folder: PathBuf,
    /// Answer with JSON, for scripts
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let folder = std::path::absolute(&arguments.folder).context("find the folder")?;
    let manifest = folder.join(MANIFEST);
    if !manifest.is_file() {
        bail!(
            "{} is not there: `shardmill new NAME --lang …` writes a handler with one",
            manifest.display()
        );
    }
    let Some(BuildSpec { language, output }) = Manifest::load(&manifest)?.build else {
        bail!(
            "{} has no table [build]: add language and output",
            manifest.display()
        );
    };
    let clock = crate::clock::Clock::system();
    let began = clock.now();
    let made = build(language, &folder)?;
    publish(&made, &output)?;
    let size = fs::metadata(&output)
        .context("read the module's size")?
        .len();
    let took = Duration::from_millis(clock.now().0.saturating_sub(began.0));
    if arguments.json {
        print::line(json!({
            "language": language.name(),
            "module": output.display().to_string(),
            "bytes": size,
            "seconds": took.as_secs_f64(),
        }))?;
    } else {
        let shown = output.strip_prefix(&folder).unwrap_or(&output).display();
        print::line(format!(
            "{shown}  {}  in {:.1} s",
            print::size(size),
            took.as_secs_f64()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the language's tools; the module that they made.
fn build(language: Language, folder: &Path) -> anyhow::Result<PathBuf> {
    let work = folder.join(".shardmill");
    if language != Language::Rust {
        fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
    }
    let made = work.join("built.wasm");
    match language {
        Language::Rust => return recipes::rust(folder),
        Language::Python | Language::PythonLambda => recipes::python(folder, &made),
        Language::Javascript => recipes::javascript(folder, &made),
        Language::C => recipes::c(folder, &made),
        Language::Go => recipes::go(folder, &made),
    }?;
    Ok(made)
}

/// Puts the module in place in one step, so that nobody reads half of it; one that is the same is
/// left alone.
fn publish(made: &Path, output: &Path) -> anyhow::Result<()> {
    let wasm = fs::read(made).with_context(|| format!("read {}", made.display()))?;
    if !wasm.starts_with(b"\0asm") {
        bail!("{} is no WebAssembly", made.display());
    }
    if fs::read(output).is_ok_and(|old| old == wasm) {
        return Ok(());
    }
    let beside = output.with_extension("wasm.new");
    fs::write(&beside, wasm).with_context(|| format!("write {}", beside.display()))?;
    fs::rename(&beside, output).with_context(|| format!("write {}", output.display()))
}
