//! The combined log format of Apache and nginx, read strictly.
//!
//! ```text
//! client ident user [17/May/2015:10:05:03 +0000] "GET /page?query HTTP/1.1" 200 5123 "referer" "agent"
//! ```
//!
//! Every part must be there and nothing may follow: a line that was cut off counts as malformed,
//! even when all that is counted stands before the cut. `-` for bytes is 0. In quoted parts a
//! backslash protects the next byte. A request is a method of capital letters, a target, and
//! (not in HTTP/0.9) a protocol. Parts that are not used need not be UTF-8.

use crate::Hit;
use crate::time::{self, Civil};

/// The longest method in use has 17 letters; the name of its counter has to stay short.
const METHOD_BYTES: usize = 32;

/// Reads one line, with or without its line end.
///
/// # Errors
/// What is wrong with it, as a fragment such as `the user agent is not closed by a quote`.
pub fn parse(line: &[u8]) -> Result<Hit<'_>, &'static str> {
    let mut line = Line(line.trim_ascii_end());
    line.word().ok_or("there is no client")?;
    line.word().ok_or("there is no identity after the client")?;
    // A user's name may hold spaces.
    line.until(b'[')
        .filter(|user| user.len() > 1 && user.ends_with(b" "))
        .ok_or("there is no user before the time")?;
    let at_ms = timestamp(
        line.until(b']')
            .ok_or("the time is not closed by a bracket")?,
    )
    .ok_or("the time is not of the form 17/May/2015:10:05:03 +0000")?;
    line.skip(b" \"").ok_or("there is no request")?;
    let (method, target) = request(
        line.quoted()
            .ok_or("the request is not closed by a quote")?,
    )?;
    let status = line
        .after_space()
        .and_then(status)
        .ok_or("the status is not three digits")?;
    let bytes = line
        .after_space()
        .and_then(size)
        .ok_or("the size is not a number")?;
    line.skip(b" \"").ok_or("there is no referer")?;
    line.quoted()
        .ok_or("the referer is not closed by a quote")?;
    line.skip(b" \"").ok_or("there is no user agent")?;
    line.quoted()
        .ok_or("the user agent is not closed by a quote")?;
    if !line.0.is_empty() {
        return Err("something follows the user agent");
    }
    Ok(Hit {
        at_ms,
        method,
        target,
        status,
        bytes,
    })
}

/// What is left of a line.
struct Line<'a>(&'a [u8]);

impl<'a> Line<'a> {
    /// A part without spaces, and the space after it.
    fn word(&mut self) -> Option<&'a [u8]> {
        self.until(b' ').filter(|word| !word.is_empty())
    }

    /// What stands before `end`, which is taken too.
    fn until(&mut self, end: u8) -> Option<&'a [u8]> {
        let at = self.0.iter().position(|&byte| byte == end)?;
        let (part, rest) = self.0.split_at(at);
        self.0 = &rest[1..];
        Some(part)
    }

    /// The rest of a quoted part whose opening quote was taken, and its closing quote.
    fn quoted(&mut self) -> Option<&'a [u8]> {
        let mut from = 0;
        let at = loop {
            let at = from + self.0[from..].iter().position(|&byte| byte == b'"')?;
            let protected = self.0[..at]
                .iter()
                .rev()
                .take_while(|&&byte| byte == b'\\')
                .count();
            if protected % 2 == 0 {
                break at;
            }
            from = at + 1;
        };
        let (part, rest) = self.0.split_at(at);
        self.0 = &rest[1..];
        Some(part)
    }

    /// A space, then a part up to the next space, which stays.
    fn after_space(&mut self) -> Option<&'a [u8]> {
        self.skip(b" ")?;
        let end = self
            .0
            .iter()
            .position(|&byte| byte == b' ')
            .unwrap_or(self.0.len());
        let (part, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(part)
    }

    fn skip(&mut self, prefix: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(prefix)?;
        Some(())
    }
}

