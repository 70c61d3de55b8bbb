//! The state of a simulated disk: files with their unsynced versions, and names.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;

use super::{Counts, PAGE_BYTES, Random, SECTOR_BYTES};

/// What becomes of an unsynced page in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// As it was synced last.
    Lost,
    /// As it was written last.
    Kept,
    /// As it was written at this count, from 0.
    Version(usize),
    /// Sectors as they were written last where the bit is set, the others as synced.
    Torn(u8),
}

type Page = Box<[u8; PAGE_BYTES]>;

#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    inodes: Vec<Inode>,
    pub(super) names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    unsynced_names: Vec<Renaming>,
    pub(super) dirs: BTreeSet<String>,
    pub(super) locks: BTreeSet<String>,
    pub(super) capacity: Option<u64>,
    pub(super) faults: Faults,
    pub(super) counts: Counts,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub(super) write_budget: Option<u64>,
    /// The budget ends with the first write that it refuses.
    pub(super) budget_ends: bool,
    pub(super) failing_syncs: u32,
    pub(super) failing_reads: Option<(String, Range<u64>)>,
    pub(super) changes_left: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    cache: Vec<u8>,
    disk: Vec<u8>,
    /// Every version of a page since it was synced.
    unsynced: BTreeMap<u64, Vec<Page>>,
    unsynced_lens: Vec<u64>,
    allocated: BTreeSet<u64>,
    handles: usize,
}

