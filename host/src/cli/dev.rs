//! `shardmill dev`: a host for one handler, whose module is built again whenever its sources
//! change. The host notices the new module by itself. A build that fails changes nothing: what the
//! language's tools say goes to standard error, and what ran goes on.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{build, serve};
use crate::manifest::{BuildSpec, WatchedFiles};
use crate::serve::NewSandbox;

/// Folders in which tools keep what they make or fetch.
const NOT_SOURCES: [&str; 5] = [
    "target",
    "node_modules",
    "vendor",
    "__pycache__",
    "shardmill-data",
];

/// Files that are watched at the most, with their folders.
const MAX_FILES: usize = 10_000;

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Arguments {
    /// The handler's folder
    #[arg(default_value = ".", value_name = "FOLDER")]
    folder: PathBuf,
    #[command(flatten)]
    serve: serve::Arguments,
}

pub(super) async fn run(arguments: Arguments, sandbox: NewSandbox) -> anyhow::Result<()> {
    let folder = std::path::absolute(&arguments.folder).context("find the folder")?;
    let (manifest, spec) = build::project(&folder)?;
    let serve = arguments.serve.with_manifest(manifest)?;
    let mut sources = Sources { folder, spec };
    let mut watched = sources.build().await;
    while !sources.spec.output.is_file() {
        eprintln!("dev: the host starts when there is a module");
        watched.changed().await;
        watched = sources.build().await;
    }
    let rebuild = async {
        loop {
            watched.changed().await;
            watched = sources.build().await;
        }
    };
    tokio::select! {
        served = serve::run(serve, sandbox) => served,
        () = rebuild => Ok(()),
    }
}

struct Sources {
    folder: PathBuf,
    spec: BuildSpec,
}

impl Sources {
    /// Builds, tells how it went, and gives what is to be watched: what changed during the build
    /// counts as changed.
    async fn build(&mut self) -> WatchedFiles {
        let before = self.files();
        let mut watched = WatchedFiles::default();
        watched.set(before.files.iter().map(PathBuf::as_path));
        let folder = self.folder.clone();
        eprintln!("dev: building {}", folder.display());
        let built = tokio::task::spawn_blocking(move || {
            // The manifest is a source, too.
            let (_, spec) = build::project(&folder)?;
            let words = build::make(&spec, &folder)?.words(&spec, &folder);
            anyhow::Ok((spec, words))
        });
        match built.await {
            Ok(Ok((spec, words))) => {
                self.spec = spec;
                eprintln!("dev: built {words}");
            }
            Ok(Err(error)) => eprintln!("dev: build failed: {error:#}; what runs goes on"),
            Err(error) => eprintln!("dev: build failed: {error}; what runs goes on"),
        }
        // A folder changes when something is made or removed in it, as the build does, so that
        // only what happens from now on counts.
        let after = self.files();
        watched.set(
            after
                .files
                .iter()
                .chain(&after.folders)
                .map(PathBuf::as_path),
        );
        watched
    }

    fn files(&self) -> Found {
        let mut found = Found::default();
        found.look_in(&self.folder, &self.spec.output);
        found
    }
}

/// Files and folders that make up a handler's sources.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl Found {
    /// Adds what is in a folder and those below. One that cannot be read has nothing in it.
    fn look_in(&mut self, folder: &Path, output: &Path) {
        self.folders.insert(folder.into());
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if self.files.len() + self.folders.len() >= MAX_FILES {
                return;
            }
            let (path, name) = (entry.path(), entry.file_name());
            let hidden = name.as_encoded_bytes().starts_with(b".");
            let made = path.extension().is_some_and(|e| e == "wasm" || e == "new");
            if hidden || made || path == output {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && NOT_SOURCES.iter().all(|other| name != *other) => {
                    self.look_in(&path, output);
                }
                Ok(kind) if kind.is_file() => {
                    self.files.insert(path);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_what_people_write_and_not_what_tools_make() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        for path in [
            "shardmill.toml",
            "src/lib.rs",
            "src/deep/er.rs",
            ".git/HEAD",
            "target/debug/x.rs",
            "node_modules/a/index.js",
            "handler.wasm",
            "handler.wasm.new",
            "out/made",
            ".hidden",
        ] {
            write(path);
        }
        let mut found = Found::default();
        found.look_in(dir.path(), &dir.path().join("out/made"));
        let below = |path: &PathBuf| path.strip_prefix(dir.path()).unwrap().display().to_string();
        let files: Vec<String> = found.files.iter().map(below).collect();
        assert_eq!(files, ["shardmill.toml", "src/deep/er.rs", "src/lib.rs"]);
        let folders: Vec<String> = found.folders.iter().map(below).collect();
        assert_eq!(folders, ["", "out", "src", "src/deep"]);
    }
}
