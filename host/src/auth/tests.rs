//! Who is calling, in both modes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use shardmill_core::UnixMillis;
use shardmill_core::quotas::Quotas;
use shardmill_store::Memory;

use super::*;
use crate::clock::Clock;
use crate::services::{Access, Services, Settings};
use crate::tenancy::{AccessKeySpec, OperatorSpec, Secret, SecretSource, Tenancy, TenantSpec};

fn scope(uri: &str, authorization: Option<&str>) -> Result<String, AuthError> {
    let mut request = hyper::Request::builder().uri(uri).header("x-amz-date", "d");
    if let Some(text) = authorization {
        request = request.header(AUTHORIZATION, text);
    }
    let (parts, ()) = request.body(()).expect("a request").into_parts();
    let signature = signature::Signature::of(&parts)?;
    let region = "eu-west-9".parse().expect("a region");
    let Scope { tenant, region } = scope_of(&signature.credential, &region);
    Ok(format!("{tenant} {region}"))
}

#[test]
fn the_access_key_names_the_account_and_the_scope_the_region() {
    for (credential, want) in [
        (
            "123456789012/20240102/eu-central-1/kinesis/aws4_request",
            "123456789012 eu-central-1",
        ),
        (
            "AKIDEXAMPLE/20240102/us-west-2/kinesis/aws4_request",
            "000000000000 us-west-2",
        ),
        ("test", "000000000000 eu-west-9"),
        (
            "test/20240102/UP CASE/kinesis/aws4_request",
            "000000000000 eu-west-9",
        ),
    ] {
        let credential = credential.replace(' ', "");
        let header =
            format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0");
        assert_eq!(
            scope("/", Some(&header)).as_deref(),
            Ok(want),
            "{credential}"
        );
        let query = format!(
            "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Signature=0\
             &X-Amz-SignedHeaders=host&X-Amz-Date=d",
            credential.replace('/', "%2F")
        );
        assert_eq!(scope(&query, None).as_deref(), Ok(want), "{query}");
    }
}

#[test]
fn a_broken_escape_is_taken_as_it_is() {
    for (text, want) in [
        ("a%2Fb", "a/b"),
        ("%", "%"),
        ("%2", "%2"),
        ("%zz", "%zz"),
        ("%é", "%é"),
    ] {
        assert_eq!(percent_decoded(text), want);
    }
}

/// 2024-01-02T03:04:05Z, when the vectors were signed.
const SIGNED_AT: UnixMillis = UnixMillis(1_704_164_645_000);
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TENANT: &str = "123456789012";

/// A closed host whose tenant, and whose operator, have one key each.
async fn closed(now: UnixMillis) -> Services {
    let key = |id: &str| AccessKeySpec {
        id: id.into(),
        secret: SecretSource::Inline(Secret::from(SECRET.to_owned())),
    };
    let tenant = TenantSpec {
        account: TENANT.parse().expect("an account"),
        name: String::new(),
        quotas: Quotas::default(),
        access_keys: vec![key("AKIDEXAMPLE")],
    };
    let operator = OperatorSpec {
        name: "ops".into(),
        access_keys: vec![key("AKIDOPERATOR")],
    };
    let tenancy = Tenancy::default();
    tenancy
        .apply(&[tenant], &[operator], &NoSandbox)
        .expect("secrets");
    let clock = Clock::starting_at(now);
    let store = Arc::new(Memory::new(Arc::new(move || clock.now())));
    let settings = Settings {
        access: Access::Closed,
        ..Settings::default()
    };
    let services = Services::start(store, clock, settings).await;
    services.expect("services").with_tenancy(Arc::new(tenancy))
}

struct NoSandbox;

impl shardmill_core::Sandbox for NoSandbox {
    fn load(
        &self,
        _: Bytes,
    ) -> shardmill_core::sandbox::BoxFuture<
        '_,
        Result<Arc<dyn shardmill_core::sandbox::Module>, shardmill_core::sandbox::LoadError>,
    > {
        unreachable!("nothing is loaded")
    }

    fn invoke(
        &self,
        _: shardmill_core::sandbox::Invocation,
    ) -> shardmill_core::sandbox::BoxFuture<'_, shardmill_core::sandbox::Report> {
        unreachable!("nothing is invoked")
    }
}

