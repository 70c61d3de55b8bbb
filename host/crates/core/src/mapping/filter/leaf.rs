//! Reads the list of rules that stands at a leaf of a pattern. A reason for refusing one is worded
//! as EventBridge's rule engine words it where it has words.

use super::glob::Glob;
use super::json::{Array, Json};
use super::net::Network;
use super::rule::{Bound, Range, Rule};

/// The rules of a list; one of them has to hold.
///
/// # Errors
/// Why the list cannot be used.
pub(super) fn read(list: &Array<'_>) -> Result<Box<[Rule]>, String> {
    if list.items.is_empty() {
        return Err("Empty arrays are not allowed".to_owned());
    }
    list.items.iter().map(rule).collect()
}

fn rule(item: &Json<'_>) -> Result<Rule, String> {
    match item {
        Json::Null => Ok(Rule::Null),
        Json::Bool(value) => Ok(Rule::Bool(*value)),
        Json::Number(number) => Ok(Rule::Number((*number).into())),
        Json::Text(text) => Ok(Rule::Text(text.as_str().into())),
        Json::Object(members) => {
            let (name, value) = only_member(members)?;
            expression(name, value)
        }
        Json::Array(_) => {
            Err("Match value must be String, number, true, false, or null".to_owned())
        }
    }
}

fn only_member<'j, 'a>(
    members: &'j [(String, Json<'a>)],
) -> Result<(&'j str, &'j Json<'a>), String> {
    match members {
        [(name, value)] => Ok((name, value)),
        [] => Err("Match expression name not found".to_owned()),
        [(first, _), (second, _), ..] => Err(format!(
            "Only one key allowed in match expression, and here are \"{first}\" and \"{second}\""
        )),
    }
}

fn expression(name: &str, value: &Json<'_>) -> Result<Rule, String> {
    match name {
        "prefix" | "suffix" | "equals-ignore-case" | "wildcard" | "cidr" => match value {
            Json::Text(text) => of_text(name, text),
            _ => Err(format!("{name} match pattern must be a string")),
        },
        "exists" => match value {
            Json::Bool(true) => Ok(Rule::Exists),
            Json::Bool(false) => Ok(Rule::Absent),
            _ => Err("exists match pattern must be either true or false.".to_owned()),
        },
        "numeric" => match value {
            Json::Array(list) => range(&list.items).map(Rule::Numeric),
            _ => Err("Value of numeric must be an array.".to_owned()),
        },
        "anything-but" => anything_but(value).map(|rules| Rule::AnythingBut(rules.into())),
        _ => {
            let lower = name.to_ascii_lowercase();
            let meant = if KNOWN.contains(&lower.as_str()) {
                format!(": \"{lower}\" is meant?")
            } else {
                format!("; there are {}", KNOWN.join(", "))
            };
            Err(format!("Unrecognized match type {name}{meant}"))
        }
    }
}

const KNOWN: [&str; 8] = [
    "prefix",
    "suffix",
    "equals-ignore-case",
    "anything-but",
    "numeric",
    "exists",
    "wildcard",
    "cidr",
];

fn of_text(name: &str, text: &str) -> Result<Rule, String> {
    Ok(match name {
        "prefix" => Rule::Prefix(text.into()),
        "suffix" => Rule::Suffix(text.into()),
        "equals-ignore-case" => Rule::IgnoreCase(text.into()),
        "wildcard" => Rule::Wildcard(Glob::parse(text)?),
        _ => Rule::Cidr(Network::parse(text)?),
    })
}

/// What a value must not be: a string or number, a list of strings or of numbers, or one of four
/// expressions with a string or a list of strings.
fn anything_but(value: &Json<'_>) -> Result<Box<[Rule]>, String> {
    match value {
        Json::Text(_) | Json::Number(_) => Ok([rule(value)?].into()),
        Json::Array(list) => anything_but_list(&list.items),
        Json::Object(members) => {
            let (name, value) = only_member(members)?;
            if !matches!(
                name,
                "prefix" | "suffix" | "equals-ignore-case" | "wildcard"
            ) {
                return Err(format!("Unsupported anything-but pattern: {name}"));
            }
            let texts = match value {
                Json::Array(list) if !list.items.is_empty() => &list.items[..],
                one => std::slice::from_ref(one),
            };
            texts
                .iter()
                .map(|text| anything_but_text(name, text))
                .collect()
        }
        Json::Null | Json::Bool(_) => {
            Err("Value of anything-but must be an array or single string/number value.".to_owned())
        }
    }
}

