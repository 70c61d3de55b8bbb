//! Where records that are given up are reported: the texts that name a destination, and which
//! of them this host takes.
//!
//! Rules: CreateEventSourceMapping, "DestinationConfig": at most 350 characters; a queue, a topic
//! or a bucket. Folders and webhooks are our own. What cannot be a destination is refused by name.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;
use object_store::path::Path as ObjectPath;
use serde::{Deserialize, Serialize};
use shardmill_core::{Region, Scope, TenantId};

/// Longest text, bytes: CreateEventSourceMapping, "Destination".
const MAX_BYTES: usize = 350;

/// Longest name of a queue: CreateQueue, "QueueName".
const MAX_QUEUE_NAME: usize = 80;

const FORMS: &str = "arn:aws:sqs:REGION:ACCOUNT:NAME, s3://BUCKET[/PREFIX], arn:aws:s3:::BUCKET, \
                     file:///FOLDER, https://… or http://… expected";

/// A destination: its text as it was given, and what the text means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination {
    text: String,
    kind: Kind,
}

/// What a destination is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A queue of this host.
    Queue {
        /// Its account and region.
        scope: Scope,
        /// Its name.
        name: String,
    },
    /// A bucket of an S3-compatible store.
    Bucket {
        /// Its name.
        bucket: String,
        /// Put before every key, with a slash between; empty for none.
        prefix: String,
    },
    /// A folder of this machine, absolute.
    Folder(PathBuf),
    /// A server that takes HTTP POST: its absolute address.
    Webhook(String),
}

/// A text that names no destination of this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("destination {text:?}: {why}")]
pub struct BadDestination {
    /// The text.
    pub text: String,
    /// What is wrong with it, and what is possible.
    pub why: String,
}

