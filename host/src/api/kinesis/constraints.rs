//! Second stage of validation: which members are missing, too long, too large or of the wrong
//! form. Everything is checked before anything is looked up, and up to ten violations are told.
//!
//! Rules: texts of production Kinesis. AWS reports members in an order of its own; the order
//! here is that of the operations' tables.

use super::shape::{Bounds, Input, Member, Shape, Value};

/// Violations that one answer tells.
const MOST: usize = 10;

/// What is wrong with `input`, at most ten texts; none: it satisfies every constraint.
pub(crate) fn violations(members: &'static [Member], input: &Input) -> Vec<String> {
    let mut found = Vec::new();
    structure(members, input, "", &mut found);
    found
}

fn structure(members: &'static [Member], input: &Input, path: &str, found: &mut Vec<String>) {
    for member in members {
        if found.len() >= MOST {
            return;
        }
        let path = format!("{path}{}", lower_first(member.name));
        match input.get(member.name) {
            Some(value) => check(member.shape, value, &path, found),
            None if member.required => found.push(must_not_be_null(&path)),
            None => {}
        }
    }
}

fn check(shape: &'static Shape, value: &Value, path: &str, found: &mut Vec<String>) {
    let mut violation = |shown: &str, constraint: &str| {
        if found.len() < MOST {
            found.push(format!(
                "Value '{shown}' at '{path}' failed to satisfy constraint: {constraint}"
            ));
        }
    };
    match (shape, value) {
        (Shape::Text { length, pattern }, Value::Text(text)) => {
            if let Some(pattern) = pattern
                && !(pattern.matches)(text)
            {
                let constraint = format!(
                    "Member must satisfy regular expression pattern: {}",
                    pattern.text
                );
                violation(text, &constraint);
            }
            if let Some(constraint) = outside(text.chars().count(), *length) {
                violation(text, &constraint);
            }
        }
        (Shape::Choice(choices), Value::Text(text)) if !choices.contains(&text.as_str()) => {
            let constraint = format!(
                "Member must satisfy enum value set: [{}]",
                choices.join(", ")
            );
            violation(text, &constraint);
        }
        (Shape::Integer((least, most)), Value::Integer(number)) => {
            if number < least {
                let constraint = format!("Member must have value greater than or equal to {least}");
                violation(&number.to_string(), &constraint);
            } else if number > most {
                let constraint = format!("Member must have value less than or equal to {most}");
                violation(&number.to_string(), &constraint);
            }
        }
        (Shape::Blob { length }, Value::Blob(bytes)) => {
            if let Some(constraint) = outside(bytes.len(), *length) {
                let size = bytes.len();
                let shown = format!("java.nio.HeapByteBuffer[pos=0 lim={size} cap={size}]");
                violation(&shown, &constraint);
            }
        }
        (Shape::Map { length, key, value }, Value::Map(entries)) => {
            let shown = || {
                let entries: Vec<_> = entries.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("{{{}}}", entries.join(", "))
            };
            if let Some(constraint) = outside(entries.len(), *length) {
                violation(&shown(), &constraint);
            }
            let all = |bounds: Bounds, part: fn(&(String, String)) -> &String| {
                let fits = |entry| outside(part(entry).chars().count(), bounds).is_none();
                entries.iter().all(fits)
            };
            if !all(*key, |entry| &entry.0) {
                violation(
                    &shown(),
                    &format!("Map keys must satisfy constraint: {}", both(*key)),
                );
            }
            if !all(*value, |entry| &entry.1) {
                let constraint = format!("Map value must satisfy constraint: {}", both(*value));
                violation(&shown(), &constraint);
            }
        }
        (
            Shape::List {
                length,
                item,
                shown,
            },
            Value::List(items),
        ) => {
            if let Some(constraint) = outside(items.len(), *length) {
                let items: Vec<_> = items
                    .iter()
                    .map(|item| show(item.as_ref(), shown))
                    .collect();
                violation(&format!("[{}]", items.join(", ")), &constraint);
            }
            for (number, value) in items.iter().enumerate() {
                if found.len() >= MOST {
                    return;
                }
                let path = format!("{path}.{}.member", number + 1);
                match value {
                    Some(value) => check(item, value, &path, found),
                    None => found.push(must_not_be_null(&path)),
                }
            }
        }
        (Shape::Structure(members), Value::Structure(input)) => {
            structure(members, input, &format!("{path}."), found);
        }
        // The other values satisfy their constraints or have none.
        _ => {}
    }
}

fn must_not_be_null(path: &str) -> String {
    format!("Value null at '{path}' failed to satisfy constraint: Member must not be null")
}

/// The constraint that a length does not satisfy.
fn outside(length: usize, (least, most): Bounds) -> Option<String> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    if length < least {
        Some(format!(
            "Member must have length greater than or equal to {least}"
        ))
    } else if length > most {
        Some(format!(
            "Member must have length less than or equal to {most}"
        ))
    } else {
        None
    }
}

/// Both length constraints, as AWS lists them for the parts of a map.
fn both((least, most): Bounds) -> String {
    format!(
        "[Member must have length less than or equal to {most}, \
         Member must have length greater than or equal to {least}]"
    )
}

/// An item of a list, as Java prints it.
fn show(item: Option<&Value>, structure: &str) -> String {
    match item {
        None => "null".into(),
        Some(Value::Text(text)) => text.clone(),
        // AWS prints an address here; nobody can depend on it.
        Some(_) => format!("com.amazonaws.kinesis.v20131202.{structure}@0"),
    }
}

fn lower_first(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGS: &[Member] = &[Member::required(
        "Tags",
        &Shape::Map {
            length: (1, 200),
            key: (1, 128),
            value: (0, 256),
        },
    )];

    #[test]
    fn a_maps_parts_are_checked_and_shown_whole() {
        let tags = |key: &str, value: &str| {
            let entries = vec![(key.to_owned(), value.to_owned())];
            violations(TAGS, &Input(vec![("Tags", Value::Map(entries))]))
        };
        assert_eq!(tags("k", ""), Vec::<String>::new());
        assert_eq!(
            tags("", &"v".repeat(257)),
            [
                format!(
                    "Value '{{={}}}' at 'tags' failed to satisfy constraint: Map keys must satisfy \
                     constraint: [Member must have length less than or equal to 128, Member must \
                     have length greater than or equal to 1]",
                    "v".repeat(257)
                ),
                format!(
                    "Value '{{={}}}' at 'tags' failed to satisfy constraint: Map value must satisfy \
                     constraint: [Member must have length less than or equal to 256, Member must \
                     have length greater than or equal to 0]",
                    "v".repeat(257)
                ),
            ]
        );
    }

    #[test]
    fn no_more_than_ten_violations_are_told() {
        const NAMES: &[Member] = &[Member::required(
            "Names",
            &Shape::List {
                length: (1, 3),
                item: &super::super::shape::NAME,
                shown: "",
            },
        )];
        let names = Value::List(vec![Some(Value::Text(String::new())); 12]);
        let told = violations(NAMES, &Input(vec![("Names", names)]));
        assert_eq!(told.len(), 10);
        assert!(told[0].starts_with("Value '[, , , , , , , , , , , ]' at 'names' failed"));
        assert!(
            told[9].starts_with("Value '' at 'names.5.member' failed"),
            "{}",
            told[9]
        );
    }
}
