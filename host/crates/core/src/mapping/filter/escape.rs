//! Escapes within JSON strings: which there are (RFC 8259, section 7), and what they stand for.
//! Half of a surrogate pair stands for U+FFFD.

/// Bytes of the escape at the start, if it is one.
#[inline(never)]
pub(super) fn escape_len(bytes: &[u8]) -> Option<usize> {
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
pub(super) fn unescape(raw: &str) -> String {
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
