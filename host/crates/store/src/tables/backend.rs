//! The tables' file for redb, through the store's own file layer, with a checksum for every page.
//!
//! redb does not look at its pages' checksums when it reads: a flipped bit in a page makes it
//! panic, or find nothing where something is. So each 4 KiB page has a CRC-32 in a file of its
//! own, which is made durable before the tables' file is. A crash may leave page and checksum of
//! different times only where the page was written after the last sync, and such pages nothing
//! durable refers to: redb never writes over a page that its durable root reaches. Page 0 is the
//! exception; it has checksums of its own, which redb looks at.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::io::File;

/// What one checksum covers, bytes: redb's page.
const PAGE_BYTES: u64 = 4096;

/// Checksums that are written together: a page of them.
const SUMS_PER_PAGE: usize = 1024;

/// A page whose checksum is not known.
const UNKNOWN: u32 = 0;

/// A file for redb. The data folder's lock keeps other processes away.
#[derive(Debug)]
pub(super) struct Backend {
    file: Arc<dyn File>,
    sums_file: Arc<dyn File>,
    sums: Mutex<Sums>,
}

#[derive(Debug, Default)]
struct Sums {
    of_pages: Vec<u32>,
    /// Pages of checksums that are not written.
    changed: BTreeSet<usize>,
}

impl Backend {
    /// The tables in `file`, with the checksums in `sums_file`.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn new(file: Arc<dyn File>, sums_file: Arc<dyn File>) -> io::Result<Self> {
        let mut bytes = vec![0; sums_file.len()? as usize];
        sums_file.read_at(0, &mut bytes)?;
        let of_pages = bytes
            .chunks_exact(4)
            .map(|sum| u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]]));
        let sums = Sums {
            of_pages: of_pages.collect(),
            changed: BTreeSet::new(),
        };
        Ok(Self {
            file,
            sums_file,
            sums: Mutex::new(sums),
        })
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sums {
    fn get(&self, page: u64) -> u32 {
        let sum = self.of_pages.get(page as usize);
        sum.copied().unwrap_or(UNKNOWN)
    }

    fn set(&mut self, page: u64, sum: u32) {
        let page = page as usize;
        if page >= self.of_pages.len() {
            self.of_pages.resize(page + 1, UNKNOWN);
        }
        if self.of_pages[page] != sum {
            self.of_pages[page] = sum;
            self.changed.insert(page / SUMS_PER_PAGE);
        }
    }

    fn cut(&mut self, len: u64) {
        for page in len.div_ceil(PAGE_BYTES)..self.of_pages.len() as u64 {
            self.set(page, UNKNOWN);
        }
    }

    /// The pages of checksums that are to be written: where, and what.
    fn take_changed(&mut self) -> Vec<(u64, Vec<u8>)> {
        let changed = std::mem::take(&mut self.changed);
        let pages = changed.into_iter().map(|at| {
            let start = at * SUMS_PER_PAGE;
            let end = (start + SUMS_PER_PAGE).min(self.of_pages.len());
            let sums = self.of_pages[start..end].iter();
            let bytes = sums.flat_map(|sum| sum.to_le_bytes()).collect();
            (start as u64 * 4, bytes)
        });
        pages.collect()
    }
}

fn sum_of(page: &[u8]) -> u32 {
    match crc32fast::hash(page) {
        UNKNOWN => 1,
        sum => sum,
    }
}

/// The whole pages of a range, page 0 excepted, as number and bytes.
fn whole_pages(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let skipped = offset.next_multiple_of(PAGE_BYTES) - offset;
    let first = (offset + skipped) / PAGE_BYTES;
    let whole = bytes.get(skipped as usize..).unwrap_or_default();
    (first..)
        .zip(whole.chunks_exact(PAGE_BYTES as usize))
        .filter(|(page, _)| *page != 0)
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)?;
        let pages = whole_pages(offset, out);
        let sums: Vec<_> = pages.map(|(page, bytes)| (page, sum_of(bytes))).collect();
        let known = self.sums();
        let differs = |(page, sum): &&(u64, u32)| ![UNKNOWN, *sum].contains(&known.get(*page));
        match sums.iter().find(differs) {
            None => Ok(()),
            Some((page, _)) => Err(io::Error::new(
                ErrorKind::InvalidData,
                format!(
                    "tables are damaged: the page at byte {} does not have its checksum",
                    page * PAGE_BYTES
                ),
            )),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.sums().cut(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let changed = self.sums().take_changed();
        for (offset, bytes) in &changed {
            self.sums_file.write_at(*offset, bytes)?;
        }
        if !changed.is_empty() {
            self.sums_file.sync_data()?;
        }
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)?;
        let pages = whole_pages(offset, data).map(|(page, bytes)| (page, sum_of(bytes)));
        let pages: Vec<_> = pages.collect();
        let end = offset + data.len() as u64;
        let mut sums = self.sums();
        for edge in [offset, end] {
            // A page that was written in part.
            if !edge.is_multiple_of(PAGE_BYTES) {
                sums.set(edge / PAGE_BYTES, UNKNOWN);
            }
        }
        for (page, sum) in pages {
            sums.set(page, sum);
        }
        Ok(())
    }
}
