//! Where things are: the workspace, cargo's target folder, our cache.
//! It makes no folder; whoever writes into one does.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result};

/// The folder of the workspace's `Cargo.toml`. As cargo says when it runs us: two clones that share
/// a target folder share this program, so what it was compiled in may be the other one.
pub(crate) fn workspace() -> &'static Path {
    static XTASK: LazyLock<PathBuf> = LazyLock::new(|| {
        let told = env::var_os("CARGO_MANIFEST_DIR");
        told.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
    });
    XTASK.parent().unwrap_or(&XTASK)
}

/// Cargo's target folder: `CARGO_TARGET_DIR`, else `target` in the workspace.
pub(crate) fn target() -> Result<PathBuf> {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => {
            std::path::absolute(dir).context("make CARGO_TARGET_DIR absolute")
        }
        _ => Ok(workspace().join("target")),
    }
}

/// The host's binary: `SHARDMILL_BIN`, else as `cargo build` and `cargo test` leave it.
pub(crate) fn host_binary() -> Result<PathBuf> {
    match env::var_os("SHARDMILL_BIN") {
        Some(file) if !file.is_empty() => {
            std::path::absolute(file).context("make SHARDMILL_BIN absolute")
        }
        _ => Ok(target()?.join("debug").join("shardmill")),
    }
}

/// Where the built handlers are: `SHARDMILL_GUESTS`, else `guests` in the target folder.
pub(crate) fn guests() -> Result<PathBuf> {
    match env::var_os("SHARDMILL_GUESTS") {
        Some(dir) if !dir.is_empty() => {
            std::path::absolute(dir).context("make SHARDMILL_GUESTS absolute")
        }
        _ => Ok(target()?.join("guests")),
    }
}

/// Our folder of the user's cache: below `XDG_CACHE_HOME`, else below `~/.cache`.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").map(PathBuf::from) {
        Some(dir) if dir.is_absolute() => dir,
        _ => env::home_dir()
            .context("find a cache folder: set HOME or XDG_CACHE_HOME")?
            .join(".cache"),
    };
    Ok(base.join("shardmill"))
}
