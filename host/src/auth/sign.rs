//! Signs a request, as the command line does for a closed host.

use hmac::Mac;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use shardmill_core::{Region, UnixMillis};

use super::Service;
use super::canonical::{ALGORITHM, Request, SigningScope, hex, mac, sha256_hex, string_to_sign};
use super::verify::basic;
use crate::tenancy::Secret;

/// An access key.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    /// Its id.
    pub(crate) id: String,
    /// Its secret.
    pub(crate) secret: Secret,
}

/// Signs a request with all its headers; its body is `body`. A header that is no text is left
/// unsigned, which a host refuses for those that matter.
pub(crate) fn sign(
    parts: &mut Parts,
    body: &[u8],
    credentials: &Credentials,
    signed_for: (Service, &Region),
    now: UnixMillis,
) {
    sign_payload(parts, &sha256_hex(body), credentials, signed_for, now);
}

/// The same with what stands for the body. Gives the signature.
pub(super) fn sign_payload(
    parts: &mut Parts,
    payload: &str,
    credentials: &Credentials,
    (service, region): (Service, &Region),
    now: UnixMillis,
) -> String {
    let time = basic(now);
    let authority = parts.uri.authority().map(ToString::to_string);
    for (name, value) in [
        (HOST, authority.unwrap_or_default()),
        (HeaderName::from_static("x-amz-date"), time.clone()),
        // Told, so that a host can check the signature before it takes the body.
        (
            HeaderName::from_static("x-amz-content-sha256"),
            payload.to_owned(),
        ),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            parts.headers.insert(name, value);
        }
    }
    parts.headers.remove(AUTHORIZATION);
    let mut names: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let headers = names.iter().map(|name| {
        let values = parts.headers.get_all(*name);
        (*name, values.iter().map(HeaderValue::as_bytes).collect())
    });
    let request = Request {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        headers: headers.collect(),
        payload,
    };
    let scope = SigningScope {
        date: &time[..8],
        region: region.as_str(),
        service: service.name(),
    };
    let text = string_to_sign(&time, &scope.text(), &request.digest());
    let key = scope.key(credentials.secret.reveal());
    let code = hex(&mac(&key[..], text.as_bytes()).finalize().into_bytes());
    let header = format!(
        "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={code}",
        credentials.id,
        scope.text(),
        names.join(";"),
    );
    if let Ok(mut value) = HeaderValue::from_str(&header) {
        value.set_sensitive(true);
        parts.headers.insert(AUTHORIZATION, value);
    }
    code
}
