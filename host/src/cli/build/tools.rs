//! The tools of other languages: found on the machine, or fetched from their registry into the
//! user's cache, once for all projects. How they are run.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Written last, so that a half-made folder is never used.
const COMPLETE: &str = "complete";

/// Tools in a folder of our own.
pub(super) struct Tools {
    programs: PathBuf,
}

impl Tools {
    /// A package of the Python package index, in a virtual environment.
    pub(super) fn python(package: &str) -> anyhow::Result<Self> {
        let hint =
            format!("Python 3 is needed to fetch {package}: install python3 and python3-venv");
        find("python3").context(hint.clone())?;
        let folder = ensure(package, |folder| {
            seen(Command::new("python3").args(["-m", "venv"]).arg(folder)).context(hint.clone())?;
            seen(
                Command::new(folder.join("bin/python"))
                    .args([
                        "-m",
                        "pip",
                        "install",
                        "--quiet",
                        "--disable-pip-version-check",
                    ])
                    .arg(package),
            )
        })?;
        Ok(Self {
            programs: folder.join("bin"),
        })
    }

    /// A package of npm.
    pub(super) fn node(package: &str) -> anyhow::Result<Self> {
        find("npm").with_context(|| {
            format!("Node.js is needed to fetch and run {package}: install Node.js 20 or later")
        })?;
        let folder = ensure(package, |folder| {
            seen(
                Command::new("npm")
                    .args(["install", "--no-audit", "--no-fund", "--silent", "--prefix"])
                    .arg(folder)
                    .arg(package),
            )
        })?;
        Ok(Self {
            programs: folder.join("node_modules/.bin"),
        })
    }

    /// One of its programs.
    pub(super) fn program(&self, name: &str) -> Command {
        Command::new(self.programs.join(name))
    }
}

/// The folder that `make` fills, made once; two at once wait for each other.
fn ensure(
    package: &str,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || ".-".contains(c) {
            c
        } else {
            '_'
        }
    };
    let name: String = package.chars().map(plain).collect();
    let folder = cache()?.join("tools").join(name);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let lock = File::create(folder.join("lock")).context("make the lock file")?;
    lock.lock().context("lock the tools")?;
    let made = folder.join("made");
    if !folder.join(COMPLETE).is_file() {
        say(&format!("fetching {package} into {}", folder.display()));
        let _ = fs::remove_dir_all(&made);
        fs::create_dir_all(&made).with_context(|| format!("make {}", made.display()))?;
        make(&made)?;
        File::create(folder.join(COMPLETE)).context("mark the tools as complete")?;
    }
    Ok(made)
}

/// Our folder of the user's cache.
fn cache() -> anyhow::Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").map(PathBuf::from) {
        Some(folder) if folder.is_absolute() => folder,
        _ => env::home_dir()
            .context("find a cache folder: set HOME or XDG_CACHE_HOME")?
            .join(".cache"),
    };
    Ok(base.join("shardmill"))
}

/// Looks for a program in `PATH`.
///
/// # Errors
/// It is not there.
pub(super) fn find(program: &str) -> anyhow::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|p| p.is_file());
    found.with_context(|| format!("{program} is not in PATH"))
}

/// A step's name, for who waits.
pub(super) fn say(step: &str) {
    eprintln!("{step}");
}

/// Runs a program whose output is for the person who waits.
///
/// # Errors
/// It cannot be started, or fails; it has said why.
pub(super) fn seen(command: &mut Command) -> anyhow::Result<()> {
    // Standard output is ours: it says where the module is.
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("start {}", name(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", name(command));
    }
    Ok(())
}

/// The same of a program whose standard output is for us.
///
/// # Errors
/// See [`seen`].
pub(super) fn heard(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start {}", name(command)))?;
    if !output.status.success() {
        bail!("{} failed ({})", name(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned()
}
