//! What is wrong with a scenario file, and in which line.

use std::path::{Path, PathBuf};

use crate::manifest::{BadKey, ManifestError};

/// Why a scenario is not run.
#[derive(Debug, thiserror::Error)]
pub enum BadScenario {
    /// The file cannot be read.
    #[error("read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It says what makes no sense.
    #[error("{}:{line}: {message}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what is possible.
        message: String,
    },
}

/// A scenario's text, for finding lines in it.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// The line of a byte, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        before.iter().filter(|b| **b == b'\n').count() + 1
    }

    pub(super) fn bad(&self, at: usize, message: impl Into<String>) -> BadScenario {
        BadScenario::Bad {
            path: self.path.into(),
            line: self.line(at),
            message: message.into(),
        }
    }

    /// A bad key of the table that begins at this byte, in the line of the key.
    pub(super) fn bad_key(&self, table: usize, bad: &BadKey) -> BadScenario {
        self.bad(
            self.key_in(table, bad.key).unwrap_or(table),
            bad.to_string(),
        )
    }

    /// Where a key stands in a table: before the next heading.
    pub(super) fn key_in(&self, table: usize, key: &str) -> Option<usize> {
        let mut at = table;
        for (index, line) in self.text.get(table..)?.split_inclusive('\n').enumerate() {
            let words = line.trim_start();
            if index > 0 && words.starts_with('[') {
                return None;
            }
            let value = words.strip_prefix(key).map(str::trim_start);
            if value.is_some_and(|rest| rest.starts_with('=')) {
                return Some(at);
            }
            at += line.len();
        }
        None
    }

    /// What the parser says.
    pub(super) fn syntax(&self, error: &toml::de::Error) -> BadScenario {
        match ManifestError::from_toml(self.path, self.text, error) {
            ManifestError::Syntax {
                path,
                line,
                message,
            } => BadScenario::Bad {
                path,
                line,
                message,
            },
            other => self.bad(0, other.to_string()),
        }
    }
}
