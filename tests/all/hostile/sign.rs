//! Requests as bytes, signed by Signature Version 4. Written apart from the host's own signer, so
//! that an error in that one does not hide here; and so that each part can be made wrong.

use std::fmt::Write;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use shardmill_core::UnixMillis;

/// An access key.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) account: &'static str,
    pub(super) id: &'static str,
    pub(super) secret: &'static str,
}

/// A request that is not signed yet.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: &'static str,
    /// Path and query, as they are sent.
    pub(super) target: String,
    /// Beside `Host`, `Content-Length` and what a signature needs.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// What a signature is made for.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) service: &'static str,
    pub(super) region: &'static str,
    pub(super) now: UnixMillis,
    /// What stands for the body, instead of its hash.
    pub(super) payload: Option<&'static str>,
}

impl Request {
    pub(super) fn new(method: &'static str, target: impl Into<String>) -> Self {
        Self {
            method,
            target: target.into(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The headers with which a key signs it; the last one is `authorization`.
    pub(super) fn signed(&self, key: Key, terms: Terms) -> Vec<(String, String)> {
        let time = basic(terms.now);
        let hash = hex(&Sha256::digest(&self.body));
        let payload = terms.payload.unwrap_or(&hash);
        let mut headers = self.headers.clone();
        headers.push(("host".into(), "localhost".into()));
        headers.push(("x-amz-date".into(), time.clone()));
        headers.push(("x-amz-content-sha256".into(), payload.into()));
        headers.sort();
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let mut pairs: Vec<&str> = query.split('&').filter(|p| !p.is_empty()).collect();
        pairs.sort_unstable();
        let mut canonical = format!("{}\n{}\n{}\n", self.method, encoded(path), pairs.join("&"));
        for (name, value) in &headers {
            let _ = writeln!(canonical, "{name}:{value}");
        }
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let _ = write!(canonical, "\n{names}\n{payload}");
        let scope = format!(
            "{}/{}/{}/aws4_request",
            &time[..8],
            terms.region,
            terms.service
        );
        let digest = hex(&Sha256::digest(canonical));
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}");
        let mut code = format!("AWS4{}", key.secret).into_bytes();
        for part in scope.split('/') {
            code = mac(&code, part);
        }
        let signature = hex(&mac(&code, &text));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            key.id
        );
        headers.push(("authorization".into(), authorization));
        headers
    }

    /// As it goes over the wire, with these headers; the connection ends behind it.
    pub(super) fn bytes(&self, headers: &[(String, String)]) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let told = ["content-length", "transfer-encoding"];
        if !headers
            .iter()
            .any(|(name, _)| told.contains(&name.as_str()))
        {
            let _ = write!(head, "content-length: {}\r\n", self.body.len());
        }
        head += "connection: close\r\n\r\n";
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.chain_update(text).finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `20240102T030405Z`.
fn basic(now: UnixMillis) -> String {
    let text = shardmill_core::timestamp::format(now);
    let digits = text[..19].chars().filter(|c| !matches!(c, '-' | ':'));
    digits.chain(['Z']).collect()
}

fn encoded(path: &str) -> String {
    path.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// A text as part of a path or a query.
pub(super) fn escaped(text: &str) -> String {
    encoded(text).replace('/', "%2F")
}
