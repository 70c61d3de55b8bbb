//! Which destinations this host lets anybody name: what the operator's list says, and never the
//! host's own data.
//!
//! A prefix ends where a part ends: `https://example.com/a` allows `/a` and `/a/b`, neither `/ab`
//! nor `example.com.evil.org`.

use std::path::{Path, PathBuf};

use hyper::Uri;

use super::destination::{BadDestination, Destination, Kind};

/// The destinations that may be named. Queues of this host always may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Beginnings of destinations; `None`: all, but see `strangers`.
    pub prefixes: Option<Vec<Destination>>,
    /// The host's data: no folder in it is a destination.
    pub data_dir: Option<PathBuf>,
    /// Whether other machines reach the host's API. Without a list its callers then name queues
    /// only.
    pub strangers: bool,
}

impl Allowed {
    /// Checks a destination, whoever named it.
    ///
    /// # Errors
    /// It is the host's own data, or not on the list.
    pub(super) fn check(&self, destination: &Destination) -> Result<(), BadDestination> {
        let refused = |why: &str| {
            Err(BadDestination {
                text: destination.as_str().into(),
                why: why.into(),
            })
        };
        if let (Kind::Folder(folder), Some(data)) = (destination.kind(), &self.data_dir)
            && lies_in(folder, data)
        {
            return refused("this host's own data is there");
        }
        match &self.prefixes {
            Some(prefixes) if !is_queue(destination) => {
                let covers = |prefix: &Destination| covers(prefix.kind(), destination.kind());
                if prefixes.iter().any(covers) {
                    return Ok(());
                }
                refused("nothing in `allow` of [delivery] in the manifest covers it")
            }
            _ => Ok(()),
        }
    }

    /// Checks a destination that a caller of the API named.
    ///
    /// # Errors
    /// As [`Allowed::check`]; or other machines reach the host, and there is no list.
    pub(super) fn check_caller(&self, destination: &Destination) -> Result<(), BadDestination> {
        if self.strangers && self.prefixes.is_none() && !is_queue(destination) {
            return Err(BadDestination {
                text: destination.as_str().into(),
                why: "other machines reach this host, so its callers may name queues only: \
                      `allow` of [delivery] in the manifest says what else"
                    .into(),
            });
        }
        self.check(destination)
    }
}

fn is_queue(destination: &Destination) -> bool {
    matches!(destination.kind(), Kind::Queue { .. })
}

fn covers(prefix: &Kind, kind: &Kind) -> bool {
    match (prefix, kind) {
        (
            Kind::Bucket {
                bucket: allowed,
                prefix,
            },
            Kind::Bucket {
                bucket,
                prefix: path,
            },
        ) => allowed == bucket && begins(path, prefix),
        (Kind::Folder(allowed), Kind::Folder(folder)) => folder.starts_with(allowed),
        (Kind::Webhook(allowed), Kind::Webhook(address)) => {
            match (allowed.parse::<Uri>(), address.parse::<Uri>()) {
                (Ok(allowed), Ok(address)) => covers_address(&allowed, &address),
                _ => false,
            }
        }
        (Kind::Bucket { .. } | Kind::Folder(_) | Kind::Webhook(_) | Kind::Queue { .. }, _) => false,
    }
}

fn covers_address(allowed: &Uri, address: &Uri) -> bool {
    let port = |uri: &Uri| {
        let default = (uri.scheme_str() == Some("https")).then_some(443);
        uri.port_u16().or(default).unwrap_or(80)
    };
    let host = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    let same_server = allowed.scheme() == address.scheme()
        && host(allowed) == host(address)
        && port(allowed) == port(address);
    if !same_server {
        return false;
    }
    if allowed.query().is_some() {
        return allowed.path_and_query() == address.path_and_query();
    }
    begins(address.path(), allowed.path())
}

/// Whether `path` is `prefix` or goes on behind it, after a slash. A path that steps back could
/// mean any place of its server, so only the whole server covers it.
fn begins(path: &str, prefix: &str) -> bool {
    if prefix.is_empty() || prefix == "/" {
        return true;
    }
    let decoded = crate::auth::percent_decoded(path);
    let mut parts = decoded.split(['/', '\\']);
    if parts.any(|part| part == "." || part == "..") {
        return false;
    }
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'),
        None => false,
    }
}

