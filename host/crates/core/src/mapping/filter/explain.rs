//! Says of a record why filters match it or not: for a dry run, where time does not matter.

use std::collections::BTreeMap;

use super::budget::{Budget, MAX_FILTER_STEPS, Spent};
use super::error::position;
use super::program::{Alternative, CompiledField, Metadata, Program};
use super::rule::Rule;
use super::scan::Scalar;
use super::stream::Hits;
use super::tree::{Judged, NoTree, Tree};
use super::{Bits, Verdict, with_metadata};
use crate::block::RecordRef;

/// Values of a field that are shown.
const SHOWN_VALUES: usize = 3;
/// Characters of a value that are shown.
const SHOWN_CHARS: usize = 80;

/// What one filter says of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Which filter, from 0.
    pub filter: usize,
    /// Its verdict. The criteria's is `Match` if any filter's is, else `NotJson` if any filter's
    /// is.
    pub verdict: Verdict,
    /// What stands in the way; empty for a match. Of several ways through `$or`, the one with the
    /// least in its way.
    pub mismatches: Vec<Mismatch>,
}

/// A field that does not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The field: its keys from the outermost, joined with dots. `data` if the payload is not
    /// JSON; several fields, if they match only in different elements of an array.
    pub path: String,
    /// The rules, as the pattern has them; empty if no rules are to blame.
    pub rules: String,
    /// The record's values there as JSON, the first three, cut at 80 characters; empty if there is
    /// none.
    pub found: Vec<String>,
    /// Why they do not match.
    pub reason: String,
}

/// What every filter of a program says.
pub(super) fn explain(
    program: &Program,
    record: &RecordRef<'_>,
    budget: &mut Budget,
) -> Vec<Explanation> {
    let mut metadata = Hits::default();
    program.match_metadata(record, &mut metadata);
    let payload = std::str::from_utf8(record.parts.data);
    let tree = match payload {
        Ok(payload) => match Judged::read(program, payload, budget) {
            Ok(tree) => Ok(tree),
            Err(NoTree::NotJson { at, reason }) => {
                Err((Verdict::NotJson, not_json(payload, at, reason)))
            }
            Err(NoTree::TooCostly) => Err((Verdict::TooCostly, too_costly(payload))),
        },
        Err(error) => {
            let bad = not_utf8(record.parts.data, error);
            Err((Verdict::NotJson, bad))
        }
    };
    let view = View {
        program,
        record,
        metadata,
        tree,
    };
    let of_one = |a: &Alternative, b: &Alternative| a.pattern == b.pattern;
    let patterns = program.alternatives.chunk_by(of_one);
    patterns.map(|ways| view.explain(ways, budget)).collect()
}

/// A record as one program sees it.
struct View<'a> {
    program: &'a Program,
    record: &'a RecordRef<'a>,
    metadata: Hits,
    /// What the verdict is without a tree, and why there is none.
    tree: Result<Judged<'a>, (Verdict, Mismatch)>,
}

impl View<'_> {
    /// Explains one filter, whose ways through `$or` these are: at least one.
    fn explain(&self, ways: &[Alternative], budget: &mut Budget) -> Explanation {
        let (verdict, mismatches) = match &self.tree {
            Err((verdict, bad)) if ways[0].reads_data => {
                let failed = |way: &Alternative| {
                    (way.fields & self.program.of_metadata) - self.metadata.together
                };
                match least(ways, failed) {
                    failed if failed.is_empty() => (*verdict, vec![bad.clone()]),
                    failed => (Verdict::NoMatch, self.mismatches(failed)),
                }
            }
            tree => self.explain_with(tree.as_ref().ok(), ways, budget),
        };
        Explanation {
            filter: ways[0].pattern,
            verdict,
            mismatches,
        }
    }

    fn explain_with(
        &self,
        tree: Option<&Judged<'_>>,
        ways: &[Alternative],
        budget: &mut Budget,
    ) -> (Verdict, Vec<Mismatch>) {
        let nothing = Judged::nothing();
        let (program, tree) = (self.program, tree.unwrap_or(&nothing));
        let given = program.given(tree, self.metadata);
        for way in ways {
            match tree.holds(program, way.fields - given, budget) {
                Ok(true) => return (Verdict::Match, Vec::new()),
                Ok(false) => {}
                Err(Spent) => {
                    let payload = String::from_utf8_lossy(self.record.parts.data);
                    return (Verdict::TooCostly, vec![too_costly(&payload)]);
                }
            }
        }
        let matching = given | tree.matching();
        let failed = least(ways, |way| way.fields - matching);
        let mismatches = if failed.is_empty() {
            let apart = least(ways, |way| {
                let failed = way.fields - matching;
                if failed.is_empty() {
                    way.fields - given
                } else {
                    failed
                }
            });
            vec![self.apart(apart)]
        } else {
            self.mismatches(failed)
        };
        (Verdict::NoMatch, mismatches)
    }

    /// What each of the fields has that does not match, found in one visit.
    fn mismatches(&self, fields: Bits) -> Vec<Mismatch> {
        let program = self.program;
        let mut found: BTreeMap<usize, Found> = fields
            .iter()
            .map(|field| (field, Found::default()))
            .collect();
        for (metadata, field) in &program.metadata {
            if let Some(found) = found.get_mut(field) {
                with_metadata(*metadata, self.record, |value| {
                    found.note(&program.fields[*field], value);
                });
            }
        }
        if let Ok(tree) = &self.tree {
            tree.visit(0, &mut |at, tree| {
                for field in &program.nodes[at].fields {
                    let Some(found) = found.get_mut(field) else {
                        continue;
                    };
                    match tree {
                        Tree::Scalar(value) => found.note(&program.fields[*field], value),
                        Tree::Object(_) => {
                            found.instead =
                                Some("it is an object, and rules look at single values");
                        }
                        Tree::Array(array) if array.items.is_empty() => {
                            found.instead = Some("an empty array has no values");
                        }
                        Tree::Array(_) => {}
                    }
                }
            });
        }
        let of_one = |(field, found): (usize, Found)| found.mismatch(&program.fields[field]);
        found.into_iter().map(of_one).collect()
    }

    /// Fields that match, but not together.
    fn apart(&self, fields: Bits) -> Mismatch {
        let paths: Vec<_> = fields
            .iter()
            .map(|field| &*self.program.fields[field].path)
            .collect();
        Mismatch {
            path: paths.join(", "),
            rules: String::new(),
            found: Vec::new(),
            reason: "each of them matches, but not within one element of the array".to_owned(),
        }
    }
}

