//! Numbers as JSON writes them, compared by their value and exactly: 300, 300.0 and 3e2 are one
//! number, 9007199254740993 and 9007199254740992 are two. Nothing is rounded to binary.

use std::cmp::Ordering;

/// A number in a text: its sign, its digits without zeros at either end, and its point, so that
/// the value is 0.DIGITS × 10^point. Zero has no digits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<'a> {
    text: &'a str,
    negative: bool,
    /// The digits stand in two pieces, as a point may be between them.
    digits: [&'a [u8]; 2],
    point: i64,
}

impl<'a> Number<'a> {
    /// Reads a text that is known to be a JSON number.
    pub(super) fn read(text: &'a str) -> Self {
        let unsigned = text.as_bytes();
        let (negative, unsigned) = match unsigned {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, unsigned),
        };
        let (mut whole, mut rest) = split_digits(unsigned);
        let mut fraction: &[u8] = &[];
        if let [b'.', behind @ ..] = rest {
            (fraction, rest) = split_digits(behind);
        }
        let exponent = match rest {
            [_, exponent @ ..] => read_exponent(exponent),
            [] => 0,
        };
        whole = trim_start(whole);
        fraction = trim_end(fraction);
        let mut point = exponent.saturating_add(whole.len() as i64);
        if fraction.is_empty() {
            whole = trim_end(whole);
        }
        if whole.is_empty() {
            let zeros = fraction.len();
            fraction = trim_start(fraction);
            point = point.saturating_sub((zeros - fraction.len()) as i64);
        }
        let is_zero = whole.is_empty() && fraction.is_empty();
        Self {
            text,
            negative: negative && !is_zero,
            digits: [whole, fraction],
            point: if is_zero { 0 } else { point },
        }
    }

    /// As it is written.
    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    fn digits(&self) -> impl Iterator<Item = &'a u8> + use<'a> {
        let [whole, fraction] = self.digits;
        whole.iter().chain(fraction)
    }

    /// -1, 0 or 1.
    fn sign(&self) -> i8 {
        if self.negative {
            -1
        } else {
            i8::from(self.digits().next().is_some())
        }
    }
}

impl Ord for Number<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let size = || {
            self.point
                .cmp(&other.point)
                .then_with(|| self.digits().cmp(other.digits()))
        };
        self.sign().cmp(&other.sign()).then_with(|| {
            if self.negative {
                size().reverse()
            } else {
                size()
            }
        })
    }
}

impl PartialOrd for Number<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number<'_> {}

/// A number that is kept, read once.
#[derive(Clone, Debug)]
pub(super) struct Decimal {
    text: Box<str>,
    negative: bool,
    digits: [Box<[u8]>; 2],
    point: i64,
}

impl Decimal {
    pub(super) fn as_number(&self) -> Number<'_> {
        let [whole, fraction] = &self.digits;
        Number {
            text: &self.text,
            negative: self.negative,
            digits: [whole, fraction],
            point: self.point,
        }
    }
}

impl From<Number<'_>> for Decimal {
    fn from(number: Number<'_>) -> Self {
        Self {
            text: number.text.into(),
            negative: number.negative,
            digits: number.digits.map(Into::into),
            point: number.point,
        }
    }
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|b| b.is_ascii_digit()).count())
}

/// An exponent; far beyond what a number of a record can hold, it stays at the end of the range.
fn read_exponent(text: &[u8]) -> i64 {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let size = digits.iter().fold(0i64, |value, digit| {
        let digit = i64::from(digit.wrapping_sub(b'0'));
        value.saturating_mul(10).saturating_add(digit)
    });
    if negative { -size } else { size }
}

fn trim_start(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}

fn trim_end(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().rev().take_while(|digit| **digit == b'0');
    &digits[..digits.len() - zeros.count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_by_value_however_they_are_written() {
        let ascending: &[&[&str]] = &[
            &["-1e400"],
            &["-12", "-12.0", "-1.2e1", "-120e-1"],
            &["-1.5", "-15E-1"],
            &["-0.001", "-1e-3"],
            &["0", "-0", "0.0", "0e9", "-0.0E-5"],
            &["1e-400"],
            &["0.1", "1e-1", "0.10", "0.01e1"],
            &["0.12", "12e-2"],
            &["1", "1.0", "10e-1", "0.1e1", "0.01e2"],
            &["9", "9.00"],
            &["10", "1e1", "1E+1", "0.1e2"],
            &["300", "300.0", "3.0e2", "3000e-1"],
            &["9007199254740992"],
            &["9007199254740993", "9007199254740993.0"],
            &["18446744073709551616"],
            &["1e99999999999999999999"],
        ];
        for (i, left) in ascending.iter().enumerate() {
            for (j, right) in ascending.iter().enumerate() {
                for (left, right) in left.iter().flat_map(|l| right.iter().map(move |r| (l, r))) {
                    let found = Number::read(left).cmp(&Number::read(right));
                    assert_eq!(found, i.cmp(&j), "{left} and {right}");
                }
            }
        }
    }
}
