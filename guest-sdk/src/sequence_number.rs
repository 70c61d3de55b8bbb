//! AWS's sequence numbers: integers of up to 56 decimal digits, kept in 192 bits.

use std::fmt;

/// A record's sequence number. It compares as a number and prints as AWS prints it, in decimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SequenceNumber {
    /// Most significant first, so that the derived order is the numbers' order.
    limbs: [u64; 3],
}

impl SequenceNumber {
    /// From 64-bit parts, least significant first.
    pub fn from_limbs([low, middle, high]: [u64; 3]) -> Self {
        Self {
            limbs: [high, middle, low],
        }
    }

    /// Its 24 bytes, little-endian: the form it has in the batch.
    pub fn to_le_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        for (chunk, limb) in bytes.chunks_exact_mut(8).zip(self.limbs.iter().rev()) {
            chunk.copy_from_slice(&limb.to_le_bytes());
        }
        bytes
    }
}

impl From<u128> for SequenceNumber {
    fn from(n: u128) -> Self {
        Self {
            limbs: [0, (n >> 64) as u64, n as u64],
        }
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The largest power of ten that fits a limb, and its digits.
        const BASE: u128 = 10_u128.pow(19);
        const DIGITS: usize = 19;

        let mut rest = self.limbs;
        let mut groups = [0_u64; 4]; // 192 bits have at most 58 digits
        for group in &mut groups {
            let mut remainder = 0_u128;
            for limb in &mut rest {
                let dividend = remainder << 64 | u128::from(*limb);
                *limb = (dividend / BASE) as u64;
                remainder = dividend % BASE;
            }
            *group = remainder as u64;
        }
        let top = groups.iter().rposition(|&group| group != 0).unwrap_or(0);
        write!(f, "{}", groups[top])?;
        groups[..top]
            .iter()
            .rev()
            .try_for_each(|group| write!(f, "{group:0DIGITS$}"))
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
