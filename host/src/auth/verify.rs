//! Checks a request: first its headers, then its body.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::HOST;
use hyper::http::request::Parts;
use shardmill_core::tenant::BadTenantId;
use shardmill_core::{Region, Scope, TenantId, UnixMillis};
use zeroize::Zeroizing;

use super::canonical::{Request, SigningScope, TERMINATOR, is_signed, sha256_hex, string_to_sign};
use super::chunked::{self, ChunkKey};
use super::signature::Signature;
use super::{AuthError, Caller, Role, scope_of};
use crate::services::{Access, Services};
use crate::tenancy::{AccessKey, Owner};
use crate::timestamp;

/// The word that stands for the hash of a body that is not signed.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// The header in which an operator names the account to act for.
pub(crate) const ACCOUNT: &str = "x-shardmill-account";
/// Longest time that a presigned request is good, s. "X-Amz-Expires": seven days.
const MAX_EXPIRES_SECONDS: u64 = 604_800;

/// Which of the host's APIs a request is for: its credential is scoped to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Kinesis Data Streams.
    Kinesis,
    /// SQS.
    Sqs,
    /// The API below `/_shardmill/`.
    Native,
}

impl Service {
    /// Its name in the credential's scope.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kinesis => "kinesis",
            Self::Sqs => "sqs",
            Self::Native => "shardmill",
        }
    }
}

/// What a request's headers say of who sent it.
#[derive(Debug)]
pub(crate) struct Claim {
    caller: Caller,
    /// What the body is held against; `None` in the open mode.
    proof: Option<Proof>,
    payload: Payload,
}

#[derive(Debug)]
struct Proof {
    signature: Signature,
    key: Arc<AccessKey>,
    time: String,
    /// Of the credential.
    scope: String,
    signing_key: Zeroizing<[u8; 32]>,
}

/// What stands for the body in what is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Payload {
    /// Its hash, which is not told.
    Untold,
    /// Its hash, which is told.
    Told(String),
    Unsigned,
    Chunks {
        announced: Option<usize>,
    },
}

impl Claim {
    /// Reads who is calling.
    ///
    /// # Errors
    /// See [`AuthError`]. In the closed mode also when the signature can be no good whatever the
    /// body is.
    pub(crate) fn of(host: &Services, parts: &Parts, service: Service) -> Result<Self, AuthError> {
        let signature = Signature::of(parts)?;
        let settings = &host.settings;
        if settings.access != Access::Closed {
            let mut scope = scope_of(&signature.credential, &settings.region);
            scope.tenant = named_account(parts)?.unwrap_or(scope.tenant);
            return Ok(Self {
                caller: Caller {
                    scope,
                    role: Role::Operator,
                },
                payload: Payload::open(parts),
                proof: None,
            });
        }
        let payload = Payload::of(parts, settings.certificate.is_some())?;
        signature.check_algorithm()?;
        let credential = Credential::of(&signature.credential)?;
        let time = check_time(&signature, credential.scope.date, host)?;
        if signature.has_token {
            return Err(AuthError::SessionToken);
        }
        let key = host.tenancy.access_key(credential.id);
        let key = key.ok_or(AuthError::UnknownKey)?;
        let region = credential.check(service)?;
        check_signed_headers(&signature, parts)?;
        let caller = caller(&key, region, settings.account, parts)?;
        let proof = Proof {
            time,
            scope: credential.scope.text(),
            signing_key: credential.scope.key(key.secret.reveal()),
            signature,
            key,
        };
        // What the body has to be is known: then the signature can be held against it already.
        if let Some(told) = payload.told() {
            proof.check(parts, told)?;
        }
        Ok(Self {
            caller,
            payload,
            proof: Some(proof),
        })
    }

    /// Holds the body against the claim. Gives who is calling, and the body as it is meant.
    ///
    /// # Errors
    /// `Mismatch`, or `Invalid` where the body is not what it is said to be.
    pub(crate) fn check(self, parts: &Parts, body: Bytes) -> Result<(Caller, Bytes), AuthError> {
        let Some(proof) = &self.proof else {
            let body = match self.payload {
                Payload::Chunks { announced } => chunked::decode(&body, None, announced)?,
                _ => body,
            };
            return Ok((self.caller, body));
        };
        if self.payload == Payload::Untold {
            proof.check(parts, &sha256_hex(&body))?;
        }
        let body = match self.payload {
            Payload::Told(hash) if hash != sha256_hex(&body) => {
                return Err(AuthError::Invalid(
                    "The provided 'x-amz-content-sha256' header does not match what was computed."
                        .into(),
                ));
            }
            Payload::Chunks { announced } => {
                let key = ChunkKey {
                    key: &proof.signing_key[..],
                    time: &proof.time,
                    scope: proof.scope.clone(),
                    seed: &proof.signature.signature,
                };
                chunked::decode(&body, Some(&key), announced)?
            }
            _ => body,
        };
        Ok((self.caller, body))
    }
}

