//! Bodies in `aws-chunked` encoding: taken apart, and each chunk held against its signature.
//!
//! ```text
//! SIZE(hex);chunk-signature=SIGNATURE CR LF  data  CR LF     … the last one has size 0
//! ```
//!
//! Rules: Signature Version 4, "Signature calculations for the authorization header: transferring
//! payload in multiple chunks". Each signature covers its data and the signature before it, the
//! first of which is the request's; so no chunk can be left out, moved or put in.

use bytes::{Bytes, BytesMut};

use super::AuthError;
use super::canonical::{ALGORITHM, is_signed, sha256_hex};

/// The word that stands for the body's hash where the chunks are signed.
pub(crate) const SIGNED: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";

/// Chunks of a body, at most: a chunk has at least 8 KiB in the official clients.
const MAX_CHUNKS: usize = 65_536;

/// What signs chunks.
pub(crate) struct ChunkKey<'a> {
    pub(crate) key: &'a [u8],
    /// The request's time.
    pub(crate) time: &'a str,
    /// The credential's scope.
    pub(crate) scope: String,
    /// The request's signature.
    pub(crate) seed: &'a str,
}

/// The data of a body in chunks; without a key their signatures are not looked at.
///
/// # Errors
/// `Invalid` where it has no form, `Mismatch` where a chunk's signature is not its.
pub(crate) fn decode(
    body: &[u8],
    key: Option<&ChunkKey<'_>>,
    announced: Option<usize>,
) -> Result<Bytes, AuthError> {
    let broken = |what: &str| AuthError::Invalid(format!("The body is not aws-chunked: {what}."));
    let mut data = BytesMut::with_capacity(body.len());
    let mut before = key.map_or(String::new(), |key| key.seed.to_owned());
    let mut rest = body;
    for _ in 0..MAX_CHUNKS {
        // A size of 8 digits, the name and a signature have 90 bytes.
        let head = &rest[..rest.len().min(128)];
        let end = head.windows(2).position(|two| two == b"\r\n");
        let end = end.ok_or_else(|| broken("a chunk has no head"))?;
        let head = std::str::from_utf8(&head[..end]).map_err(|_| broken("a chunk has no head"))?;
        let (size, signature) = head
            .split_once(";chunk-signature=")
            .ok_or_else(|| broken("a chunk has no signature"))?;
        let digits = !size.is_empty() && size.bytes().all(|b| b.is_ascii_hexdigit());
        let size = digits.then(|| usize::from_str_radix(size, 16).ok());
        let size = size
            .flatten()
            .ok_or_else(|| broken("a chunk has no size"))?;
        let after = &rest[end + 2..];
        let chunk = after.get(..size);
        let chunk = chunk.ok_or_else(|| broken("a chunk ends early"))?;
        if let Some(key) = key {
            check(key, &before, chunk, signature)?;
            signature.clone_into(&mut before);
        }
        data.extend_from_slice(chunk);
        rest = &after[size..];
        rest = rest
            .strip_prefix(b"\r\n")
            .or_else(|| (size == 0 && rest.is_empty()).then_some(rest))
            .ok_or_else(|| broken("a chunk is longer than it says"))?;
        if size > 0 {
            continue;
        }
        return match announced {
            _ if !rest.is_empty() => Err(broken("there is more behind the last chunk")),
            Some(length) if length != data.len() => Err(broken(&format!(
                "x-amz-decoded-content-length is {length}, and there are {} bytes",
                data.len()
            ))),
            _ => Ok(data.freeze()),
        };
    }
    Err(broken(&format!("it has more than {MAX_CHUNKS} chunks")))
}

fn check(key: &ChunkKey<'_>, before: &str, chunk: &[u8], signature: &str) -> Result<(), AuthError> {
    let text = format!(
        "{ALGORITHM}-PAYLOAD\n{}\n{}\n{before}\n{}\n{}",
        key.time,
        key.scope,
        sha256_hex(b""),
        sha256_hex(chunk)
    );
    if is_signed(key.key, &text, signature) {
        Ok(())
    } else {
        Err(AuthError::Mismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::canonical::SigningScope;
    use super::*;

    const SEED: &str = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
    const CHUNKS: [(usize, &str); 3] = [
        (
            65_536,
            "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        ),
        (
            1_024,
            "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        ),
        (
            0,
            "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
        ),
    ];

    /// The example of AWS's documentation: 66,560 times the letter a.
    fn example() -> Vec<u8> {
        let mut body = Vec::new();
        for (size, signature) in CHUNKS {
            body.extend_from_slice(format!("{size:x};chunk-signature={signature}\r\n").as_bytes());
            body.extend(std::iter::repeat_n(b'a', size));
            body.extend_from_slice(b"\r\n");
        }
        body
    }

    fn check_example(body: &[u8], announced: Option<usize>) -> Result<Bytes, AuthError> {
        let scope = SigningScope {
            date: "20130524",
            region: "us-east-1",
            service: "s3",
        };
        let key = scope.key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let key = ChunkKey {
            key: &key[..],
            time: "20130524T000000Z",
            scope: scope.text(),
            seed: SEED,
        };
        decode(body, Some(&key), announced)
    }

    #[test]
    fn the_example_of_awss_documentation_is_taken() {
        let data = check_example(&example(), Some(66_560)).expect("good chunks");
        assert_eq!(data, vec![b'a'; 66_560]);
    }

    #[test]
    fn chunks_that_were_changed_moved_or_left_out_are_refused() {
        let whole = example();
        let last = whole.len() - 88;
        let cut = [&whole[..65_626], &whole[whole.len() - 88..]].concat();
        let mut changed = whole.clone();
        changed[200] = b'b';
        let mut unsigned = whole.clone();
        unsigned[30] ^= 1;
        for (what, body) in [
            ("changed", changed),
            ("another signature", unsigned),
            ("the last one is missing", whole[..last].to_vec()),
            ("one is missing", cut),
            ("more", [&whole[..], b"x"].concat()),
            ("nothing", Vec::new()),
            ("no chunks", vec![b'a'; 300]),
            (
                "endless",
                b"ffffffffffffffff;chunk-signature=0\r\n".to_vec(),
            ),
        ] {
            assert!(check_example(&body, None).is_err(), "{what}");
        }
        let error = check_example(&whole, Some(66_561)).expect_err("another length");
        assert!(error.to_string().contains("66561"), "{error}");
    }
}
