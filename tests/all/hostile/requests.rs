//! Hostile requests, each with what it is answered; and attacks that other tests make, by name.

use futures_util::future::LocalBoxFuture;
use serde_json::json;
use shardmill_core::UnixMillis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::expected::Complaints;
use super::raw;
use super::sign::{Key, Request, Terms};
use super::site::{ATTACKER, CONNECTIONS, OPERATOR, Site, VICTIM, kinesis, now};

/// A hostile request, and what must come of it.
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) tries: &'static str,
    pub(super) answer: &'static str,
    pub(super) how: How,
}

/// How an attack is made.
pub(super) enum How {
    /// Gives what came of it, in a line.
    Here(fn(&Site) -> LocalBoxFuture<'_, String>),
    /// Another test makes it: its file and name.
    Elsewhere(&'static str, &'static str),
}

/// One after the other.
pub(super) async fn run(site: &Site) -> Complaints {
    let mut complaints = Complaints::default();
    for attack in all() {
        if let How::Here(make) = attack.how {
            complaints.expect(attack.name, attack.answer, &make(site).await);
        }
    }
    complaints
}

/// A request to list the attacker's functions.
fn list() -> Request {
    Request::new("GET", "/_shardmill/functions")
}

/// Sends a request that is signed on other terms than it should be.
async fn on_terms(site: &Site, request: Request, key: Key, terms: Terms) -> String {
    let headers = request.signed(key, terms);
    site.bytes(&request.bytes(&headers)).await.told()
}

/// Sends a request that is changed after it was signed.
async fn changed(
    site: &Site,
    request: Request,
    change: impl FnOnce(&mut Request, &mut Vec<(String, String)>),
) -> String {
    let mut headers = request.signed(ATTACKER, site.terms("shardmill"));
    let mut request = request;
    change(&mut request, &mut headers);
    site.bytes(&request.bytes(&headers)).await.told()
}

async fn operation(site: &Site, name: &str, input: serde_json::Value) -> String {
    site.kinesis(ATTACKER, name, &input).await.told()
}

async fn native(site: &Site, method: &'static str, path: &str, body: impl Into<Vec<u8>>) -> String {
    site.native(ATTACKER, method, path, body).await.told()
}

async fn wire(site: &Site, bytes: &[u8]) -> String {
    site.bytes(bytes).await.told()
}

/// So many answers come over one connection.
async fn answers(site: &Site, bytes: &[u8]) -> usize {
    let mut stream = TcpStream::connect(site.address()).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut all = Vec::new();
    tokio::join!(async { drop(write.write_all(bytes).await) }, async {
        drop(read.read_to_end(&mut all).await)
    });
    String::from_utf8_lossy(&all)
        .matches("HTTP/1.1 200")
        .count()
}

macro_rules! attack {
    ($name:literal, $tries:literal, $answer:literal, |$site:ident| $how:expr) => {
        Attack {
            name: $name,
            tries: $tries,
            answer: $answer,
            how: How::Here(|$site| Box::pin(async move { $how })),
        }
    };
}

const fn elsewhere(
    name: &'static str,
    tries: &'static str,
    file: &'static str,
    test: &'static str,
) -> Attack {
    let how = How::Elsewhere(file, test);
    Attack {
        name,
        tries,
        answer: "",
        how,
    }
}

const HEALTH: &str = "GET /_shardmill/health HTTP/1.1\r\nHost: localhost\r\n";

/// All of them.
pub(super) fn all() -> Vec<Attack> {
    let mut all = signatures();
    all.extend(framing());
    all.extend(bounds());
    all.extend(names());
    all.extend(others());
    all
}

fn signatures() -> Vec<Attack> {
    vec![
        attack!(
            "signature-none",
            "to come in without a signature",
            "401 unauthenticated: Missing Authentication Token",
            |site| wire(
                site,
                format!(
                    "{}Connection: close\r\n\r\n",
                    HEALTH.replace("health", "functions")
                )
                .as_bytes()
            )
            .await
        ),
        attack!(
            "signature-unknown-key",
            "a key that nobody has",
            "401 unauthenticated: The security token included in the request is invalid.",
            |site| on_terms(
                site,
                list(),
                Key {
                    id: "AKIDNOBODY",
                    ..ATTACKER
                },
                site.terms("shardmill")
            )
            .await
        ),
        attack!(
            "signature-anothers-id",
            "the victim's key id with its own secret",
            "401 unauthenticated: The request signature we calculated does not match *",
            |site| on_terms(
                site,
                list(),
                Key {
                    id: VICTIM.id,
                    ..ATTACKER
                },
                site.terms("shardmill")
            )
            .await
        ),
        attack!(
            "signature-for-another-account",
            "its own key, and a header that names the victim's account",
            "403 forbidden: User: arn:aws:iam::000000000666:root is not authorized to act for another account",
            |site| on_terms(
                site,
                list().header("x-shardmill-account", VICTIM.account),
                ATTACKER,
                site.terms("shardmill")
            )
            .await
        ),
        attack!(
            "signature-account-added",
            "an operator's request that was caught, with another account added",
            "401 unauthenticated: 'x-shardmill-account' must be a 'SignedHeader' in the AWS Authorization.",
            |site| {
                let mut headers = list().signed(OPERATOR, site.terms("shardmill"));
                headers.push(("x-shardmill-account".into(), VICTIM.account.into()));
                site.bytes(&list().bytes(&headers)).await.told()
            }
        ),
        attack!(
            "signature-other-body",
            "a request that was caught, with another body",
            "401 unauthenticated: The provided 'x-amz-content-sha256' header does not match what was computed.",
            |site| changed(site, list().body("{}"), |request, _| request.body =
                b"[]".to_vec())
            .await
        ),
        attack!(
            "signature-other-path",
            "a request that was caught, with another path",
            "401 unauthenticated: The request signature we calculated does not match *",
            |site| changed(site, list(), |request, _| request.target =
                "/_shardmill/mappings".into())
            .await
        ),
        attack!(
            "signature-other-query",
            "a request that was caught, with a query added",
            "401 unauthenticated: The request signature we calculated does not match *",
            |site| changed(site, list(), |request, _| request.target += "?limit=1").await
        ),
        attack!(
            "signature-other-method",
            "a request that was caught, with another method",
            "401 unauthenticated: The request signature we calculated does not match *",
            |site| changed(site, list(), |request, _| request.method = "POST").await
        ),
        attack!(
            "signature-other-host",
            "a request that was caught on its way to another host",
            "401 unauthenticated: The request signature we calculated does not match *",
            |site| changed(site, list(), |_, headers| headers
                .iter_mut()
                .filter(|h| h.0 == "host")
                .for_each(|h| h.1 = "elsewhere".into()))
            .await
        ),
        attack!(
            "signature-old",
            "a request that was caught an hour ago",
            "401 unauthenticated: Signature expired: *",
            |site| on_terms(
                site,
                list(),
                ATTACKER,
                Terms {
                    now: UnixMillis(now().0 - 3_600_000),
                    ..site.terms("shardmill")
                }
            )
            .await
        ),
        attack!(
            "signature-of-tomorrow",
            "a request that is signed for tomorrow",
            "401 unauthenticated: Signature not yet current: *",
            |site| on_terms(
                site,
                list(),
                ATTACKER,
                Terms {
                    now: UnixMillis(now().0 + 86_400_000),
                    ..site.terms("shardmill")
                }
            )
            .await
        ),
        attack!(
            "signature-other-service",
            "a signature that was made for Kinesis, at the native API",
            "401 unauthenticated: Credential should be scoped to correct service: 'shardmill'. ",
            |site| on_terms(site, list(), ATTACKER, site.terms("kinesis")).await
        ),
        attack!(
            "signature-region-path",
            "a region that is a path",
            "400 bad_request: Credential must have exactly 5 slash-delimited elements, *",
            |site| on_terms(
                site,
                list(),
                ATTACKER,
                Terms {
                    region: "../..",
                    ..site.terms("shardmill")
                }
            )
            .await
        ),
        attack!(
            "signature-region-long",
            "a region of a thousand characters",
            "401 unauthenticated: Credential should be scoped to a valid region. ",
            |site| on_terms(
                site,
                list(),
                ATTACKER,
                Terms {
                    region: LONG_REGION,
                    ..site.terms("shardmill")
                }
            )
            .await
        ),
        attack!(
            "signature-unsigned-payload",
            "a body that is not signed, in the clear",
            "401 unauthenticated: UNSIGNED-PAYLOAD is taken over TLS only: *",
            |site| on_terms(
                site,
                list(),
                ATTACKER,
                Terms {
                    payload: Some("UNSIGNED-PAYLOAD"),
                    ..site.terms("shardmill")
                }
            )
            .await
        ),
        attack!(
            "signature-unsigned-trailer",
            "chunks with a trailer that is not signed",
            "401 unauthenticated: x-amz-content-sha256 'STREAMING-UNSIGNED-PAYLOAD-TRAILER' is not supported: *",
            |site| on_terms(
                site,
                list(),
                ATTACKER,
                Terms {
                    payload: Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
                    ..site.terms("shardmill")
                }
            )
            .await
        ),
        attack!(
            "signature-chunks-without-signatures",
            "chunks that say they are signed, and are not",
            "401 unauthenticated: The body is not aws-chunked: a chunk has no signature.",
            |site| on_terms(
                site,
                list().body("2\r\n{}\r\n0\r\n\r\n"),
                ATTACKER,
                Terms {
                    payload: Some("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
                    ..site.terms("shardmill")
                }
            )
            .await
        ),
        attack!(
            "signature-session-token",
            "a session token, which nobody gave out",
            "401 unauthenticated: The security token included in the request is invalid: session tokens are not supported, *",
            |site| on_terms(
                site,
                list().header("x-amz-security-token", "t"),
                ATTACKER,
                site.terms("shardmill")
            )
            .await
        ),
        attack!(
            "signature-twice",
            "two `Authorization` headers, the good one first",
            "400 bad_request: Authorization header was given twice. ",
            |site| changed(site, list(), |_, headers| headers.push((
                "authorization".into(),
                "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=0".into()
            )))
            .await
        ),
        attack!(
            "signature-in-both-places",
            "a signature in the header and one in the query",
            "400 bad_request: Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
            |site| on_terms(
                site,
                Request::new(
                    "GET",
                    "/_shardmill/functions?X-Amz-Algorithm=AWS4-HMAC-SHA256"
                ),
                ATTACKER,
                site.terms("shardmill")
            )
            .await
        ),
        attack!(
            "signature-other-algorithm",
            "an algorithm that is easier to break",
            "400 bad_request: Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA1'. *",
            |site| changed(site, list(), |_, headers| headers
                .iter_mut()
                .for_each(|h| h.1 = h.1.replace("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1")))
            .await
        ),
        attack!(
            "metrics-as-a-tenant",
            "to read metrics, which are about all tenants",
            "403 forbidden: this is for operators: it concerns every tenant of the host",
            |site| native(site, "GET", "metrics", "").await
        ),
        attack!(
            "tenants-of-others",
            "to read another tenant's quotas",
            "404 not_found: no tenant 000000000001",
            |site| native(site, "GET", "tenants/000000000001", "").await
        ),
    ]
}

/// A thousand characters.
const LONG_REGION: &str = {
    const BYTES: [u8; 1000] = [b'r'; 1000];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => "",
    }
};

fn framing() -> Vec<Attack> {
    vec![
        attack!(
            "framing-two-lengths",
            "two lengths of one body, for a proxy to see the other",
            "400",
            |site| {
                wire(site, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 50\r\n\r\nhello").await
            }
        ),
        attack!(
            "framing-length-and-chunks",
            "a length and chunks, for a proxy to see the other: the chunks count",
            "400 MissingAuthenticationTokenException: Missing Authentication Token",
            |site| {
                wire(site, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await
            }
        ),
        attack!(
            "framing-unknown-coding",
            "a transfer coding that nobody knows",
            "400",
            |site| {
                wire(site, b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n").await
            }
        ),
        attack!(
            "framing-negative-length",
            "a negative length",
            "400",
            |site| wire(
                site,
                b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n"
            )
            .await
        ),
        attack!(
            "framing-huge-chunk",
            "a chunk whose size overflows",
            "408 incomplete: body incomplete",
            |site| {
                changed(site, list(), |request, headers| {
                    headers.push(("transfer-encoding".into(), "chunked".into()));
                    request.body = b"fffffffffffffffff\r\n".to_vec();
                })
                .await
            }
        ),
        attack!(
            "framing-two-hosts",
            "two `Host` headers, for a proxy to see the other",
            "400 bad_request: several Host headers: one expected",
            |site| wire(
                site,
                format!("{HEALTH}Host: elsewhere\r\nConnection: close\r\n\r\n").as_bytes()
            )
            .await
        ),
        attack!("framing-nul", "a NUL in the path", "400", |site| wire(
            site,
            b"GET /_shardmill/\0health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        .await),
        attack!("framing-header-nul", "a NUL in a header", "400", |site| {
            wire(site, format!("{HEALTH}X-A: a\0b\r\n\r\n").as_bytes()).await
        }),
        attack!("framing-folded", "a header over two lines", "400", |site| {
            wire(
                site,
                format!("{HEALTH}X-A: a\r\n b\r\nConnection: close\r\n\r\n").as_bytes(),
            )
            .await
        }),
        attack!(
            "framing-space-before-colon",
            "a blank before a header's colon",
            "400",
            |site| wire(
                site,
                format!("{HEALTH}Content-Length : 5\r\n\r\n").as_bytes()
            )
            .await
        ),
        attack!(
            "framing-old-version",
            "a version of HTTP that has no headers",
            "400",
            |site| wire(site, b"GET /_shardmill/health\r\n\r\n").await
        ),
        attack!(
            "framing-tls",
            "the first bytes of TLS at a port without it",
            "400",
            |site| wire(
                site,
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"
            )
            .await
        ),
        attack!(
            "framing-many-headers",
            "more than a hundred headers",
            "431",
            |site| wire(
                site,
                format!("{HEALTH}{}\r\n", "X-More: 1\r\n".repeat(101)).as_bytes()
            )
            .await
        ),
        attack!(
            "framing-long-header",
            "a header of 200,000 bytes",
            "431",
            |site| wire(
                site,
                format!("{HEALTH}X-Long: {}\r\n\r\n", "x".repeat(200_000)).as_bytes()
            )
            .await
        ),
        attack!(
            "framing-long-path",
            "a path of 100,000 bytes",
            "414",
            |site| wire(
                site,
                format!(
                    "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
                    "p".repeat(100_000)
                )
                .as_bytes()
            )
            .await
        ),
        attack!(
            "framing-pipeline",
            "ten thousand requests at once over one connection",
            "10000 answers",
            |site| {
                let last = format!("{HEALTH}Connection: close\r\n\r\n");
                let flood = format!("{HEALTH}\r\n").repeat(9_999) + &last;
                format!("{} answers", answers(site, flood.as_bytes()).await)
            }
        ),
        attack!(
            "framing-silence",
            "half of all connections, and says nothing on any",
            "all hung up on",
            |site| {
                let quiet = (0..CONNECTIONS / 2).map(|_| raw::exchange(site.address(), b""));
                let ended = futures_util::future::join_all(quiet).await;
                if ended.iter().all(|a| a.status == 0) {
                    "all hung up on"
                } else {
                    "answered"
                }
                .into()
            }
        ),
        attack!(
            "framing-slow-body",
            "a body of which the last byte never comes",
            "408 incomplete: body incomplete",
            |site| {
                let request = list().body("0123456789");
                let headers = request.signed(ATTACKER, site.terms("shardmill"));
                let bytes = request.bytes(&headers);
                wire(site, &bytes[..bytes.len() - 1]).await
            }
        ),
        attack!(
            "framing-half-closed",
            "to close its half of the connection in the middle of a body",
            "408 incomplete: body incomplete",
            |site| {
                let request = list().body("0123456789");
                let headers = request.signed(ATTACKER, site.terms("shardmill"));
                let bytes = request.bytes(&headers);
                let mut stream = TcpStream::connect(site.address()).await.unwrap();
                stream.write_all(&bytes[..bytes.len() - 5]).await.unwrap();
                stream.shutdown().await.unwrap();
                let mut answer = Vec::new();
                drop(stream.read_to_end(&mut answer).await);
                raw::parsed(&answer).told()
            }
        ),
        attack!(
            "origin-foreign",
            "a web page of another origin",
            "403 forbidden: origin \"http://example.com\" is not a loopback origin: web pages may not call this host",
            |site| wire(
                site,
                format!("{HEALTH}Origin: http://example.com\r\nConnection: close\r\n\r\n")
                    .as_bytes()
            )
            .await
        ),
        attack!(
            "origin-preflight",
            "the question of a browser whether such a page may",
            "403 AccessDeniedException: origin \"http://example.com\" is not a loopback origin: web pages may not call this host",
            |site| {
                wire(site, b"OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://example.com\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n").await
            }
        ),
    ]
}

fn bounds() -> Vec<Attack> {
    vec![
        attack!(
            "body-announced",
            "a body that says it has 10 GB",
            "413 too_large: body above 1048576 bytes",
            |site| changed(
                site,
                Request::new("PUT", "/_shardmill/mappings/m"),
                |_, headers| headers.push(("content-length".into(), "10000000000".into()))
            )
            .await
        ),
        attack!(
            "body-too-large",
            "a module of more than 40 MiB",
            "413 too_large: body above 41943040 bytes",
            |site| native(site, "PUT", "functions/huge", vec![0; (40 << 20) + 1]).await
        ),
        attack!(
            "body-gzip",
            "a body that says it is compressed, and decompresses to a gigabyte",
            "400 SerializationException: ",
            |site| {
                let input = json!({"StreamName": "bait"});
                let request = kinesis("DescribeStream", &input).header("content-encoding", "gzip");
                site.send(ATTACKER, "kinesis", &request.body(gzip()))
                    .await
                    .told()
            }
        ),
        attack!(
            "json-deep",
            "JSON that nests a hundred thousand objects",
            "400 SerializationException: ",
            |site| {
                let body = "{\"a\":".repeat(100_000);
                let request = kinesis("DescribeStream", &json!({})).body(body);
                site.send(ATTACKER, "kinesis", &request).await.told()
            }
        ),
        attack!(
            "json-deep-native",
            "the same at the native API",
            "400 bad_request: body: *",
            |site| native(site, "PUT", "mappings/m", "[".repeat(100_000)).await
        ),
        attack!(
            "json-other-type",
            "a list where a text belongs",
            "400 SerializationException: ",
            |site| operation(site, "DescribeStream", json!({"StreamName": ["bait"]})).await
        ),
        attack!(
            "json-huge-number",
            "a number that no integer holds",
            "400 LimitExceededException: This request would exceed the shard limit for the account *",
            |site| operation(
                site,
                "CreateStream",
                json!({"StreamName": "s", "ShardCount": 1e300})
            )
            .await
        ),
        attack!(
            "json-same-key-twice",
            "the same member twice, for a proxy to see the other",
            "400 ResourceNotFoundException: *",
            |site| {
                let body = r#"{"StreamName": "bait", "StreamName": "nothing"}"#;
                let request = kinesis("DescribeStream", &json!({})).body(body);
                site.send(ATTACKER, "kinesis", &request).await.told()
            }
        ),
        attack!(
            "operation-unknown",
            "an operation that is not there",
            "400 UnknownOperationException: ",
            |site| operation(site, "DropEverything", json!({})).await
        ),
        attack!(
            "put-501-records",
            "one record too many",
            "400 ValidationException: 1 validation error detected: Value * failed to satisfy constraint: Member must have length less than or equal to 500",
            |site| {
                let record = json!({"PartitionKey": "k", "Data": "eA=="});
                operation(
                    site,
                    "PutRecords",
                    json!({"StreamName": "bait", "Records": vec![record; 501]}),
                )
                .await
            }
        ),
        attack!(
            "put-no-records",
            "no record at all",
            "400 ValidationException: 1 validation error detected: Value '[]' at 'records' failed to satisfy constraint: Member must have length greater than or equal to 1",
            |site| operation(
                site,
                "PutRecords",
                json!({"StreamName": "bait", "Records": []})
            )
            .await
        ),
        attack!(
            "put-long-key",
            "a partition key of 257 characters",
            "400 ValidationException: 1 validation error detected: Value * at 'partitionKey' failed to satisfy constraint: Member must have length less than or equal to 256",
            |site| operation(
                site,
                "PutRecord",
                json!({"StreamName": "bait", "PartitionKey": "k".repeat(257), "Data": "eA=="})
            )
            .await
        ),
        attack!(
            "put-large-record",
            "a record of more than 1 MiB",
            "400 ValidationException: 1 validation error detected: Value * at 'data' failed to satisfy constraint: Member must have length less than or equal to 10485760",
            |site| {
                let data = base64_simd::STANDARD.encode_to_string(vec![0; (10 << 20) + 1]);
                operation(
                    site,
                    "PutRecord",
                    json!({"StreamName": "bait", "PartitionKey": "k", "Data": data}),
                )
                .await
            }
        ),
        attack!(
            "put-large-batch",
            "eleven records of 1 MiB in one request",
            "400 InvalidArgumentException: Records size exceeds 10 MB limit (reached with record 11 of 11).",
            |site| {
                let data = base64_simd::STANDARD.encode_to_string(vec![0; 1_000_000]);
                let record = json!({"PartitionKey": "k", "Data": data});
                operation(
                    site,
                    "PutRecords",
                    json!({"StreamName": "bait", "Records": vec![record; 11]}),
                )
                .await
            }
        ),
        attack!(
            "put-bad-base64",
            "data that is not base64",
            "400 SerializationException: ",
            |site| operation(
                site,
                "PutRecord",
                json!({"StreamName": "bait", "PartitionKey": "k", "Data": "***"})
            )
            .await
        ),
        attack!(
            "put-explicit-hash",
            "an explicit hash key outside of all shards",
            "400 InvalidArgumentException: Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. *",
            |site| {
                operation(site, "PutRecord", json!({"StreamName": "bait", "PartitionKey": "k", "Data": "eA==", "ExplicitHashKey": "9".repeat(39)})).await
            }
        ),
        attack!(
            "iterator-forged",
            "an iterator that nobody wrote",
            "400 InvalidArgumentException: Invalid ShardIterator.",
            |site| operation(
                site,
                "GetRecords",
                json!({"ShardIterator": "AAAAAAAAAAEAAAAA"})
            )
            .await
        ),
        attack!(
            "iterator-changed",
            "its own iterator with one character changed",
            "400 InvalidArgumentException: Invalid ShardIterator.",
            |site| {
                let input = json!({"StreamName": "bait", "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"});
                let given = site
                    .kinesis(ATTACKER, "GetShardIterator", &input)
                    .await
                    .json();
                let mut iterator = given["ShardIterator"].as_str().unwrap().to_owned();
                let at = iterator.len() / 2;
                let other = if iterator.as_bytes()[at] == b'A' {
                    "B"
                } else {
                    "A"
                };
                iterator.replace_range(at..=at, other);
                operation(site, "GetRecords", json!({"ShardIterator": iterator})).await
            }
        ),
        attack!(
            "iterator-as-a-page-token",
            "an iterator where a page token belongs",
            "400 InvalidArgumentException: NextToken is invalid.",
            |site| {
                let input = json!({"StreamName": "bait", "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"});
                let given = site
                    .kinesis(ATTACKER, "GetShardIterator", &input)
                    .await
                    .json();
                operation(
                    site,
                    "ListShards",
                    json!({"NextToken": given["ShardIterator"]}),
                )
                .await
            }
        ),
        attack!(
            "iterator-long",
            "an iterator of 10,000 characters",
            "400 ValidationException: 1 validation error detected: Value * at 'shardIterator' failed to satisfy constraint: Member must have length less than or equal to 512",
            |site| operation(
                site,
                "GetRecords",
                json!({"ShardIterator": "A".repeat(10_000)})
            )
            .await
        ),
        attack!(
            "records-limit",
            "more records than a page may have",
            "400 ValidationException: 1 validation error detected: Value '10001' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 10000",
            |site| operation(
                site,
                "GetRecords",
                json!({"ShardIterator": "A", "Limit": 10_001})
            )
            .await
        ),
        attack!(
            "settings-fuel",
            "more fuel than any host would set",
            "400 bad_request: settings: fuel = 2000000000000: 1000000 to 1000000000000 units expected",
            |site| native(
                site,
                "PUT",
                "functions/f?settings=%7B%22fuel%22%3A2000000000000%7D",
                "x"
            )
            .await
        ),
        attack!(
            "settings-unknown",
            "a setting that is not there",
            "400 bad_request: settings: unknown key `files`: *",
            |site| native(
                site,
                "PUT",
                "functions/f?settings=%7B%22files%22%3Atrue%7D",
                "x"
            )
            .await
        ),
        attack!(
            "settings-environment",
            "an environment of 100,000 bytes",
            "400 bad_request: settings: environment = 50001 bytes: at most 4096 bytes of names and values expected",
            |site| {
                let settings = json!({"environment": {"A": "x".repeat(50_000)}}).to_string();
                native(
                    site,
                    "PUT",
                    &format!("functions/f?settings={}", super::sign::escaped(&settings)),
                    "x",
                )
                .await
            }
        ),
        attack!(
            "settings-account",
            "a function that names another account as its own",
            "400 bad_request: settings: name, wasm, account, region, weight and reserved_concurrency are not for here",
            |site| native(
                site,
                "PUT",
                "functions/f?settings=%7B%22account%22%3A%22000000000001%22%7D",
                "x"
            )
            .await
        ),
        attack!(
            "import-noise",
            "to import a failure that is none",
            "400 bad_request: not an exported failure: *",
            |site| native(site, "POST", "failures", "noise".repeat(1_000)).await
        ),
        attack!(
            "invoke-many-records",
            "an invocation by hand of more records than a batch may have",
            "400 bad_request: event: 20000 records: at most 10000 expected",
            |site| {
                let record = r#"{"kinesis": {"partitionKey": "k", "data": ""}}"#;
                let event = format!(r#"{{"Records": [{}]}}"#, vec![record; 20_000].join(","));
                native(site, "POST", "functions/probe/invoke", event).await
            }
        ),
        attack!(
            "failures-limit",
            "a page of a million failures",
            "400 bad_request: limit = 1000000: 1 to 1000 expected",
            |site| native(site, "GET", "failures?limit=1000000", "").await
        ),
    ]
}

/// Ten megabytes of nothing, compressed a thousand times: the beginning of such a body.
fn gzip() -> Vec<u8> {
    let mut bytes =
        b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xec\xc1\x01\x01\0\0\0\x80\x90\xfe\xaf\xee\x08".to_vec();
    bytes.extend([0; 10_000]);
    bytes
}

fn names() -> Vec<Attack> {
    vec![
        attack!(
            "name-stream-path",
            "a stream's name that is a path",
            "400 ValidationException: * at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+",
            |site| operation(
                site,
                "CreateStream",
                json!({"StreamName": "../000000000001/work", "ShardCount": 1})
            )
            .await
        ),
        attack!(
            "name-stream-nul",
            "a stream's name with a NUL and commands for a terminal",
            "400 ValidationException: * at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+",
            |site| operation(
                site,
                "CreateStream",
                json!({"StreamName": "a\0\u{1b}[2J\nFORGED", "ShardCount": 1})
            )
            .await
        ),
        attack!(
            "name-stream-long",
            "a stream's name of 10,000 characters",
            "400 ValidationException: * at 'streamName' failed to satisfy constraint: Member must have length less than or equal to 128",
            |site| operation(
                site,
                "CreateStream",
                json!({"StreamName": "s".repeat(10_000), "ShardCount": 1})
            )
            .await
        ),
        attack!(
            "name-stream-lookalike",
            "a stream's name in letters that look like others",
            "400 ValidationException: * at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+",
            |site| operation(
                site,
                "CreateStream",
                json!({"StreamName": "w\u{43e}rk", "ShardCount": 1})
            )
            .await
        ),
        attack!(
            "name-stream-of-the-victim",
            "a stream of the victim's name: it is a new one, with nothing in it",
            "0 records",
            |site| {
                site.stream(ATTACKER, "work", 1).await;
                let shown = site
                    .native(ATTACKER, "GET", "streams/work", "")
                    .await
                    .json();
                format!("{} records", shown["records"])
            }
        ),
        attack!(
            "name-function-path",
            "a function's name that is a path",
            "400 not_deployed: function name \"../../etc/passwd\": 1 to 64 of a-z A-Z 0-9 - _ expected",
            |site| native(site, "PUT", "functions/..%2F..%2Fetc%2Fpasswd", "x").await
        ),
        attack!(
            "name-function-dots",
            "a path with dots",
            "404 not_found: no such path: /_shardmill/functions/../tenants/../../metrics",
            |site| native(site, "GET", "functions/../tenants/../../metrics", "").await
        ),
        attack!(
            "name-function-encoded-dots",
            "a path with dots that are encoded",
            "404 not_found: no such path: /_shardmill/functions/../../metrics",
            |site| native(site, "GET", "functions/%2e%2e/%2e%2e/metrics", "").await
        ),
        attack!(
            "name-function-slashes",
            "a path with empty segments",
            "404 not_found: no such path: /_shardmill/functions//worker",
            |site| native(site, "GET", "functions//worker", "").await
        ),
        attack!(
            "name-function-nul",
            "a function's name with a NUL and a line end",
            "400 bad_request: function name \"a\\0b\\nFORGED\\u{1b}[2J\": 1 to 64 of a-z A-Z 0-9 - _ expected",
            |site| native(site, "GET", "functions/a%00b%0AFORGED%1b%5b2J", "").await
        ),
        attack!(
            "name-function-not-utf8",
            "a function's name that is not UTF-8",
            "400 bad_request: function name *: 1 to 64 of a-z A-Z 0-9 - _ expected",
            |site| native(site, "GET", "functions/%ff%fe", "").await
        ),
        attack!(
            "name-mapping-long",
            "a mapping's name of 10,000 characters",
            "400 bad_request: mapping name *: 1 to 128 characters expected, none of them control characters",
            |site| native(
                site,
                "PUT",
                &format!("mappings/{}", "m".repeat(10_000)),
                r#"{"stream": "bait", "function": "probe"}"#
            )
            .await
        ),
        attack!(
            "name-mapping-escapes",
            "a mapping's name with line ends and commands for a terminal",
            "400 bad_request: mapping name *: 1 to 128 characters expected, none of them control characters",
            |site| native(
                site,
                "PUT",
                "mappings/a%0AFORGED%1b%5b2J",
                r#"{"stream": "bait", "function": "probe"}"#
            )
            .await
        ),
        attack!(
            "name-queue-path",
            "a queue's name that is a path",
            "400 com.amazon.coral.service#InvalidParameterValueException: Can only include alphanumeric characters, *",
            |site| site
                .sqs(
                    ATTACKER,
                    "CreateQueue",
                    &json!({"QueueName": "../000000000001/letters"})
                )
                .await
                .told()
        ),
        attack!(
            "name-queue-url",
            "a queue's URL with dots in it",
            "400 com.amazonaws.sqs#QueueDoesNotExist: The specified queue does not exist.",
            |site| {
                site.sqs(ATTACKER, "SendMessage", &json!({"QueueUrl": "http://localhost/000000000666/../000000000001/letters", "MessageBody": "x"})).await.told()
            }
        ),
        attack!(
            "destination-file",
            "to have failures written to a file of the host's",
            "403 forbidden: destination \"file:///etc/cron.d\": *",
            |site| native(
                site,
                "PUT",
                "mappings/m",
                r#"{"stream": "bait", "function": "probe", "on_failure": "file:///etc/cron.d"}"#
            )
            .await
        ),
        attack!(
            "destination-metadata",
            "to have the host call an address that only it can reach",
            "403 forbidden: destination \"http://169.254.169.254/latest/meta-data\": *",
            |site| {
                native(site, "PUT", "mappings/m", r#"{"stream": "bait", "function": "probe", "on_failure": "http://169.254.169.254/latest/meta-data"}"#).await
            }
        ),
        attack!(
            "destination-bucket",
            "to have failures written to the operator's bucket",
            "403 forbidden: destination \"s3://backups/x\": *",
            |site| native(
                site,
                "PUT",
                "mappings/m",
                r#"{"stream": "bait", "function": "probe", "on_failure": "s3://backups/x"}"#
            )
            .await
        ),
        attack!(
            "destination-anothers-queue",
            "to have failures sent to the victim's queue",
            "400 bad_request: destination arn:aws:sqs:us-east-1:000000000001:letters: queues of account 000000000666 only",
            |site| {
                native(site, "PUT", "mappings/m", r#"{"stream": "bait", "function": "probe", "on_failure": "arn:aws:sqs:us-east-1:000000000001:letters"}"#).await
            }
        ),
        attack!(
            "mapping-of-anothers-stream",
            "to have the victim's stream read by its own function",
            "404 not_found: stream results does not exist: create it first",
            |site| native(
                site,
                "PUT",
                "mappings/m",
                r#"{"stream": "results", "function": "probe"}"#
            )
            .await
        ),
        attack!(
            "mapping-of-anothers-function",
            "to have its own stream read by the victim's function",
            "404 not_found: function \"worker\" does not exist: deploy, publish or name it first",
            |site| native(
                site,
                "PUT",
                "mappings/m",
                r#"{"stream": "bait", "function": "worker"}"#
            )
            .await
        ),
        attack!(
            "mapping-of-an-arn",
            "to have the victim's stream read by its ARN",
            "400 bad_request: stream name \"arn:aws:kinesis:us-east-1:000000000001:stream/work\": 1 to 128 of a-z A-Z 0-9 _ . - expected",
            |site| {
                native(site, "PUT", "mappings/m", r#"{"stream": "arn:aws:kinesis:us-east-1:000000000001:stream/work", "function": "probe"}"#).await
            }
        ),
        attack!(
            "mapping-other-region",
            "its own key in another region: nothing is there",
            "200, 0 functions",
            |site| {
                let request = list();
                let headers = request.signed(
                    ATTACKER,
                    Terms {
                        region: "eu-west-1",
                        ..site.terms("shardmill")
                    },
                );
                let answer = site.bytes(&request.bytes(&headers)).await;
                let count = answer.json()["functions"].as_array().map_or(0, Vec::len);
                format!("{}, {count} functions", answer.told())
            }
        ),
    ]
}

fn others() -> Vec<Attack> {
    vec![
        elsewhere(
            "slow-headers",
            "headers that come byte by byte",
            "tests/all/door.rs",
            "headers_that_come_byte_by_byte_do_not_hold_a_connection",
        ),
        elsewhere(
            "slow-bodies",
            "bodies that come byte by byte",
            "tests/all/door.rs",
            "a_body_that_trickles_is_cut_off_and_told_why",
        ),
        elsewhere(
            "slow-readers",
            "clients that take no answer",
            "tests/all/door.rs",
            "a_client_that_takes_no_answer_is_hung_up_on",
        ),
        elsewhere(
            "all-connections",
            "more connections than the host has, all silent",
            "tests/all/door.rs",
            "silent_connections_beyond_the_limit_give_way",
        ),
        elsewhere(
            "rapid-reset",
            "HTTP/2: requests that are taken back at once",
            "tests/all/door.rs",
            "requests_that_are_taken_back_at_once_end_the_connection",
        ),
        elsewhere(
            "header-flood",
            "HTTP/2: header blocks without end",
            "tests/all/door.rs",
            "header_blocks_without_end_end_the_connection",
        ),
        elsewhere(
            "rebinding",
            "a web page whose own name resolves to the loopback address",
            "host/src/api/door.rs",
            "only_loopback_names_are_let_in",
        ),
        elsewhere(
            "quota-requests",
            "more requests than its quota",
            "tests/all/tenants.rs",
            "quotas_of_functions_shards_and_requests_are_told_in_words",
        ),
        elsewhere(
            "quota-bytes",
            "more bytes than its quota",
            "tests/all/tenants.rs",
            "puts_beyond_the_quota_of_bytes_wait_until_there_is_room_and_lose_nothing",
        ),
        elsewhere(
            "ids-of-others",
            "ids of another's failures and mappings",
            "tests/all/tenants.rs",
            "ids_of_anothers_things_are_like_ids_of_nothing",
        ),
        elsewhere(
            "secrets-at-rest",
            "to read secrets from the disk",
            "tests/all/tenants.rs",
            "with_a_key_no_secret_of_a_function_lies_in_the_data_folder",
        ),
        elsewhere(
            "compile-bomb",
            "900,000 tiny functions",
            "tests/all/compile.rs",
            "a_bomb_costs_the_host_an_error_and_nothing_else",
        ),
        elsewhere(
            "artifact-changed",
            "a compiled module that was changed on the disk",
            "tests/all/compile.rs",
            "a_start_compiles_nothing_unless_the_disk_has_spoilt_what_was_compiled",
        ),
        elsewhere(
            "answers-mutated",
            "a hundred thousand broken answers",
            "host/crates/sandbox/src/tests/answers.rs",
            "the_reader_survives_a_hundred_thousand_mutated_answers",
        ),
    ]
}

#[test]
fn tests_that_the_corpus_names_are_there() {
    for attack in others() {
        let How::Elsewhere(file, test) = attack.how else {
            continue;
        };
        let path = format!("{}/../{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("fn {test}(")), "{file}: {test}");
    }
}

#[test]
fn names_in_the_corpus_are_unique() {
    let mut names: Vec<String> = all().iter().map(|a| a.name.to_owned()).collect();
    names.extend(super::modules::all().into_iter().map(|m| m.name));
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}