impl Proof {
    fn check(&self, parts: &Parts, payload: &str) -> Result<(), AuthError> {
        let authority = parts.uri.authority().map(|host| host.as_str().as_bytes());
        let names = self.signature.signed_headers.split(';');
        let headers = names.map(|name| {
            let values = parts.headers.get_all(name);
            let mut values: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
            // HTTP/2 names the host in the URI.
            if values.is_empty() && name == HOST.as_str() {
                values.extend(authority);
            }
            (name, values)
        });
        let request = Request {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or_default(),
            headers: headers.collect(),
            payload,
        };
        let scope = &self.scope;
        let text = string_to_sign(&self.time, scope, &request.digest());
        if is_signed(&self.signing_key[..], &text, &self.signature.signature) {
            return Ok(());
        }
        tracing::debug!(key = %self.key.id, "a signature does not match");
        Err(AuthError::Mismatch)
    }
}

/// A credential, taken apart.
struct Credential<'a> {
    id: &'a str,
    scope: SigningScope<'a>,
    terminator: &'a str,
}

impl<'a> Credential<'a> {
    fn of(text: &'a str) -> Result<Self, AuthError> {
        let parts: Vec<&str> = text.split('/').collect();
        let [id, date, region, service, terminator] = parts[..] else {
            return Err(AuthError::Incomplete(format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. \
                 keyid/date/region/service/term, got '{text}'"
            )));
        };
        Ok(Self {
            id,
            scope: SigningScope {
                date,
                region,
                service,
            },
            terminator,
        })
    }

    /// The region that it is scoped to. AWS's texts, as far as they are known.
    fn check(&self, service: Service) -> Result<Region, AuthError> {
        let region = self.scope.region.parse().map_err(|_| {
            AuthError::Invalid("Credential should be scoped to a valid region. ".into())
        })?;
        if self.scope.service != service.name() {
            return Err(AuthError::Invalid(format!(
                "Credential should be scoped to correct service: '{}'. ",
                service.name()
            )));
        }
        if self.terminator != TERMINATOR {
            return Err(AuthError::Invalid(format!(
                "Credential should be scoped with a valid terminator: '{TERMINATOR}', not '{}'.",
                self.terminator
            )));
        }
        Ok(region)
    }
}

impl Payload {
    /// What stands for the body, if the headers say so.
    fn told(&self) -> Option<&str> {
        match self {
            Self::Untold => None,
            Self::Told(hash) => Some(hash),
            Self::Unsigned => Some(UNSIGNED),
            Self::Chunks { .. } => Some(chunked::SIGNED),
        }
    }

    /// In the open mode only the encoding matters.
    fn open(parts: &Parts) -> Self {
        match told_hash(parts) {
            Some(chunked::SIGNED) => Self::Chunks {
                announced: announced(parts),
            },
            _ => Self::Untold,
        }
    }

    fn of(parts: &Parts, hidden: bool) -> Result<Self, AuthError> {
        match told_hash(parts) {
            None => Ok(Self::Untold),
            Some(UNSIGNED) if hidden => Ok(Self::Unsigned),
            Some(UNSIGNED) => Err(AuthError::Invalid(format!(
                "{UNSIGNED} is taken over TLS only: without it anyone on the way could change the \
                 body. Sign the body, or use https."
            ))),
            Some(chunked::SIGNED) => Ok(Self::Chunks {
                announced: announced(parts),
            }),
            Some(hash) if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Ok(Self::Told(hash.to_ascii_lowercase()))
            }
            Some(other) => Err(AuthError::Invalid(format!(
                "x-amz-content-sha256 '{other}' is not supported: a hash, {UNSIGNED} or {} expected",
                chunked::SIGNED
            ))),
        }
    }
}

fn told_hash(parts: &Parts) -> Option<&str> {
    parts.headers.get("x-amz-content-sha256")?.to_str().ok()
}

fn announced(parts: &Parts) -> Option<usize> {
    let length = parts.headers.get("x-amz-decoded-content-length")?;
    length.to_str().ok()?.parse().ok()
}

