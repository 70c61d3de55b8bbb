//! A plain matcher, right by looking at it: a record is flattened into paths with values, each
//! knowing which elements of which arrays it stands in; a pattern is flattened into sets of paths
//! with rules; and every way of choosing a value for each path is tried.

use std::collections::BTreeMap;

use serde_json::Value;

/// A pattern as it was made, before it is written as text.
#[derive(Clone, Debug)]
pub(super) enum Make {
    /// Members of an object, in order; keys are not repeated.
    All(Vec<(String, Make)>),
    /// Branches of `$or`.
    Or(Vec<Make>),
    /// Rules of a leaf, as JSON.
    Leaf(Vec<Value>),
}

impl Make {
    /// The pattern's text.
    pub(super) fn text(&self) -> String {
        match self {
            Self::All(members) => {
                let members = members
                    .iter()
                    .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), value.text()));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }
            Self::Or(branches) => {
                let branches: Vec<_> = branches.iter().map(Self::text).collect();
                format!("[{}]", branches.join(","))
            }
            Self::Leaf(rules) => Value::from(rules.clone()).to_string(),
        }
    }

    /// Sets of paths with rules; a path that is named again has the later rules.
    fn alternatives(
        &self,
        path: &str,
        before: Vec<BTreeMap<String, Vec<Value>>>,
    ) -> Vec<BTreeMap<String, Vec<Value>>> {
        match self {
            Self::All(members) => members.iter().fold(before, |sets, (key, value)| {
                let below = match value {
                    Self::Or(_) => path.to_owned(),
                    _ if path.is_empty() => key.clone(),
                    _ => format!("{path}.{key}"),
                };
                value.alternatives(&below, sets)
            }),
            Self::Or(branches) => branches
                .iter()
                .flat_map(|branch| branch.alternatives(path, before.clone()))
                .collect(),
            Self::Leaf(rules) => {
                let add = |mut set: BTreeMap<String, Vec<Value>>| {
                    set.insert(path.to_owned(), rules.clone());
                    set
                };
                before.into_iter().map(add).collect()
            }
        }
    }
}

/// A value with its place.
struct Field {
    path: String,
    value: Value,
    /// Array to element.
    elements: BTreeMap<usize, usize>,
}

/// Whether the pattern, about the payload only, matches a payload.
pub(super) fn matches(pattern: &Make, payload: &Value) -> bool {
    let mut fields = Vec::new();
    flatten("data", payload, &BTreeMap::new(), &mut 0, &mut fields);
    let alternatives = pattern.alternatives("", vec![BTreeMap::new()]);
    alternatives.iter().any(|wanted| {
        let wanted: Vec<_> = wanted.iter().collect();
        can_choose(&wanted, &fields, &BTreeMap::new())
    })
}

fn flatten(
    path: &str,
    value: &Value,
    elements: &BTreeMap<usize, usize>,
    arrays: &mut usize,
    fields: &mut Vec<Field>,
) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                flatten(&format!("{path}.{key}"), value, elements, arrays, fields);
            }
        }
        Value::Array(items) => {
            *arrays += 1;
            let array = *arrays;
            for (index, item) in items.iter().enumerate() {
                let mut elements = elements.clone();
                if item.is_array() || item.is_object() {
                    elements.insert(array, index);
                }
                flatten(path, item, &elements, arrays, fields);
            }
        }
        _ => fields.push(Field {
            path: path.to_owned(),
            value: value.clone(),
            elements: elements.clone(),
        }),
    }
}

fn can_choose(
    wanted: &[(&String, &Vec<Value>)],
    fields: &[Field],
    elements: &BTreeMap<usize, usize>,
) -> bool {
    let Some(((path, rules), rest)) = wanted.split_first() else {
        return true;
    };
    let mut here = fields.iter().filter(|field| field.path == **path);
    if here.clone().next().is_none() {
        let may_lack = rules.iter().any(|rule| rule["exists"] == false);
        return may_lack && can_choose(rest, fields, elements);
    }
    here.any(|field| {
        let fits = |(array, index)| elements.get(array).is_none_or(|other| other == index);
        let mut joined = elements.clone();
        joined.extend(&field.elements);
        rules.iter().any(|rule| holds(rule, &field.value))
            && field.elements.iter().all(fits)
            && can_choose(rest, fields, &joined)
    })
}

fn holds(rule: &Value, value: &Value) -> bool {
    let Some((name, wanted)) = rule.as_object().and_then(|rule| rule.iter().next()) else {
        return same(rule, value);
    };
    let (text, wanted_text) = (value.as_str(), wanted.as_str().unwrap_or_default());
    match name.as_str() {
        "exists" => wanted == true,
        "prefix" => text.is_some_and(|text| text.starts_with(wanted_text)),
        "suffix" => text.is_some_and(|text| text.ends_with(wanted_text)),
        "equals-ignore-case" => {
            text.is_some_and(|text| text.to_lowercase() == wanted_text.to_lowercase())
        }
        "wildcard" => text.is_some_and(|text| glob(wanted_text.as_bytes(), text.as_bytes())),
        "anything-but" => match wanted {
            Value::Array(list) => !list.iter().any(|wanted| same(wanted, value)),
            Value::Object(_) => !holds(wanted, value),
            _ => !same(wanted, value),
        },
        "numeric" => value.as_f64().is_some_and(|value| {
            let terms = wanted.as_array().expect("a list");
            terms.chunks(2).all(|term| {
                let bound = term[1].as_f64().expect("a number");
                match term[0].as_str().expect("an operator") {
                    "=" => value == bound,
                    "<" => value < bound,
                    "<=" => value <= bound,
                    ">" => value > bound,
                    _ => value >= bound,
                }
            })
        }),
        other => panic!("{other} is not made"),
    }
}

fn same(wanted: &Value, value: &Value) -> bool {
    match (wanted.as_f64(), value.as_f64()) {
        (Some(wanted), Some(value)) => wanted == value,
        _ => wanted == value,
    }
}

fn glob(wanted: &[u8], text: &[u8]) -> bool {
    match wanted.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|from| glob(rest, &text[from..])),
        Some((first, rest)) => text
            .split_first()
            .is_some_and(|(c, text)| c == first && glob(rest, text)),
    }
}
