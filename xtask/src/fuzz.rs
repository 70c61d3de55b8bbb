//! `cargo xtask fuzz`: the laws of `fuzz/laws` guided by coverage, for as long as one likes. What is
//! found stays in our cache; what breaks a law is named, with how to run it again.
//!
//! The compiler's instrumentation is unstable: `RUSTC_BOOTSTRAP` lets a stable compiler do it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::cargo_tool::CargoTool;
use crate::{paths, program};

const CARGO_FUZZ: CargoTool = CargoTool {
    name: "cargo-fuzz",
    version: "0.13.2",
};

/// Most memory of a fuzzing program, MiB: what an input may make it take, and the sanitizer's own.
const MEMORY_MIB: u32 = 2_048;
/// Longest run of one input, s.
const INPUT_SECONDS: u32 = 10;
/// Most bytes of an input.
const INPUT_BYTES: u32 = 8_192;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The target, or all of them one after the other
    target: Option<String>,
    /// How long each target runs, s
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Run this input alone
    #[arg(long, requires = "target")]
    input: Option<PathBuf>,
    /// A sanitizer of the compiler's, or none
    #[arg(long, default_value = "address")]
    sanitizer: String,
    /// Crates that are built at once
    #[arg(long)]
    jobs: Option<u32>,
}

/// Runs targets. The exit code says whether every law held.
///
/// # Errors
/// There is no such target, or its program cannot be built.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let known = targets()?;
    let targets = match &arguments.target {
        None => known,
        Some(target) if known.contains(target) => vec![target.clone()],
        Some(target) => bail!("no target {target:?}: there are {}", known.join(", ")),
    };
    let fuzzer = Fuzzer {
        program: CARGO_FUZZ.ensure()?,
        cache: paths::cache()?,
        arguments,
    };
    let mut broken = Vec::new();
    for target in &targets {
        println!("\n== {target}");
        fuzzer.cargo_fuzz("build", target)?;
        if !fuzzer.run(target)? {
            broken.push(target.as_str());
        }
    }
    if broken.is_empty() {
        println!("\nevery law held: {}", targets.join(", "));
        return Ok(ExitCode::SUCCESS);
    }
    for target in broken {
        let folder = fuzzer.found("crashes", target);
        println!("\n{target} broke a law: {}", folder.display());
        println!("again, guided:    cargo xtask fuzz {target} --input FILE");
        println!(
            "again, as a test: SHARDMILL_FUZZ_INPUT=FILE cargo test -p shardmill-laws --test corpus"
        );
        println!("mended? then keep the input: cp FILE fuzz/corpus/{target}/");
    }
    Ok(ExitCode::FAILURE)
}

/// The names of the programs.
fn targets() -> Result<Vec<String>> {
    let folder = paths::workspace().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let file = entry?.path();
        names.extend(file.file_stem().and_then(|s| s.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

struct Fuzzer<'a> {
    program: PathBuf,
    cache: PathBuf,
    arguments: &'a Arguments,
}

impl Fuzzer<'_> {
    /// cargo-fuzz with what building and running have in common.
    fn command(&self, what: &str, target: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(paths::workspace())
            .args(["fuzz", what, "--fuzz-dir", "fuzz", "--sanitizer"])
            .arg(&self.arguments.sanitizer)
            .arg("--target-dir")
            .arg(self.cache.join("fuzz-target"))
            .arg(target)
            .env("RUSTC_BOOTSTRAP", "1")
            .env_remove("CARGO_TARGET_DIR");
        if let Some(jobs) = self.arguments.jobs {
            command.env("CARGO_BUILD_JOBS", jobs.to_string());
        }
        command
    }

    fn cargo_fuzz(&self, what: &str, target: &str) -> Result<()> {
        let status = program::streamed(&mut self.command(what, target), |_| {})?;
        if !status.success() {
            bail!("`cargo fuzz {what} {target}` failed");
        }
        Ok(())
    }

    /// Where what is found of a target lies.
    fn found(&self, what: &str, target: &str) -> PathBuf {
        self.cache.join("fuzz").join(what).join(target)
    }

    /// Runs a program that is built. Gives whether every law held.
    fn run(&self, target: &str) -> Result<bool> {
        let (corpus, crashes) = (self.found("corpus", target), self.found("crashes", target));
        for folder in [&corpus, &crashes] {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let mut run = self.command("run", target);
        match &self.arguments.input {
            Some(input) => {
                run.arg(std::path::absolute(input)?);
            }
            None => {
                // New inputs go into the first folder, so that the committed one stays small.
                run.arg(&corpus)
                    .arg(Path::new("fuzz/corpus").join(target))
                    .arg("--")
                    .arg(format!("-max_total_time={}", self.arguments.seconds))
                    .arg(format!("-artifact_prefix={}/", crashes.display()))
                    .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
                    .arg(format!("-timeout={INPUT_SECONDS}"))
                    .arg(format!("-max_len={INPUT_BYTES}"))
                    .arg("-print_final_stats=1");
                let words = Path::new("fuzz/dictionaries").join(target);
                if paths::workspace().join(&words).is_file() {
                    run.arg(format!("-dict={}", words.display()));
                }
            }
        }
        Ok(program::streamed(&mut run, |_| {})?.success())
    }
}