/// A request as it arrives.
#[derive(Clone, Debug)]
struct Sent {
    service: Service,
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Sent {
    fn parts(&self) -> Parts {
        let request = hyper::Request::builder()
            .method(self.method.as_str())
            .uri(&self.uri);
        let request = self.headers.iter().fold(request, |request, (name, value)| {
            let value = hyper::header::HeaderValue::from_bytes(value.as_bytes());
            request.header(name, value.expect("a value"))
        });
        request.body(()).expect("a request").into_parts().0
    }

    fn header(&mut self, name: &str) -> &mut String {
        let found = self.headers.iter_mut().find(|(n, _)| n == name);
        &mut found.expect("the header").1
    }

    fn check(&self, host: &Services) -> Result<(Caller, Bytes), AuthError> {
        let parts = self.parts();
        Claim::of(host, &parts, self.service)?.check(&parts, self.body.clone().into())
    }
}

/// Requests that botocore signed: 100 of them, made with a seeded generator.
fn vectors() -> Vec<Sent> {
    let text = include_str!("../../../tests/golden/sigv4.json");
    let all: Vec<serde_json::Value> = serde_json::from_str(text).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let sent = |vector: &serde_json::Value| Sent {
        service: match text(&vector["service"]).as_str() {
            "kinesis" => Service::Kinesis,
            "sqs" => Service::Sqs,
            _ => Service::Native,
        },
        method: text(&vector["method"]),
        uri: text(&vector["uri"]),
        headers: vector["headers"]
            .as_array()
            .expect("headers")
            .iter()
            .map(|header| (text(&header[0]), text(&header[1])))
            .collect(),
        body: text(&vector["body"])
            .as_bytes()
            .chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).expect("hex"), 16))
            .collect::<Result<_, _>>()
            .expect("hex"),
    };
    all.iter().map(sent).collect()
}

