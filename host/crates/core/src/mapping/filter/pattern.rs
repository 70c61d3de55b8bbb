//! Reads a pattern: which fields have rules, and which of them have to hold together.
//!
//! A pattern becomes alternatives, one for each way through its `$or`s, each a set of fields that
//! must all match. As in the rule engine, a field is known by its keys joined with dots; where an
//! alternative names a field twice, the later rules count.
//!
//! Rules: EventBridge's open rule engine (Event Ruler), and Lambda developer guide, "Control which
//! events Lambda sends to your function".

use std::collections::BTreeMap;

use super::error::{BadFilter, MAX_PATTERN_CHARS};
use super::json::{Array, Json};
use super::leaf;
use super::rule::Rule;

/// Ways through the `$or`s of one pattern. EventBridge's bound.
const MAX_ALTERNATIVES: usize = 1_000;

/// A pattern that was read.
#[derive(Debug, Default)]
pub(super) struct Pattern {
    /// The fields with rules, in the order in which they are written.
    pub(super) fields: Vec<Field>,
    /// For each alternative the fields that must all match: indices, ascending.
    pub(super) alternatives: Vec<Vec<usize>>,
    /// Whether any rule is about the payload.
    pub(super) reads_data: bool,
    /// The keys at the top, those within `$or` included.
    pub(super) roots: Vec<Root>,
}

/// A field and its rules.
#[derive(Debug)]
pub(super) struct Field {
    /// Keys from the outermost, joined with dots.
    pub(super) path: String,
    /// One of them has to hold.
    pub(super) rules: Box<[Rule]>,
    /// The rules as they are written.
    pub(super) text: String,
}

/// A key at the top of a pattern.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) key: String,
    /// Whether there are keys below it.
    pub(super) is_object: bool,
    /// Whether there is a key `data` below it.
    pub(super) holds_data: bool,
}

/// An alternative under construction: paths and the fields that count for them.
type Draft = BTreeMap<String, usize>;

impl Pattern {
    /// Reads the pattern of filter `index`.
    ///
    /// # Errors
    /// The pattern is too long, not JSON or not a filter.
    pub(super) fn read(index: usize, text: &str) -> Result<Self, BadFilter> {
        let chars = text.chars().count();
        if chars > MAX_PATTERN_CHARS {
            return Err(BadFilter::TooLong { index, chars });
        }
        let json = Json::parse(text).map_err(|bad| BadFilter::NotJson {
            index,
            line: bad.line,
            column: bad.column,
            reason: bad.reason.to_owned(),
        })?;
        let mut pattern = Self::default();
        let mut drafts = vec![Draft::new()];
        let read = match &json {
            Json::Object(members) => pattern.members(None, members, &mut drafts),
            _ => Err(Bad::at(None, "Filter is not an object")),
        };
        read.map_err(|Bad { path, reason }| BadFilter::BadRule {
            index,
            path,
            reason,
        })?;
        pattern.alternatives = drafts.iter().map(fields_of).collect();
        Ok(pattern)
    }

    /// Reads an object's members into all of the drafts.
    fn members(
        &mut self,
        path: Option<&str>,
        members: &[(String, Json<'_>)],
        drafts: &mut Vec<Draft>,
    ) -> Result<(), Bad> {
        if members.is_empty() {
            return Err(Bad::at(path, "Empty objects are not allowed"));
        }
        for (key, value) in members {
            let below = match path {
                Some(path) => format!("{path}.{key}"),
                None => key.clone(),
            };
            if key == "$or" {
                self.either(path, &below, value, drafts)?;
                continue;
            }
            if path.is_none() {
                self.roots.push(Root::of(key, value));
            }
            match value {
                Json::Object(members) => self.members(Some(&below), members, drafts)?,
                Json::Array(list) => self.leaf(below, list, drafts)?,
                _ => {
                    let reason = format!(
                        "\"{key}\" must be an object or an array: rules are a list, [\"value\"]"
                    );
                    return Err(Bad::at(Some(&below), reason));
                }
            }
        }
        Ok(())
    }

    fn leaf(&mut self, path: String, list: &Array<'_>, drafts: &mut [Draft]) -> Result<(), Bad> {
        let rules = leaf::read(list).map_err(|reason| Bad::at(Some(&path), reason))?;
        if path == "data" {
            let reason = "\"data\" must be an object: rules are about fields of a JSON payload";
            return Err(Bad::at(Some(&path), reason));
        }
        self.reads_data |= path.starts_with("data.");
        let field = self.fields.len();
        for draft in drafts {
            draft.insert(path.clone(), field);
        }
        self.fields.push(Field {
            path,
            rules,
            text: list.text.to_owned(),
        });
        Ok(())
    }

    /// Each object of the list continues a copy of the drafts.
    fn either(
        &mut self,
        path: Option<&str>,
        at: &str,
        value: &Json<'_>,
        drafts: &mut Vec<Draft>,
    ) -> Result<(), Bad> {
        let bad = |reason: &str| Err(Bad::at(Some(at), reason));
        let Json::Array(list) = value else {
            return bad("It must be an Array followed with $or.");
        };
        if list.items.len() < 2 {
            return bad("There must have at least 2 Objects in $or relationship.");
        }
        let before = std::mem::take(drafts);
        for item in &list.items {
            let Json::Object(members) = item else {
                return bad("Only JSON object is allowed in array of $or relationship.");
            };
            let mut branch = before.clone();
            self.members(path, members, &mut branch)?;
            drafts.append(&mut branch);
            if drafts.len() > MAX_ALTERNATIVES {
                return bad(&format!(
                    "the $or relationships make more than {MAX_ALTERNATIVES} combinations"
                ));
            }
        }
        Ok(())
    }
}

impl Root {
    fn of(key: &str, value: &Json<'_>) -> Self {
        let members = match value {
            Json::Object(members) => Some(members),
            _ => None,
        };
        Self {
            key: key.to_owned(),
            is_object: members.is_some(),
            holds_data: members.is_some_and(|m| m.iter().any(|(key, _)| key == "data")),
        }
    }
}

/// The fields that an alternative needs.
fn fields_of(draft: &Draft) -> Vec<usize> {
    let mut fields: Vec<_> = draft.values().copied().collect();
    fields.sort_unstable();
    fields
}

/// Why a pattern is no filter, and where.
#[derive(Debug)]
struct Bad {
    path: String,
    reason: String,
}

impl Bad {
    fn at(path: Option<&str>, reason: impl Into<String>) -> Self {
        Self {
            path: path.unwrap_or_default().to_owned(),
            reason: reason.into(),
        }
    }
}