/// One change of names; done whole or not at all.
#[derive(Clone, Debug)]
pub(super) enum Renaming {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

impl Renaming {
    fn dir(&self) -> &str {
        let (Self::Create(path, _) | Self::Rename(path, _) | Self::Remove(path)) = self;
        dir_of(path)
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

fn dir_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn pages(range: Range<u64>) -> Range<u64> {
    let page = PAGE_BYTES as u64;
    range.start / page..range.end.div_ceil(page)
}

fn page_of(bytes: &[u8], number: u64) -> Page {
    let mut page = Box::new([0; PAGE_BYTES]);
    let start = (number as usize * PAGE_BYTES).min(bytes.len());
    let end = (start + PAGE_BYTES).min(bytes.len());
    page[..end - start].copy_from_slice(&bytes[start..end]);
    page
}

/// Makes bytes as long as this: `Vec::resize`, but quick in a build for tests.
fn resize(bytes: &mut Vec<u8>, len: usize) {
    bytes.truncate(len);
    let missing = len - bytes.len();
    bytes.extend_from_slice(&vec![0; missing]);
}

fn put_page(bytes: &mut Vec<u8>, number: u64, page: &Page) {
    let start = number as usize * PAGE_BYTES;
    if bytes.len() < start + PAGE_BYTES {
        resize(bytes, start + PAGE_BYTES);
    }
    bytes[start..start + PAGE_BYTES].copy_from_slice(&page[..]);
}

impl Inode {
    pub(super) fn len(&self) -> u64 {
        self.cache.len() as u64
    }

    fn note(&mut self, range: Range<u64>) {
        for number in pages(range) {
            let page = page_of(&self.cache, number);
            self.unsynced.entry(number).or_default().push(page);
        }
    }

    fn crashed(
        &self,
        fate: &mut dyn FnMut(u64, usize) -> Fate,
        len: &mut dyn FnMut(usize) -> usize,
    ) -> Self {
        let mut disk = self.disk.clone();
        for (number, versions) in &self.unsynced {
            let old = page_of(&self.disk, *number);
            let newest = &versions[versions.len() - 1];
            let page = match fate(*number, versions.len()) {
                Fate::Lost => old,
                Fate::Kept => newest.clone(),
                Fate::Version(n) => versions[n].clone(),
                Fate::Torn(sectors) => {
                    let mut page = old;
                    for sector in (0..8).filter(|n| sectors & (1 << n) != 0) {
                        let bytes = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                        page[bytes.clone()].copy_from_slice(&newest[bytes]);
                    }
                    page
                }
            };
            put_page(&mut disk, *number, &page);
        }
        let mut lens = vec![self.disk.len() as u64];
        lens.extend(&self.unsynced_lens);
        resize(&mut disk, lens[len(lens.len())] as usize);
        let end = pages(0..disk.len() as u64).end;
        Self {
            cache: disk.clone(),
            disk,
            allocated: self.allocated.range(..end).copied().collect(),
            ..Self::default()
        }
    }
}

impl Disk {
    /// Counts a change, or refuses it after a stop.
    pub(super) fn change(&mut self) -> io::Result<()> {
        match &mut self.faults.changes_left {
            Some(0) => return Err(io::Error::other("the simulated machine has stopped")),
            Some(left) => *left -= 1,
            None => {}
        }
        self.counts.changes += 1;
        Ok(())
    }

    /// Drops what belongs to a process: locks, handles and the faults it was to meet.
    pub(super) fn end_process(&mut self) {
        self.locks.clear();
        self.faults = Faults::default();
        for inode in &mut self.inodes {
            inode.handles = 0;
        }
    }

    pub(super) fn inode(&self, inode: usize) -> &Inode {
        &self.inodes[inode]
    }

    pub(super) fn open_handle(&mut self, inode: usize) {
        self.inodes[inode].handles += 1;
    }

    pub(super) fn close_handle(&mut self, inode: usize) {
        self.inodes[inode].handles -= 1;
    }

    pub(super) fn find(&self, path: &str) -> io::Result<usize> {
        let inode = self.names.get(path).copied();
        inode.ok_or_else(|| io::Error::new(ErrorKind::NotFound, path.to_owned()))
    }

    pub(super) fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        if !dir.is_empty() && !self.dirs.contains(dir) {
            return Err(io::Error::new(ErrorKind::NotFound, dir.to_owned()));
        }
        let paths = self.names.keys().filter(|path| dir_of(path) == dir);
        let name = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(paths.map(name).collect())
    }

    pub(super) fn create(&mut self, path: &str) -> usize {
        if let Some(inode) = self.names.get(path) {
            let inode = *inode;
            self.set_len(inode, 0);
            return inode;
        }
        self.inodes.push(Inode::default());
        let inode = self.inodes.len() - 1;
        self.change_names(Renaming::Create(path.to_owned(), inode));
        inode
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.find(from)?;
        self.change_names(Renaming::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &str) -> io::Result<()> {
        self.find(path)?;
        self.change_names(Renaming::Remove(path.to_owned()));
        Ok(())
    }

    fn change_names(&mut self, change: Renaming) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    pub(super) fn sync_dir(&mut self, dir: &str) {
        for change in std::mem::take(&mut self.unsynced_names) {
            if change.dir() == dir {
                change.apply(&mut self.synced_names);
            } else {
                self.unsynced_names.push(change);
            }
        }
    }

    pub(super) fn read(&mut self, inode: usize, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let range = offset..offset + out.len() as u64;
        if let Some((path, bad)) = &self.faults.failing_reads
            && self.names.get(path) == Some(&inode)
            && bad.start < range.end
            && range.start < bad.end
        {
            return Err(io::Error::other("simulated read failure"));
        }
        self.counts.read_bytes += out.len() as u64;
        let cache = &self.inodes[inode].cache;
        let bytes = cache.get(range.start as usize..range.end as usize);
        out.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// Writes what there is space for.
    pub(super) fn write(&mut self, inode: usize, offset: u64, bytes: &[u8]) -> usize {
        let mut len = bytes.len() as u64;
        if let Some(budget) = &mut self.faults.write_budget {
            len = len.min(*budget);
            *budget -= len;
            if len == 0 && self.faults.budget_ends {
                self.faults.write_budget = None;
            }
        }
        for number in pages(offset..offset + len) {
            if !self.take_page(inode, number) {
                len = (number * PAGE_BYTES as u64).saturating_sub(offset);
                break;
            }
        }
        if len == 0 {
            return 0;
        }
        self.counts.written_bytes += len;
        let (start, end) = (offset as usize, (offset + len) as usize);
        let inode = &mut self.inodes[inode];
        if inode.cache.len() < end {
            resize(&mut inode.cache, end);
            inode.unsynced_lens.push(end as u64);
        }
        inode.cache[start..end].copy_from_slice(&bytes[..end - start]);
        inode.note(offset..offset + len);
        len as usize
    }

    pub(super) fn allocate(&mut self, inode: usize, len: u64) -> io::Result<()> {
        for number in pages(0..len) {
            if !self.take_page(inode, number) {
                return Err(ErrorKind::StorageFull.into());
            }
        }
        if self.inodes[inode].len() < len {
            self.set_len(inode, len);
        }
        Ok(())
    }

    pub(super) fn set_len(&mut self, inode: usize, len: u64) {
        let inode = &mut self.inodes[inode];
        let old = inode.len();
        resize(&mut inode.cache, len as usize);
        inode.unsynced_lens.push(len);
        if len < old {
            // What was cut off reads as zeros if the file grows again.
            let first_gone = pages(0..len).end;
            inode.allocated.retain(|number| *number < first_gone);
            inode.note(len..old);
        }
    }

    pub(super) fn sync(&mut self, inode: usize) -> io::Result<()> {
        self.counts.syncs += 1;
        let failing = self.faults.failing_syncs > 0;
        self.faults.failing_syncs = self.faults.failing_syncs.saturating_sub(1);
        let mut random = Random(self.counts.syncs);
        let inode = &mut self.inodes[inode];
        for (number, versions) in std::mem::take(&mut inode.unsynced) {
            if !failing || random.below(2) == 0 {
                put_page(&mut inode.disk, number, &versions[versions.len() - 1]);
            }
        }
        if failing {
            return Err(io::Error::other("simulated sync failure"));
        }
        inode.unsynced_lens.clear();
        let len = inode.cache.len();
        resize(&mut inode.disk, len);
        Ok(())
    }

    /// Makes sure that a page has space.
    fn take_page(&mut self, inode: usize, number: u64) -> bool {
        if self.inodes[inode].allocated.contains(&number) {
            return true;
        }
        if self.free_bytes() < PAGE_BYTES as u64 {
            return false;
        }
        self.inodes[inode].allocated.insert(number)
    }

    pub(super) fn free_bytes(&self) -> u64 {
        let Some(capacity) = self.capacity else {
            return u64::MAX / 2;
        };
        let named: BTreeSet<usize> = self.names.values().copied().collect();
        let files = self.inodes.iter().enumerate();
        let used: u64 = files
            .filter(|(n, inode)| named.contains(n) || inode.handles > 0)
            .map(|(_, inode)| (inode.allocated.len() * PAGE_BYTES) as u64)
            .sum();
        capacity.saturating_sub(used)
    }

    pub(super) fn flip(&mut self, path: &str, offset: u64, bits: u8) {
        let inode = &mut self.inodes[self.names[path]];
        let at = offset as usize;
        inode.cache[at] ^= bits;
        if let Some(byte) = inode.disk.get_mut(at) {
            *byte ^= bits;
        }
        let page = offset / PAGE_BYTES as u64;
        for version in inode.unsynced.get_mut(&page).into_iter().flatten() {
            version[at % PAGE_BYTES] ^= bits;
        }
    }

    pub(super) fn unsynced_pages(&self) -> Vec<(String, u64)> {
        let mut all = Vec::new();
        for (name, inode) in &self.names {
            let pages = self.inodes[*inode].unsynced.keys();
            all.extend(pages.map(|page| (name.clone(), *page)));
        }
        all
    }

    pub(super) fn names_after_crash(
        &self,
        mut keep: impl FnMut(&Renaming) -> bool,
    ) -> BTreeMap<String, usize> {
        let mut names = self.synced_names.clone();
        for change in self.unsynced_names.iter().filter(|change| keep(change)) {
            change.apply(&mut names);
        }
        names
    }

    pub(super) fn after_crash(
        &self,
        names: &BTreeMap<String, usize>,
        fate: &mut dyn FnMut(&str, u64, usize) -> Fate,
        len: &mut dyn FnMut(usize) -> usize,
    ) -> Self {
        let mut after = Self {
            dirs: self.dirs.clone(),
            capacity: self.capacity,
            ..Self::default()
        };
        for (name, inode) in names {
            let old = &self.inodes[*inode];
            let inode = old.crashed(&mut |page, versions| fate(name, page, versions), len);
            after.inodes.push(inode);
            after.names.insert(name.clone(), after.inodes.len() - 1);
        }
        after.synced_names = after.names.clone();
        after
    }
}
