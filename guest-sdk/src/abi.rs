//! Reads the batch buffer of packed batch v1: header, strings, index, blob.
//!
//! The rules are those of `docs/abi.md`. Only what holds the buffer together is checked here, once
//! for each batch; a [`Record`](crate::Record) reads its own entry when it is asked.

use crate::{Batch, Error, Invocation, Window};

pub(crate) const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"SMB1");
pub(crate) const ANSWER_MAGIC: u32 = u32::from_le_bytes(*b"SMA1");
pub(crate) const VERSION: u16 = 1;
pub(crate) const HEADER_BYTES: usize = 64;
pub(crate) const ENTRY_BYTES: usize = 64;

pub(crate) const KIND_RECORDS: u16 = 1;
pub(crate) const KIND_EVENT: u16 = 2;

pub(crate) const FLAG_WINDOW_FINAL: u32 = 1;
pub(crate) const FLAG_WINDOW_ENDED_EARLY: u32 = 2;

/// Reads a buffer of records.
///
/// # Errors
/// `InvalidBatch`: not this version, not records, or the parts do not fit the buffer.
pub(crate) fn read_records(bytes: &[u8]) -> Result<(Invocation<'_>, Batch<'_>), Error> {
    let header = Header::read(bytes)?;
    if header.kind != KIND_RECORDS {
        return Err(invalid("it holds an event, and this handler takes records"));
    }
    let index_bytes = (header.count as usize).checked_mul(ENTRY_BYTES);
    let index = index_bytes
        .and_then(|len| slice(bytes, header.index_off, len))
        .ok_or_else(|| invalid("its index lies outside the buffer"))?;
    Ok((header.invocation(bytes)?, Batch::new(bytes, index)))
}

/// Reads a buffer that holds one JSON event, and gives the event's bytes.
///
/// # Errors
/// `InvalidBatch`: not this version, not an event, or the parts do not fit the buffer.
pub(crate) fn read_event(bytes: &[u8]) -> Result<(Invocation<'_>, &[u8]), Error> {
    let header = Header::read(bytes)?;
    if header.kind != KIND_EVENT {
        return Err(invalid("it holds records, and this handler takes an event"));
    }
    let event = slice(bytes, header.blob_off, header.blob_len as usize)
        .ok_or_else(|| invalid("its blob lies outside the buffer"))?;
    Ok((header.invocation(bytes)?, event))
}

/// The fields of the header that a guest needs.
struct Header {
    kind: u16,
    count: u32,
    index_off: u32,
    blob_off: u32,
    blob_len: u32,
    strings_off: u32,
    window_start: u64,
    window_end: u64,
    deadline: u64,
    attempt: u32,
    flags: u32,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, Error> {
        let header: &[u8; HEADER_BYTES] = bytes
            .first_chunk()
            .ok_or_else(|| invalid("it is shorter than a header"))?;
        if u32_at(header, 0) != BATCH_MAGIC {
            return Err(invalid("its magic is not SMB1"));
        }
        if u16_at(header, 4) != VERSION {
            return Err(invalid("its version is not 1"));
        }
        if u32_at(header, 8) as usize != bytes.len() {
            return Err(invalid("its length is not the buffer's"));
        }
        Ok(Self {
            kind: u16_at(header, 6),
            count: u32_at(header, 12),
            index_off: u32_at(header, 16),
            blob_off: u32_at(header, 20),
            blob_len: u32_at(header, 24),
            strings_off: u32_at(header, 28),
            window_start: u64_at(header, 32),
            window_end: u64_at(header, 40),
            deadline: u64_at(header, 48),
            attempt: u32_at(header, 56),
            flags: u32_at(header, 60),
        })
    }

    fn invocation<'a>(&self, bytes: &'a [u8]) -> Result<Invocation<'a>, Error> {
        let mut strings = Strings(bytes.get(self.strings_off as usize..).unwrap_or_default());
        let stream = strings.next()?;
        let shard = strings.next()?;
        let request_id = strings.next()?;
        let function = strings.next()?;
        let version = strings.next()?;
        let tenant = strings.next()?;
        let window_state = strings.next()?;
        let window = (self.window_end != 0).then_some(Window {
            start_ms: self.window_start,
            end_ms: self.window_end,
            state: window_state,
            is_final: self.flags & FLAG_WINDOW_FINAL != 0,
            ended_early: self.flags & FLAG_WINDOW_ENDED_EARLY != 0,
        });
        Ok(Invocation {
            stream,
            shard,
            request_id,
            function,
            version,
            tenant,
            attempt: self.attempt,
            deadline_ms: self.deadline,
            window,
        })
    }
}

/// What is left of the strings: each has a length in front of it.
struct Strings<'a>(&'a [u8]);

impl<'a> Strings<'a> {
    fn next(&mut self) -> Result<&'a str, Error> {
        let broken = || invalid("its strings lie outside the buffer, or are not UTF-8");
        let (len, rest) = self.0.split_first_chunk().ok_or_else(broken)?;
        let len = u32::from_le_bytes(*len) as usize;
        let (text, rest) = rest.split_at_checked(len).ok_or_else(broken)?;
        self.0 = rest;
        str::from_utf8(text).map_err(|_| broken())
    }
}

pub(crate) fn slice(bytes: &[u8], off: u32, len: usize) -> Option<&[u8]> {
    bytes.get(off as usize..)?.get(..len)
}

// The offsets below are constants, always inside the array: the checks vanish in a release build.

pub(crate) fn u16_at(entry: &[u8; 64], at: usize) -> u16 {
    u16::from_le_bytes([entry[at], entry[at + 1]])
}

pub(crate) fn u32_at(entry: &[u8; 64], at: usize) -> u32 {
    u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
}

pub(crate) fn u64_at(entry: &[u8; 64], at: usize) -> u64 {
    u64::from(u32_at(entry, at)) | u64::from(u32_at(entry, at + 4)) << 32
}

fn invalid(why: &str) -> Error {
    Error::new("InvalidBatch", format!("the host's batch: {why}"))
}