/// The time that was signed, if it is near enough to now and fits the credential's date.
fn check_time(signature: &Signature, date: &str, host: &Services) -> Result<String, AuthError> {
    let text = &signature.time;
    let instant = instant(text).ok_or_else(|| {
        AuthError::Incomplete(format!(
            "Date must be in ISO-8601 'basic format'. Got '{text}'. See \
             http://en.wikipedia.org/wiki/ISO_8601"
        ))
    })?;
    let (now, skew) = (host.clock.now(), host.settings.clock_skew);
    let seconds = match signature.expires.as_deref() {
        None => skew.as_secs(),
        Some(seconds) => seconds
            .parse()
            .ok()
            .filter(|seconds| (1..=MAX_EXPIRES_SECONDS).contains(seconds))
            .ok_or_else(|| {
                AuthError::Invalid(format!(
                    "X-Amz-Expires '{seconds}' must be a number from 1 to {MAX_EXPIRES_SECONDS}"
                ))
            })?,
    };
    let earliest = now.minus(std::time::Duration::from_secs(seconds));
    if instant < earliest {
        return Err(AuthError::Invalid(format!(
            "Signature expired: {text} is now earlier than {} ({} - {}.)",
            basic(earliest),
            basic(now),
            span(seconds)
        )));
    }
    let latest = now.plus(skew);
    if instant > latest {
        return Err(AuthError::Invalid(format!(
            "Signature not yet current: {text} is still later than {} ({} + {}.)",
            basic(latest),
            basic(now),
            span(skew.as_secs())
        )));
    }
    if text.get(..8) != Some(date) {
        return Err(AuthError::Invalid(format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from \
             HTTP: '{date}' != '{}', from '{text}'.",
            text.get(..8).unwrap_or_default()
        )));
    }
    Ok(text.clone())
}

/// `5 min`, or `90 s` where it is no whole number of minutes.
fn span(seconds: u64) -> String {
    if seconds.is_multiple_of(60) {
        format!("{} min", seconds / 60)
    } else {
        format!("{seconds} s")
    }
}

/// The instant that `20240102T030405Z` means.
fn instant(text: &str) -> Option<UnixMillis> {
    let digits = |range: std::ops::Range<usize>| {
        let part = text.get(range)?;
        part.bytes().all(|b| b.is_ascii_digit()).then_some(part)
    };
    if text.len() != 16 || text.get(8..9) != Some("T") || text.get(15..) != Some("Z") {
        return None;
    }
    let (year, month, day) = (digits(0..4)?, digits(4..6)?, digits(6..8)?);
    let (hour, minute, second) = (digits(9..11)?, digits(11..13)?, digits(13..15)?);
    timestamp::parse(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z"))
}

/// An instant as `20240102T030405Z`.
pub(super) fn basic(instant: UnixMillis) -> String {
    let text = timestamp::format(instant);
    let digits = text[..19].chars().filter(|c| !matches!(c, '-' | ':'));
    digits.chain(['Z']).collect()
}

/// That nothing which decides what a request does stands outside its signature.
fn check_signed_headers(signature: &Signature, parts: &Parts) -> Result<(), AuthError> {
    let signed: Vec<&str> = signature.signed_headers.split(';').collect();
    if !signed.contains(&HOST.as_str()) {
        return Err(AuthError::Invalid(
            "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.".into(),
        ));
    }
    // Says which client it is, and is added by some clients after they have signed.
    const FREE: [&str; 1] = ["x-amz-user-agent"];
    let bound = |name: &&str| name.starts_with("x-amz-") || name.starts_with("x-shardmill-");
    let names = parts.headers.keys().map(|name| name.as_str());
    let unsigned = names
        .filter(bound)
        .find(|name| !signed.contains(name) && !FREE.contains(name));
    match unsigned {
        None => Ok(()),
        Some(name) => Err(AuthError::Invalid(format!(
            "'{name}' must be a 'SignedHeader' in the AWS Authorization."
        ))),
    }
}

/// Whom a key speaks for. An operator may name an account, a tenant only its own.
fn caller(
    key: &AccessKey,
    region: Region,
    default: TenantId,
    parts: &Parts,
) -> Result<Caller, AuthError> {
    let named = named_account(parts)?;
    let (tenant, role) = match key.owner {
        Owner::Operator => (named.unwrap_or(default), Role::Operator),
        Owner::Tenant(own) if named.is_none_or(|named| named == own) => (own, Role::Tenant),
        Owner::Tenant(own) => {
            return Err(AuthError::Denied(format!(
                "User: arn:aws:iam::{own}:root is not authorized to act for another account"
            )));
        }
    };
    let scope = Scope { tenant, region };
    Ok(Caller { scope, role })
}

/// The account that the header names.
fn named_account(parts: &Parts) -> Result<Option<TenantId>, AuthError> {
    let Some(text) = parts.headers.get(ACCOUNT) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(text.as_bytes());
    let bad = |error: BadTenantId| AuthError::Invalid(format!("{ACCOUNT}: {error}"));
    text.parse().map(Some).map_err(bad)
}