#[tokio::test(start_paused = true)]
async fn what_botocore_signs_is_taken() {
    let host = closed(SIGNED_AT).await;
    for sent in vectors() {
        let checked = sent.check(&host);
        let (caller, body) = checked.unwrap_or_else(|error| panic!("{error}: {sent:?}"));
        assert_eq!(caller.scope.tenant.to_string(), TENANT);
        assert_eq!((caller.role, &body[..]), (Role::Tenant, &sent.body[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_that_was_signed_can_be_changed() {
    let host = closed(SIGNED_AT).await;
    for sent in vectors() {
        let mut changed = Vec::new();
        let mut change = |what: &str, change: &dyn Fn(&mut Sent)| {
            let mut other = sent.clone();
            change(&mut other);
            changed.push((what.to_owned(), other));
        };
        change("the method", &|s| s.method = "PATCH".into());
        change("the path", &|s| s.uri = s.uri.replacen('/', "/x", 1));
        change("the host", &|s| *s.header("host") = "other".into());
        change("one more parameter", &|s| {
            let joint = if s.uri.contains('?') { '&' } else { '?' };
            s.uri = format!("{}{joint}more=1", s.uri);
        });
        change("the body", &|s| s.body.push(b'x'));
        change("an unsigned header that matters", &|s| {
            s.headers
                .push(("x-shardmill-account".into(), TENANT.into()));
        });
        if sent.headers.iter().any(|(name, _)| name == "x-amz-target") {
            change("the operation", &|s| {
                *s.header("x-amz-target") = "Kinesis_20131202.DeleteStream".into();
            });
        }
        for (what, other) in changed {
            let error = other.check(&host).map(drop);
            assert!(
                matches!(error, Err(AuthError::Mismatch | AuthError::Invalid(_))),
                "{what}: {error:?}: {other:?}"
            );
        }
    }
}

/// The vector of `spec`: computed with botocore, with its access key.
fn list_streams() -> Sent {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Sent {
        service: Service::Kinesis,
        method: "POST".into(),
        uri: "/".into(),
        headers: vec![
            header("host", "localhost:4567"),
            header("x-amz-date", "20240102T030405Z"),
            header("content-type", "application/x-amz-json-1.1"),
            header("x-amz-target", "Kinesis_20131202.ListStreams"),
            header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20240102/us-east-1/kinesis/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=\
                 ce06bbc52a0da2dc2e4168539f938c3188f14dd8a8af44ec8fdedcf1354e4abc",
            ),
        ],
        body: b"{}".to_vec(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_signature_is_good_for_five_minutes_around_its_time() {
    let minute = Duration::from_secs(60);
    let text = |now: UnixMillis| async move {
        let checked = list_streams().check(&closed(now).await);
        checked.map(drop).map_err(|error| error.to_string())
    };
    for now in [
        SIGNED_AT,
        SIGNED_AT.plus(minute * 5),
        SIGNED_AT.minus(minute * 5),
    ] {
        assert_eq!(text(now).await, Ok(()));
    }
    assert_eq!(
        text(SIGNED_AT.plus(minute * 5 + Duration::from_secs(1))).await,
        Err(
            "Signature expired: 20240102T030405Z is now earlier than 20240102T030406Z \
             (20240102T030906Z - 5 min.)"
                .into()
        )
    );
    assert_eq!(
        text(SIGNED_AT.minus(minute * 6)).await,
        Err(
            "Signature not yet current: 20240102T030405Z is still later than 20240102T030305Z \
             (20240102T025805Z + 5 min.)"
                .into()
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_presigned_request_is_good_for_as_long_as_it_says() {
    let sent = vectors();
    let sent = sent.iter().find(|s| s.uri.contains("X-Amz-Expires=600"));
    let sent = sent.expect("a presigned request");
    for (seconds, good) in [(0, true), (600, true), (601, false)] {
        let host = closed(SIGNED_AT.plus(Duration::from_secs(seconds))).await;
        assert_eq!(sent.check(&host).is_ok(), good, "{seconds}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_told_in_awss_words() {
    let host = closed(SIGNED_AT).await;
    let of = |change: &dyn Fn(&mut Sent)| {
        let mut sent = list_streams();
        change(&mut sent);
        let error = sent.check(&host).map(drop).expect_err("refused");
        (error.kind(), error.to_string())
    };
    let credential = |from: &'static str, to: &'static str| {
        of(&|s: &mut Sent| {
            let header = s.header("authorization");
            *header = header.replace(from, to);
        })
    };
    let (invalid, incomplete) = ("InvalidSignatureException", "IncompleteSignatureException");
    assert_eq!(
        credential("AKIDEXAMPLE", "AKIDOTHER"),
        (
            "UnrecognizedClientException",
            "The security token included in the request is invalid.".into()
        )
    );
    let (kind, text) = credential("ce06", "ce07");
    assert_eq!(kind, invalid);
    assert!(text.starts_with("The request signature we calculated does not match"));
    assert_eq!(
        credential("kinesis/aws4", "s3/aws4"),
        (
            invalid,
            "Credential should be scoped to correct service: 'kinesis'. ".into()
        )
    );
    assert_eq!(
        credential("us-east-1", "US_EAST"),
        (
            invalid,
            "Credential should be scoped to a valid region. ".into()
        )
    );
    assert_eq!(
        credential("/20240102/", "/20240103/"),
        (
            invalid,
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from \
             HTTP: '20240103' != '20240102', from '20240102T030405Z'."
                .into()
        )
    );
    assert_eq!(credential("/aws4_request", "").0, incomplete);
    assert_eq!(
        credential("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256").0,
        incomplete
    );
    assert_eq!(credential("content-type;host;", "content-type;").0, invalid);
    let (kind, text) = of(&|s| *s.header("x-amz-date") = "Tue, 02 Jan 2024 03:04:05 GMT".into());
    assert_eq!(kind, incomplete);
    assert!(text.starts_with("Date must be in ISO-8601 'basic format'."));
    let add = |name: &'static str, value: &'static str| {
        of(&|s: &mut Sent| s.headers.push((name.into(), value.into())))
    };
    let (kind, text) = add("x-amz-security-token", "t");
    assert_eq!(kind, "UnrecognizedClientException");
    assert!(text.contains("session tokens are not supported"), "{text}");
    let (kind, text) = add("x-amz-content-sha256", "UNSIGNED-PAYLOAD");
    assert_eq!(kind, invalid);
    assert!(text.contains("over TLS only"), "{text}");
    let (_, text) = add("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    assert!(
        text.contains("STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        "{text}"
    );
}

/// A request that the command line signs.
fn signed(id: &str, account: Option<&str>) -> Sent {
    let mut request = hyper::Request::post("http://localhost:4566/_shardmill/tenants?a=%20b");
    if let Some(account) = account {
        request = request.header(ACCOUNT, account);
    }
    let mut parts = request.body(()).expect("a request").into_parts().0;
    let credentials = Credentials {
        id: id.into(),
        secret: SECRET.to_owned().into(),
    };
    let region = Region::default();
    sign(
        &mut parts,
        b"x",
        &credentials,
        (Service::Native, &region),
        SIGNED_AT,
    );
    let headers = parts.headers.iter();
    let text = |value: &hyper::header::HeaderValue| value.to_str().expect("a text").to_owned();
    Sent {
        service: Service::Native,
        method: parts.method.to_string(),
        uri: parts.uri.path_and_query().expect("a path").to_string(),
        headers: headers
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: b"x".to_vec(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_reaches_its_own_account_and_an_operators_every_one() {
    let host = closed(SIGNED_AT).await;
    let of = |id: &str, account: Option<&str>| {
        let checked = signed(id, account).check(&host);
        checked.map(|(caller, _)| (caller.scope.tenant.to_string(), caller.role))
    };
    let tenant = Ok((TENANT.to_owned(), Role::Tenant));
    assert_eq!(of("AKIDEXAMPLE", None), tenant);
    assert_eq!(of("AKIDEXAMPLE", Some(TENANT)), tenant);
    // Whether the other account exists makes no difference.
    let errors: Vec<_> = ["999999999999", "000000000000"]
        .map(|other| of("AKIDEXAMPLE", Some(other)).expect_err("another's"))
        .into();
    assert_eq!(errors[0], errors[1]);
    assert!(matches!(errors[0], AuthError::Denied(_)));
    let operator = |account: &str| Ok((account.to_owned(), Role::Operator));
    assert_eq!(of("AKIDOPERATOR", None), operator("000000000000"));
    assert_eq!(of("AKIDOPERATOR", Some(TENANT)), operator(TENANT));
}

#[tokio::test(start_paused = true)]
async fn a_body_in_signed_chunks_is_taken_apart_and_no_other() {
    let host = closed(SIGNED_AT).await;
    let mut parts = hyper::Request::post("http://localhost:4566/_shardmill/functions/f/invoke")
        .header("x-amz-content-sha256", chunked::SIGNED)
        .header("x-amz-decoded-content-length", "5")
        .header("content-encoding", "aws-chunked")
        .body(())
        .expect("a request")
        .into_parts()
        .0;
    let credentials = Credentials {
        id: "AKIDEXAMPLE".into(),
        secret: SECRET.to_owned().into(),
    };
    let region = Region::default();
    let signed_for = (Service::Native, &region);
    let seed = sign::sign_payload(
        &mut parts,
        chunked::SIGNED,
        &credentials,
        signed_for,
        SIGNED_AT,
    );
    let scope = canonical::SigningScope {
        date: "20240102",
        region: region.as_str(),
        service: "shardmill",
    };
    let (key, empty) = (scope.key(SECRET), canonical::sha256_hex(b""));
    let mut before = seed;
    let mut body = String::new();
    for chunk in ["abc", "de", ""] {
        let hash = canonical::sha256_hex(chunk.as_bytes());
        let scope = scope.text();
        let text = format!(
            "AWS4-HMAC-SHA256-PAYLOAD\n20240102T030405Z\n{scope}\n{before}\n{empty}\n{hash}"
        );
        let code = hmac::Mac::finalize(canonical::mac(&key[..], text.as_bytes()));
        before = canonical::hex(&code.into_bytes());
        body += &format!("{:x};chunk-signature={before}\r\n{chunk}\r\n", chunk.len());
    }
    let check = |body: &str| {
        let claim = Claim::of(&host, &parts, Service::Native).expect("a good claim");
        let checked = claim.check(&parts, body.to_owned().into());
        checked.map(|(_, body)| body)
    };
    assert_eq!(check(&body), Ok(Bytes::from_static(b"abcde")));
    assert_eq!(check(&body.replace("abc", "abd")), Err(AuthError::Mismatch));
    assert!(matches!(check("abcde"), Err(AuthError::Invalid(_))));
}

#[tokio::test(start_paused = true)]
async fn on_an_open_host_any_signature_does_and_may_name_an_account() {
    let clock = Clock::starting_at(SIGNED_AT);
    let store = Arc::new(Memory::new(Arc::new(move || clock.now())));
    let host = Services::start(store, clock, Settings::default()).await;
    let host = host.expect("services");
    for (account, want) in [(None, "000000000000"), (Some(TENANT), TENANT)] {
        let (caller, _) = signed("AKIDNOBODY", account).check(&host).expect("any");
        let told = (caller.scope.tenant.to_string(), caller.role);
        assert_eq!(told, (want.to_owned(), Role::Operator));
    }
    let bad = signed("AKIDNOBODY", Some("12")).check(&host);
    assert!(matches!(bad.map(drop), Err(AuthError::Invalid(_))));
}

#[test]
fn secrets_are_not_shown() {
    let credentials = Credentials {
        id: "AKIDEXAMPLE".into(),
        secret: SECRET.to_owned().into(),
    };
    assert_eq!(
        format!("{credentials:?}"),
        r#"Credentials { id: "AKIDEXAMPLE", secret: Secret(…) }"#
    );
}
