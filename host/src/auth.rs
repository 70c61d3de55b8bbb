//! Who is calling: account and region, from a request's signature.
//!
//! In the open mode the signature must be there and be whole, as AWS demands, but any is taken:
//! an access key of 12 digits names the account, the credential's scope the region. Checking
//! signatures against known keys comes with the closed mode, behind the same function.
//!
//! Rules: Signature Version 4, "Authentication methods" (header and query string); texts as AWS
//! answers them.

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, DATE};
use hyper::http::request::Parts;
use shardmill_core::{Region, Scope, TenantId};

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The account and the region that are addressed.
    pub(crate) scope: Scope,
}

/// Why a request is not authenticated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    /// Neither kind of signature.
    #[error("Missing Authentication Token")]
    Missing,
    /// Both kinds.
    #[error(
        "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."
    )]
    Both,
    /// Parts of the signature are missing; says which.
    #[error("{0}")]
    Incomplete(String),
}

/// Reads who is calling; `region` is that of a caller who names none.
///
/// # Errors
/// See [`AuthError`].
pub(crate) fn caller(parts: &Parts, region: &Region) -> Result<Caller, AuthError> {
    let query: Vec<(String, String)> = parameters(parts.uri.query().unwrap_or_default()).collect();
    let in_query = query.iter().any(|(name, _)| name == "X-Amz-Algorithm");
    let credential = match (parts.headers.get(AUTHORIZATION), in_query) {
        (None, false) => return Err(AuthError::Missing),
        (Some(_), true) => return Err(AuthError::Both),
        (Some(header), false) => {
            from_header(&String::from_utf8_lossy(header.as_bytes()), &parts.headers)?
        }
        (None, true) => from_query(&query)?,
    };
    Ok(Caller {
        scope: scope_of(&credential, region),
    })
}

fn from_header(header: &str, headers: &HeaderMap) -> Result<String, AuthError> {
    let part = |name: &str| {
        header
            .split([',', ' '])
            .skip(1)
            .filter_map(|part| part.split_once('='))
            .find(|(key, value)| *key == name && !value.is_empty())
            .map(|(_, value)| value)
    };
    let mut missing = String::new();
    for name in ["Credential", "Signature", "SignedHeaders"] {
        if part(name).is_none() {
            missing += &format!("Authorization header requires '{name}' parameter. ");
        }
    }
    if !headers.contains_key("x-amz-date") && !headers.contains_key(DATE) {
        missing += "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' \
                    header. ";
    }
    match part("Credential") {
        Some(credential) if missing.is_empty() => Ok(credential.to_owned()),
        _ => Err(AuthError::Incomplete(format!(
            "{missing}Authorization={header}"
        ))),
    }
}

fn from_query(query: &[(String, String)]) -> Result<String, AuthError> {
    let value = |wanted: &str| {
        query
            .iter()
            .find(|(name, value)| name == wanted && !value.is_empty())
            .map(|(_, value)| value)
    };
    let missing: String = [
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Signature",
        "X-Amz-SignedHeaders",
        "X-Amz-Date",
    ]
    .into_iter()
    .filter(|name| value(name).is_none())
    .map(|name| format!("AWS query-string parameters must include '{name}'. "))
    .collect();
    match value("X-Amz-Credential") {
        Some(credential) if missing.is_empty() => Ok(credential.clone()),
        _ => Err(AuthError::Incomplete(format!(
            "{missing}Re-examine the query-string parameters."
        ))),
    }
}

/// `ACCESS_KEY/DATE/REGION/SERVICE/aws4_request`; whatever is not there gets its default.
fn scope_of(credential: &str, region: &Region) -> Scope {
    let mut parts = credential.split('/');
    let tenant = parts.next().and_then(|key| key.parse().ok());
    let named = parts.nth(1).and_then(|name| name.parse().ok());
    Scope {
        tenant: tenant.unwrap_or(TenantId::DEFAULT),
        region: named.unwrap_or_else(|| region.clone()),
    }
}

/// Names and values of a query string, percent-decoded.
pub(crate) fn parameters(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decoded(name), percent_decoded(value))
    })
}

/// A text with its `%41` and the like decoded; broken ones are taken as they are.
pub(crate) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() {
            &after[2..]
        } else {
            after
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(uri: &str, authorization: Option<&str>) -> Result<String, AuthError> {
        let mut request = hyper::Request::builder().uri(uri).header("x-amz-date", "d");
        if let Some(text) = authorization {
            request = request.header(AUTHORIZATION, text);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let region = "eu-west-9".parse().expect("a region");
        caller(&parts, &region).map(|c| format!("{} {}", c.scope.tenant, c.scope.region))
    }

    #[test]
    fn the_access_key_names_the_account_and_the_scope_the_region() {
        for (credential, want) in [
            (
                "123456789012/20240102/eu-central-1/kinesis/aws4_request",
                "123456789012 eu-central-1",
            ),
            (
                "AKIDEXAMPLE/20240102/us-west-2/kinesis/aws4_request",
                "000000000000 us-west-2",
            ),
            ("test", "000000000000 eu-west-9"),
            (
                "test/20240102/UP CASE/kinesis/aws4_request",
                "000000000000 eu-west-9",
            ),
        ] {
            let credential = credential.replace(' ', "");
            let header = format!(
                "AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"
            );
            assert_eq!(
                scope("/", Some(&header)).as_deref(),
                Ok(want),
                "{credential}"
            );
            let query = format!(
                "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Signature=0\
                 &X-Amz-SignedHeaders=host&X-Amz-Date=d",
                credential.replace('/', "%2F")
            );
            assert_eq!(scope(&query, None).as_deref(), Ok(want), "{query}");
        }
    }

    #[test]
    fn a_broken_escape_is_taken_as_it_is() {
        for (text, want) in [
            ("a%2Fb", "a/b"),
            ("%", "%"),
            ("%2", "%2"),
            ("%zz", "%zz"),
            ("%é", "%é"),
        ] {
            assert_eq!(percent_decoded(text), want);
        }
    }
}
