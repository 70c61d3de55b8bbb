//! What is signed: a request in its canonical form, the string to sign, and the key. Pure; the
//! command line signs with it, the host checks with it.
//!
//! Rules: AWS Signature Version 4, "Create a signed AWS API request", for every service but S3:
//! the path is encoded once more. Paths are taken as they were sent: one with empty segments or
//! dots, which the official clients tidy up before they sign, does not verify.

use std::fmt::Write;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The only algorithm.
pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// What ends a credential's scope.
pub(crate) const TERMINATOR: &str = "aws4_request";
/// The parameter that holds the signature of a presigned request, and is no part of it.
const SIGNATURE: &[u8] = b"X-Amz-Signature";

/// A request, as far as it is signed.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// As sent.
    pub(crate) path: &'a str,
    /// As sent, without the question mark.
    pub(crate) query: &'a str,
    /// Names in lower case, in the order in which they are signed, with the header's values.
    pub(crate) headers: Vec<(&'a str, Vec<&'a [u8]>)>,
    /// SHA-256 of the body in hexadecimal, or the word that stands for it.
    pub(crate) payload: &'a str,
}

impl Request<'_> {
    /// SHA-256 of the canonical form, in hexadecimal.
    pub(crate) fn digest(&self) -> String {
        sha256_hex(&self.canonical())
    }

    fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        let mut line = |parts: &[&[u8]]| {
            parts.iter().for_each(|part| out.extend_from_slice(part));
            out.push(b'\n');
        };
        line(&[self.method.as_bytes()]);
        line(&[encoded(self.path.as_bytes(), b"/").as_bytes()]);
        line(&[query(self.query).as_bytes()]);
        for (name, values) in &self.headers {
            let values: Vec<_> = values.iter().map(|value| trimmed(value)).collect();
            line(&[name.as_bytes(), b":", &values.join(&b',')]);
        }
        line(&[]);
        let names: Vec<_> = self.headers.iter().map(|(name, _)| *name).collect();
        line(&[names.join(";").as_bytes()]);
        out.extend_from_slice(self.payload.as_bytes());
        out
    }
}

/// Whose key, and for what: the part of a credential behind the access key's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SigningScope<'a> {
    /// `YYYYMMDD`.
    pub(crate) date: &'a str,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
}

impl SigningScope<'_> {
    /// As it stands in the credential.
    pub(crate) fn text(&self) -> String {
        let Self {
            date,
            region,
            service,
        } = self;
        format!("{date}/{region}/{service}/{TERMINATOR}")
    }

    /// The key that signs within this scope.
    pub(crate) fn key(&self, secret: &str) -> Zeroizing<[u8; 32]> {
        let first = Zeroizing::new(format!("AWS4{secret}"));
        let parts = [self.date, self.region, self.service, TERMINATOR];
        let mut key = Zeroizing::new(first.as_bytes().to_vec());
        for part in parts {
            let code: [u8; 32] = mac(&key, part.as_bytes()).finalize().into_bytes().into();
            *key = code.to_vec();
        }
        let mut whole = Zeroizing::new([0; 32]);
        whole.copy_from_slice(&key);
        whole
    }
}

/// The string to sign of a request; `time` is `YYYYMMDDTHHMMSSZ`, `scope` a credential's.
pub(crate) fn string_to_sign(time: &str, scope: &str, digest: &str) -> String {
    format!("{ALGORITHM}\n{time}\n{scope}\n{digest}")
}

/// HMAC-SHA256 of a text, ready to be compared in constant time.
pub(crate) fn mac(key: &[u8], text: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of any length, so the fallback is never used.
    let mac = Hmac::<Sha256>::new_from_slice(key)
        .unwrap_or_else(|_| Hmac::new(&hmac::digest::Key::<Hmac<Sha256>>::default()));
    mac.chain_update(text)
}

/// Whether `signature`, in hexadecimal, is that of a text. Takes the same time wherever they differ.
pub(crate) fn is_signed(key: &[u8], text: &str, signature: &str) -> bool {
    let digits = signature.as_bytes();
    let mut code = [0u8; 32];
    if digits.len() != 64 {
        return false;
    }
    for (byte, pair) in code.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
            return false;
        };
        *byte = high << 4 | low;
    }
    mac(key, text.as_bytes()).verify_slice(&code).is_ok()
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A query in order of its names, then values, each encoded anew.
fn query(query: &str) -> String {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .filter(|(name, _)| name != SIGNATURE)
        .map(|(name, value)| (encoded(&name, b""), encoded(&value, b"")))
        .collect();
    pairs.sort();
    let pairs: Vec<_> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
    pairs.join("&")
}

/// Everything but unreserved characters, and those of `kept`, as `%41`.
fn encoded(bytes: &[u8], kept: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if plain || kept.contains(&byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Bytes of a text with its `%41` and the like decoded; broken ones are taken as they are.
pub(super) fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() {
            &after[2..]
        } else {
            after
        };
    }
    bytes
}

/// A header's value without blanks around it, and with one for several inside.
fn trimmed(value: &[u8]) -> Vec<u8> {
    let words = value.split(|b| b.is_ascii_whitespace());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    words.join(&b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "Signature Version 4 test suite", get-vanilla.
    #[test]
    fn the_plainest_request_of_awss_test_suite_is_signed_as_there() {
        let request = Request {
            method: "GET",
            path: "/",
            query: "",
            headers: vec![
                ("host", vec![b"example.amazonaws.com"]),
                ("x-amz-date", vec![b"20150830T123600Z"]),
            ],
            payload: &sha256_hex(b""),
        };
        let scope = SigningScope {
            date: "20150830",
            region: "us-east-1",
            service: "service",
        };
        let key = scope.key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        let text = string_to_sign("20150830T123600Z", &scope.text(), &request.digest());
        let signature = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        assert!(is_signed(&key[..], &text, signature));
        for wrong in [
            "",
            "5FA00FA31553B73EBF1942676E86291E8372FF2A2260956D9B8AAE1D763FBF31",
            "4fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            "+fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ] {
            assert!(!is_signed(&key[..], &text, wrong), "{wrong}");
        }
    }

    #[test]
    fn queries_are_sorted_and_encoded_anew() {
        for (given, want) in [
            ("", ""),
            ("b=2&a=1", "a=1&b=2"),
            ("a", "a="),
            ("a=%7e%2f%zz&&a=%20", "a=%20&a=~%2F%25zz"),
            ("x=y&X-Amz-Signature=abc", "x=y"),
            ("X%2DAmz-Signature=abc", ""),
        ] {
            assert_eq!(query(given), want, "{given}");
        }
    }
}
