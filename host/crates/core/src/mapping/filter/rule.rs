//! The rules of a leaf: what a single value must be. Whether a field is there at all is decided
//! where the whole record is seen; a rule is asked about values that are there.
//!
//! Rules: EventBridge user guide, "Comparison operators for use in event patterns", and Lambda
//! developer guide, "Filter rule syntax". A rule for strings holds for no other value, and a rule
//! for numbers for numbers alone; only *anything-but* holds for every kind of value.

use std::cmp::Ordering;

use super::budget::Weight;
use super::glob::Glob;
use super::net::Network;
use super::number::{Decimal, Number};
use super::rules::Rules;
use super::scan::Scalar;

/// One rule.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    Null,
    Bool(bool),
    Number(Decimal),
    Text(Box<str>),
    IgnoreCase(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Wildcard(Glob),
    Cidr(Network),
    Numeric(Range),
    /// The field is there; true of every value.
    Exists,
    /// The field is not there; true of no value.
    Absent,
    /// None of these holds.
    AnythingBut(Rules),
}

/// Bounds of a number; without one, that side is open.
#[derive(Clone, Debug, Default)]
pub(super) struct Range {
    pub(super) low: Option<Bound>,
    pub(super) high: Option<Bound>,
}

/// An end of a range.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) value: Decimal,
    /// Whether the value itself is within.
    pub(super) included: bool,
}

impl Rule {
    /// Whether the rule holds for a value.
    pub(super) fn holds(&self, value: &Scalar<'_>) -> bool {
        match (self, value) {
            (Self::Exists, _) => true,
            (Self::Absent, _) => false,
            (Self::AnythingBut(rules), _) => !rules.hold(value),
            (Self::Null, value) => matches!(value, Scalar::Null),
            (Self::Bool(wanted), Scalar::Bool(value)) => wanted == value,
            (Self::Number(wanted), Scalar::Number(value)) => wanted.as_number() == *value,
            (Self::Numeric(range), Scalar::Number(value)) => range.contains(value),
            (Self::Text(wanted), Scalar::Text(value)) => **wanted == **value,
            (Self::IgnoreCase(wanted), Scalar::Text(value)) => same_but_case(wanted, value),
            (Self::Prefix(prefix), Scalar::Text(value)) => value.starts_with(&**prefix),
            (Self::Suffix(suffix), Scalar::Text(value)) => value.ends_with(&**suffix),
            (Self::Wildcard(glob), Scalar::Text(value)) => glob.matches(value),
            (Self::Cidr(network), Scalar::Text(value)) => network.contains(value),
            (
                Self::Bool(_)
                | Self::Number(_)
                | Self::Numeric(_)
                | Self::Text(_)
                | Self::IgnoreCase(_)
                | Self::Prefix(_)
                | Self::Suffix(_)
                | Self::Wildcard(_)
                | Self::Cidr(_),
                _,
            ) => false,
        }
    }
}

impl Rule {
    /// What it takes to look at a value.
    pub(super) fn weight(&self) -> Weight {
        let bounded = |bytes: usize| Weight {
            steps: 1,
            bytes: bytes as u64,
            whole: 0,
        };
        let whole = |steps: usize| Weight {
            steps: steps as u64,
            bytes: 0,
            whole: 1,
        };
        match self {
            Self::Null | Self::Bool(_) | Self::Exists | Self::Absent => bounded(0),
            Self::Number(number) => bounded(number.as_number().text().len()),
            Self::Text(text) | Self::Prefix(text) | Self::Suffix(text) => bounded(text.len()),
            Self::Numeric(Range { low, high }) => {
                let ends = low.iter().chain(high);
                bounded(ends.map(|end| end.value.as_number().text().len()).sum())
            }
            Self::IgnoreCase(_) => whole(1),
            Self::Wildcard(glob) => whole(glob.parts()),
            // No more of a string is read than an address may have.
            Self::Cidr(_) => Weight {
                steps: 4,
                ..Weight::default()
            },
            Self::AnythingBut(rules) => rules.weight(),
        }
    }

    /// The kind of value that the rule can hold for; none if that may be any, or no value at all.
    pub(super) fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Null => Some("null"),
            Self::Bool(_) => Some("a boolean"),
            Self::Number(_) | Self::Numeric(_) => Some("a number"),
            Self::Text(_)
            | Self::IgnoreCase(_)
            | Self::Prefix(_)
            | Self::Suffix(_)
            | Self::Wildcard(_)
            | Self::Cidr(_) => Some("a string"),
            Self::Exists | Self::Absent | Self::AnythingBut(_) => None,
        }
    }

    /// Whether the rule would hold if upper and lower case were the same, for a string in lower
    /// case.
    pub(super) fn holds_but_for_case(&self, value: &str) -> bool {
        let lower = |text: &str| text.to_lowercase();
        match self {
            Self::Text(wanted) => value == lower(wanted),
            Self::Prefix(prefix) => value.starts_with(&lower(prefix)),
            Self::Suffix(suffix) => value.ends_with(&lower(suffix)),
            _ => false,
        }
    }
}

impl Range {
    fn contains(&self, value: &Number<'_>) -> bool {
        let within = |bound: &Option<Bound>, inside: Ordering| {
            bound.as_ref().is_none_or(|bound| {
                let found = value.cmp(&bound.value.as_number());
                found == inside || bound.included && found.is_eq()
            })
        };
        within(&self.low, Ordering::Greater) && within(&self.high, Ordering::Less)
    }
}

/// Character by character in lower case, without a language's own rules.
pub(super) fn same_but_case(left: &str, right: &str) -> bool {
    if left.is_ascii() && right.is_ascii() {
        return left.eq_ignore_ascii_case(right);
    }
    let chars = |c: char| c.to_lowercase();
    left.chars()
        .flat_map(chars)
        .eq(right.chars().flat_map(chars))
}
