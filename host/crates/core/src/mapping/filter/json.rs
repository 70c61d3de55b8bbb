//! A pattern's JSON as a tree. Of a key that an object has twice, the last value is kept, where it
//! stands (EventBridge user guide, "Creating event patterns").

use super::error::position;
use super::number::Number;
use super::scan::{Scalar, Scanner, Syntax};

/// A JSON value.
#[derive(Debug)]
pub(super) enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number<'a>),
    Text(String),
    Array(Array<'a>),
    Object(Vec<(String, Json<'a>)>),
}

/// An array, and how it is written.
#[derive(Debug)]
pub(super) struct Array<'a> {
    pub(super) items: Vec<Json<'a>>,
    pub(super) text: &'a str,
}

/// Where a text is not JSON, and why.
#[derive(Debug)]
pub(super) struct NotJson {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) reason: &'static str,
}

impl<'a> Json<'a> {
    /// Reads a whole text.
    ///
    /// # Errors
    /// It is not JSON, or nested too deeply.
    pub(super) fn parse(text: &'a str) -> Result<Self, NotJson> {
        let mut scanner = Scanner::new(text);
        let parsed = value(&mut scanner).and_then(|value| scanner.end().map(|()| value));
        parsed.map_err(|Syntax(reason)| {
            let (line, column) = position(text, scanner.at());
            NotJson {
                line,
                column,
                reason,
            }
        })
    }
}

fn value<'a>(scanner: &mut Scanner<'a>) -> Result<Json<'a>, Syntax> {
    match scanner.peek() {
        b'{' => object(scanner).map(Json::Object),
        b'[' => array(scanner).map(Json::Array),
        _ => Ok(match scanner.scalar()? {
            Scalar::Null => Json::Null,
            Scalar::Bool(value) => Json::Bool(value),
            Scalar::Number(number) => Json::Number(number),
            Scalar::Text(text) => Json::Text(text.into_owned()),
        }),
    }
}

fn array<'a>(scanner: &mut Scanner<'a>) -> Result<Array<'a>, Syntax> {
    let from = scanner.at();
    let mut items = Vec::new();
    let mut more = scanner.enter(b']')?;
    while more {
        items.push(value(scanner)?);
        more = scanner.more(b']')?;
    }
    let text = scanner.between(from, scanner.at());
    Ok(Array { items, text })
}

fn object<'a>(scanner: &mut Scanner<'a>) -> Result<Vec<(String, Json<'a>)>, Syntax> {
    let mut members = Vec::new();
    let mut more = scanner.enter(b'}')?;
    while more {
        let key = scanner.key()?.decode().into_owned();
        let value = value(scanner)?;
        members.retain(|(other, _)| *other != key);
        members.push((key, value));
        more = scanner.more(b'}')?;
    }
    Ok(members)
}
