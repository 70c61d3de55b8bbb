//! The files below the store: everything that the journal and the tables ask of a disk, so that
//! tests can put a disk below them that loses, tears and reorders what was not synced.
//!
//! [`DiskIo`] is a folder of the real file system, [`SimIo`] a disk in memory that fails on
//! command. Neither knows what a segment or a table is.

mod disk;
pub mod sim;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::sync::Arc;

pub use disk::DiskIo;
pub use sim::SimIo;

/// A data folder. Paths are relative to it, with `/` between a folder and a file.
///
/// Names (what `create`, `rename` and `remove` change) are durable after [`Io::sync_dir`] of the
/// folder they are in; contents after [`File::sync_data`].
pub trait Io: Debug + Send + Sync {
    /// The path as people know it, for messages.
    fn display(&self, path: &str) -> String;

    /// Makes a folder, durably; no error when it exists.
    ///
    /// # Errors
    /// The disk's.
    fn create_dir(&self, path: &str) -> io::Result<()>;

    /// Names of the files in a folder, in no order.
    ///
    /// # Errors
    /// `NotFound`, or the disk's.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Makes an empty file, or empties the one that is there.
    ///
    /// # Errors
    /// The disk's.
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `NotFound`, or the disk's.
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name, replacing the file that has it. Open handles stay with the file.
    ///
    /// # Errors
    /// `NotFound`, or the disk's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Its space is freed when the last handle is dropped.
    ///
    /// # Errors
    /// `NotFound`, or the disk's.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// The disk's; what is durable is then unknown.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// Bytes that files may still take.
    ///
    /// # Errors
    /// The disk's.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Takes a file, made if absent, for this process alone, until the value is dropped; `None`
    /// when somebody has it. Ends with the process, however it ends.
    ///
    /// # Errors
    /// The disk's.
    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn Lock>>>;
}

/// A lock that ends when it is dropped.
pub trait Lock: Debug + Send + Sync {}

/// An open file. Methods take `&self`: threads read and write it at the same time.
pub trait File: Debug + Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// The disk's.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// The disk's.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before `out` is full, or the disk's.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes buffers one behind the other from `offset` on and returns how many bytes were
    /// written: fewer than there are when the disk is full or there are more than
    /// [`MAX_SLICES`] buffers. Makes the file longer where needed.
    ///
    /// # Errors
    /// `StorageFull` when nothing could be written, or the disk's.
    fn write_slices_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// `StorageFull` or the disk's; part of the bytes may be written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = [IoSlice::new(&bytes[done..])];
            match self.write_slices_at(offset + done as u64, &rest)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => done += n,
            }
        }
        Ok(())
    }

    /// Makes everything that was written before the call durable, the length included.
    ///
    /// # Errors
    /// The disk's. What is durable is then unknown, and **the same call may succeed next time
    /// without the data being there**: an error is final.
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts the file, or lengthens it by zeros that take no space.
    ///
    /// # Errors
    /// The disk's.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Takes space for the first `len` bytes and makes the file at least that long. New bytes
    /// are zeros.
    ///
    /// # Errors
    /// `StorageFull` or the disk's; part of the space may be taken.
    fn allocate(&self, len: u64) -> io::Result<()>;
}

/// Buffers that one write takes at most: Linux's `IOV_MAX`.
pub const MAX_SLICES: usize = 1024;
