//! A folder of the real file system (Linux).

use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::{File, Io, Lock, MAX_SLICES};

/// Zeros that are written at once where a file system cannot allocate.
const ZEROS_BYTES: usize = 1 << 20;

/// A folder on disk.
#[derive(Debug)]
pub struct DiskIo {
    root: PathBuf,
}

impl DiskIo {
    /// The folder at `root`, made durably, with those above it, if absent.
    ///
    /// # Errors
    /// The disk's.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = std::path::absolute(root.into())?;
        let missing = root.ancestors().take_while(|folder| !folder.exists());
        let missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        fs::create_dir_all(&root)?;
        for parent in missing.iter().filter_map(|folder| folder.parent()) {
            fs::File::open(parent)?.sync_all()?;
        }
        Ok(Self { root })
    }

    /// Where the folder is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

impl Io for DiskIo {
    fn display(&self, path: &str) -> String {
        self.at(path).display().to_string()
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        match fs::create_dir(self.at(path)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            // One that exists may have been made just before a crash.
            _ => {}
        }
        let parent = self.at(path).parent().map(Path::to_owned);
        fs::File::open(parent.unwrap_or_else(|| self.root.clone()))?.sync_all()
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        fs::read_dir(self.at(dir))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.at(path))?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(self.at(path))?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.at(path))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        fs::File::open(self.at(dir))?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn Lock>>> {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.at(path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(DiskLock(file)))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// A locked file; the lock ends when the file is closed.
#[derive(Debug)]
struct DiskLock(#[expect(dead_code, reason = "held for its lock")] fs::File);

impl Lock for DiskLock {}

#[derive(Debug)]
struct DiskFile(fs::File);

impl File for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn write_slices_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let slices = &slices[..slices.len().min(MAX_SLICES)];
        loop {
            match rustix::io::pwritev(&self.0, slices, offset) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        loop {
            match fallocate(&self.0, FallocateFlags::empty(), 0, len) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => break,
                other => return Ok(other?),
            }
        }
        let zeros = vec![0; ZEROS_BYTES];
        let mut at = self.len()?;
        while at < len {
            let n = (len - at).min(zeros.len() as u64);
            self.write_at(at, &zeros[..n as usize])?;
            at += n;
        }
        Ok(())
    }
}
