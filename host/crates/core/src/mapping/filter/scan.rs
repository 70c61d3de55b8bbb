//! Reads JSON text without building anything from it: values that nobody asks about are checked
//! and stepped over, the others are handed out as slices of the text.
//!
//! What is JSON is RFC 8259's grammar, whole and strict: no comments, no trailing commas, no byte
//! order mark, no limit on the size of a number. An escape that stands for half of a surrogate
//! pair is within the grammar and reads as U+FFFD. Nesting ends at [`MAX_DEPTH`].

use std::borrow::Cow;

use super::number::Number;

/// Arrays and objects within each other that are followed. serde_json's limit, so that what a
/// filter lets through can be read by a handler.
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

/// A string as it is written, without its quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Quoted<'a> {
    /// What it stands for; copied only if something is escaped.
    pub(super) fn decode(self) -> Cow<'a, str> {
        if self.escaped {
            Cow::Owned(unescape(self.raw))
        } else {
            Cow::Borrowed(self.raw)
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
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if byte > b' ' || !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return byte;
            }
            self.at += 1;
        }
        0
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
        if self.peek() != b'"' {
            return Err(Syntax("expected a key in double quotes"));
        }
        let key = self.string()?;
        if self.peek() != b':' {
            return Err(Syntax("expected `:` behind a key"));
        }
        self.at += 1;
        Ok(key)
    }

    /// A string, number, `true`, `false` or `null`.
    pub(super) fn scalar(&mut self) -> Result<Scalar<'a>, Syntax> {
        match self.peek() {
            b'"' => Ok(Scalar::Text(self.string()?.decode())),
            b't' => self.literal("true").map(|()| Scalar::Bool(true)),
            b'f' => self.literal("false").map(|()| Scalar::Bool(false)),
            b'n' => self.literal("null").map(|()| Scalar::Null),
            _ => {
                let from = self.at;
                self.number()?;
                Ok(Scalar::Number(Number::read(self.between(from, self.at))))
            }
        }
    }

    /// Checks a value and steps over it.
    pub(super) fn skip(&mut self) -> Result<(), Syntax> {
        // One bit for each level, the innermost lowest: whether it is an object.
        let mut levels = 0u128;
        let mut depth = 0;
        loop {
            match self.peek() {
                b'"' => drop(self.string()?),
                open @ (b'{' | b'[') => {
                    if self.depth + depth == MAX_DEPTH {
                        return Err(TOO_DEEP);
                    }
                    self.at += 1;
                    let is_object = open == b'{';
                    if self.peek() == closing(is_object) {
                        self.at += 1;
                    } else {
                        levels = levels << 1 | u128::from(is_object);
                        depth += 1;
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                _ => self.number()?,
            }
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let is_object = levels & 1 == 1;
                let byte = self.peek();
                if byte == b',' {
                    self.at += 1;
                    if is_object {
                        self.key()?;
                    }
                    break;
                }
                if byte != closing(is_object) {
                    return Err(expected_more(closing(is_object)));
                }
                self.at += 1;
                levels >>= 1;
                depth -= 1;
            }
        }
    }

    /// A string whose opening quote is next.
    #[inline]
    fn string(&mut self) -> Result<Quoted<'a>, Syntax> {
        let from = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut at = from;
        let mut escaped = false;
        loop {
            while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
                let special = specials(u64::from_le_bytes(*chunk));
                if special != 0 {
                    at += special.trailing_zeros() as usize / 8;
                    break;
                }
                at += 8;
            }
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(Quoted {
                        raw: self.between(from, at),
                        escaped,
                    });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at = at;
                    at += escape_len(&bytes[at..]).ok_or(Syntax("an escape that JSON lacks"))?;
                }
                Some(0x20..) => at += 1,
                Some(_) => {
                    self.at = at;
                    return Err(Syntax("a control character within a string"));
                }
                None => {
                    self.at = at;
                    return Err(Syntax("a string without its closing quote"));
                }
            }
        }
    }

    fn number(&mut self) -> Result<(), Syntax> {
        let bytes = self.text.as_bytes();
        let from = self.at;
        let mut at = from + usize::from(bytes.get(from) == Some(&b'-'));
        let digits = |at: &mut usize| {
            let from = *at;
            while bytes.get(*at).is_some_and(u8::is_ascii_digit) {
                *at += 1;
            }
            *at - from
        };
        let first = bytes.get(at).copied();
        let count = digits(&mut at);
        if count == 0 {
            return Err(Syntax(match (first, at == from) {
                (None, true) => "the text ends where a value is expected",
                (_, true) => "expected a value",
                (_, false) => "a number without digits",
            }));
        }
        if count > 1 && first == Some(b'0') {
            return Err(Syntax("a number that begins with 0"));
        }
        if bytes.get(at) == Some(&b'.') {
            at += 1;
            if digits(&mut at) == 0 {
                return Err(Syntax("a number without digits behind its point"));
            }
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1;
            at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
            if digits(&mut at) == 0 {
                return Err(Syntax("a number without digits in its exponent"));
            }
        }
        self.at = at;
        Ok(())
    }

    fn literal(&mut self, word: &'static str) -> Result<(), Syntax> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err(Syntax("expected a value"))
        }
    }
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

/// Bytes of the escape at the start, if it is one.
fn escape_len(bytes: &[u8]) -> Option<usize> {
    match bytes.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => bytes
            .get(2..6)?
            .iter()
            .all(u8::is_ascii_hexdigit)
            .then_some(6),
        _ => None,
    }
}

/// What a string stands for whose escapes are known to be right.
fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let (stands_for, len) = escape(&rest[at..]);
        out.push(stands_for);
        rest = &rest[at + len..];
    }
    out.push_str(rest);
    out
}

/// The character of the escape at the start, and the bytes that say it: two escapes where they are
/// a surrogate pair.
fn escape(text: &str) -> (char, usize) {
    let unit = |from: usize| {
        let digits = text.get(from..from + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    match text.as_bytes().get(1) {
        Some(b'b') => ('\u{8}', 2),
        Some(b'f') => ('\u{c}', 2),
        Some(b'n') => ('\n', 2),
        Some(b'r') => ('\r', 2),
        Some(b't') => ('\t', 2),
        Some(b'u') => match (unit(0), unit(6)) {
            (Some(high @ 0xd800..0xdc00), Some(low @ 0xdc00..0xe000)) => {
                let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                (char::from_u32(code).unwrap_or('\u{fffd}'), 12)
            }
            (code, _) => (code.and_then(char::from_u32).unwrap_or('\u{fffd}'), 6),
        },
        Some(&itself) => (char::from(itself), 2),
        None => ('\u{fffd}', 1),
    }
}
