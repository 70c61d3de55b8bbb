//! The file that an entry travels in: self-contained, versioned, checksummed. `docs/failures.md`
//! draws it.
//!
//! ```text
//! "SMFX" │ version u16 │ 0 u16 │ (kind u8 │ length u64 │ bytes)* │ SHA-256 of all before, 32 B
//! ```
//!
//! Kinds: 1 entry (JSON), 2 records (a batch's stored form), 3 inputs of the attempt, 4 module.
//! Each at most once and the entry always; little-endian.

use bytes::Bytes;
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 4] = b"SMFX";
/// The version that is written, and the only one that is read.
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 32;

/// The kinds, in the order in which they are written.
const KINDS: [&str; 4] = ["entry", "records", "inputs", "module"];

/// Why a file is not an exported failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBundle {
    /// It does not begin as one.
    #[error("not an exported failure: it does not begin with \"SMFX\"")]
    Magic,
    /// A later version wrote it.
    #[error(
        "an exported failure of version {0}, this host reads version {VERSION}: use a newer host"
    )]
    Version(u16),
    /// Its bytes are not those that were written.
    #[error("a damaged file: its checksum does not match: export or copy it again")]
    Checksum,
    /// A part that is none.
    #[error("an exported failure that makes no sense: {0}")]
    Part(String),
}

/// The parts of a file; empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bundle {
    pub(super) entry: Bytes,
    pub(super) records: Bytes,
    pub(super) inputs: Bytes,
    pub(super) module: Bytes,
}

impl Bundle {
    /// The file.
    pub(super) fn write(&self) -> Vec<u8> {
        let parts = [&self.entry, &self.records, &self.inputs, &self.module];
        let size: usize = parts.iter().map(|part| 9 + part.len()).sum();
        let mut out = Vec::with_capacity(HEAD_BYTES + size + CHECKSUM_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        for (kind, part) in (1u8..).zip(parts) {
            if !part.is_empty() {
                out.push(kind);
                out.extend_from_slice(&(part.len() as u64).to_le_bytes());
                out.extend_from_slice(part);
            }
        }
        let checksum = Sha256::digest(&out);
        out.extend_from_slice(&checksum);
        out
    }

    /// Reads a file. Trusts nothing.
    ///
    /// # Errors
    /// See [`BadBundle`].
    pub(super) fn read(file: &Bytes) -> Result<Self, BadBundle> {
        if !file.starts_with(MAGIC) {
            return Err(BadBundle::Magic);
        }
        let version = file.get(4..6).ok_or(BadBundle::Checksum)?;
        let version = u16::from_le_bytes([version[0], version[1]]);
        if version != VERSION {
            return Err(BadBundle::Version(version));
        }
        let end = file.len().checked_sub(CHECKSUM_BYTES);
        let end = end
            .filter(|end| *end >= HEAD_BYTES)
            .ok_or(BadBundle::Checksum)?;
        if Sha256::digest(&file[..end])[..] != file[end..] {
            return Err(BadBundle::Checksum);
        }
        let mut bundle = Self::default();
        let mut rest = file.slice(HEAD_BYTES..end);
        while !rest.is_empty() {
            let cut = || BadBundle::Part("a part is cut short".into());
            let (head, body) = rest.split_first_chunk::<9>().ok_or_else(cut)?;
            let [kind, len @ ..] = *head;
            let len = usize::try_from(u64::from_le_bytes(len)).map_err(|_| cut())?;
            let body = body.get(..len).ok_or_else(cut)?;
            let body = rest.slice_ref(body);
            let _ = rest.split_to(9 + len);
            let part = match kind {
                1 => &mut bundle.entry,
                2 => &mut bundle.records,
                3 => &mut bundle.inputs,
                4 => &mut bundle.module,
                other => return Err(BadBundle::Part(format!("a part of unknown kind {other}"))),
            };
            if !part.is_empty() {
                let name = KINDS[usize::from(kind) - 1];
                return Err(BadBundle::Part(format!("two parts {name:?}")));
            }
            *part = body;
        }
        if bundle.entry.is_empty() {
            return Err(BadBundle::Part("no entry".into()));
        }
        Ok(bundle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        Bundle {
            entry: Bytes::from_static(b"{}"),
            records: Bytes::from_static(b"records"),
            inputs: Bytes::new(),
            module: Bytes::from_static(b"\0asm"),
        }
    }

    #[test]
    fn a_file_gives_back_what_was_written() {
        let file = Bytes::from(bundle().write());
        assert_eq!(Bundle::read(&file), Ok(bundle()));
    }

    #[test]
    fn no_changed_or_missing_byte_goes_unnoticed() {
        let file = bundle().write();
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(Bundle::read(&changed.into()).is_err(), "byte {at}");
            assert!(
                Bundle::read(&file[..at].to_vec().into()).is_err(),
                "{at} bytes"
            );
        }
        let mut longer = file.clone();
        longer.push(0);
        assert_eq!(Bundle::read(&longer.into()), Err(BadBundle::Checksum));
    }

    #[test]
    fn garbage_is_told_from_a_later_version() {
        let mut later = bundle().write();
        later[4] = 2;
        for (file, want) in [
            (Bytes::from_static(b"not one at all"), BadBundle::Magic),
            (Bytes::new(), BadBundle::Magic),
            (Bytes::from_static(b"SMFX"), BadBundle::Checksum),
            (later.into(), BadBundle::Version(2)),
        ] {
            assert_eq!(Bundle::read(&file), Err(want));
        }
        let mut twice = bundle().write();
        twice.truncate(twice.len() - CHECKSUM_BYTES);
        twice.extend_from_slice(&[1, 1, 0, 0, 0, 0, 0, 0, 0, b'x']);
        let checksum = Sha256::digest(&twice);
        twice.extend_from_slice(&checksum);
        assert_eq!(
            Bundle::read(&twice.into()),
            Err(BadBundle::Part("two parts \"entry\"".into()))
        );
    }
}
