//! Reads JSON text without building anything from it: values that nobody asks about are checked
//! and stepped over, the others are handed out as slices of the text.
//!
//! What is JSON is RFC 8259's grammar, whole and strict: no comments, no trailing commas, no byte
//! order mark, no limit on the size of a number. An escape that stands for half of a surrogate
//! pair is within the grammar and reads as U+FFFD. Nesting ends at [`MAX_DEPTH`].

use std::borrow::Cow;
use std::ops::Range;

use super::escape::{escape_len, unescape};
use super::number::Number;

/// Arrays and objects within each other that are followed: one more than serde_json parses, so
/// that what is beyond could hardly be read by a handler.
pub(super) const MAX_DEPTH: u32 = 128;

/// Why a text is not JSON. Where it is not is [`Scanner::at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Syntax(pub(super) &'static str);

/// A value that is neither an array nor an object.
#[derive(Clone, Debug)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(Number<'a>),
    Text(Cow<'a, str>),
}

impl Scalar<'_> {
    /// Bytes of a string or a number.
    pub(super) fn text_bytes(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 0,
            Self::Number(number) => number.text().len(),
            Self::Text(text) => text.len(),
        }
    }
}

/// A string as it is written, without its quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted<'a> {
    text: &'a str,
    from: usize,
    to: usize,
    escaped: bool,
}

impl<'a> Quoted<'a> {
    /// Its bytes, if nothing is escaped, so that they are what it stands for.
    #[inline]
    pub(super) fn plain(&self) -> Option<&'a [u8]> {
        let bytes = &self.text.as_bytes()[self.from..self.to];
        (!self.escaped).then_some(bytes)
    }

    /// What it stands for; copied only if something is escaped.
    pub(super) fn decode(self) -> Cow<'a, str> {
        // Quotes are ASCII, so both ends are between characters.
        let raw = self.text.get(self.from..self.to).unwrap_or_default();
        if self.escaped {
            Cow::Owned(unescape(raw))
        } else {
            Cow::Borrowed(raw)
        }
    }
}

/// A place in a text.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Scanner<'a> {
    /// At the start of a text.
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
        }
    }

    /// Bytes before this place. After an error, where it is.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The text between two places.
    pub(super) fn between(&self, from: usize, to: usize) -> &'a str {
        // Places are next to ASCII, so they are between characters.
        self.text.get(from..to).unwrap_or_default()
    }

    /// The next byte that is not white space, not stepped over; 0 at the end, which no JSON has.
    #[inline]
    pub(super) fn peek(&mut self) -> u8 {
        peek(self.text.as_bytes(), &mut self.at)
    }

    /// Nothing but white space may be left.
    pub(super) fn end(&mut self) -> Result<(), Syntax> {
        self.peek();
        if self.at == self.text.len() {
            Ok(())
        } else {
            Err(Syntax("text behind the end of the value"))
        }
    }

    /// Steps into an array or object, whose first byte is next. False if it is empty, and then it
    /// is stepped over.
    pub(super) fn enter(&mut self, close: u8) -> Result<bool, Syntax> {
        if self.depth == MAX_DEPTH {
            return Err(TOO_DEEP);
        }
        self.at += 1;
        if self.peek() == close {
            self.at += 1;
            return Ok(false);
        }
        self.depth += 1;
        Ok(true)
    }

    /// Behind an element: whether another one follows. If not, the array or object is left.
    #[inline]
    pub(super) fn more(&mut self, close: u8) -> Result<bool, Syntax> {
        let byte = self.peek();
        if byte == b',' {
            self.at += 1;
            Ok(true)
        } else if byte == close {
            self.at += 1;
            self.depth -= 1;
            Ok(false)
        } else {
            Err(expected_more(close))
        }
    }

    /// A key and its colon.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Quoted<'a>, Syntax> {
        let (place, escaped) = key(self.text.as_bytes(), &mut self.at)?;
        Ok(self.quoted(place.start, place.end, escaped))
    }

    /// A string, number, `true`, `false` or `null`.
    pub(super) fn scalar(&mut self) -> Result<Scalar<'a>, Syntax> {
        let bytes = self.text.as_bytes();
        let first = self.peek();
        let from = self.at;
        match first {
            b'"' => {
                let escaped = string(bytes, &mut self.at)?;
                let text = self.quoted(from + 1, self.at - 1, escaped);
                Ok(Scalar::Text(text.decode()))
            }
            b't' | b'f' | b'n' => {
                word(bytes, &mut self.at)?;
                Ok(match first {
                    b'n' => Scalar::Null,
                    _ => Scalar::Bool(first == b't'),
                })
            }
            _ => {
                number(bytes, &mut self.at)?;
                Ok(Scalar::Number(Number::read(self.between(from, self.at))))
            }
        }
    }

    /// Checks a value and steps over it.
    pub(super) fn skip(&mut self) -> Result<(), Syntax> {
        // The place is kept apart from the scanner, so that it stays in a register.
        let mut at = self.at;
        let skipped = skip(self.text.as_bytes(), &mut at, MAX_DEPTH - self.depth);
        self.at = at;
        skipped
    }

    fn quoted(&self, from: usize, to: usize, escaped: bool) -> Quoted<'a> {
        Quoted {
            text: self.text,
            from,
            to,
            escaped,
        }
    }
}