fn anything_but_list(items: &[Json<'_>]) -> Result<Box<[Rule]>, String> {
    if items.is_empty() {
        return Err("Empty arrays are not allowed".to_owned());
    }
    let is_text = |item: &Json<'_>| matches!(item, Json::Text(_));
    let is_value = |item: &Json<'_>| is_text(item) || matches!(item, Json::Number(_));
    if !items.iter().all(is_value) {
        return Err("Inside anything but list, start|null|boolean is not supported.".to_owned());
    }
    if items.iter().any(is_text) && !items.iter().all(is_text) {
        return Err("Inside anything but list, either all values are number or string, mixed type is not supported".to_owned());
    }
    items.iter().map(rule).collect()
}

fn anything_but_text(name: &str, value: &Json<'_>) -> Result<Rule, String> {
    match value {
        // Every string begins and ends with the empty one: nothing but strings would be left out.
        Json::Text(text) if text.is_empty() && matches!(name, "prefix" | "suffix") => Err(format!(
            "Null prefix/suffix not allowed: {name} of anything-but is \"\""
        )),
        Json::Text(text) => of_text(name, text),
        _ => Err(format!(
            "{name} match pattern must be a string or a list of strings"
        )),
    }
}

/// `["=", n]`, one bound, or a lower bound and then an upper one.
fn range(terms: &[Json<'_>]) -> Result<Range, String> {
    let Some(Json::Text(operator)) = terms.first() else {
        return Err("Invalid member in numeric match: an operator comes first".to_owned());
    };
    let bound = |included| -> Result<Bound, String> { bound(operator, terms.get(1), included) };
    match (operator.as_str(), terms.len()) {
        ("=", 0..=2) => {
            let value = bound(true)?;
            Ok(Range {
                low: Some(value.clone()),
                high: Some(value),
            })
        }
        ("<" | "<=", 0..=2) => Ok(Range {
            low: None,
            high: Some(bound(operator == "<=")?),
        }),
        ("=" | "<" | "<=", _) => Err(format!(
            "Too many elements in numeric expression: nothing follows the value of {operator}"
        )),
        (">" | ">=", _) => {
            let low = bound(operator == ">=")?;
            let high = upper(terms.get(2..).unwrap_or_default())?;
            if high.as_ref().is_some_and(|high| is_no_range(&low, high)) {
                return Err("Bottom must be less than top".to_owned());
            }
            Ok(Range {
                low: Some(low),
                high,
            })
        }
        (other, _) => Err(format!("Unrecognized numeric range operator: {other}")),
    }
}

fn upper(terms: &[Json<'_>]) -> Result<Option<Bound>, String> {
    match terms {
        [] => Ok(None),
        [_, _, _, ..] => Err("Too many terms in numeric range expression".to_owned()),
        [Json::Text(operator), rest @ ..] if operator == "<" || operator == "<=" => {
            bound(operator, rest.first(), operator == "<=").map(Some)
        }
        [Json::Text(operator), ..] => Err(format!("Bad numeric range operator: {operator}")),
        _ => Err("Bad value in numeric range: `<` or `<=` follows a lower bound".to_owned()),
    }
}

fn bound(operator: &str, value: Option<&Json<'_>>, included: bool) -> Result<Bound, String> {
    match value {
        Some(Json::Number(number)) => Ok(Bound {
            value: (*number).into(),
            included,
        }),
        _ if operator == "=" => Err("Value of equals must be numeric".to_owned()),
        _ => Err(format!("Value of {operator} must be numeric")),
    }
}

fn is_no_range(low: &Bound, high: &Bound) -> bool {
    low.value.as_number() >= high.value.as_number()
}
