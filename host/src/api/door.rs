//! The door: a page in a browser must not reach the host, neither by a foreign `Origin` nor by
//! a name of its own that resolves to the loopback address (DNS rebinding).

use std::net::IpAddr;

use hyper::Request;
use hyper::header::{HOST, ORIGIN};

use crate::services::Access;

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It was sent to a name that is not this machine's own.
    #[error("host {0:?} is not a loopback name: this host serves its own machine only")]
    ForeignHost(String),
    /// It names several hosts, of which a proxy may have looked at another. RFC 9112, section 3.2.
    #[error("several Host headers: one expected")]
    SeveralHosts,
    /// A web page of another origin sent it.
    #[error("origin {0:?} is not a loopback origin: web pages may not call this host")]
    ForeignOrigin(String),
}

/// Lets a request in, or says why not.
///
/// # Errors
/// See [`Refusal`].
pub(crate) fn check<B>(request: &Request<B>, access: Access) -> Result<(), Refusal> {
    let header = |name| {
        let value = request.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    if request.headers().get_all(HOST).iter().count() > 1 {
        return Err(Refusal::SeveralHosts);
    }
    // HTTP/2 names the host in the URI.
    let host = request.uri().authority().map(ToString::to_string);
    let host = host.or_else(|| header(HOST)).unwrap_or_default();
    if access == Access::Loopback && !is_loopback(&host) {
        return Err(Refusal::ForeignHost(host));
    }
    match header(ORIGIN) {
        Some(origin) if !is_loopback(after_scheme(&origin)) => Err(Refusal::ForeignOrigin(origin)),
        _ => Ok(()),
    }
}

fn after_scheme(origin: &str) -> &str {
    origin.split_once("://").map_or("", |(_, host)| host)
}

/// `localhost`, 127.0.0.0/8 or `[::1]`, with or without a port.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost")
        || match bare {
            Some(v6) => v6.parse() == Ok(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)),
            None => matches!(host.parse(), Ok(IpAddr::V4(v4)) if v4.is_loopback()),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn let_in(host: &str, origin: Option<&str>) -> bool {
        let mut request = Request::builder().uri("/").header(HOST, host);
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        check(&request.body(()).expect("a request"), Access::Loopback).is_ok()
    }

    #[test]
    fn only_loopback_names_are_let_in() {
        for host in [
            "localhost",
            "LOCALHOST:4566",
            "127.0.0.1:80",
            "127.1.2.3",
            "[::1]",
            "[::1]:4566",
        ] {
            assert!(let_in(host, None), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "10.0.0.1:4566",
            "[::2]",
            "::1",
            "localhost:80@example.com",
            "128.0.0.1",
        ] {
            assert!(!let_in(host, None), "{host}");
        }
    }

    #[test]
    fn only_loopback_origins_are_let_in() {
        for (origin, want) in [
            ("http://localhost:3000", true),
            ("https://127.0.0.1", true),
            ("http://example.com", false),
            ("http://localhost.example.com", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(let_in("localhost", Some(origin)), want, "{origin}");
        }
    }
}
