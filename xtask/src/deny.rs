//! `cargo xtask deny`: what the dependencies may be (`deny.toml`), held against what they are, in
//! the workspace and in the fuzzer's own.
//!
//! Licences, bans and sources need nothing but what cargo has fetched. The advisories are RustSec's,
//! in a repository of their own: where that cannot be fetched, the check is named as skipped.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cargo_tool::CargoTool;
use crate::tally::Tally;
use crate::{paths, program};

const CARGO_DENY: CargoTool = CargoTool {
    name: "cargo-deny",
    version: "0.20.2",
};

/// How long the advisories may take to be fetched.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// The manifests whose dependencies are looked at.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "fuzz/Cargo.toml"];

/// Runs the checks, and counts each.
///
/// # Errors
/// cargo-deny cannot be had, or a check fails: it has then said why.
pub(crate) fn run(tally: &mut Tally) -> Result<()> {
    let deny = CARGO_DENY.ensure()?;
    let on = |manifest: &str| {
        let mut deny = Command::new(&deny);
        deny.current_dir(paths::workspace()).args([
            "--manifest-path",
            manifest,
            "--config",
            "deny.toml",
        ]);
        deny
    };
    for manifest in MANIFESTS {
        // Offline, cargo would not look for what it has not fetched.
        let mut fetch = program::cargo();
        fetch.current_dir(paths::workspace()).args([
            "fetch",
            "--locked",
            "--quiet",
            "--manifest-path",
            manifest,
        ]);
        program::quiet(&mut fetch)?;
        let mut check = on(manifest);
        check.args(["--offline", "check", "--hide-inclusion-graph"]);
        // What one manifest's dependencies have need not be among the other's.
        check.args(["--allow", "license-exception-not-encountered"]);
        if manifest != MANIFESTS[0] {
            check.args(["--allow", "license-not-encountered"]);
        }
        check.args(["bans", "licenses", "sources"]);
        if !program::streamed(&mut check, |_| {})?.success() {
            bail!("the dependencies of {manifest} are not as deny.toml says");
        }
        tally.pass_one();
    }
    match program::quiet_within(on(MANIFESTS[0]).arg("fetch"), FETCH_LIMIT) {
        Err(error) => tally.skip(&format!(
            "advisories (the advisory database cannot be fetched: {})",
            cause(&error)
        )),
        Ok(_) => {
            for manifest in MANIFESTS {
                let mut check = on(manifest);
                check.args(["--offline", "check", "advisories"]);
                if !program::streamed(&mut check, |_| {})?.success() {
                    bail!("advisories concern dependencies of {manifest}");
                }
                tally.pass_one();
            }
        }
    }
    Ok(())
}

/// The line of a failed program that says most: its last.
fn cause(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    last.unwrap_or_default().to_owned()
}
