//! State that the handles share.

use std::io;

use super::{Position, SegmentInfo, Space};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store_id: u64,
}

impl Shared {
    pub(super) fn durable(&self) -> Position {
        unimplemented!("follows")
    }
    pub(super) fn segments(&self) -> Vec<SegmentInfo> {
        unimplemented!("follows")
    }
    pub(super) fn release(&self, _segment: u64, _tables: Position) -> io::Result<bool> {
        unimplemented!("follows")
    }
    pub(super) fn space(&self) -> io::Result<Space> {
        unimplemented!("follows")
    }
    pub(super) fn disk_bytes(&self) -> u64 {
        unimplemented!("follows")
    }
}
