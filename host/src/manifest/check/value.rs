//! Checks of single values; each knows the table that it stands in, for the message.

use std::fmt::Display;
use std::ops::RangeInclusive;

use shardmill_core::{Scope, StreamName};

use crate::manifest::error::{BadKey, closest};

/// The table that values stand in, as messages name it.
pub(in crate::manifest) struct Table(pub(in crate::manifest) String);

impl Table {
    pub(in crate::manifest) fn bad(
        &self,
        key: &'static str,
        value: impl Display,
        expected: &str,
    ) -> BadKey {
        let value = Some(value.to_string());
        BadKey {
            table: self.0.clone(),
            key,
            value,
            expected: expected.into(),
        }
    }

    pub(in crate::manifest) fn missing(&self, key: &'static str, expected: &str) -> BadKey {
        let expected = format!("{expected} expected");
        BadKey {
            table: self.0.clone(),
            key,
            value: None,
            expected,
        }
    }

    /// A number in its range, which is not negative.
    pub(in crate::manifest) fn number(
        &self,
        key: &'static str,
        value: i64,
        range: RangeInclusive<i64>,
        unit: &str,
    ) -> Result<u64, BadKey> {
        if range.contains(&value) {
            return Ok(value.unsigned_abs());
        }
        let expected = format!("{} to {}{unit} expected", range.start(), range.end());
        Err(self.bad(key, value, &expected))
    }

    /// A number in its range, shifted to bytes.
    pub(in crate::manifest) fn bytes(
        &self,
        key: &'static str,
        value: i64,
        range: RangeInclusive<i64>,
        (unit, shift): (&str, u32),
    ) -> Result<usize, BadKey> {
        let number = self.number(key, value, range, unit)?;
        Ok((number as usize) << shift)
    }

    /// A number in its range, or −1 for `None`: without end.
    pub(in crate::manifest) fn unless_endless(
        &self,
        key: &'static str,
        value: i64,
        range: RangeInclusive<i64>,
        unit: &str,
    ) -> Result<Option<u64>, BadKey> {
        if value == -1 {
            return Ok(None);
        }
        let unit = format!("{unit}, or -1 for no limit,");
        self.number(key, value, range, &unit).map(Some)
    }

    /// What to say of a word that is none of `known`.
    pub(in crate::manifest) fn word(
        &self,
        key: &'static str,
        value: &str,
        known: &[&str],
    ) -> BadKey {
        let expected = match closest(&value.to_uppercase(), known).or_else(|| closest(value, known))
        {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("one of {} expected", known.join(", ")),
        };
        self.bad(key, format!("{value:?}"), &expected)
    }

    pub(in crate::manifest) fn stream_name(
        &self,
        key: &'static str,
        name: String,
    ) -> Result<StreamName, BadKey> {
        const EXPECTED: &str = "1 to 128 of a-z A-Z 0-9 _ . - expected";
        name.parse()
            .map_err(|_| self.bad(key, format!("{name:?}"), EXPECTED))
    }

    pub(in crate::manifest) fn stream(&self, name: Option<String>) -> Result<StreamName, BadKey> {
        let name = name.ok_or_else(|| self.missing("stream", "a stream's name"))?;
        self.stream_name("stream", name)
    }

    pub(in crate::manifest) fn scope(
        &self,
        account: Option<String>,
        region: Option<String>,
        default: &Scope,
    ) -> Result<Scope, BadKey> {
        let mut scope = default.clone();
        if let Some(text) = account {
            let bad = |_| self.bad("account", format!("{text:?}"), "12 digits expected");
            scope.tenant = text.parse().map_err(bad)?;
        }
        if let Some(text) = region {
            let bad = |_| {
                self.bad(
                    "region",
                    format!("{text:?}"),
                    "a region's name expected, as us-east-1",
                )
            };
            scope.region = text.parse().map_err(bad)?;
        }
        Ok(scope)
    }
}
