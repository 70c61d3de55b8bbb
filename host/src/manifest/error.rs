//! What is wrong with a manifest, and where: file, line, the value that was given and what is
//! possible.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a manifest is not used. What runs goes on.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("read {}: {source}", path.display())]
    Unreadable {
        /// The manifest.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not TOML, a value of the wrong type, or a key that nobody knows.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The manifest.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what was meant perhaps.
        message: String,
    },
    /// A value that makes no sense.
    #[error("{}: {bad}", path.display())]
    Bad {
        /// The manifest.
        path: PathBuf,
        /// The value.
        bad: BadKey,
    },
}

/// A key whose value makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct BadKey {
    /// The table: `stream "clicks"`, or empty where it is clear.
    pub(crate) table: String,
    /// The key.
    pub(crate) key: &'static str,
    /// The value as it was written; `None` where the key is missing.
    pub(crate) value: Option<String>,
    /// What is possible.
    pub(crate) expected: String,
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            table,
            key,
            value,
            expected,
        } = self;
        if !table.is_empty() {
            write!(f, "{table}: ")?;
        }
        match value {
            Some(value) => write!(f, "{key} = {value}: {expected}"),
            None => write!(f, "{key} is missing: {expected}"),
        }
    }
}

impl ManifestError {
    /// What the parser says, with its line, and a suggestion for a key that it does not know.
    pub(crate) fn from_toml(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.as_bytes()[..at.min(text.len())]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
            + 1;
        let message = unknown_key(error.message())
            .unwrap_or_else(|| error.message().trim().replace('\n', ", "));
        Self::Syntax {
            path: path.into(),
            line,
            message,
        }
    }
}

/// A better message for serde's ``unknown field `a`, expected one of `b`, `c` ``; `None` for any
/// other one.
pub(crate) fn unknown_key(message: &str) -> Option<String> {
    /// Keys that stand above the first table; further down they would belong to that table.
    const TOP_LEVEL: [&str; 1] = ["prune"];
    let rest = message.strip_prefix("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    if TOP_LEVEL.contains(&key) {
        return Some(format!(
            "key `{key}` belongs to the top of the file, above the first table"
        ));
    }
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    Some(match closest(key, &known) {
        Some(meant) => format!("unknown key `{key}`: did you mean `{meant}`?"),
        None => format!("unknown key `{key}`: possible are {}", known.join(", ")),
    })
}

/// The word that was meant, if one is near enough.
pub(crate) fn closest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    /// Jaro-Winkler: 1 is the same word; below this, words have little in common.
    const NEAR: f64 = 0.8;
    let near = known
        .iter()
        .map(|k| (strsim::jaro_winkler(word, k), *k))
        .filter(|(n, _)| *n >= NEAR);
    near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, k)| k)
}
