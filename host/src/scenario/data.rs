//! Data of records and values of state, as a scenario writes them: text, a JSON value, or bytes in
//! hexadecimal or base64.

use std::fmt;

use bytes::Bytes;
use serde_json::Value;

/// Bytes that are expected, or to be put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// This text.
    Text(String),
    /// Any JSON text of this value.
    Json(Value),
    /// These bytes.
    Bytes(Bytes),
}

/// The forms, of which one may be given.
#[derive(Debug, Default)]
pub(super) struct Forms {
    pub(super) text: Option<String>,
    pub(super) json: Option<toml::Value>,
    pub(super) hex: Option<String>,
    pub(super) base64: Option<String>,
}

impl Forms {
    /// The one that is given; `None` when none is.
    ///
    /// # Errors
    /// What is wrong with it, or that there are several.
    pub(super) fn read(self) -> Result<Option<Data>, String> {
        let mut found = Vec::new();
        found.extend(self.text.map(|text| Ok(Data::Text(text))));
        found.extend(self.json.map(|value| json(value).map(Data::Json)));
        found.extend(self.hex.map(|text| hex(&text).map(Data::Bytes)));
        found.extend(self.base64.map(|text| base64(&text).map(Data::Bytes)));
        if found.len() > 1 {
            return Err("one of data, json, hex and base64 expected, not several".into());
        }
        found.pop().transpose()
    }
}

impl Data {
    /// A value of state: a text for itself, a table `{ text | json | hex | base64 = … }`, any other
    /// value for its JSON.
    ///
    /// # Errors
    /// A table that is none of these.
    pub(super) fn of_state(value: toml::Value) -> Result<Self, String> {
        let table = match value {
            toml::Value::String(text) => return Ok(Self::Text(text)),
            toml::Value::Table(table) => table,
            other => return json(other).map(Self::Json),
        };
        let mut forms = Forms::default();
        let mut texts = [
            ("text", &mut forms.text),
            ("hex", &mut forms.hex),
            ("base64", &mut forms.base64),
        ];
        for (key, value) in table {
            if key == "json" {
                forms.json = Some(value);
                continue;
            }
            let place = texts.iter_mut().find(|(name, _)| *name == key);
            match (place, value) {
                (Some((_, place)), toml::Value::String(text)) => **place = Some(text),
                (Some(_), _) => return Err(format!("{key}: a text expected")),
                (None, _) => {
                    return Err(format!(
                        "unknown key `{key}`: possible are text, json, hex, base64; \
                         a JSON object is written {{ json = {{ … }} }}"
                    ));
                }
            }
        }
        let data = forms.read()?;
        data.ok_or_else(|| "one of text, json, hex and base64 expected".into())
    }

    /// The bytes to put.
    pub(super) fn bytes(&self) -> Bytes {
        match self {
            Self::Text(text) => text.clone().into(),
            Self::Json(value) => value.to_string().into(),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }

    /// Whether these bytes are what is expected.
    pub(super) fn matches(&self, found: &[u8]) -> bool {
        match self {
            Self::Text(text) => text.as_bytes() == found,
            Self::Json(value) => serde_json::from_slice::<Value>(found).is_ok_and(|v| v == *value),
            Self::Bytes(bytes) => bytes == found,
        }
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(value) => write!(f, "{value}"),
            Self::Text(_) | Self::Bytes(_) => f.write_str(&shown(&self.bytes())),
        }
    }
}

/// Bytes for people: text where it is text, otherwise hexadecimal, cut where it is long.
pub(super) fn shown(bytes: &[u8]) -> String {
    /// Characters, or bytes in hexadecimal, that are shown.
    const SHOWN: usize = 60;
    let text = std::str::from_utf8(bytes).ok();
    let text = text.filter(|text| !text.chars().any(char::is_control));
    match text {
        Some(text) if text.chars().count() <= SHOWN => text.to_owned(),
        Some(text) => text.chars().take(SHOWN).chain(['…']).collect(),
        None => {
            let dots = if bytes.len() > SHOWN { "…" } else { "" };
            let digits = bytes.iter().take(SHOWN).map(|b| format!("{b:02x}"));
            format!("0x{}{dots}", digits.collect::<String>())
        }
    }
}

fn hex(text: &str) -> Result<Bytes, String> {
    let bad = || format!("hex = {text:?}: pairs of hexadecimal digits expected");
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).ok_or_else(bad))
        .collect::<Result<_, _>>()?;
    if digits.len() % 2 == 1 {
        return Err(bad());
    }
    Ok(digits
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect())
}

fn base64(text: &str) -> Result<Bytes, String> {
    let decoded = base64_simd::STANDARD.decode_to_vec(text);
    let bad = |_| format!("base64 = {text:?}: base64 with padding expected");
    decoded.map(Bytes::from).map_err(bad)
}

/// A TOML value as JSON. Dates have no counterpart.
fn json(value: toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Float(number) if number.is_finite() => number.into(),
        toml::Value::Float(number) => return Err(format!("{number} is no JSON number")),
        toml::Value::Datetime(date) => {
            return Err(format!("JSON has no dates: write \"{date}\" as a text"));
        }
        toml::Value::Array(values) => {
            Value::Array(values.into_iter().map(json).collect::<Result<_, _>>()?)
        }
        toml::Value::Table(members) => {
            let members = members.into_iter().map(|(k, v)| json(v).map(|v| (k, v)));
            Value::Object(members.collect::<Result<_, _>>()?)
        }
    })
}
