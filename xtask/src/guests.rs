//! Builds every handler below `handlers/` to wasm, with a compiler and a target folder of their
//! own, and puts each at `<target>/guests/<package>.wasm`, where tests and the demo look
//! (`SHARDMILL_GUESTS` names another place to look). A handler is a package that makes a cdylib.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::progress::Progress;
use crate::wasm_target::{self, WasmTarget};
use crate::{paths, program};

/// One handler's package.
#[derive(Debug, PartialEq, Eq)]
struct Handler {
    package: String,
    /// The file that cargo makes, without its folder.
    artifact: String,
}

/// Builds all handlers and returns their files, sorted by name.
///
/// # Errors
/// There is no compiler for them, or one does not compile: cargo has then said why.
pub(crate) fn build() -> Result<Vec<PathBuf>> {
    let target = wasm_target::ensure()?;
    let handlers = handlers()?;
    if handlers.is_empty() {
        return Ok(Vec::new());
    }
    let place = paths::target()?.join("guests");
    fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
    compile(&handlers, &target, &place)?;
    handlers
        .iter()
        .map(|handler| publish(handler, &place))
        .collect()
}

/// The packages below `handlers/` with a cdylib.
fn handlers() -> Result<Vec<Handler>> {
    let mut metadata = program::cargo();
    metadata.current_dir(paths::workspace()).args([
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
    ]);
    let text = program::quiet(&mut metadata)?;
    let metadata: Value = serde_json::from_str(&text).context("read cargo's metadata")?;
    Ok(find(&metadata, &paths::workspace().join("handlers")))
}

fn find(metadata: &Value, below: &Path) -> Vec<Handler> {
    let mut found: Vec<Handler> = list(&metadata["packages"])
        .filter(|package| {
            package["manifest_path"]
                .as_str()
                .is_some_and(|path| Path::new(path).starts_with(below))
        })
        .filter_map(|package| {
            let cdylib = list(&package["targets"])
                .find(|target| list(&target["crate_types"]).any(|kind| kind == "cdylib"))?;
            Some(Handler {
                package: package["name"].as_str()?.to_owned(),
                artifact: format!("{}.wasm", cdylib["name"].as_str()?.replace('-', "_")),
            })
        })
        .collect();
    found.sort_by(|a, b| a.package.cmp(&b.package));
    found
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Named packages only, so that nothing of the host's features reaches a guest.
fn compile(handlers: &[Handler], target: &WasmTarget, place: &Path) -> Result<()> {
    let progress = Progress::start("guests");
    let names: Vec<&str> = handlers.iter().map(|one| one.package.as_str()).collect();
    progress.note(&format!("building {}", names.join(", ")));
    drop(progress);

    let mut build = program::cargo();
    target.apply(&mut build);
    build
        .current_dir(paths::workspace())
        .args([
            "build",
            "--profile",
            "guest",
            "--target",
            wasm_target::TRIPLE,
        ])
        // The compiler made from packages may be older than the one the host asks for.
        .arg("--ignore-rust-version")
        .arg("--target-dir")
        .arg(place);
    for name in names {
        build.args(["--package", name]);
    }
    let status = program::streamed(&mut build, |_| {})?;
    if !status.success() {
        bail!("the handlers do not compile for {}", wasm_target::TRIPLE);
    }
    Ok(())
}

/// Copies a built handler to its stable name; an unchanged one is left alone, so that a host
/// that watches the file sees real changes only.
fn publish(handler: &Handler, place: &Path) -> Result<PathBuf> {
    let built = place
        .join(wasm_target::TRIPLE)
        .join("guest")
        .join(&handler.artifact);
    let wasm = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    let published = place.join(format!("{}.wasm", handler.package));
    if fs::read(&published).is_ok_and(|old| old == wasm) {
        return Ok(published);
    }
    let mut fresh = tempfile::NamedTempFile::new_in(place).context("make a temporary file")?;
    fresh.write_all(&wasm).context("copy a handler")?;
    fresh
        .persist(&published)
        .with_context(|| format!("put {} in place", published.display()))?;
    Ok(published)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn handlers_are_the_cdylibs_below_their_folder() {
        let package = |name: &str, folder: &str, kind: &str| {
            json!({
                "name": name,
                "manifest_path": format!("/w/{folder}/Cargo.toml"),
                "targets": [{"name": name, "crate_types": [kind]}],
            })
        };
        let metadata = json!({"packages": [
            package("zeta-one", "handlers/z", "cdylib"),
            package("alpha", "handlers/a", "cdylib"),
            package("helper", "handlers/h", "lib"),
            package("host", "host", "cdylib"),
        ]});
        let found = find(&metadata, Path::new("/w/handlers"));
        let names: Vec<_> = found
            .iter()
            .map(|one| (one.package.as_str(), one.artifact.as_str()))
            .collect();
        assert_eq!(
            names,
            [("alpha", "alpha.wasm"), ("zeta-one", "zeta_one.wasm")]
        );
    }
}
