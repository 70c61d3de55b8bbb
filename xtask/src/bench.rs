//! `cargo xtask bench`: the benchmarks, which are not written yet.

use anyhow::{Result, bail};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// Runs the benchmarks.
///
/// # Errors
/// Always, until there are some.
pub(crate) fn run(_arguments: &Arguments) -> Result<()> {
    bail!("there are no benchmarks yet")
}
