//! A small set of numbers on the stack.

use std::ops::{BitAnd, BitOr, BitOrAssign, Sub};

const WORDS: usize = 8;

/// Numbers below [`Bits::CAPACITY`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits([u64; WORDS]);

impl Bits {
    /// One more than the largest number. A filter of 4,096 characters has at most 512 fields, as
    /// each of them takes eight: `"k":[1],`.
    pub(super) const CAPACITY: usize = WORDS * 64;

    /// Adds a number; whether it was there before.
    #[inline]
    pub(super) fn insert(&mut self, number: usize) -> bool {
        let (word, bit) = (&mut self.0[number / 64], 1 << (number % 64));
        let was = *word & bit != 0;
        *word |= bit;
        was
    }

    #[inline]
    pub(super) fn contains(&self, number: usize) -> bool {
        self.0[number / 64] >> (number % 64) & 1 == 1
    }

    /// Whether all of `other` is in here.
    #[inline]
    pub(super) fn covers(self, other: Self) -> bool {
        (other - self).is_empty()
    }

    pub(super) fn is_empty(self) -> bool {
        self.0.iter().fold(0, |all, word| all | word) == 0
    }

    pub(super) fn len(self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// The numbers, ascending.
    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        (0..Self::CAPACITY).filter(move |number| self.contains(*number))
    }
}

impl FromIterator<usize> for Bits {
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        let mut bits = Self::default();
        for number in numbers {
            bits.insert(number);
        }
        bits
    }
}

impl BitOr for Bits {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }
}

impl BitOrAssign for Bits {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl BitAnd for Bits {
    type Output = Self;

    #[inline]
    fn bitand(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }
}

impl Sub for Bits {
    type Output = Self;

    /// What is here and not in `other`.
    #[inline]
    fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & !other.0[i]))
    }
}
