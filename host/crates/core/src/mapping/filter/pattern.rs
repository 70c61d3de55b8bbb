//! Reads a pattern: which fields have rules, and which of them have to hold together.
//!
//! A pattern becomes alternatives, one for each way through its `$or`s, each a set of fields that
//! must all match. As in the rule engine, a field is known by its keys joined with dots; where an
//! alternative names a field twice, the later rules count.
//!
//! Rules: EventBridge's open rule engine (Event Ruler), and Lambda developer guide, "Control which
//! events Lambda sends to your function".

use std::collections::BTreeMap;

use super::bits::Bits;
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
    /// For each alternative the fields that must all match.
    pub(super) alternatives: Vec<Bits>,
    /// Whether any rule is about the payload.
    pub(super) reads_data: bool,
    /// The keys at the top, those within `$or` included.
    pub(super) roots: Vec<Root>,
    /// The fields with a path.
    by_path: BTreeMap<String, Bits>,
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
        let mut drafts = vec![Bits::default()];
        let read = match &json {
            Json::Object(members) => pattern.members(None, members, &mut drafts),
            _ => Err(Bad::at(None, "Filter is not an object")),
        };
        read.map_err(|Bad { path, reason }| BadFilter::BadRule {
            index,
            path,
            reason,
        })?;
        pattern.alternatives = drafts;
        Ok(pattern)
    }

    /// Reads an object's members into all of the drafts.
    fn members(
        &mut self,
        path: Option<&str>,
        members: &[(String, Json<'_>)],
        drafts: &mut Vec<Bits>,
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

    fn leaf(&mut self, path: String, list: &Array<'_>, drafts: &mut [Bits]) -> Result<(), Bad> {
        let rules = leaf::read(list).map_err(|reason| Bad::at(Some(&path), reason))?;
        if path == "data" {
            let reason = "\"data\" must be an object: rules are about fields of a JSON payload";
            return Err(Bad::at(Some(&path), reason));
        }
        self.reads_data |= path.starts_with("data.");
        let field = self.fields.len();
        if field == Bits::CAPACITY {
            let reason = format!("more than {} fields have rules", Bits::CAPACITY);
            return Err(Bad::at(Some(&path), reason));
        }
        let same = self.by_path.entry(path.clone()).or_default();
        for draft in drafts {
            *draft = *draft - *same;
            draft.insert(field);
        }
        same.insert(field);
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
        drafts: &mut Vec<Bits>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_through_a_filter_take_64_bytes_each() {
        // Each way was a map from paths, copied for every branch: 370 MB for 4 KB of filter.
        let names = (0x4e00..).filter_map(char::from_u32).take(400);
        let members: String = names.map(|name| format!("\"{name}\":[1],")).collect();
        let pair = "{\"a\":[1]},{\"a\":[2]}";
        let choices: String = (0..9).fold(String::from("{\"z\":[1]}"), |inner, _| {
            format!("{{\"$or\":[{pair}],\"n\":{inner}}}")
        });
        let text = format!("{{\"data\":{{{members}\"m\":{choices}}}}}");
        let pattern = Pattern::read(0, &text).unwrap();
        assert_eq!(pattern.alternatives.len(), 512);
        assert!(pattern.alternatives.iter().all(|way| way.len() == 410));
        assert_eq!(size_of_val(&*pattern.alternatives), 512 * 64);
    }
}
