//! Why filter criteria are refused.

/// Most filters of a mapping. AWS's quota is 5 and can be raised to 10.
pub const MAX_FILTERS: usize = 10;
/// Longest filter pattern, characters. CreateEventSourceMapping, "Pattern".
pub const MAX_PATTERN_CHARS: usize = 4096;

/// Criteria that cannot be used. Filters count from 0 here, and from 1 in the messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadFilter {
    /// More filters than a mapping may have.
    #[error("{count} filters, and a mapping has at most {MAX_FILTERS}: join some with `$or`")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A pattern is too long.
    #[error(
        "filter {}: {chars} characters, and a pattern has at most {MAX_PATTERN_CHARS}",
        index + 1
    )]
    TooLong {
        /// Which filter.
        index: usize,
        /// Its length in characters.
        chars: usize,
    },
    /// A pattern is not JSON.
    #[error("filter {}, line {line}, column {column}: {reason}", index + 1)]
    NotJson {
        /// Which filter.
        index: usize,
        /// The line, from 1.
        line: usize,
        /// The character within the line, from 1.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A pattern is JSON and not a filter.
    #[error("filter {}, {}: {reason}", index + 1, if path.is_empty() { "at its top" } else { path })]
    BadRule {
        /// Which filter.
        index: usize,
        /// Keys from the outermost, joined with dots; empty for the pattern itself.
        path: String,
        /// What is wrong there.
        reason: String,
    },
}

impl BadFilter {
    /// What AWS says of a pattern that is no filter, and all that it says
    /// (`InvalidParameterValueException`). Of a pattern that is too long it says so
    /// (`ValidationException`); its words for too many filters are not known.
    pub fn aws_message(&self) -> &'static str {
        "Invalid filter pattern definition."
    }
}

/// The line and column of a byte in a text, both from 1.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}
