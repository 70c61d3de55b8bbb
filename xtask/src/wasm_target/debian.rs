//! Makes a compiler for `wasm32-wasip1` from Debian's packages, in our cache folder.
//!
//! Debian packages a current rustc for its browsers (`rustc-web`), the standard library's source
//! (`rust-web-src`) and the C library of WASI, but not the standard library compiled for WASI.
//! So it is compiled here once, by the installed cargo, and put where that rustc looks for it.
//! The linker is the installed toolchain's `rust-lld`. Nothing is installed system-wide.
//!
//! About 140 MB are downloaded, 500 MB kept, and it takes one to two minutes. This standard
//! library holds no bitcode: handlers built with it cannot use link-time optimisation.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{TRIPLE, WasmTarget, has_std};
use crate::apt::Apt;
use crate::progress::Progress;
use crate::{paths, program};

/// Raised when the recipe changes, so that what an older one made is not used.
const RECIPE: u32 = 1;

/// Where Debian puts this machine's shared libraries, and rustc its own.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Where a toolchain keeps its tools, and the one that is needed.
const TOOLS: &str = "lib/rustlib/x86_64-unknown-linux-gnu/bin";
const LINKER: &str = "rust-lld";

/// How the folders begin in which a compiler is being made.
const BUILDING: &str = "building-";

/// The name of the empty crate whose build compiles the standard library.
const EMPTY_CRATE: &str = "shardmill_empty";

/// Whether this machine can follow the recipe.
pub(super) fn is_possible() -> bool {
    cfg!(all(target_arch = "x86_64", target_os = "linux")) && Apt::is_available()
}

/// The compiler made earlier for the installed toolchain, if there is one.
pub(super) fn find() -> Result<Option<WasmTarget>> {
    let root = root()?;
    let linker = root.join("usr").join(TOOLS).join(LINKER);
    Ok(linker.is_file().then(|| describe(&root)))
}

/// Makes it, or waits for whoever is making it now.
pub(super) fn make(progress: &Progress) -> Result<WasmTarget> {
    let root = root()?;
    let cache = root.parent().context("the cache folder has no parent")?;
    fs::create_dir_all(cache).with_context(|| format!("make {}", cache.display()))?;
    let lock = File::create(cache.join("lock")).context("make the lock file")?;
    if lock.try_lock().is_err() {
        progress.doing("waiting for another build of it");
        lock.lock().context("lock the cache folder")?;
    }
    if root.is_dir() {
        link_linker(&root)?;
        return Ok(describe(&root));
    }

    remove_abandoned(cache)?;
    let building = tempfile::Builder::new()
        .prefix(BUILDING)
        .tempdir_in(cache)
        .context("make a folder to build in")?;
    let made = building.path().join("root");
    unpack(&building.path().join("apt"), &made, progress)?;
    progress.doing("compiling the standard library, about a minute");
    compile_std(&building.path().join("std"), &made)?;
    link_linker(&made)?;
    // The source has done its work and is half of the size.
    fs::remove_dir_all(made.join("usr/src")).context("remove the standard library's source")?;
    fs::rename(&made, &root).with_context(|| format!("move it to {}", root.display()))?;
    progress.note(&format!("made {}", root.display()));
    Ok(describe(&root))
}

/// Removes what a killed build left. The lock is held, so nobody is at work in it.
fn remove_abandoned(cache: &Path) -> Result<()> {
    for entry in fs::read_dir(cache).context("list the cache folder")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(BUILDING) {
            fs::remove_dir_all(entry.path()).context("remove an abandoned build")?;
        }
    }
    Ok(())
}

/// `wasm-target/debian-<recipe>-rustc-<installed version>` in the cache: the linker comes from
/// the installed toolchain, so another toolchain gets another folder.
fn root() -> Result<PathBuf> {
    let version = program::quiet(Command::new("rustc").arg("--version"))?;
    let version = version
        .split_whitespace()
        .nth(1)
        .context("read the version of rustc")?;
    let key = format!("debian-{RECIPE}-rustc-{version}");
    Ok(paths::cache()?.join("wasm-target").join(key))
}

fn describe(root: &Path) -> WasmTarget {
    WasmTarget {
        rustc: Some(root.join("usr/bin/rustc")),
        ld_library_path: Some(root.join(LIBRARIES)),
    }
}

