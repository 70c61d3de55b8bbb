//! Programs that cargo installs from crates.io, each in a folder of our cache that has the version
//! in its name, so that another version is another folder.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::progress::Progress;
use crate::{paths, program};

/// A program on crates.io.
pub(crate) struct CargoTool {
    /// Its name: of the package, and of the program.
    pub(crate) name: &'static str,
    /// The version that is used.
    pub(crate) version: &'static str,
}

impl CargoTool {
    /// The program, installed if it was not there.
    ///
    /// # Errors
    /// It cannot be fetched or built.
    pub(crate) fn ensure(&self) -> Result<PathBuf> {
        let Self { name, version } = self;
        let root = paths::cache()?
            .join("tools")
            .join(format!("{name}-{version}"));
        let program = root.join("bin").join(name);
        // Cargo puts it there when it is whole.
        if program.is_file() {
            return Ok(program);
        }
        let progress = Progress::start(name);
        progress.doing(format!(
            "building version {version}, which takes some minutes"
        ));
        let target = tempfile::tempdir().context("make a folder to build in")?;
        let mut install = program::cargo();
        install
            .args(["install", name, "--version", version, "--locked", "--root"])
            .arg(&root)
            .env("CARGO_TARGET_DIR", target.path())
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        // It runs for seconds and is built for minutes.
        for setting in [
            "opt-level=1",
            "lto=false",
            "codegen-units=64",
            "debug=false",
        ] {
            install.args(["--config", &format!("profile.release.{setting}")]);
        }
        program::quiet(&mut install)?;
        Ok(program)
    }
}
