//! Who owns a thing. A tenant is an AWS account; with its region it is the outermost part of
//! every identity.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An AWS account id: 12 decimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(u64);

impl TenantId {
    /// The account of callers that name none: 000000000000.
    pub const DEFAULT: Self = Self(0);

    /// The host itself: no account, so no caller has this one.
    pub const HOST: Self = Self(1_000_000_000_000);

    /// The number that the digits spell, below 10^12.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The tenant with this number, if it has at most 12 digits.
    pub const fn from_number(number: u64) -> Option<Self> {
        if number < 1_000_000_000_000 {
            Some(Self(number))
        } else {
            None
        }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012}", self.0)
    }
}

/// A text that is not an account id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("account id {0:?}: 12 decimal digits expected")]
pub struct BadTenantId(String);

impl FromStr for TenantId {
    type Err = BadTenantId;

    fn from_str(text: &str) -> Result<Self, BadTenantId> {
        if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
            text.parse().map(Self).map_err(|_| BadTenantId(text.into()))
        } else {
            Err(BadTenantId(text.into()))
        }
    }
}

impl Serialize for TenantId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TenantId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An AWS region's name: 1 to 32 lower-case letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Region(Box<str>);

impl Region {
    /// The region of callers that name none.
    pub const DEFAULT: &'static str = "us-east-1";

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Region {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not a region's name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("region {0:?}: 1 to 32 lower-case letters, digits and hyphens expected")]
pub struct BadRegion(String);

impl FromStr for Region {
    type Err = BadRegion;

    fn from_str(text: &str) -> Result<Self, BadRegion> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=32).contains(&text.len()) && text.bytes().all(good) {
            Ok(Self(text.into()))
        } else {
            Err(BadRegion(text.into()))
        }
    }
}

impl TryFrom<String> for Region {
    type Error = BadRegion;

    fn try_from(text: String) -> Result<Self, BadRegion> {
        text.parse()
    }
}

impl From<Region> for String {
    fn from(region: Region) -> Self {
        region.0.into()
    }
}

/// The outermost part of every identity: account and region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// The account.
    pub tenant: TenantId,
    /// The region inside it.
    pub region: Region,
}

impl Default for Scope {
    fn default() -> Self {
        Self {
            tenant: TenantId::DEFAULT,
            region: Region::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_exactly_twelve_digits() {
        assert_eq!(
            "000000000007"
                .parse::<TenantId>()
                .map(|t| t.to_string())
                .as_deref(),
            Ok("000000000007")
        );
        for bad in ["", "7", "00000000000a", "0000000000007", "+00000000007"] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad}");
        }
    }
}
