//! Sequence numbers: AWS's layout of a 186-bit integer, written in decimal (56 digits today).
//!
//! ```text
//! bits   184..188  148..184        144..148      80..144   72..80  36..72     4..36        0..4
//!        2         shard creation  low nibble    counter   0       seconds    shard index  version
//!                  (seconds)       of the index            
//! ```
//!
//! Inside a shard the counter decides the order: it never goes back. Rules: observed layout of
//! production numbers; GetShardIterator and PutRecord ("SequenceNumberForOrdering").

use std::fmt;

use serde::{Deserialize, Serialize};

/// The highest counter: a closed shard's ending number carries it.
pub const LAST_COUNTER: u64 = i64::MAX as u64;

/// Creation times at or above this many seconds make a number invalid.
const CREATION_SECONDS_END: u64 = 16_025_175_000;

/// A sequence number: an unsigned integer below 2^192.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber {
    high: u64,
    low: u128,
}

/// What a number in AWS's current layout says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// When the shard was created, seconds since the epoch, below 2^36.
    pub created_seconds: u64,
    /// The shard's index.
    pub shard_index: u32,
    /// Position in the shard, 0 … 2^63 − 1; 0 is the shard's start, records begin at 1.
    pub counter: u64,
    /// When the record arrived, seconds since the epoch, below 2^36.
    pub seconds: u64,
}

/// What a given number turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The current layout.
    Current(Fields),
    /// A layout of 2013, version 1.
    Version1,
    /// The oldest layout, version 0.
    Version0,
}

/// A text or an integer that is no sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a sequence number")]
pub struct Invalid;

impl SequenceNumber {
    /// The number with these fields. Fields that are too wide are cut.
    pub const fn new(fields: Fields) -> Self {
        let Fields {
            created_seconds,
            shard_index,
            counter,
            seconds,
        } = fields;
        let high = (2 << 56)
            | ((created_seconds & 0xf_ffff_ffff) << 20)
            | (((shard_index & 0xf) as u64) << 16)
            | (counter >> 48);
        let low = ((counter as u128) << 80)
            | (((seconds & 0xf_ffff_ffff) as u128) << 36)
            | ((shard_index as u128) << 4)
            | 2;
        Self { high, low }
    }

    /// Reads the fields.
    ///
    /// # Errors
    /// `Invalid` when AWS would not take the number.
    pub fn decode(self) -> Result<Decoded, Invalid> {
        let top = 1u128 << 124;
        let value = if self.high == 0 && self.low < top {
            Self {
                high: 0,
                low: self.low + top,
            }
        } else {
            self
        };
        if value.high < 2 {
            return Ok(Decoded::Version0);
        }
        if value.high >> 56 != 2 || (value.high == 2 << 56 && value.low == 0) {
            return Err(Invalid);
        }
        match value.low & 0xf {
            1 => return Ok(Decoded::Version1),
            2 => {}
            _ => return Err(Invalid),
        }
        let fields = Fields {
            created_seconds: (value.high >> 20) & 0xf_ffff_ffff,
            shard_index: (value.low >> 4) as u32,
            counter: ((value.high & 0xffff) << 48) | (value.low >> 80) as u64,
            seconds: (value.low >> 36) as u64 & 0xf_ffff_ffff,
        };
        if fields.counter > LAST_COUNTER || fields.created_seconds >= CREATION_SECONDS_END {
            return Err(Invalid);
        }
        Ok(Decoded::Current(fields))
    }

    /// 24 bytes, little-endian: the form in the handler ABI.
    pub fn to_le_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.low.to_le_bytes());
        bytes[16..].copy_from_slice(&self.high.to_le_bytes());
        bytes
    }

    /// The number in 24 little-endian bytes.
    pub fn from_le_bytes(bytes: [u8; 24]) -> Self {
        let mut low = [0; 16];
        let mut high = [0; 8];
        low.copy_from_slice(&bytes[..16]);
        high.copy_from_slice(&bytes[16..]);
        Self {
            high: u64::from_le_bytes(high),
            low: u128::from_le_bytes(low),
        }
    }

    /// Writes the decimal text into `out` and returns it.
    pub fn write_decimal(self, out: &mut [u8; 58]) -> &str {
        // Four rounds of 18 digits hold 72 digits; 2^192 has 58.
        const CHUNK: u128 = 1_000_000_000_000_000_000;
        let mut limbs = [self.high, (self.low >> 64) as u64, self.low as u64];
        let mut at = out.len();
        loop {
            let mut rest = 0u128;
            for limb in &mut limbs {
                let value = (rest << 64) | u128::from(*limb);
                *limb = (value / CHUNK) as u64;
                rest = value % CHUNK;
            }
            let mut digits = rest as u64;
            let last = limbs == [0; 3];
            for _ in 0..18 {
                if at == 0 || (last && digits == 0 && at < out.len()) {
                    break;
                }
                at -= 1;
                out[at] = b'0' + (digits % 10) as u8;
                digits /= 10;
            }
            if last {
                return std::str::from_utf8(&out[at..]).unwrap_or_default();
            }
        }
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write_decimal(&mut [0; 58]))
    }
}

