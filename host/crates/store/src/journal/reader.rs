//! Reads places.

use std::io::ErrorKind;

use bytes::Bytes;

use super::segment::{Shared, locked, path};
use super::{Corruption, JournalReadError, Place};

pub(super) fn read(shared: &Shared, place: Place, crc: u32) -> Result<Bytes, JournalReadError> {
    let segment = locked(&shared.used).get(&*shared.io, place.segment)?;
    let file = || shared.io.display(&path(place.segment));
    let damaged = |reason: &str| {
        JournalReadError::Damaged(Corruption {
            file: file(),
            offset: u64::from(place.offset),
            reason: reason.to_owned(),
        })
    };
    if u64::from(place.offset) + u64::from(place.len) > segment.bytes {
        return Err(damaged("the file ends before the data does"));
    }
    let mut bytes = vec![0; place.len as usize];
    match segment.file.read_at(u64::from(place.offset), &mut bytes) {
        Ok(()) if crc32fast::hash(&bytes) == crc => Ok(bytes.into()),
        Ok(()) => Err(damaged("the data does not have its checksum")),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Err(damaged("the file ends before the data does"))
        }
        Err(error) => Err(JournalReadError::Io {
            file: file(),
            message: error.to_string(),
        }),
    }
}
