//! Signature Version 4: signatures in headers and in queries, bodies whole and in chunks.
//!
//! ```text
//! kind u8      bit 0: in the query; bits 1, 2: the body's hash is untold, told, in signed chunks,
//!              or the request is not ours at all
//! change u16   where one byte is made another one
//! path, query, body: length u8, bytes each
//! headers: value: length u8, bytes each
//! ```

use std::cell::LazyCell;

use shardmill::fuzzing::{Host, Request};

use crate::input::Input;
use crate::signer::{self, Place};

thread_local! {
    static HOST: LazyCell<Host> = const { LazyCell::new(Host::closed) };
}

const SERVICES: [&str; 3] = ["kinesis", "sqs", "shardmill"];
const NAMES: [&str; 4] = [
    "content-type",
    "x-amz-target",
    "x-shardmill-note",
    "x-other",
];

/// What another implementation signed is taken, with its body; with any one byte changed that
/// means anything it is refused, and for another service too; and nothing else is ever taken.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let (kind, change) = (input.u8(), usize::from(input.u16()));
    if kind >> 1 & 3 == 3 {
        return forged(&mut input);
    }
    let place = [Place::Header, Place::Query][usize::from(kind & 1)];
    let service = SERVICES[usize::from(kind >> 3) % 3];
    let path = format!("/{}", signer::encode(input.short(), true));
    let query = signer::encode(input.short(), false);
    // Some of the query's structure is left.
    let query = query
        .replace("%26", "&")
        .replace("%3D", "=")
        .replace("%25", "%");
    let body = input.short().to_vec();
    let mut headers = vec![("host".to_owned(), b"localhost:4566".to_vec())];
    for name in NAMES {
        let text: Vec<u8> = input
            .short()
            .iter()
            .copied()
            .filter(|b| (32..127).contains(b))
            .collect();
        if !text.is_empty() {
            headers.push((name.to_owned(), text));
        }
    }
    let mut request = Request {
        method: ["POST", "GET", "PUT"][usize::from(kind >> 5) % 3].into(),
        uri: if query.is_empty() {
            path
        } else {
            format!("{path}?{query}")
        },
        headers,
        body: body.clone(),
    };
    if names_a_signature(&request.uri) {
        return;
    }
    match kind >> 1 & 3 {
        0 => {
            signer::sign(&mut request, service, place, &signer::sha256(&body));
        }
        1 => {
            let hash = signer::sha256(&body);
            let header = ("x-amz-content-sha256".to_owned(), hash.clone().into_bytes());
            request.headers.push(header);
            signer::sign(&mut request, service, place, &hash);
        }
        _ => {
            for (name, value) in [
                ("x-amz-content-sha256", signer::SIGNED_CHUNKS.to_owned()),
                ("x-amz-decoded-content-length", body.len().to_string()),
            ] {
                request.headers.push((name.to_owned(), value.into_bytes()));
            }
            let seed = signer::sign(&mut request, service, place, signer::SIGNED_CHUNKS);
            let sizes = [change % 7, change % 31];
            request.body = signer::chunked(&body, &sizes, service, &seed);
        }
    }
    let checked = taken(service, &request);
    assert_eq!(checked.as_deref(), Ok(&body[..]), "{service} {request:?}");
    for other in SERVICES {
        assert!(other == service || taken(other, &request).is_err());
    }
    let changed = changed(&request, change);
    if means_another(&request, &changed) {
        let error = taken(service, &changed).expect_err("a changed request is refused");
        assert!(!error.is_empty());
    }
}

/// A request of which only the outer form is ours: its signature is never good.
fn forged(input: &mut Input<'_>) {
    let service = SERVICES[usize::from(input.u8()) % 3];
    let mut request = Request {
        method: "POST".into(),
        uri: format!("/{}", input.text()),
        ..Request::default()
    };
    for name in [
        "authorization",
        "x-amz-date",
        "x-amz-content-sha256",
        "host",
    ] {
        request.headers.push((name.into(), input.short().to_vec()));
    }
    request.body = input.0.to_vec();
    assert!(taken(service, &request).is_err(), "{request:?}");
}

fn taken(service: &str, request: &Request) -> Result<Vec<u8>, String> {
    HOST.with(|host| host.checked_body(service, request))
}

/// Whether the query that was made up has parameters of a signature.
fn names_a_signature(uri: &str) -> bool {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    let mut names = query
        .split('&')
        .map(|pair| signer::decode(pair.split('=').next().unwrap_or("")));
    names.any(|name| name.starts_with(b"X-Amz-"))
}

/// The request with one byte changed: a letter or a digit into another one, or any byte of the
/// body.
fn changed(request: &Request, at: usize) -> Request {
    let mut other = request.clone();
    let mut texts: Vec<Vec<u8>> = vec![other.method.clone().into(), other.uri.clone().into()];
    texts.extend(other.headers.iter().map(|(_, value)| value.clone()));
    texts.push(other.body.clone());
    let total: usize = texts.iter().map(Vec::len).sum();
    let mut at = at % total.max(1);
    let last = texts.len() - 1;
    for (number, text) in texts.iter_mut().enumerate() {
        if let Some(byte) = text.get_mut(at) {
            *byte = match *byte {
                b'z' => b'a',
                b'Z' => b'A',
                b'9' => b'0',
                letter if letter.is_ascii_alphanumeric() => letter + 1,
                any if number == last => any ^ 1,
                any => any,
            };
            break;
        }
        at -= text.len();
    }
    let mut texts = texts.into_iter();
    let mut next = || texts.next().unwrap_or_default();
    other.method = String::from_utf8(next()).expect("text");
    other.uri = String::from_utf8(next()).expect("text");
    for (_, value) in &mut other.headers {
        *value = next();
    }
    other.body = next();
    other
}

/// Whether the difference is one: a query's escapes may be spelled in several ways, and so may a
/// chunk's size.
fn means_another(one: &Request, other: &Request) -> bool {
    let meaning = |request: &Request| {
        let (path, query) = request.uri.split_once('?').unwrap_or((&request.uri, ""));
        let mut pairs: Vec<_> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (signer::decode(name), signer::decode(value)))
            .collect();
        pairs.sort();
        (
            request.method.clone(),
            path.to_owned(),
            pairs,
            request.headers.clone(),
            request.body.clone(),
        )
    };
    meaning(one) != meaning(other)
}
