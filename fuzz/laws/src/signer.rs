//! Signature Version 4, written a second time and shortly: what it signs must be taken by the
//! host, whose own code shares no line with it. Rules: "Create a signed AWS API request".

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use shardmill::fuzzing::{ACCESS_KEY, Request, SECRET};

pub(crate) const TIME: &str = "20240102T030405Z";
pub(crate) const SIGNED_CHUNKS: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
const REGION: &str = "eu-central-1";

/// Where the signature stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Header,
    Query,
}

/// Signs a request for a service; in its query there is nothing of a signature yet, and its
/// headers are in lower case. Gives the signature.
pub(crate) fn sign(request: &mut Request, service: &str, place: Place, payload: &str) -> String {
    let scope = format!("{}/{REGION}/{service}/aws4_request", &TIME[..8]);
    let credential = format!("{ACCESS_KEY}/{scope}");
    if place == Place::Header {
        let date = ("x-amz-date".to_owned(), TIME.as_bytes().to_vec());
        request.headers.push(date);
    }
    let mut headers = request.headers.clone();
    headers.sort();
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let (path, query) = request.uri.split_once('?').unwrap_or((&request.uri, ""));
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encode(&decode(name), false), encode(&decode(value), false)))
        .collect();
    if place == Place::Query {
        for (name, value) in [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", TIME),
            ("X-Amz-Expires", "60"),
            ("X-Amz-SignedHeaders", &names),
        ] {
            pairs.push((name.into(), encode(value.as_bytes(), false)));
        }
    }
    pairs.sort();
    let pairs: Vec<_> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
    let query = pairs.join("&");
    let mut text = format!(
        "{}\n{}\n{query}\n",
        request.method,
        encode(path.as_bytes(), true)
    )
    .into_bytes();
    for (name, value) in &headers {
        let words = value.split(u8::is_ascii_whitespace);
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        text.extend_from_slice(&words.join(&b' '));
        text.push(b'\n');
    }
    text.extend_from_slice(format!("\n{names}\n{payload}").as_bytes());
    let signature = hex(&mac(
        &key(service),
        &format!("AWS4-HMAC-SHA256\n{TIME}\n{scope}\n{}", sha256(&text)),
    ));
    match place {
        Place::Header => {
            let value = format!(
                "AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, \
                 Signature={signature}"
            );
            request.headers.push(("authorization".into(), value.into()));
        }
        Place::Query => request.uri = format!("{path}?{query}&X-Amz-Signature={signature}"),
    }
    signature
}

/// A body in signed chunks of these lengths.
pub(crate) fn chunked(body: &[u8], sizes: &[usize], service: &str, seed: &str) -> Vec<u8> {
    let (mut out, mut before, mut rest) = (Vec::new(), seed.to_owned(), body);
    let mut sizes = sizes.iter().copied().chain([usize::MAX]);
    loop {
        // A chunk of no bytes ends the body.
        let size = sizes.next().unwrap_or(usize::MAX).max(1).min(rest.len());
        let (chunk, after) = rest.split_at(size);
        let scope = format!("{}/{REGION}/{service}/aws4_request", &TIME[..8]);
        let text = format!(
            "AWS4-HMAC-SHA256-PAYLOAD\n{TIME}\n{scope}\n{before}\n{}\n{}",
            sha256(b""),
            sha256(chunk)
        );
        before = hex(&mac(&key(service), &text));
        out.extend_from_slice(format!("{size:x};chunk-signature={before}\r\n").as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        if size == 0 {
            return out;
        }
        rest = after;
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Percent-encoding undone, where it is some.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let digits = digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

pub(crate) fn encode(bytes: &[u8], is_path: bool) -> String {
    let one = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(*byte).to_string()
        }
        b'/' if is_path => "/".into(),
        other => format!("%{other:02X}"),
    };
    bytes.iter().map(one).collect()
}

fn key(service: &str) -> Vec<u8> {
    let first = format!("AWS4{SECRET}").into_bytes();
    let parts = [&TIME[..8], REGION, service, "aws4_request"];
    parts.iter().fold(first, |key, part| mac(&key, part))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.chain_update(text).finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
