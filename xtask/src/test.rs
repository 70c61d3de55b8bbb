//! `cargo xtask test`: everything that proves the project, in the order in which a failure is
//! cheapest to learn of, after the set-up. What each part tests is its own business.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::step::{Ending, Steps};
use crate::tally::Tally;
use crate::{clients, deny, guests, paths, program, templates, wasm_target};

/// Runs all steps; the exit code says whether everything passed.
///
/// # Errors
/// None of a step's: those are counted.
pub(crate) fn run() -> Result<ExitCode> {
    let mut steps = Steps::default();
    steps.prepare("wasm-target", || {
        println!("{}", wasm_target::describe(&wasm_target::ensure()?));
        Ok(())
    });
    steps.prepare("guests", || guests::build().map(|_| ()));
    steps.check("format", || cargo(&["fmt", "--all", "--check"]));
    steps.check("clippy", || {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])
    });
    steps.run("dependencies", deny::run);
    let built = steps.prepare("build", || {
        cargo(&["build", "--workspace", "--bins"])?;
        cargo(&["test", "--workspace", "--no-run"])
    });
    if built == Ending::Good {
        steps.run("tests", tests);
        steps.run("clients", clients::test);
        steps.run("templates", templates::test);
    } else {
        Steps::leave_out("tests", "the build failed");
        Steps::leave_out("clients", "the build failed");
        Steps::leave_out("templates", "the build failed");
    }
    Ok(match steps.finish() {
        Ending::Good => ExitCode::SUCCESS,
        Ending::Bad => ExitCode::FAILURE,
    })
}

/// The templates of `shardmill new` alone.
///
/// # Errors
/// None: what fails is counted.
pub(crate) fn templates() -> Result<ExitCode> {
    let mut steps = Steps::default();
    let built = steps.prepare("build", || cargo(&["build", "--workspace", "--bins"]));
    if built == Ending::Good {
        steps.run("templates", templates::test);
    } else {
        Steps::leave_out("templates", "the build failed");
    }
    Ok(ended(&steps))
}

/// The step that looks at the dependencies, alone.
///
/// # Errors
/// None of the step's: those are counted.
pub(crate) fn deny() -> Result<ExitCode> {
    let mut steps = Steps::default();
    steps.run("dependencies", deny::run);
    Ok(ended(&steps))
}

fn ended(steps: &Steps) -> ExitCode {
    match steps.finish() {
        Ending::Good => ExitCode::SUCCESS,
        Ending::Bad => ExitCode::FAILURE,
    }
}

fn tests(tally: &mut Tally) -> Result<()> {
    let mut test = in_workspace();
    test.args(["test", "--workspace", "--no-fail-fast"])
        .env("SHARDMILL_GUESTS", paths::guests()?);
    counted(&mut test, tally)
}

/// Runs a test program and counts what it prints.
///
/// # Errors
/// It does not start, or it fails without having counted a failure.
pub(crate) fn counted(program: &mut Command, tally: &mut Tally) -> Result<()> {
    let status = program::streamed(program, |line| tally.read(line))?;
    if !status.success() && tally.failed() == 0 {
        bail!("the tests ended early ({status})");
    }
    Ok(())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let status = program::streamed(in_workspace().args(arguments), |_| {})?;
    if !status.success() {
        bail!("`cargo {}` failed", arguments.join(" "));
    }
    Ok(())
}

fn in_workspace() -> Command {
    let mut cargo = program::cargo();
    cargo.current_dir(paths::workspace());
    cargo
}
