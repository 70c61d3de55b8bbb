//! Webhooks: one HTTP POST per delivery, and what its status says.

use bytes::Bytes;
use hmac::{Hmac, Mac};
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Request, StatusCode};
use sha2::Sha256;

use super::http::Http;
use super::schedule::{Failed, Trouble};

/// Header that carries the delivery's stable id.
pub(super) const ID_HEADER: &str = "x-shardmill-delivery-id";

/// Header that carries `sha256=` and the hexadecimal HMAC-SHA256 of the body under the shared
/// secret; absent without one.
pub(super) const SIGNATURE_HEADER: &str = "x-shardmill-signature-256";

/// Posts the document of the delivery `id`.
pub(super) async fn post(
    http: &Http,
    address: &str,
    secret: Option<&str>,
    (id, body): (&str, Bytes),
) -> Result<(), Trouble> {
    let mut request = Request::post(address)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("shardmill/", env!("CARGO_PKG_VERSION")))
        .header(ID_HEADER, id);
    if let Some(secret) = secret {
        request = request.header(SIGNATURE_HEADER, signature(secret, &body));
    }
    let request = request.body(Full::new(body)).map_err(|error| Trouble {
        failed: Failed::Misconfigured,
        why: error.to_string(),
    })?;
    match http.status(request).await {
        Ok(status) => judge(status),
        Err(error) => Err(Trouble {
            failed: Failed::Unreachable,
            why: error.to_string(),
        }),
    }
}

/// What a status says: of the delivery, or of the whole address.
fn judge(status: StatusCode) -> Result<(), Trouble> {
    let (failed, why) = match status.as_u16() {
        200..=299 => return Ok(()),
        408 | 425 | 429 | 500..=599 => (Failed::Unreachable, ""),
        300..=399 => (Failed::Misconfigured, ": redirects are not followed"),
        400 | 411 | 413..=415 | 422 | 431 => (Failed::Refused, ""),
        _ => (Failed::Misconfigured, ""),
    };
    let why = format!("answered {status}{why}");
    Err(Trouble { failed, why })
}

fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(body);
    let digits: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("sha256={digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whether_the_address_or_the_delivery_is_at_fault() {
        for (status, want) in [
            (200, None),
            (204, None),
            (301, Some(Failed::Misconfigured)),
            (400, Some(Failed::Refused)),
            (403, Some(Failed::Misconfigured)),
            (404, Some(Failed::Misconfigured)),
            (408, Some(Failed::Unreachable)),
            (413, Some(Failed::Refused)),
            (429, Some(Failed::Unreachable)),
            (500, Some(Failed::Unreachable)),
            (503, Some(Failed::Unreachable)),
        ] {
            let judged = judge(StatusCode::from_u16(status).expect("a status"));
            assert_eq!(judged.err().map(|t| t.failed), want, "{status}");
        }
    }

    /// RFC 4231, test case 2.
    #[test]
    fn the_signature_is_hmac_sha256_of_the_body() {
        assert_eq!(
            signature("Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