/// What a field has that does not match.
#[derive(Default)]
struct Found {
    /// The first values, for people.
    shown: Vec<String>,
    count: usize,
    /// Why the first value does not match.
    reason: Option<String>,
    /// What is there that is no value.
    instead: Option<&'static str>,
}

impl Found {
    fn note(&mut self, field: &CompiledField, value: &Scalar<'_>) {
        self.count += 1;
        if self.shown.len() < SHOWN_VALUES {
            self.shown.push(json(value));
        }
        self.reason.get_or_insert_with(|| why(field, value));
    }

    fn mismatch(self, field: &CompiledField) -> Mismatch {
        let no_value = match self.instead {
            _ if is_foreign(&field.path) => {
                "no record has such a field: the payload's are below `data`"
            }
            Some(instead) => instead,
            None => "there is no such field",
        };
        let mut reason = self.reason.unwrap_or_else(|| no_value.to_owned());
        let more = self.count - self.shown.len();
        if more > 0 {
            reason += &format!("; {more} more values do not match either");
        }
        Mismatch {
            path: field.path.clone(),
            rules: field.text.clone(),
            found: self.shown,
            reason,
        }
    }
}

/// Whether a path is about neither the payload nor the envelope.
fn is_foreign(path: &str) -> bool {
    !path.starts_with("data.") && Metadata::ALL.iter().all(|(name, _)| *name != path)
}

/// The smallest of the ways' sets.
fn least(ways: &[Alternative], set: impl Fn(&Alternative) -> Bits) -> Bits {
    let sets = ways.iter().map(set);
    sets.min_by_key(|set| set.len()).unwrap_or_default()
}

/// Why none of a field's rules holds for a value.
fn why(field: &CompiledField, value: &Scalar<'_>) -> String {
    let rules = &field.rules;
    let kind = match value {
        Scalar::Null => "null",
        Scalar::Bool(_) => "a boolean",
        Scalar::Number(_) => "a number",
        Scalar::Text(_) => "a string",
    };
    if rules.iter().all(|rule| matches!(rule, Rule::Absent)) {
        return "the field is there".to_owned();
    }
    if let Scalar::Text(text) = value {
        let lower = text.to_lowercase();
        if rules.iter().any(|rule| rule.holds_but_for_case(&lower)) {
            return "upper and lower case differ".to_owned();
        }
    }
    let mut wanted: Vec<_> = rules.iter().filter_map(Rule::kind).collect();
    let any_kind = rules.iter().any(|rule| rule.kind().is_none());
    wanted.dedup();
    if any_kind || wanted.contains(&kind) {
        return "no rule holds for the value".to_owned();
    }
    format!("it is {kind}, and the rules are for {}", wanted.join(", "))
}

fn json(value: &Scalar<'_>) -> String {
    let text = match value {
        Scalar::Null => "null".to_owned(),
        Scalar::Bool(value) => value.to_string(),
        Scalar::Number(number) => number.text().to_owned(),
        Scalar::Text(text) => serde_json::Value::from(&**text).to_string(),
    };
    cut(&text)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn not_json(payload: &str, at: usize, reason: &str) -> Mismatch {
    let (line, column) = position(payload, at);
    no_payload(
        payload,
        format!("the payload is not JSON: {reason}, line {line}, column {column}"),
    )
}

fn too_costly(payload: &str) -> Mismatch {
    let reason = format!("judging the record takes more than {MAX_FILTER_STEPS} steps");
    no_payload(payload, reason)
}

fn not_utf8(payload: &[u8], error: std::str::Utf8Error) -> Mismatch {
    let at = error.valid_up_to();
    no_payload(
        &String::from_utf8_lossy(&payload[..payload.len().min(at + SHOWN_CHARS)]),
        format!("the payload is not JSON: byte {} is not UTF-8", at + 1),
    )
}

fn no_payload(payload: &str, reason: String) -> Mismatch {
    Mismatch {
        path: "data".to_owned(),
        rules: String::new(),
        found: vec![json(&Scalar::Text(cut(payload).into()))],
        reason,
    }
}