fn unpack(apt_dir: &Path, root: &Path, progress: &Progress) -> Result<()> {
    progress.doing("reading Debian's package lists");
    let apt = Apt::update_in(apt_dir)?;
    let version = apt.candidate("rustc-web")?.version;
    let (major, minor) = major_minor(&version)?;
    if (major, minor) < major_minor(env!("CARGO_PKG_RUST_VERSION"))? {
        progress.note(&format!(
            "Debian offers rustc {version}, older than this project's: handlers may not compile; \
             Debian's security archive, if /etc/apt names it, has a newer one"
        ));
    }
    let std = format!("libstd-rust-web-{major}.{minor}");
    let llvm = apt
        .candidate(&std)?
        .depends
        .into_iter()
        .find(|name| name.starts_with("libllvm"))
        .with_context(|| format!("{std} names no libllvm"))?;

    let mut packages: Vec<String> = ["rustc-web", "libstd-rust-web-dev", "rust-web-src", &std]
        .iter()
        .map(|name| format!("{name}={version}"))
        .collect();
    let libraries = [std, llvm.clone()];
    // A small machine may lack libraries that LLVM needs; they are unpacked beside it.
    packages.extend(
        apt.missing(&libraries)
            .into_iter()
            .filter(|name| !libraries.contains(name)),
    );
    packages.extend([llvm, "wasi-libc".to_owned()]);

    progress.doing(format!(
        "downloading rustc {version} and {} more packages",
        packages.len() - 1
    ));
    apt.unpack(&packages, root)?;
    gather_libraries(root)
}

/// Some packages put their libraries below `/lib`; the compiler is told of one folder only.
fn gather_libraries(root: &Path) -> Result<()> {
    let Ok(files) = fs::read_dir(root.join("lib/x86_64-linux-gnu")) else {
        return Ok(());
    };
    for file in files {
        let file = file?;
        fs::rename(file.path(), root.join(LIBRARIES).join(file.file_name()))
            .context("move a shared library")?;
    }
    Ok(())
}

/// `(1, 85)` of `1.85.0+dfsg3-1~deb12u3`.
fn major_minor(version: &str) -> Result<(u32, u32)> {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    let mut numbers = upstream.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => bail!("read major and minor number of the Rust version {version}"),
    }
}

/// Compiles the standard library by building an empty crate that needs it, and copies it,
/// with WASI's C library, to where the compiler below `root` looks.
fn compile_std(work: &Path, root: &Path) -> Result<()> {
    fs::create_dir_all(work.join("src")).context("make the empty crate")?;
    fs::write(
        work.join("Cargo.toml"),
        format!("[package]\nname = \"{EMPTY_CRATE}\"\nedition = \"2021\"\n[workspace]\n"),
    )?;
    fs::write(work.join("src/lib.rs"), "")?;

    let target = work.join("target");
    let mut build = program::cargo();
    describe(root).apply(&mut build);
    build
        .current_dir(work)
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["build", "--release", "--target", TRIPLE])
        .arg("-Zbuild-std=std,panic_abort")
        .arg("--target-dir")
        .arg(&target);
    program::quiet(&mut build)?;

    let libraries = root.join("usr/lib/rustlib").join(TRIPLE).join("lib");
    let built = target.join(TRIPLE).join("release/deps");
    copy_into(&built, &libraries, |name| {
        name.ends_with(".rlib") && !name.starts_with(&format!("lib{EMPTY_CRATE}"))
    })?;
    copy_into(
        &root.join("usr/lib/wasm32-wasi"),
        &libraries.join("self-contained"),
        |name| name == "libc.a" || (name.starts_with("crt1-") && name.ends_with(".o")),
    )?;
    if !has_std(&libraries) {
        bail!("the build left no standard library in {}", built.display());
    }
    Ok(())
}

/// The installed toolchain's linker, beside the compiler below `root`. Links, not copies: the
/// linker finds its own libraries by where it really is.
fn link_linker(root: &Path) -> Result<()> {
    let sysroot = program::quiet(Command::new("rustc").args(["--print", "sysroot"]))?;
    let installed = Path::new(sysroot.trim()).join(TOOLS);
    let ours = root.join("usr").join(TOOLS);
    if !installed.join(LINKER).is_file() {
        bail!("the installed Rust has no {LINKER}: install Rust with rustup");
    }
    fs::create_dir_all(&ours).with_context(|| format!("make {}", ours.display()))?;
    for tool in [LINKER, "gcc-ld"] {
        // Absent, or left by a toolchain that has moved.
        let _ = fs::remove_file(ours.join(tool));
        symlink(installed.join(tool), ours.join(tool)).context("link the linker")?;
    }
    Ok(())
}

/// Copies the files of a folder whose names are wanted.
fn copy_into(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    let files = fs::read_dir(from).with_context(|| format!("read {}", from.display()))?;
    for file in files {
        let file = file?;
        let name = file.file_name();
        if file.path().is_file() && wanted(&name.to_string_lossy()) {
            fs::copy(file.path(), to.join(&name))
                .with_context(|| format!("copy {}", file.path().display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_version_is_cut_from_debians() {
        for (version, want) in [
            ("1.85.0+dfsg3-1~deb12u3", (1, 85)),
            ("1:1.96.0-1", (1, 96)),
            ("1.95", (1, 95)),
        ] {
            assert_eq!(major_minor(version).unwrap(), want, "{version}");
        }
        assert!(major_minor("7").is_err());
    }
}
