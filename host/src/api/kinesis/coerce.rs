//! First stage of validation: a JSON body's values become values of the members' types, as
//! leniently as AWS, or the first that cannot ends the request.
//!
//! Rules: answers of production Kinesis to values of every wrong type ("can not be converted").
//! Unknown members are ignored; `null` is the same as absent.

use serde_json::Value as Json;

use super::shape::{Input, Member, Shape, Value};

const LIST: &str = "Start of list found where not expected";
const STRUCTURE: &str = "Start of structure or map found where not expected.";

/// The members of `body` with their types.
///
/// # Errors
/// The text of AWS's `SerializationException`.
pub(crate) fn members(
    members: &'static [Member],
    body: &serde_json::Map<String, Json>,
) -> Result<Input, String> {
    let mut input = Vec::with_capacity(members.len());
    for member in members {
        if let Some(json) = body.get(member.name)
            && let Some(value) = value(member.shape, json)?
        {
            input.push((member.name, value));
        }
    }
    Ok(Input(input))
}

/// `None` for null.
fn value(shape: &'static Shape, json: &Json) -> Result<Option<Value>, String> {
    let value = match (shape, json) {
        (_, Json::Null) => return Ok(None),
        (Shape::List { item, .. }, Json::Array(items)) => {
            let items: Result<_, _> = items.iter().map(|json| self::value(item, json)).collect();
            Value::List(items?)
        }
        (Shape::Map { .. }, Json::Object(entries)) => map(entries)?,
        (Shape::Structure(of), Json::Object(entries)) => Value::Structure(members(of, entries)?),
        (_, Json::Array(_)) => return Err(LIST.into()),
        (_, Json::Object(_)) => return Err(STRUCTURE.into()),
        (Shape::List { .. }, _) => return Err("Expected list or null".into()),
        (Shape::Map { .. }, _) => return Err("Expected map or null".into()),
        (Shape::Structure(_), _) => return Err("Expected null".into()),
        (Shape::Text { .. } | Shape::Choice(_), _) => Value::Text(text(json)?),
        (Shape::Integer(_), _) => integer(json)?,
        (Shape::Boolean, _) => boolean(json)?,
        (Shape::Blob { .. }, _) => blob(json)?,
        (Shape::Timestamp, _) => timestamp(json)?,
    };
    Ok(Some(value))
}

fn map(entries: &serde_json::Map<String, Json>) -> Result<Value, String> {
    let mut map = Vec::with_capacity(entries.len());
    for (key, json) in entries {
        match json {
            Json::Null => {}
            Json::Array(_) => return Err(LIST.into()),
            Json::Object(_) => return Err(STRUCTURE.into()),
            json => map.push((key.clone(), text(json)?)),
        }
    }
    Ok(Value::Map(map))
}

/// How AWS names the type of a value that it cannot take.
fn class(json: &Json) -> &'static str {
    match json {
        Json::Bool(_) => "class java.lang.Boolean",
        Json::Number(_) => "class com.amazon.coral.value.json.numbers.TruncatingBigNumber",
        _ => "class java.lang.String",
    }
}

fn text(json: &Json) -> Result<String, String> {
    match json {
        Json::String(text) => Ok(text.clone()),
        json => Err(format!("{} can not be converted to an String", class(json))),
    }
}

/// Floored, and clamped to 32 bits.
fn integer(json: &Json) -> Result<Value, String> {
    let Json::Number(number) = json else {
        let class = class(json);
        return Err(format!("{class} can not be converted to an Integer"));
    };
    let number = match number.as_i64() {
        Some(number) => number,
        // Floats, and integers beyond 64 bits: the cast saturates.
        None => number.as_f64().unwrap_or_default().floor() as i64,
    };
    let number = number.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
    Ok(Value::Integer(number))
}

fn boolean(json: &Json) -> Result<Value, String> {
    let refused = |what: &str| Err(format!("{what} can not be converted to an Boolean"));
    Ok(Value::Boolean(match json {
        Json::Bool(value) => *value,
        Json::Number(number) if number.is_f64() => number.as_f64() != Some(0.0),
        Json::String(text) => match text.to_uppercase().as_str() {
            "TRUE" | "1" | "YES" => true,
            "FALSE" | "0" | "NO" => false,
            other => return refused(&format!("'{other}'")),
        },
        json => return refused(class(json)),
    }))
}

fn timestamp(json: &Json) -> Result<Value, String> {
    let Json::Number(seconds) = json else {
        let class = class(json);
        return Err(format!(
            "{class} can not be converted to milliseconds since epoch"
        ));
    };
    let seconds = seconds.as_f64().unwrap_or_default();
    Ok(Value::Timestamp((seconds * 1000.0).round() as i64))
}

fn blob(json: &Json) -> Result<Value, String> {
    let Json::String(text) = json else {
        let class = class(json);
        return Err(format!("{class} can not be converted to a Blob"));
    };
    match base64_simd::STANDARD.decode_to_vec(text) {
        Ok(bytes) => Ok(Value::Blob(bytes)),
        Err(_) => Err(format!(
            "'{text}' can not be converted to a Blob: {}",
            base64_fault(text)
        )),
    }
}

/// What is wrong with a text that is no Base64, in the order of AWS's checks.
fn base64_fault(text: &str) -> String {
    let length = text.encode_utf16().count();
    if !length.is_multiple_of(4) {
        return format!(
            "Base64 encoded length is expected a multiple of 4 bytes but found: {length}"
        );
    }
    let digits = text.strip_suffix('=').unwrap_or(text);
    let digits = digits.strip_suffix('=').unwrap_or(digits);
    let good = |c: &char| c.is_ascii_alphanumeric() || *c == '+' || *c == '/';
    match digits.chars().find(|c| !good(c)) {
        Some(bad) => format!("Invalid Base64 character: '{bad}'"),
        None => "Invalid last non-pad Base64 character dectected".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kinesis::shape::{LIMIT, NAME};

    #[test]
    fn numbers_are_floored_and_clamped_to_32_bits() {
        for (json, want) in [
            ("7", 7),
            ("7.9", 7),
            ("-7.1", -8),
            ("100000000000", 2_147_483_647),
            ("1e300", 2_147_483_647),
            ("-18446744073709551616", -2_147_483_648),
        ] {
            let json: Json = serde_json::from_str(json).expect("JSON");
            assert_eq!(
                value(&LIMIT, &json),
                Ok(Some(Value::Integer(want))),
                "{json}"
            );
        }
    }

    #[test]
    fn booleans_are_read_from_words_and_fractions() {
        for (json, want) in [
            (r#""Yes""#, Ok(true)),
            (r#""0""#, Ok(false)),
            ("0.5", Ok(true)),
            ("false", Ok(false)),
            (
                r#""no way""#,
                Err("'NO WAY' can not be converted to an Boolean"),
            ),
        ] {
            let json: Json = serde_json::from_str(json).expect("JSON");
            let want = want.map(|b| Some(Value::Boolean(b))).map_err(str::to_owned);
            assert_eq!(value(&Shape::Boolean, &json), want, "{json}");
        }
    }

    #[test]
    fn null_is_absent() {
        assert_eq!(value(&NAME, &Json::Null), Ok(None));
    }
}