/// Whether what is put into `folder` would be in `data`, whatever links lead there.
fn lies_in(folder: &Path, data: &Path) -> bool {
    // The beginning of every key.
    let folder = folder.join("aws/lambda");
    real(&folder).starts_with(real(data))
}

/// A path without links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    for there in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (there.canonicalize(), path.strip_prefix(there)) {
            return real.join(rest);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(text: &str) -> Destination {
        text.parse().expect(text)
    }

    #[test]
    fn a_prefix_ends_where_a_part_ends() {
        for (prefix, text, want) in [
            ("https://a.example/", "https://a.example/x?y=1", true),
            ("https://a.example", "https://A.example:443/x", true),
            ("https://a.example", "https://a.example.evil.org/", false),
            ("https://a.example", "http://a.example/", false),
            ("https://a.example", "https://a.example:8443/", false),
            ("https://a.example/in", "https://a.example/in", true),
            ("https://a.example/in", "https://a.example/in/b", true),
            ("https://a.example/in", "https://a.example/inner", false),
            ("https://a.example/in/", "https://a.example/in", false),
            ("https://a.example/in", "https://a.example/in/../x", false),
            (
                "https://a.example/in",
                "https://a.example/in/%2E%2e/x",
                false,
            ),
            ("https://a.example/in?k=1", "https://a.example/in?k=1", true),
            (
                "https://a.example/in?k=1",
                "https://a.example/in?k=2",
                false,
            ),
            ("s3://bucket/pre", "s3://bucket/pre/a", true),
            ("s3://bucket/pre", "s3://bucket/prefix", false),
            ("s3://bucket", "arn:aws:s3:::bucket", true),
            ("s3://bucket", "s3://bucket2/pre", false),
            ("file:///srv/failures", "file:///srv/failures/m", true),
            ("file:///srv/failures", "file:///srv/failures2", false),
            ("file:///srv", "https://srv/", false),
            ("s3://bucket", "arn:aws:sqs:us-east-1:000000000000:q", true),
        ] {
            let allowed = Allowed {
                prefixes: Some(vec![destination(prefix)]),
                ..Allowed::default()
            };
            let found = allowed.check(&destination(text)).is_ok();
            assert_eq!(found, want, "{prefix} {text}");
        }
    }

    #[test]
    fn without_a_list_strangers_name_queues_only() {
        let (hook, queue) = ("https://a.example/", "arn:aws:sqs:us-east-1:000000000000:q");
        for (strangers, prefixes, text, want) in [
            (false, None, hook, true),
            (true, None, hook, false),
            (true, None, queue, true),
            (true, Some(vec![destination(hook)]), hook, true),
            (true, Some(Vec::new()), hook, false),
        ] {
            let allowed = Allowed {
                prefixes,
                data_dir: None,
                strangers,
            };
            let found = allowed.check_caller(&destination(text)).is_ok();
            assert_eq!(found, want, "{allowed:?} {text}");
            let by_manifest = allowed.prefixes.is_none() || want;
            assert_eq!(allowed.check(&destination(text)).is_ok(), by_manifest);
        }
    }

    #[test]
    fn the_hosts_own_data_is_no_destination_by_no_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("aws/data");
        std::fs::create_dir_all(&data).expect("a folder");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&data, &link).expect("a link");
        let lambda = folder.path().join("aws/lambda");
        std::os::unix::fs::symlink(&data, lambda).expect("a link");
        let allowed = Allowed {
            prefixes: Some(vec![destination("file:///")]),
            data_dir: Some(data.clone()),
            strangers: false,
        };
        let to = |path: &Path| destination(&format!("file://{}", path.display()));
        for inside in [&data, &data.join("new/one"), &link, &link.join("new")] {
            assert!(allowed.check(&to(inside)).is_err(), "{inside:?}");
        }
        assert!(allowed.check(&to(folder.path())).is_err(), "by its keys");
        let beside = folder.path().join("aws/data2");
        assert!(allowed.check(&to(&beside)).is_ok());
    }
}