#[inline(always)]
fn skip(bytes: &[u8], at: &mut usize, most_levels: u32) -> Result<(), Syntax> {
    // One bit for each level, the innermost lowest: whether it is an object.
    let (mut levels, mut depth) = (0u128, 0);
    loop {
        if levels & 1 == 1 {
            key(bytes, at)?;
        }
        match peek(bytes, at) {
            b'"' => drop(string(bytes, at)?),
            open @ (b'{' | b'[') => {
                if depth == most_levels {
                    return Err(TOO_DEEP);
                }
                *at += 1;
                let is_object = open == b'{';
                if peek(bytes, at) == closing(is_object) {
                    *at += 1;
                } else {
                    levels = levels << 1 | u128::from(is_object);
                    depth += 1;
                    continue;
                }
            }
            b't' | b'f' | b'n' => word(bytes, at)?,
            _ => number(bytes, at)?,
        }
        // Behind a value: the next one, or the ends of what it is in.
        loop {
            if depth == 0 {
                return Ok(());
            }
            let close = closing(levels & 1 == 1);
            let byte = peek(bytes, at);
            if byte == b',' {
                *at += 1;
                break;
            }
            if byte != close {
                return Err(expected_more(close));
            }
            *at += 1;
            levels >>= 1;
            depth -= 1;
        }
    }
}

#[inline(always)]
fn peek(bytes: &[u8], at: &mut usize) -> u8 {
    while let Some(&byte) = bytes.get(*at) {
        if byte > b' ' || !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return byte;
        }
        *at += 1;
    }
    0
}

/// A key and its colon: where it is, without quotes, and whether something is escaped.
#[inline(always)]
fn key(bytes: &[u8], at: &mut usize) -> Result<(Range<usize>, bool), Syntax> {
    if peek(bytes, at) != b'"' {
        return Err(Syntax("expected a key in double quotes"));
    }
    let from = *at + 1;
    let escaped = string(bytes, at)?;
    let to = *at - 1;
    if peek(bytes, at) != b':' {
        return Err(Syntax("expected `:` behind a key"));
    }
    *at += 1;
    Ok((from..to, escaped))
}

/// A string whose opening quote is next; whether something in it is escaped.
#[inline(always)]
fn string(bytes: &[u8], at: &mut usize) -> Result<bool, Syntax> {
    *at += 1;
    let mut escaped = false;
    loop {
        while let Some(chunk) = bytes.get(*at..).and_then(|rest| rest.first_chunk()) {
            let special = specials(u64::from_le_bytes(*chunk));
            if special != 0 {
                *at += special.trailing_zeros() as usize / 8;
                break;
            }
            *at += 8;
        }
        let byte = bytes.get(*at);
        if byte == Some(&b'"') {
            *at += 1;
            return Ok(escaped);
        }
        match byte {
            Some(b'\\') => {
                escaped = true;
                *at += escape_len(&bytes[*at..]).ok_or(Syntax("an escape that JSON lacks"))?;
            }
            Some(0x20..) => *at += 1,
            Some(_) => return Err(Syntax("a control character within a string")),
            None => return Err(Syntax("a string without its closing quote")),
        }
    }
}

#[inline(always)]
fn number(bytes: &[u8], at: &mut usize) -> Result<(), Syntax> {
    let from = *at;
    if bytes.get(from) == Some(&b'-') {
        *at += 1;
    }
    let first = bytes.get(*at).copied();
    match digits(bytes, at) {
        0 => return Err(no_number(bytes, from)),
        1 => {}
        _ if first == Some(b'0') => return Err(Syntax("a number that begins with 0")),
        _ => {}
    }
    if bytes.get(*at) == Some(&b'.') {
        *at += 1;
        if digits(bytes, at) == 0 {
            return Err(Syntax("a number without digits behind its point"));
        }
    }
    if matches!(bytes.get(*at), Some(b'e' | b'E')) {
        *at += 1;
        *at += usize::from(matches!(bytes.get(*at), Some(b'+' | b'-')));
        if digits(bytes, at) == 0 {
            return Err(Syntax("a number without digits in its exponent"));
        }
    }
    Ok(())
}

/// How many digits are next; they are stepped over.
#[inline(always)]
fn digits(bytes: &[u8], at: &mut usize) -> usize {
    let from = *at;
    while bytes.get(*at).is_some_and(u8::is_ascii_digit) {
        *at += 1;
    }
    *at - from
}

#[cold]
fn no_number(bytes: &[u8], from: usize) -> Syntax {
    Syntax(match bytes.get(from) {
        None => "the text ends where a value is expected",
        Some(b'-') => "a number without digits",
        Some(_) => "expected a value",
    })
}

/// `true`, `false` or `null`, of which the first letter is next.
#[inline(always)]
fn word(bytes: &[u8], at: &mut usize) -> Result<(), Syntax> {
    let rest = &bytes[*at..];
    let len = match rest {
        [b't', b'r', b'u', b'e', ..] | [b'n', b'u', b'l', b'l', ..] => 4,
        [b'f', b'a', b'l', b's', b'e', ..] => 5,
        _ => return Err(Syntax("expected a value")),
    };
    *at += len;
    Ok(())
}

const TOO_DEEP: Syntax = Syntax("more than 128 arrays and objects within each other");

fn closing(is_object: bool) -> u8 {
    if is_object { b'}' } else { b']' }
}

fn expected_more(close: u8) -> Syntax {
    Syntax(if close == b'}' {
        "expected `,` or `}`"
    } else {
        "expected `,` or `]`"
    })
}

/// Eight bytes at once: the lowest bit that is set is in the first byte that is a quote, a
/// backslash or a control character. Bits above it may be wrong, as a subtraction borrows.
#[inline]
fn specials(bytes: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let below = |limit: u8, bytes: u64| bytes.wrapping_sub(ONES * u64::from(limit)) & !bytes;
    let is = |byte: u8| below(1, bytes ^ (ONES * u64::from(byte)));
    (is(b'"') | is(b'\\') | below(b' ', bytes)) & (ONES << 7)
}
