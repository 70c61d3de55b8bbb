//! Compiled modules on disk, so that a start compiles nothing.
//!
//! An artifact is native code that runs in this process, so nobody but the host's user may write
//! here: the folder is private, and one that others can write to is not used. A file is written
//! beside its place, synced and renamed, and what is read is held against its digest: what a
//! disk has spoilt is compiled again.
//!
//! ```text
//! FOLDER/ENGINE/MODULE          the artifact; ENGINE is the engine's fingerprint, MODULE the SHA-256
//! FOLDER/ENGINE/MODULE.sha256   its SHA-256, written after it
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW};
use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

use crate::module::{Compiled, hex};

/// Bytes of all artifacts, above which those go that were not used for longest.
const MAX_BYTES: u64 = 4 << 30;

/// The artifacts of one engine.
#[derive(Debug)]
pub(crate) struct Artifacts {
    folder: PathBuf,
}

impl Artifacts {
    /// Opens the folder; makes it where it is not there. Artifacts of other engines go.
    ///
    /// # Errors
    /// It cannot be made, or others may write to it.
    pub(crate) fn open(folder: &Path, fingerprint: &str) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let about = fs::metadata(folder)?;
        let own = about.uid() == rustix::process::geteuid().as_raw();
        if !own || about.mode() & 0o022 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "others may write to it: chmod 700",
            ));
        }
        for entry in fs::read_dir(folder)?.flatten() {
            if entry.file_name() != fingerprint {
                // Whatever stays is no matter: nobody reads it.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let folder = folder.join(fingerprint);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        for entry in fs::read_dir(&folder)?.flatten() {
            if entry.path().extension().is_some_and(|e| e == "new") {
                // Of a process that died while it wrote.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Self { folder })
    }

    /// What was compiled from the wasm with this digest, if it is here and whole.
    pub(crate) fn load(&self, engine: &Engine, digest: &str) -> Option<Compiled> {
        let path = self.folder.join(digest);
        let sum = fs::read_to_string(sum_of(&path)).ok()?;
        let mut file = File::open(&path).ok()?;
        let mut hash = Sha256::new();
        io::copy(&mut file, &mut hash).ok()?;
        if hex(&hash.finalize()) != sum.trim() {
            tracing::warn!(path = %path.display(), "a compiled module is damaged; compiling it again");
            return None;
        }
        // So that it is not the oldest any more; times that cannot be set cost a compilation.
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        let _ = rustix::fs::futimens(&file, &times);
        // SAFETY: the file is in a folder that only we write to, has the digest of what our own
        // compiler made, and is never written in place.
        #[expect(unsafe_code, reason = "native code of our own compiler")]
        let loaded = match Engine::detect_precompiled_file(&path) {
            Ok(Some(Precompiled::Component)) => unsafe {
                Component::deserialize_file(engine, &path).map(Compiled::Component)
            },
            _ => unsafe { Module::deserialize_open_file(engine, file).map(Compiled::Module) },
        };
        loaded
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "a compiled module cannot be used"))
            .ok()
    }

    /// An artifact that the compiler has just made.
    ///
    /// # Errors
    /// It is none of this engine's.
    pub(crate) fn just_made(engine: &Engine, artifact: &[u8]) -> wasmtime::Result<Compiled> {
        // SAFETY: it comes from our own compiler, through a pipe that nobody else holds.
        #[expect(unsafe_code, reason = "native code of our own compiler")]
        match Engine::detect_precompiled(artifact) {
            Some(Precompiled::Component) => unsafe {
                Component::deserialize(engine, artifact).map(Compiled::Component)
            },
            _ => unsafe { Module::deserialize(engine, artifact).map(Compiled::Module) },
        }
    }

    /// Keeps an artifact of the module with this digest.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn keep(&self, digest: &str, artifact: &[u8]) -> io::Result<()> {
        let path = self.folder.join(digest);
        write(&path, artifact)?;
        write(&sum_of(&path), hex(&Sha256::digest(artifact)).as_bytes())?;
        self.make_room(MAX_BYTES);
        Ok(())
    }

    /// Removes what was not used for longest while there is more than `allowed`.
    fn make_room(&self, allowed: u64) {
        let about = |entry: fs::DirEntry| {
            let about = entry.metadata().ok()?;
            Some((about.modified().ok()?, about.len(), entry.path()))
        };
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let is_artifact = |path: &Path| path.extension().is_none();
        let mut all: Vec<_> = entries
            .filter_map(about)
            .filter(|(_, _, path)| is_artifact(path))
            .collect();
        let mut bytes: u64 = all.iter().map(|(_, bytes, _)| bytes).sum();
        all.sort_by_key(|(modified, ..)| *modified);
        for (_, size, path) in all {
            if bytes <= allowed {
                return;
            }
            // Those that are in use stay mapped.
            if fs::remove_file(&path).is_ok() {
                bytes -= size;
                let _ = fs::remove_file(sum_of(&path));
            }
        }
    }
}

fn sum_of(path: &Path) -> PathBuf {
    path.with_extension("sha256")
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engines;

    const MODULE: &str = "(module (func (export \"f\") (result i32) i32.const 7))";

    fn artifact(engine: &Engine) -> Vec<u8> {
        engine
            .precompile_module(&wat::parse_str(MODULE).unwrap())
            .unwrap()
    }

    #[test]
    fn an_artifact_is_found_again_and_a_damaged_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("artifacts");
        let engines = Engines::of_compiler().unwrap();
        let [engine, _] = engines.all();
        let artifacts = Artifacts::open(&folder, "engine").unwrap();
        assert!(artifacts.load(engine, "m").is_none());
        artifacts.keep("m", &artifact(engine)).unwrap();
        assert!(artifacts.load(engine, "m").is_some());
        let path = folder.join("engine/m");
        let mut bytes = fs::read(&path).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            bytes[at] ^= 1;
            write(&path, &bytes).unwrap();
            assert!(artifacts.load(engine, "m").is_none(), "byte {at}");
            bytes[at] ^= 1;
        }
        write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(artifacts.load(engine, "m").is_none(), "cut");
        artifacts.keep("m", &artifact(engine)).unwrap();
        assert!(artifacts.load(engine, "m").is_some(), "compiled again");
        Artifacts::open(&folder, "another").unwrap();
        assert!(!path.exists(), "nobody reads those of another engine");
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let engines = Engines::of_compiler().unwrap();
        let [engine, _] = engines.all();
        let artifacts = Artifacts::open(folder.path(), "engine").unwrap();
        let bytes = artifact(engine);
        for (seconds, name) in (1_000..).zip(["a", "b", "c"]) {
            artifacts.keep(name, &bytes).unwrap();
            let file = File::open(folder.path().join("engine").join(name)).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            file.set_modified(time).unwrap();
        }
        assert!(artifacts.load(engine, "a").is_some());
        artifacts.make_room(bytes.len() as u64 * 2);
        let there: Vec<bool> = ["a", "b", "c"]
            .iter()
            .map(|name| artifacts.load(engine, name).is_some())
            .collect();
        assert_eq!(there, [true, false, true]);
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let refused = Artifacts::open(folder.path(), "engine").unwrap_err();
        assert!(refused.to_string().contains("chmod 700"), "{refused}");
    }
}