impl std::str::FromStr for SequenceNumber {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid);
        }
        let mut limbs = [0u64; 3];
        for byte in text.bytes() {
            if !byte.is_ascii_digit() {
                return Err(Invalid);
            }
            let mut carry = u128::from(byte - b'0');
            for limb in limbs.iter_mut().rev() {
                let value = u128::from(*limb) * 10 + carry;
                *limb = value as u64;
                carry = value >> 64;
            }
            if carry != 0 {
                return Err(Invalid);
            }
        }
        Ok(Self {
            high: limbs[0],
            low: (u128::from(limbs[1]) << 64) | u128::from(limbs[2]),
        })
    }
}

impl Serialize for SequenceNumber {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.write_decimal(&mut [0; 58]))
    }
}

impl<'de> Deserialize<'de> for SequenceNumber {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTORS: [(&str, Fields); 5] = [
        (
            "49593949378240586316257100628612811999143984124999500050",
            Fields {
                created_seconds: 1_552_896_735,
                shard_index: 17,
                counter: 6_092_168_666,
                seconds: 1_554_821_832,
            },
        ),
        (
            "49646437577108476416916876405825929425585429676275269634",
            Fields {
                created_seconds: 1_700_000_000,
                shard_index: 0,
                counter: 0,
                seconds: 1_700_000_000,
            },
        ),
        (
            "49646437577130777162115407028967465143858078037781250066",
            Fields {
                created_seconds: 1_700_000_000,
                shard_index: 1,
                counter: 0,
                seconds: 1_700_000_000,
            },
        ),
        (
            "49646437577119626789516141717395488358902146099801227266",
            Fields {
                created_seconds: 1_700_000_000,
                shard_index: 0,
                counter: LAST_COUNTER,
                seconds: 1_700_000_100,
            },
        ),
        (
            "49646437577175378652512468275256581209501451342640578610",
            Fields {
                created_seconds: 1_700_000_000,
                shard_index: 3,
                counter: 5,
                seconds: 1_700_000_050,
            },
        ),
    ];

    #[test]
    fn numbers_have_aws_layout() {
        for (text, fields) in VECTORS {
            let number = SequenceNumber::new(fields);
            assert_eq!(number.to_string(), text);
            assert_eq!(text.parse(), Ok(number));
            assert_eq!(number.decode(), Ok(Decoded::Current(fields)));
            assert_eq!(SequenceNumber::from_le_bytes(number.to_le_bytes()), number);
        }
    }

    #[test]
    fn text_that_is_no_number_is_refused() {
        let too_large = "9".repeat(59);
        for text in ["", "-1", "1a", " 1", too_large.as_str()] {
            assert_eq!(text.parse::<SequenceNumber>(), Err(Invalid), "{text}");
        }
        let largest = "6277101735386680763835789423207666416102355444464034512895";
        assert_eq!(
            largest
                .parse::<SequenceNumber>()
                .map(|n| n.to_string())
                .as_deref(),
            Ok(largest)
        );
        assert_eq!(
            "0".parse::<SequenceNumber>()
                .map(|n| n.to_string())
                .as_deref(),
            Ok("0")
        );
    }

    #[test]
    fn old_layouts_are_recognised_and_foreign_numbers_refused() {
        let decode = |text: &str| {
            text.parse::<SequenceNumber>()
                .and_then(SequenceNumber::decode)
        };
        assert_eq!(decode("0"), Ok(Decoded::Version0));
        assert_eq!(
            decode("21267647932558653966460912964485513215"),
            Ok(Decoded::Version0)
        );
        let two_to_185 = "49039857307708443467467104868809893875799651909875269632";
        assert_eq!(decode(two_to_185), Err(Invalid));
        assert!(matches!(
            decode("49039857307708443467467104868809893875799651909875269634"),
            Ok(Decoded::Current(_))
        ));
        assert_eq!(
            decode("49039857307708443467467104868809893875799651909875269633"),
            Ok(Decoded::Version1)
        );
        assert_eq!(
            decode("49039857307708443467467104868809893875799651909875269635"),
            Err(Invalid)
        );
    }

    #[test]
    fn order_inside_a_shard_is_the_counters() {
        let at = |counter, seconds| {
            SequenceNumber::new(Fields {
                created_seconds: 1_700_000_000,
                shard_index: 2,
                counter,
                seconds,
            })
        };
        assert!(at(1, 1_900_000_000) < at(2, 1_700_000_000));
        assert!(at(1, 1_700_000_000) < at(1, 1_700_000_001));
    }
}
