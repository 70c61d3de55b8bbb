//! The rules of a list, of which one has to hold. Strings and numbers that a value may equal are
//! sorted, so that a long list of them is one search; the other rules are asked one by one.

use super::budget::Weight;
use super::number::Decimal;
use super::rule::Rule;
use super::scan::Scalar;

/// A list of rules.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// All of them, as they are written.
    all: Box<[Rule]>,
    /// Strings that the value may equal, sorted.
    texts: Box<[Box<str>]>,
    /// Numbers that the value may equal, sorted.
    numbers: Box<[Decimal]>,
    /// The rules that are about neither.
    others: Box<[Rule]>,
    weight: Weight,
}

impl Rules {
    /// Whether one of them holds for a value.
    #[inline]
    pub(super) fn hold(&self, value: &Scalar<'_>) -> bool {
        let equals = match value {
            Scalar::Text(value) => self
                .texts
                .binary_search_by(|text| (**text).cmp(&**value))
                .is_ok(),
            Scalar::Number(value) => self
                .numbers
                .binary_search_by(|number| number.as_number().cmp(value))
                .is_ok(),
            Scalar::Null | Scalar::Bool(_) => false,
        };
        equals || self.others.iter().any(|rule| rule.holds(value))
    }

    /// As they are written.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.all.iter()
    }

    /// What it takes to look at a value.
    pub(super) fn weight(&self) -> Weight {
        self.weight
    }
}

impl From<Box<[Rule]>> for Rules {
    fn from(all: Box<[Rule]>) -> Self {
        let (mut texts, mut numbers, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for rule in &all {
            match rule {
                Rule::Text(text) => texts.push(text.clone()),
                Rule::Number(number) => numbers.push(number.clone()),
                other => others.push(other.clone()),
            }
        }
        texts.sort_unstable();
        numbers.sort_unstable_by(|a, b| a.as_number().cmp(&b.as_number()));
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let mut weight = Weight {
            steps: 1,
            bytes: longest as u64,
            whole: 0,
        };
        others.iter().for_each(|rule| weight.add(rule.weight()));
        Self {
            all,
            texts: texts.into(),
            numbers: numbers.into(),
            others: others.into(),
            weight,
        }
    }
}
