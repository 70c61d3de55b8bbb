//! The tests with real clients, `tests/clients`: a Python with boto3 and the aws CLI in our
//! cache folder, and one run of the tests in it against the built host.
//!
//! The Python is a virtual environment where the machine's Python can make one; else the
//! packages go to a plain folder (`PYTHONPATH`), installed by the machine's pip or, where
//! there is none, by the pip that Debian packages as a single file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::apt::Apt;
use crate::progress::Progress;
use crate::tally::Tally;
use crate::{paths, program, test};

/// Written last, so that a half-made environment is never used.
const COMPLETE: &str = "complete";

/// Below the environment: the virtual environment, or the plain folder.
const VENV: &str = "venv";
const PACKAGES: &str = "packages";

/// Runs the client tests.
///
/// # Errors
/// There is no host to test, no Python, or its packages cannot be installed.
pub(crate) fn test(tally: &mut Tally) -> Result<()> {
    let host = paths::host_binary()?;
    if !host.is_file() {
        bail!(
            "there is no {}: build the package shardmill",
            host.display()
        );
    }
    let mut tests = Python::ensure()?.command();
    tests
        .arg("-u")
        .arg(folder())
        .env("SHARDMILL_BIN", host)
        .env("SHARDMILL_GUESTS", paths::guests()?);
    test::counted(&mut tests, tally)
}

fn folder() -> PathBuf {
    paths::workspace().join("tests/clients")
}

/// A Python that has the clients.
struct Python {
    root: PathBuf,
}

impl Python {
    /// Finds it or makes it; two at once wait for each other.
    fn ensure() -> Result<Self> {
        let requirements = folder().join("requirements.txt");
        let wanted =
            fs::read(&requirements).with_context(|| format!("read {}", requirements.display()))?;
        let version =
            program::quiet(Command::new("python3").args(["-c", "import sys; print(sys.version)"]))
                .context("the client tests need Python 3: install python3")?;
        let root = paths::cache()?.join(format!("venv-{}", key(&wanted, &version)));
        fs::create_dir_all(&root).with_context(|| format!("make {}", root.display()))?;
        let lock = File::create(root.join("lock")).context("make the lock file")?;
        lock.lock().context("lock the Python environment")?;
        let python = Self { root };
        if !python.root.join(COMPLETE).is_file() {
            let progress = Progress::start("clients");
            python
                .make(&requirements, &progress)
                .context("install boto3 and the aws CLI from the Python package index")?;
        }
        Ok(python)
    }

    fn make(&self, requirements: &Path, progress: &Progress) -> Result<()> {
        for half_made in [VENV, PACKAGES] {
            let _ = fs::remove_dir_all(self.root.join(half_made));
        }
        progress.doing("making a virtual environment");
        let venv = self.root.join(VENV);
        let made = program::quiet(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        let mut install = if made.is_ok() {
            let mut pip = self.command();
            pip.args(["-m", "pip", "install"]);
            pip
        } else {
            // What the failed attempt left would be taken for a virtual environment.
            let _ = fs::remove_dir_all(&venv);
            let mut pip = self.plain_pip(progress)?;
            pip.args(["install", "--target"])
                .arg(self.root.join(PACKAGES));
            pip
        };
        progress.doing("installing boto3 and the aws CLI");
        install
            .args(["--quiet", "--disable-pip-version-check", "--requirement"])
            .arg(requirements);
        program::quiet(&mut install)?;
        File::create(self.root.join(COMPLETE)).context("mark the environment as complete")?;
        Ok(())
    }

    /// The pip of the machine's Python, or Debian's single-file one.
    fn plain_pip(&self, progress: &Progress) -> Result<Command> {
        let mut pip = Command::new("python3");
        if program::quiet(Command::new("python3").args(["-m", "pip", "--version"])).is_ok() {
            pip.args(["-m", "pip"]);
            return Ok(pip);
        }
        if !Apt::is_available() {
            bail!("Python has neither venv nor pip: install python3-venv or python3-pip");
        }
        progress.doing("getting pip from Debian's packages");
        let debian = tempfile::tempdir_in(&self.root).context("make a folder for pip")?;
        let unpacked = self.root.join("debian");
        Apt::update_in(debian.path())?.unpack(&["python3-pip-whl".to_owned()], &unpacked)?;
        let wheels = unpacked.join("usr/share/python-wheels");
        let wheel = fs::read_dir(&wheels)
            .with_context(|| format!("read {}", wheels.display()))?
            .flatten()
            .map(|file| file.path())
            .find(|path| path.extension().is_some_and(|ending| ending == "whl"))
            .context("Debian's python3-pip-whl holds no wheel")?;
        pip.arg(wheel.join("pip"));
        Ok(pip)
    }

    /// The interpreter, with the packages in its path.
    fn command(&self) -> Command {
        let venv = self.root.join(VENV);
        if venv.is_dir() {
            return Command::new(venv.join("bin/python"));
        }
        let mut python = Command::new("python3");
        python.env("PYTHONPATH", self.root.join(PACKAGES));
        python
    }
}

/// Names an environment by what is in it and the Python it is for.
fn key(requirements: &[u8], version: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(requirements);
    hash.update(version);
    hash.finalize()[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_requirements_or_another_python_are_another_environment() {
        let one = key(b"boto3==1", "3.11");
        assert_eq!(one, key(b"boto3==1", "3.11"));
        assert_ne!(one, key(b"boto3==2", "3.11"));
        assert_ne!(one, key(b"boto3==1", "3.12"));
    }
}