impl Destination {
    /// What it is.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the records themselves are sent, and not only what is known of them.
    pub fn takes_payload(&self) -> bool {
        matches!(self.kind, Kind::Bucket { .. } | Kind::Folder(_))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Destination {
    type Err = BadDestination;

    fn from_str(text: &str) -> Result<Self, BadDestination> {
        match kind(text) {
            Ok(kind) => Ok(Self {
                text: text.into(),
                kind,
            }),
            Err(why) => Err(BadDestination {
                text: text.into(),
                why,
            }),
        }
    }
}

impl TryFrom<String> for Destination {
    type Error = BadDestination;

    fn try_from(text: String) -> Result<Self, BadDestination> {
        text.parse()
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.text
    }
}

fn kind(text: &str) -> Result<Kind, String> {
    if text.len() > MAX_BYTES {
        return Err(format!(
            "{} bytes, at most {MAX_BYTES} expected",
            text.len()
        ));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("no blanks expected; write them as %20".into());
    }
    if let Some(arn) = text.strip_prefix("arn:") {
        return of_arn(arn);
    }
    let (scheme, rest) = text.split_once("://").ok_or(FORMS)?;
    match scheme {
        "s3" => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            of_bucket(bucket, &crate::auth::percent_decoded(prefix))
        }
        "file" => of_folder(rest),
        "http" | "https" => of_address(text),
        "kafka" => Err("Kafka topics are for Kafka sources: use a queue or a webhook".into()),
        _ => Err(FORMS.into()),
    }
}

fn of_arn(arn: &str) -> Result<Kind, String> {
    let parts: Vec<&str> = arn.splitn(5, ':').collect();
    let [partition, service, region, account, resource] = parts[..] else {
        return Err(FORMS.into());
    };
    if !partition.starts_with("aws") {
        return Err(FORMS.into());
    }
    match service {
        "sqs" => {
            let region: Region = region.parse().map_err(|_| FORMS)?;
            let tenant: TenantId = account
                .parse()
                .map_err(|_| "12 digits of account expected")?;
            of_queue(Scope { tenant, region }, resource)
        }
        "s3" if region.is_empty() && account.is_empty() && !resource.contains('/') => {
            of_bucket(resource, "")
        }
        "s3" => Err("arn:aws:s3:::BUCKET expected; s3://BUCKET/PREFIX takes a prefix".into()),
        "sns" => Err("topics are not supported: use a queue or a webhook".into()),
        other => Err(format!("{other} cannot be a destination: {FORMS}")),
    }
}

fn of_queue(scope: Scope, name: &str) -> Result<Kind, String> {
    if name.ends_with(".fifo") {
        return Err("FIFO queues cannot be a destination, as on AWS: use a standard queue".into());
    }
    if !is_queue_name(name) {
        return Err("a queue's name of 1 to 80 of a-z A-Z 0-9 _ - expected".into());
    }
    let name = name.into();
    Ok(Kind::Queue { scope, name })
}

/// Whether a standard queue can have this name: CreateQueue, "QueueName".
pub(crate) fn is_queue_name(name: &str) -> bool {
    let good = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
    (1..=MAX_QUEUE_NAME).contains(&name.len()) && name.bytes().all(good)
}

/// Rules: Amazon S3 user guide, "General purpose bucket naming rules".
fn of_bucket(bucket: &str, prefix: &str) -> Result<Kind, String> {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'.' || c == b'-';
    let ends = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let named = (3..=63).contains(&bucket.len()) && bucket.bytes().all(good);
    if !named || !ends(bucket.bytes().next()) || !ends(bucket.bytes().last()) {
        return Err("a bucket's name of 3 to 63 of a-z 0-9 . - expected".into());
    }
    let parts: Vec<&str> = prefix.split('/').filter(|part| !part.is_empty()).collect();
    let prefix = parts.join("/");
    // Every key begins with it, as it stands here.
    if ObjectPath::parse(&prefix).is_err() {
        return Err("a prefix without `.`, `..` and control characters expected".into());
    }
    Ok(Kind::Bucket {
        bucket: bucket.into(),
        prefix,
    })
}

fn of_folder(path: &str) -> Result<Kind, String> {
    let path = crate::auth::percent_decoded(path);
    let steps_back = path.split('/').any(|part| part == ".." || part == ".");
    if !path.starts_with('/') || steps_back {
        return Err("file:///ABSOLUTE/FOLDER expected, without `.` and `..`".into());
    }
    Ok(Kind::Folder(path.into()))
}

fn of_address(text: &str) -> Result<Kind, String> {
    let uri: Uri = text.parse().map_err(|e| format!("no address: {e}"))?;
    let Some(authority) = uri.authority().filter(|a| !a.host().is_empty()) else {
        return Err("https://HOST/… or http://HOST/… expected".into());
    };
    if authority.as_str().contains('@') {
        return Err(
            "no user and password expected: whoever may list mappings would see them".into(),
        );
    }
    Ok(Kind::Webhook(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_for_what_it_is() {
        let queue = |region: &str| Kind::Queue {
            scope: Scope {
                tenant: "123456789012".parse().expect("an account"),
                region: region.parse().expect("a region"),
            },
            name: "dead-letters".into(),
        };
        let bucket = |prefix: &str| Kind::Bucket {
            bucket: "my.bucket".into(),
            prefix: prefix.into(),
        };
        for (text, want) in [
            (
                "arn:aws:sqs:eu-west-1:123456789012:dead-letters",
                queue("eu-west-1"),
            ),
            ("arn:aws:s3:::my.bucket", bucket("")),
            ("s3://my.bucket", bucket("")),
            ("s3://my.bucket/a//b/", bucket("a/b")),
            ("s3://my.bucket/a%20b", bucket("a b")),
            (
                "file:///srv/given%20up",
                Kind::Folder("/srv/given up".into()),
            ),
            (
                "https://example.com/hook?x=1",
                Kind::Webhook("https://example.com/hook?x=1".into()),
            ),
            (
                "http://127.0.0.1:8080",
                Kind::Webhook("http://127.0.0.1:8080".into()),
            ),
        ] {
            let read: Destination = text.parse().expect(text);
            assert_eq!(read.kind(), &want, "{text}");
            assert_eq!(read.to_string(), text);
            let json = serde_json::to_string(&read).expect("json");
            assert_eq!(serde_json::from_str::<Destination>(&json).ok(), Some(read));
        }
    }

    #[test]
    fn what_cannot_be_a_destination_is_refused_by_name() {
        let long = format!("https://example.com/{}", "x".repeat(331));
        for (text, why) in [
            ("", "expected"),
            ("queue", "arn:aws:sqs"),
            ("arn:aws:sns:us-east-1:123456789012:t", "topics"),
            ("arn:aws:sqs:us-east-1:123456789012:q.fifo", "FIFO"),
            ("arn:aws:sqs:us-east-1:12:q", "12 digits"),
            ("arn:aws:sqs:us-east-1:123456789012:a b", "blanks"),
            ("arn:aws:sqs:us-east-1:123456789012:", "1 to 80"),
            ("arn:aws:s3:::bucket/prefix", "s3://BUCKET/PREFIX"),
            ("arn:aws:lambda:us-east-1:123456789012:function:f", "lambda"),
            ("kafka://topic", "Kafka"),
            ("s3://AB", "3 to 63"),
            ("s3://my.bucket/a b", "%20"),
            ("s3://my.bucket/%2e%2e/b", "without"),
            ("file://relative", "ABSOLUTE"),
            ("file:///a/../b", "without"),
            ("https://", "no address"),
            ("https://user:secret@example.com/", "password"),
            ("ftp://example.com", "expected"),
            (long.as_str(), "351 bytes"),
        ] {
            let refused = text.parse::<Destination>().expect_err(text).to_string();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
