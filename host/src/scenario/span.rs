//! Spans of time as people write them: `90s`, `1h30m`, `250ms`.

use std::time::Duration;

/// No scenario is longer: a year, AWS's longest retention.
pub(super) const MAX: Duration = Duration::from_secs(365 * 86_400);

/// What messages say of a span that is none.
pub(super) const EXPECTED: &str =
    "a span of time expected, as 250ms, 90s, 1h30m or 7d, at most 365d";

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Reads a span; `None` for what is none, or is longer than [`MAX`].
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut millis = 0_u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|c: char| !c.is_ascii_alphabetic());
        let (unit, behind) = behind.split_at(letters.unwrap_or(behind.len()));
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let span = number.parse::<u64>().ok()?.checked_mul(*size)?;
        millis = millis.checked_add(span)?;
        rest = behind.trim_start();
    }
    Some(Duration::from_millis(millis)).filter(|span| *span <= MAX)
}

/// A span in the same words, its largest units first.
pub(super) fn format(span: Duration) -> String {
    let mut left = span.as_millis() as u64;
    let mut words = String::new();
    for (unit, size) in UNITS.iter().rev() {
        if left >= *size {
            words += &format!("{}{unit}", left / size);
            left %= size;
        }
    }
    if words.is_empty() { "0s".into() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written_in_the_same_words() {
        for (text, millis) in [
            ("250ms", 250),
            ("0s", 0),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("365d", 31_536_000_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "5 x",
            "-5s",
            "1.5h",
            "366d",
            "99999999999999999999s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        for text in ["250ms", "1m30s", "1d", "0s"] {
            assert_eq!(parse(text).map(format).as_deref(), Some(text));
        }
    }
}
