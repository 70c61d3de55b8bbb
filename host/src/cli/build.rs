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
    let (_, spec) = project(&folder)?;
    let built = make(&spec, &folder)?;
    if arguments.json {
        print::line(json!({
            "language": spec.language.name(),
            "module": spec.output.display().to_string(),
            "bytes": built.bytes,
            "seconds": built.took.as_secs_f64(),
        }))?;
    } else {
        print::line(built.words(&spec, &folder))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A handler's folder: its manifest, and how its module is made.
pub(super) fn project(folder: &Path) -> anyhow::Result<(PathBuf, BuildSpec)> {
    let manifest = folder.join(MANIFEST);
    if !manifest.is_file() {
        bail!(
            "{} is not there: `shardmill new NAME --lang …` writes a handler with one",
            manifest.display()
        );
    }
    let Some(spec) = Manifest::load(&manifest)?.build else {
        bail!(
            "{} has no table [build]: add language and output",
            manifest.display()
        );
    };
    Ok((manifest, spec))
}

/// A module that was made.
pub(super) struct Built {
    bytes: u64,
    took: Duration,
}

impl Built {
    /// For people: where it is, how large, and how long it took.
    pub(super) fn words(&self, spec: &BuildSpec, folder: &Path) -> String {
        let shown = spec.output.strip_prefix(folder).unwrap_or(&spec.output);
        let (size, seconds) = (print::size(self.bytes), self.took.as_secs_f64());
        format!("{}  {size}  in {seconds:.1} s", shown.display())
    }
}

/// Makes the module and puts it in place. Blocks.
pub(super) fn make(spec: &BuildSpec, folder: &Path) -> anyhow::Result<Built> {
    let clock = crate::clock::Clock::system();
    let began = clock.now();
    let made = build(spec.language, folder)?;
    publish(&made, &spec.output)?;
    let bytes = fs::metadata(&spec.output)
        .context("read the module's size")?
        .len();
    Ok(Built {
        bytes,
        took: clock.now().since(began),
    })
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
