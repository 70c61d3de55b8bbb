//! Which compiler builds the handlers: the installed one where it has the target
//! `wasm32-wasip1` or rustup can add it, else one made from Debian's packages (`debian.rs`).
//!
//! `SHARDMILL_WASM_TARGET` narrows the choice: `rustup` never takes Debian's, `debian` takes
//! nothing else. Unset, the first of these is used: installed, made earlier, rustup's, Debian's.

mod debian;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::program;
use crate::progress::Progress;

/// The target's name, for cargo and rustup alike.
pub(crate) const TRIPLE: &str = "wasm32-wasip1";

/// How long rustup may take where Debian's packages can stand in for it.
const RUSTUP_LIMIT: Duration = Duration::from_secs(60);

/// How long rustup may take where nothing can.
const RUSTUP_ONLY_LIMIT: Duration = Duration::from_secs(600);

/// The compiler for handlers, and how to call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WasmTarget {
    /// `RUSTC`; none for the installed compiler.
    pub(crate) rustc: Option<PathBuf>,
    /// `LD_LIBRARY_PATH` for that compiler's own libraries.
    pub(crate) ld_library_path: Option<PathBuf>,
}

impl WasmTarget {
    /// Makes a cargo command use this compiler, and no flags meant for the host's.
    pub(crate) fn apply(&self, cargo: &mut Command) {
        cargo
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc);
        }
        if let Some(path) = &self.ld_library_path {
            cargo.env("LD_LIBRARY_PATH", path);
        }
    }

    fn installed() -> Self {
        Self {
            rustc: None,
            ld_library_path: None,
        }
    }
}

/// Which ways are open, from `SHARDMILL_WASM_TARGET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ways {
    Any,
    Rustup,
    Debian,
}

impl Ways {
    fn from_env() -> Result<Self> {
        match std::env::var("SHARDMILL_WASM_TARGET").as_deref() {
            Err(_) | Ok("") => Ok(Self::Any),
            Ok("rustup") => Ok(Self::Rustup),
            Ok("debian") => Ok(Self::Debian),
            Ok(other) => bail!("SHARDMILL_WASM_TARGET is {other:?}: set rustup, debian or nothing"),
        }
    }
}

/// Finds the compiler, or makes it. Quick when it is there; two at once wait for each other.
///
/// # Errors
/// No way works; the message tells what each of them said.
pub(crate) fn ensure() -> Result<WasmTarget> {
    let ways = Ways::from_env()?;
    if ways != Ways::Debian && is_installed()? {
        return Ok(WasmTarget::installed());
    }
    if ways != Ways::Rustup
        && let Some(made) = debian::find()?
    {
        return Ok(made);
    }

    let progress = Progress::start("wasm-target");
    let debian_can = ways != Ways::Rustup && debian::is_possible();
    let mut said = String::new();
    if ways != Ways::Debian {
        match add_with_rustup(&progress, debian_can) {
            Ok(()) => return Ok(WasmTarget::installed()),
            Err(error) => said = format!("{error:#}"),
        }
        progress.note(&format!("rustup cannot add {TRIPLE}: {}", last_line(&said)));
    }
    if debian_can {
        return debian::make(&progress).with_context(|| {
            format!("make {TRIPLE} from Debian's packages (rustup said: {said:?})")
        });
    }
    bail!(
        "the Rust target {TRIPLE} is missing: run `rustup target add {TRIPLE}`, or use an x86_64 \
         Debian machine, where xtask can make it from packages; rustup said: {said}"
    )
}

/// One line for people about the compiler in use.
pub(crate) fn describe(target: &WasmTarget) -> String {
    match &target.rustc {
        None => format!("{TRIPLE}: the installed compiler has it"),
        Some(rustc) => format!("{TRIPLE}: {}", rustc.display()),
    }
}

fn is_installed() -> Result<bool> {
    let libraries = program::quiet(Command::new("rustc").args([
        "--print",
        "target-libdir",
        "--target",
        TRIPLE,
    ]))?;
    Ok(has_std(Path::new(libraries.trim())))
}

/// Whether a target's library folder holds the standard library.
fn has_std(libraries: &Path) -> bool {
    let Ok(files) = std::fs::read_dir(libraries) else {
        return false;
    };
    files.flatten().any(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    })
}

fn add_with_rustup(progress: &Progress, debian_can: bool) -> Result<()> {
    if !program::exists("rustup") {
        bail!("rustup is not in PATH");
    }
    progress.doing(format!("rustup target add {TRIPLE}"));
    let limit = if debian_can {
        RUSTUP_LIMIT
    } else {
        RUSTUP_ONLY_LIMIT
    };
    let mut add = Command::new("rustup");
    add.args(["target", "add", TRIPLE])
        .env("RUSTUP_MAX_RETRIES", "1");
    program::quiet_within(&mut add, limit)?;
    if !is_installed()? {
        bail!("rustup reports success, but the compiler in PATH does not have {TRIPLE}");
    }
    Ok(())
}

fn last_line(text: &str) -> &str {
    text.lines().next_back().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_compiler_is_called_with_its_libraries_and_without_host_flags() {
        let target = WasmTarget {
            rustc: Some("/r/bin/rustc".into()),
            ld_library_path: Some("/r/lib".into()),
        };
        let mut cargo = Command::new("cargo");
        target.apply(&mut cargo);
        let env: Vec<_> = cargo
            .get_envs()
            .map(|(name, value)| (name.to_str(), value.and_then(|value| value.to_str())))
            .collect();
        assert!(env.contains(&(Some("RUSTC"), Some("/r/bin/rustc"))));
        assert!(env.contains(&(Some("LD_LIBRARY_PATH"), Some("/r/lib"))));
        assert!(env.contains(&(Some("RUSTFLAGS"), None)));
    }

    #[test]
    fn a_folder_without_the_standard_library_is_not_a_target() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_std(dir.path()));
        assert!(!has_std(&dir.path().join("absent")));
        std::fs::write(dir.path().join("libstd-0123.rlib"), "").unwrap();
        assert!(has_std(dir.path()));
    }
}
