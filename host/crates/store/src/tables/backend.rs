//! The tables' file for redb, through the store's own file layer.

use std::io;
use std::sync::Arc;

use redb::StorageBackend;

use crate::io::File;

/// A file for redb. The data folder's lock keeps other processes away.
#[derive(Debug)]
pub(super) struct Backend(Arc<dyn File>);

impl Backend {
    pub(super) fn new(file: Arc<dyn File>) -> Self {
        Self(file)
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}
