//! A signature as it stands in a request, taken apart: in the header `Authorization`, or in the
//! query of a presigned request. Nothing is checked but that it is whole.
//!
//! Rules: Signature Version 4, "Authentication methods"; texts as AWS answers them. AWS splits the
//! header at commas or blanks.

use hyper::header::{AUTHORIZATION, DATE};
use hyper::http::request::Parts;

use super::canonical::ALGORITHM;
use super::{AuthError, parameters};

/// A whole signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    /// `ID/DATE/REGION/SERVICE/aws4_request`, if it is what it should be.
    pub(crate) credential: String,
    /// Names of headers in lower case, joined by semicolons.
    pub(crate) signed_headers: String,
    /// In hexadecimal.
    pub(crate) signature: String,
    /// The algorithm's name.
    pub(crate) algorithm: String,
    /// When it was made, as it says: `YYYYMMDDTHHMMSSZ`.
    pub(crate) time: String,
    /// How long a presigned request is good, s, as it says.
    pub(crate) expires: Option<String>,
    /// Whether it stands in the query.
    pub(crate) presigned: bool,
    /// Whether there is a session token.
    pub(crate) has_token: bool,
}

impl Signature {
    /// Takes a request's signature apart.
    ///
    /// # Errors
    /// `Missing`, `Both` or `Incomplete`.
    pub(crate) fn of(parts: &Parts) -> Result<Self, AuthError> {
        let query: Vec<(String, String)> =
            parameters(parts.uri.query().unwrap_or_default()).collect();
        let in_query = query.iter().any(|(name, _)| name == "X-Amz-Algorithm");
        // A proxy may have looked at the other one.
        if parts.headers.get_all(AUTHORIZATION).iter().count() > 1 {
            return Err(AuthError::Incomplete(
                "Authorization header was given twice. ".into(),
            ));
        }
        match (parts.headers.get(AUTHORIZATION), in_query) {
            (None, false) => Err(AuthError::Missing),
            (Some(_), true) => Err(AuthError::Both),
            (Some(header), false) => {
                Self::of_header(&String::from_utf8_lossy(header.as_bytes()), parts)
            }
            (None, true) => Self::of_query(&query, parts),
        }
    }

    fn of_header(header: &str, parts: &Parts) -> Result<Self, AuthError> {
        let headers = &parts.headers;
        let part = |name: &str| {
            header
                .split([',', ' '])
                .skip(1)
                .filter_map(|part| part.split_once('='))
                .find(|(key, value)| *key == name && !value.is_empty())
                .map(|(_, value)| value.to_owned())
        };
        let mut missing = String::new();
        for name in ["Credential", "Signature", "SignedHeaders"] {
            if part(name).is_none() {
                missing += &format!("Authorization header requires '{name}' parameter. ");
            }
        }
        let time = headers.get("x-amz-date").or_else(|| headers.get(DATE));
        if time.is_none() {
            missing += "Authorization header requires existence of either a 'X-Amz-Date' or a \
                        'Date' header. ";
        }
        let found = (part("Credential"), part("Signature"), part("SignedHeaders"));
        match (found, time) {
            ((Some(credential), Some(signature), Some(signed_headers)), Some(time)) => Ok(Self {
                credential,
                signed_headers,
                signature,
                algorithm: header.split(' ').next().unwrap_or_default().to_owned(),
                time: String::from_utf8_lossy(time.as_bytes()).into_owned(),
                expires: None,
                presigned: false,
                has_token: headers.contains_key("x-amz-security-token"),
            }),
            _ => Err(AuthError::Incomplete(format!(
                "{missing}Authorization={header}"
            ))),
        }
    }

    fn of_query(query: &[(String, String)], parts: &Parts) -> Result<Self, AuthError> {
        let value = |wanted: &str| {
            query
                .iter()
                .find(|(name, value)| name == wanted && !value.is_empty())
                .map(|(_, value)| value.clone())
        };
        let needed = [
            "X-Amz-Algorithm",
            "X-Amz-Credential",
            "X-Amz-Signature",
            "X-Amz-SignedHeaders",
            "X-Amz-Date",
        ];
        let [
            Some(algorithm),
            Some(credential),
            Some(signature),
            Some(signed_headers),
            Some(time),
        ] = needed.map(value)
        else {
            let missing = needed.into_iter().filter(|name| value(name).is_none());
            let missing: String = missing
                .map(|name| format!("AWS query-string parameters must include '{name}'. "))
                .collect();
            return Err(AuthError::Incomplete(format!(
                "{missing}Re-examine the query-string parameters."
            )));
        };
        Ok(Self {
            credential,
            signed_headers,
            signature,
            algorithm,
            time,
            expires: value("X-Amz-Expires"),
            presigned: true,
            has_token: value("X-Amz-Security-Token").is_some()
                || parts.headers.contains_key("x-amz-security-token"),
        })
    }

    /// The algorithm, if it is the only one.
    ///
    /// # Errors
    /// Names the one that is not supported.
    pub(crate) fn check_algorithm(&self) -> Result<(), AuthError> {
        if self.algorithm == ALGORITHM {
            return Ok(());
        }
        Err(AuthError::Incomplete(format!(
            "Unsupported AWS 'algorithm': '{}'. {ALGORITHM} is the one that is supported.",
            self.algorithm
        )))
    }
}
