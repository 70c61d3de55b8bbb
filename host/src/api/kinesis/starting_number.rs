//! What a sequence number that a client gives says, in all three layouts there have been.
//!
//! ```text
//! version 0, 32 hexadecimal digits     1 │ 9: creation seconds │ 18 │ 4: shard index
//! version 1 and 2, 47 digits           as in `shardmill_core::sequence`
//! ```
//!
//! Rules: answers of production Kinesis to such numbers in GetShardIterator
//! (`StartingSequenceNumber`) and PutRecord (`SequenceNumberForOrdering`).

use shardmill_core::SequenceNumber;
use shardmill_core::sequence::{Decoded, Fields};

/// Creation times at or above this many seconds make a number invalid.
const CREATION_SECONDS_END: u64 = 16_025_175_000;

/// A number that AWS would take for one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// Today's layout.
    Current {
        number: SequenceNumber,
        fields: Fields,
    },
    /// The layout of 2013.
    Version1 { shard_index: i32 },
    /// The oldest one.
    Version0 { shard_index: i32 },
}

impl Given {
    /// Reads a decimal text; `None` for what AWS calls invalid.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number: SequenceNumber = text.parse().ok()?;
        let bytes = number.to_le_bytes();
        let low = u128::from_le_bytes(bytes.first_chunk().copied()?);
        match number.decode().ok()? {
            Decoded::Current(fields) => Some(Self::Current { number, fields }),
            Decoded::Version1 => Some(Self::Version1 {
                shard_index: (low >> 4) as u32 as i32,
            }),
            Decoded::Version0 => {
                // Small numbers stand for themselves plus 2^124.
                let low = if bytes[16..] == [0; 8] && low >> 124 == 0 {
                    low + (1 << 124)
                } else {
                    low
                };
                let created = (low >> 88) as u64 & 0xf_ffff_ffff;
                (created < CREATION_SECONDS_END).then_some(Self::Version0 {
                    shard_index: i32::from(low as u16),
                })
            }
        }
    }

    /// The index of the shard that the number says it is from; AWS reads it with a sign.
    pub(crate) fn shard_index(&self) -> i32 {
        match self {
            Self::Current { fields, .. } => fields.shard_index as i32,
            Self::Version1 { shard_index } | Self::Version0 { shard_index } => *shard_index,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_is_read_from_every_layout() {
        for (text, index) in [
            ("0", Some(0)),
            ("5", Some(5)),
            ("26227199374822427428162556223570313216", None),
            (
                "49039857307708443467467104868809893875799651909875269632",
                None,
            ),
            (
                "49039857307708443467467104868809893875799651909875269634",
                Some(0),
            ),
            (
                "49039857307708443467467104868809893875799651909875269633",
                Some(0),
            ),
            (
                "49039857307708443467467104868809893875799651944235008002",
                Some(i32::MIN),
            ),
            (
                "49646437577130777162115407028967465143858078037781250066",
                Some(1),
            ),
        ] {
            assert_eq!(Given::parse(text).map(|g| g.shard_index()), index, "{text}");
        }
    }
}
