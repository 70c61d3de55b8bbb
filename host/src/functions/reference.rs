//! How a function, or one of its versions, is named: `NAME`, `NAME:3`, `NAME:live`,
//! `NAME:$LATEST`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::model::LATEST;

/// The part behind the colon.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Qualifier {
    /// `$LATEST`.
    Latest,
    /// A version.
    Version(u64),
    /// An alias.
    Alias(String),
}

/// A function's name, with what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionRef {
    /// The function.
    pub name: String,
    /// Without one, it is `$LATEST`.
    pub qualifier: Option<Qualifier>,
}

/// A text that names no function, version or alias.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReference {
    /// The name.
    #[error("function name {0:?}: 1 to 64 of a-z A-Z 0-9 - _ expected")]
    Name(String),
    /// What stands behind the colon.
    #[error(
        "qualifier {0:?}: a version's number from 1, $LATEST, or an alias expected (1 to 128 of \
         a-z A-Z 0-9 - _, not a number)"
    )]
    Qualifier(String),
}

fn is_word(text: &str, most: usize) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=most).contains(&text.len()) && text.bytes().all(good)
}

/// Checks a function's name.
pub(super) fn check_name(name: &str) -> Result<(), BadReference> {
    match is_word(name, 64) {
        true => Ok(()),
        false => Err(BadReference::Name(name.into())),
    }
}

impl FromStr for Qualifier {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        let bad = || BadReference::Qualifier(text.into());
        if text == LATEST {
            return Ok(Self::Latest);
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let number = text.parse().ok().filter(|n| *n > 0);
            return number.map(Self::Version).ok_or_else(bad);
        }
        match is_word(text, 128) {
            true => Ok(Self::Alias(text.into())),
            false => Err(bad()),
        }
    }
}

impl TryFrom<String> for Qualifier {
    type Error = BadReference;

    fn try_from(text: String) -> Result<Self, BadReference> {
        text.parse()
    }
}

impl From<Qualifier> for String {
    fn from(qualifier: Qualifier) -> Self {
        qualifier.to_string()
    }
}

impl fmt::Display for Qualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str(LATEST),
            Self::Version(number) => number.fmt(f),
            Self::Alias(name) => f.write_str(name),
        }
    }
}

impl FromStr for FunctionRef {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        let (name, qualifier) = match text.split_once(':') {
            None => (text, None),
            Some((name, qualifier)) => (name, Some(qualifier.parse()?)),
        };
        check_name(name)?;
        Ok(Self {
            name: name.into(),
            qualifier,
        })
    }
}

impl FunctionRef {
    /// What a text means beside `function`: `:3` and `:live` are of the same one.
    ///
    /// # Errors
    /// See [`BadReference`].
    pub fn beside(function: &str, text: &str) -> Result<Self, BadReference> {
        match text.strip_prefix(':') {
            Some(_) => format!("{function}{text}").parse(),
            None => text.parse(),
        }
    }
}

impl fmt::Display for FunctionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.qualifier {
            None => Ok(()),
            Some(qualifier) => write!(f, ":{qualifier}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_a_colon_is_of_the_same_function() {
        for (text, want) in [
            (":3", "f:3"),
            (":live", "f:live"),
            ("g", "g"),
            ("g:3", "g:3"),
        ] {
            let named = FunctionRef::beside("f", text).expect(text);
            assert_eq!(named.to_string(), want);
        }
        for text in ["", ":", ":0", "g:", "::3"] {
            assert!(FunctionRef::beside("f", text).is_err(), "{text}");
        }
    }

    #[test]
    fn versions_aliases_and_latest_are_told_apart() {
        for (text, qualifier) in [
            ("f", None),
            ("f:$LATEST", Some(Qualifier::Latest)),
            ("f:3", Some(Qualifier::Version(3))),
            ("f:live", Some(Qualifier::Alias("live".into()))),
            ("f:3rd", Some(Qualifier::Alias("3rd".into()))),
        ] {
            let parsed: FunctionRef = text.parse().expect(text);
            assert_eq!((parsed.name.as_str(), &parsed.qualifier), ("f", &qualifier));
            assert_eq!(parsed.to_string(), text);
        }
        for text in [
            "",
            ":3",
            "f:",
            "f:0",
            "f:1:2",
            "f:a b",
            "f g",
            "f:99999999999999999999",
        ] {
            assert!(text.parse::<FunctionRef>().is_err(), "{text}");
        }
    }
}
