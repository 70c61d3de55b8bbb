//! Warnings about patterns that are allowed and can hardly be meant: keys at the top that no
//! record has, so that their rules never hold.

use std::fmt;

use super::pattern::Root;
use super::program::Metadata;

/// A key at the top of a pattern that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Which filter, from 0.
    pub filter: usize,
    /// The key.
    pub key: String,
    /// What is wrong with it, and what is probably meant.
    pub hint: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "filter {}, {}: {}", self.filter + 1, self.key, self.hint)
    }
}

/// The warnings for one pattern.
pub(super) fn lint(filter: usize, roots: &[Root]) -> Vec<Warning> {
    let warnings = roots.iter().filter_map(|root| {
        hint(root).map(|hint| Warning {
            filter,
            key: root.key.clone(),
            hint,
        })
    });
    warnings.collect()
}

/// Keys that a delivered event's record has around `kinesis`; filters do not see them.
const ENVELOPE: [&str; 7] = [
    "eventSource",
    "eventVersion",
    "eventID",
    "eventName",
    "invokeIdentityArn",
    "awsRegion",
    "eventSourceARN",
];

fn hint(root: &Root) -> Option<String> {
    let key = root.key.as_str();
    // A key with dots says several keys at once.
    let (head, tail) = key
        .split_once('.')
        .map_or((key, None), |(h, t)| (h, Some(t)));
    let mut names = Metadata::ALL.iter().map(|(name, _)| *name).chain(["data"]);
    if names.clone().any(|name| name == head) {
        let has_more = root.is_object || tail.is_some();
        return (head != "data" && has_more)
            .then(|| format!("`{head}` is a single value, so that rules below it never hold"));
    }
    if let Some(name) = names.find(|name| name.eq_ignore_ascii_case(head)) {
        return Some(format!("no record has this key; `{name}` is meant?"));
    }
    Some(match head {
        "kinesis" if root.holds_data || tail.is_some_and(|tail| tail.starts_with("data")) => {
            "filters see the record itself, not the event: `data` at the top is meant, without \
             `kinesis` around it"
                .to_owned()
        }
        "kinesis" => "filters see the record itself, not the event: its keys stand at the top, \
                      without `kinesis` around them"
            .to_owned(),
        "body" | "dynamodb" | "value" => {
            format!("`{head}` is for other event sources; of a Kinesis record, `data` is meant?")
        }
        _ if ENVELOPE.contains(&head) => {
            "filters see the record, not the event around it: this key is not there".to_owned()
        }
        _ => format!("no record has this key; if it is the payload's, `data.{key}` is meant"),
    })
}
