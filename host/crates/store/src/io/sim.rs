//! A disk in memory for tests: it knows what was synced, and on command it crashes, fills up,
//! fails or rots.
//!
//! What a crash may leave ([`SimIo::crash`]) is worse than what most disks do: of every page
//! that was written and not synced any version, or a mix of versions by sectors of 512 bytes; of
//! every file any length it had; of every folder any subset of the changes to its names.
//! [`SimIo::kill`] ends the process only: the page cache stays.

mod disk;

use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{File, Io, Lock, MAX_SLICES};
use disk::Disk;

pub use disk::Fate;

/// Size of a page in bytes.
pub const PAGE_BYTES: usize = 4096;

/// Size of a sector in bytes: the unit that is never torn.
pub const SECTOR_BYTES: usize = 512;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimIo(Arc<Mutex<Disk>>);

impl SimIo {
    /// An empty disk without limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk after a loss of power, by chance; see the head of this file. This disk itself
    /// stays as it is.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let mut random = Random(seed);
        let disk = self.disk();
        let names = disk.names_after_crash(|_| random.below(2) == 0);
        let mut fate = |_: &str, _: u64, versions: usize| match random.below(4) {
            0 => Fate::Lost,
            1 => Fate::Kept,
            2 => Fate::Version(random.below(versions as u64) as usize),
            _ => Fate::Torn(random.below(256) as u8),
        };
        let mut lengths = Random(!seed);
        Self::from(disk.after_crash(&names, &mut fate, &mut |count| {
            lengths.below(count as u64) as usize
        }))
    }

    /// The disk after a loss of power at which exactly these pages were lost: `fate` is asked for
    /// every page that is not synced, with the file's name, the page's number and how often it
    /// was written. Names and lengths are kept.
    #[must_use]
    pub fn crash_with(&self, mut fate: impl FnMut(&str, u64, usize) -> Fate) -> Self {
        let disk = self.disk();
        let names = disk.names_after_crash(|_| true);
        Self::from(disk.after_crash(&names, &mut fate, &mut |count| count - 1))
    }

    /// The disk after the death of the process: nothing is lost, but nothing gets safer either.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut disk = self.disk().clone();
        disk.end_process();
        Self::from(disk)
    }

    /// Pages that are not synced, as name and page number, in order.
    pub fn unsynced_pages(&self) -> Vec<(String, u64)> {
        self.disk().unsynced_pages()
    }

    /// The bytes that files may take; `None`: without limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// Lets `bytes` more be written, to space that was allocated too, and then none, until it is
    /// called again: what a file system that never overwrites does when it is full.
    pub fn fail_writes_after(&self, bytes: Option<u64>) {
        let mut disk = self.disk();
        disk.faults.write_budget = bytes;
        disk.faults.budget_ends = false;
    }

    /// Lets `bytes` more be written, refuses the write after them, and goes on.
    pub fn fail_one_write_after(&self, bytes: u64) {
        let mut disk = self.disk();
        disk.faults.write_budget = Some(bytes);
        disk.faults.budget_ends = true;
    }

    /// Lets the next `count` calls of `sync_data` fail. The pages are then clean although some
    /// of them never reached the disk, as on Linux.
    pub fn fail_syncs(&self, count: u32) {
        self.disk().faults.failing_syncs = count;
    }

    /// Lets reads of these bytes fail; `None` ends it.
    pub fn fail_reads(&self, bytes: Option<(&str, Range<u64>)>) {
        self.disk().faults.failing_reads = bytes.map(|(path, range)| (path.into(), range));
    }

    /// Lets `count` more changes of the disk happen and every later one fail without effect.
    pub fn stop_after(&self, count: Option<u64>) {
        self.disk().faults.changes_left = count;
    }

    /// Flips bits of a byte, in the cache and on the disk.
    ///
    /// # Panics
    /// If the file has no such byte.
    pub fn flip(&self, path: &str, offset: u64, bits: u8) {
        self.disk().flip(path, offset, bits);
    }

    /// Names of all files.
    pub fn files(&self) -> Vec<String> {
        self.disk().names.keys().cloned().collect()
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.disk().counts
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Disk> for SimIo {
    fn from(disk: Disk) -> Self {
        Self(Arc::new(Mutex::new(disk)))
    }
}

/// What a disk was asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Calls that change something, syncs included.
    pub changes: u64,
}

impl Io for SimIo {
    fn display(&self, path: &str) -> String {
        path.to_owned()
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.change()?;
        disk.dirs.insert(path.to_owned());
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk().list(dir)
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        disk.change()?;
        let inode = disk.create(path);
        drop(disk);
        Ok(self.file(inode))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let inode = self.disk().find(path)?;
        Ok(self.file(inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.change()?;
        disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.change()?;
        disk.remove(path)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.change()?;
        disk.sync_dir(dir);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.disk().free_bytes())
    }

    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn Lock>>> {
        let taken = self.disk().locks.insert(path.to_owned());
        Ok(taken.then(|| {
            Box::new(SimLock {
                io: self.clone(),
                path: path.to_owned(),
            }) as Box<dyn Lock>
        }))
    }
}

impl SimIo {
    fn file(&self, inode: usize) -> Arc<dyn File> {
        self.disk().open_handle(inode);
        Arc::new(SimFile {
            io: self.clone(),
            inode,
        })
    }
}

#[derive(Debug)]
struct SimLock {
    io: SimIo,
    path: String,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.io.disk().locks.remove(&self.path);
    }
}

#[derive(Debug)]
struct SimFile {
    io: SimIo,
    inode: usize,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.io.disk().close_handle(self.inode);
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.io.disk().inode(self.inode).len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.io.disk().read(self.inode, offset, out)
    }

    fn write_slices_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut disk = self.io.disk();
        disk.change()?;
        let mut bytes = Vec::new();
        for slice in slices.iter().take(MAX_SLICES) {
            bytes.extend_from_slice(slice);
        }
        let written = disk.write(self.inode, offset, &bytes);
        if written == 0 && !bytes.is_empty() {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(written)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.io.disk();
        disk.change()?;
        disk.sync(self.inode)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.io.disk();
        disk.change()?;
        disk.set_len(self.inode, len);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.io.disk();
        disk.change()?;
        disk.allocate(self.inode, len)
    }
}

/// A small generator (splitmix64): the same seed gives the same crash.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }
}
