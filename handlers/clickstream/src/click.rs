//! Click events in JSON, as a page's script or a collector sends them.
//!
//! ```json
//! {"client": "83.149.9.216", "ts": "2015-05-17T10:05:03Z", "page": "/projects/"}
//! ```
//!
//! | field | | default |
//! | --- | --- | --- |
//! | `client` | who; the same as the partition key | required |
//! | `ts` | when: ISO 8601 with an offset, or milliseconds since the Unix epoch | required |
//! | `page`, or `path` | path, with or without a query | required |
//! | `method` | 1 … 32 bytes | `GET` |
//! | `status` | 100 … 999 | 200 |
//! | `bytes` | 0 … 10^15 − 1 | 0 |
//!
//! Other fields are ignored.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::Hit;
use crate::time;

/// A click event. Texts without escapes are borrowed.
#[derive(Clone, Debug, Deserialize)]
pub struct Click<'a> {
    /// Who.
    #[serde(borrow)]
    pub client: Cow<'a, str>,
    /// When, in milliseconds since the Unix epoch.
    #[serde(rename = "ts", deserialize_with = "timestamp")]
    pub at_ms: i64,
    /// Path and query.
    #[serde(borrow, alias = "path")]
    pub page: Cow<'a, str>,
    /// The HTTP method.
    #[serde(borrow, default = "get")]
    pub method: Cow<'a, str>,
    /// The HTTP status.
    #[serde(default = "ok")]
    pub status: u16,
    /// Bytes of the response's body.
    #[serde(default)]
    pub bytes: u64,
}

/// Reads one event.
///
/// # Errors
/// It is not JSON, a field is missing or of the wrong type, or a value is out of range.
pub fn parse(data: &[u8]) -> Result<Click<'_>, serde_json::Error> {
    let click: Click<'_> = serde_json::from_slice(data)?;
    let out_of_range = |what| Err(serde_json::Error::custom(what));
    if !(1..=32).contains(&click.method.len()) {
        return out_of_range("the method does not have 1 to 32 bytes");
    }
    if !(100..=999).contains(&click.status) {
        return out_of_range("the status is not between 100 and 999");
    }
    if click.bytes >= 1_000_000_000_000_000 {
        return out_of_range("the bytes are not below 10^15");
    }
    Ok(click)
}

impl Click<'_> {
    /// What is counted of it.
    pub fn hit(&self) -> Hit<'_> {
        Hit {
            at_ms: self.at_ms,
            method: &self.method,
            target: &self.page,
            status: self.status,
            bytes: self.bytes,
        }
    }
}

fn get() -> Cow<'static, str> {
    Cow::Borrowed("GET")
}

fn ok() -> u16 {
    200
}

fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    struct Timestamp;

    impl Visitor<'_> for Timestamp {
        type Value = i64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("ISO 8601 with an offset, or milliseconds since the Unix epoch")
        }

        fn visit_i64<E: serde::de::Error>(self, ms: i64) -> Result<i64, E> {
            (time::MIN_MS..=time::MAX_MS)
                .contains(&ms)
                .then_some(ms)
                .ok_or_else(|| E::invalid_value(Unexpected::Signed(ms), &self))
        }

        fn visit_u64<E: serde::de::Error>(self, ms: u64) -> Result<i64, E> {
            self.visit_i64(i64::try_from(ms).unwrap_or(i64::MAX))
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<i64, E> {
            time::parse_iso_ms(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }
    }

    deserializer.deserialize_any(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_client_time_and_page_are_required() {
        let click = parse(br#"{"client": "c", "ts": 1431857103000, "page": "/a", "more": {}}"#);
        let (at_ms, target) = (1_431_857_103_000, "/a");
        let expected = Hit {
            at_ms,
            method: "GET",
            target,
            status: 200,
            bytes: 0,
        };
        assert_eq!(click.expect("a click").hit(), expected);

        let click = parse(
            br#"{"client": "c", "ts": "2015-05-17T12:05:03.250+02:00", "path": "/\u0061",
                 "method": "POST", "status": 404, "bytes": 9}"#,
        );
        let at_ms = 1_431_857_103_250;
        let expected = Hit {
            at_ms,
            method: "POST",
            target,
            status: 404,
            bytes: 9,
        };
        assert_eq!(click.expect("a click").hit(), expected);
    }

    #[test]
    fn a_refusal_names_the_field_or_the_value() {
        for (data, why) in [
            (r#"{"client": "c", "ts": 1}"#, "missing field `page`"),
            (
                r#"{"client": "c", "ts": "yesterday", "page": "/"}"#,
                "yesterday",
            ),
            (
                r#"{"client": "c", "ts": "2015-05-17T10:05:03", "page": "/"}"#,
                "with an offset",
            ),
            (
                r#"{"client": "c", "ts": 1, "page": "/", "status": 42}"#,
                "between 100 and 999",
            ),
            (r#"{"client": "c", "ts": 1"#, "EOF"),
        ] {
            let error = parse(data.as_bytes()).expect_err(data).to_string();
            assert!(error.contains(why), "{data}: {error}");
        }
    }
}