/// `17/May/2015:10:05:03 +0000`, in milliseconds since the Unix epoch.
fn timestamp(text: &[u8]) -> Option<i64> {
    let [
        d,
        dd,
        b'/',
        m,
        mm,
        mmm,
        b'/',
        y,
        yy,
        yyy,
        yyyy,
        b':',
        rest @ ..,
    ] = text
    else {
        return None;
    };
    let month = time::month_of_name([*m, *mm, *mmm])?;
    let (clock, offset) = rest.split_at_checked(b"10:05:03 ".len())?;
    let [hh, h, b':', mi, n, b':', ss, s, b' '] = *clock else {
        return None;
    };
    let civil = Civil {
        year: time::number(&[*y, *yy, *yyy, *yyyy])?,
        month,
        day: time::number(&[*d, *dd])?,
        hour: time::number(&[hh, h])?,
        minute: time::number(&[mi, n])?,
        second: time::number(&[ss, s])?,
    };
    Some((civil.to_unix_seconds()? - time::offset_seconds(offset)?) * 1_000)
}

fn request(text: &[u8]) -> Result<(&str, &str), &'static str> {
    let text = str::from_utf8(text).map_err(|_| "the request is not UTF-8")?;
    let mut parts = text.split(' ');
    let (method, target) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let is_method = (1..=METHOD_BYTES).contains(&method.len())
        && method
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    if !is_method || target.is_empty() || parts.count() > 1 {
        return Err("the request is not a method, a target and a protocol");
    }
    Ok((method, target))
}

fn status(text: &[u8]) -> Option<u16> {
    let status = time::number(text).filter(|_| text.len() == 3)?;
    u16::try_from(status).ok().filter(|&status| status >= 100)
}

/// Bytes; `-` when nothing was sent.
fn size(text: &[u8]) -> Option<u64> {
    match text {
        b"-" => Some(0),
        // A sum of such sizes fits a counter of 63 bits.
        digits if (1..=15).contains(&digits.len()) => time::number(digits)?.try_into().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "::1 - ann [18/May/2015:01:05:03 +0230]";

    fn check(rest: &str, expected: Result<(&str, &str, u16, u64), &str>) {
        let line = format!("{START} {rest}");
        let hit = parse(line.as_bytes()).map(|hit| (hit.method, hit.target, hit.status, hit.bytes));
        assert_eq!(hit, expected, "{line}");
    }

    #[test]
    fn a_whole_line_is_read_and_a_part_of_one_never() {
        let line = format!("{START} \"GET /a?b=c HTTP/1.1\" 200 7 \"-\" \"A \\\"b\\\" (c)\"");
        let hit = parse(line.as_bytes()).expect("a whole line");
        // 2015-05-17 22:35:03 UTC
        let at_ms = 1_431_902_103_000;
        assert_eq!(
            hit,
            Hit {
                at_ms,
                method: "GET",
                target: "/a?b=c",
                status: 200,
                bytes: 7
            }
        );
        assert_eq!(parse(format!("{line}\r\n").as_bytes()), Ok(hit));
        for cut in 0..line.len() {
            assert!(parse(&line.as_bytes()[..cut]).is_err(), "{}", &line[..cut]);
        }
    }

    #[test]
    fn a_refusal_names_the_part_at_fault() {
        check(
            r#""GET / HTTP/1.1" 304 - "-" "-""#,
            Ok(("GET", "/", 304, 0)),
        );
        check(r#""GET /" 200 1 "-" "-""#, Ok(("GET", "/", 200, 1)));
        check(
            r#""-" 408 - "-" "-""#,
            Err("the request is not a method, a target and a protocol"),
        );
        check(
            r#""GET / HTTP/1.1" OK 1 "-" "-""#,
            Err("the status is not three digits"),
        );
        check(
            r#""GET / HTTP/1.1" 200 many "-" "-""#,
            Err("the size is not a number"),
        );
        check(r#""GET / HTTP/1.1" 200 1"#, Err("there is no referer"));
        check(
            r#""GET / HTTP/1.1" 200 1 "-" "Moz"#,
            Err("the user agent is not closed by a quote"),
        );
        check(
            r#""GET / HTTP/1.1" 200 1 "-" "-" x"#,
            Err("something follows the user agent"),
        );
    }
}
