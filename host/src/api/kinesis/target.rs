//! Which stream a request means: by name, by ARN, or both.
//!
//! Rules: the members `StreamName` and `StreamARN` of the operations. AWS's texts for neither,
//! for two that disagree and for another account's ARN are not known; these are our own.

use std::sync::Arc;

use shardmill_core::{Scope, Stream, StreamName, UnixMillis};

use super::{Call, Error, Input, describe_stream};

/// A stream's address: where it is and what it is called. The name may be impossible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) scope: Scope,
    pub(crate) name: &'a str,
}

impl<'a> Target<'a> {
    /// The stream that `StreamName` and `StreamARN` name.
    ///
    /// # Errors
    /// Neither, two that disagree, or an account that is not the caller's.
    pub(crate) fn of(call: &Call<'_>, input: &'a Input) -> Result<Self, Error> {
        Self::named(call, input.text("StreamName"), input.text("StreamARN"))
    }

    /// The same, for members that were read in another way.
    ///
    /// # Errors
    /// As [`Target::of`].
    pub(crate) fn named(
        call: &Call<'_>,
        name: Option<&'a str>,
        arn: Option<&'a str>,
    ) -> Result<Self, Error> {
        let Some(arn) = arn else {
            let name = name.ok_or_else(|| {
                Error::InvalidArgument("Either StreamName or StreamARN should be provided.".into())
            })?;
            let scope = call.caller.scope.clone();
            return Ok(Self { scope, name });
        };
        let parts = arn_parts(arn).unwrap_or_default();
        if name.is_some_and(|name| name != parts.name) {
            return Err(Error::InvalidArgument(format!(
                "StreamName {} and StreamARN {arn} do not name the same stream.",
                name.unwrap_or_default()
            )));
        }
        let caller = &call.caller.scope;
        if parts.account != caller.tenant.to_string() {
            return Err(Error::AccessDenied(format!(
                "User: arn:aws:iam::{}:root is not authorized to perform: kinesis:{} on resource: \
                 {arn} because no resource-based policy allows the kinesis:{} action",
                caller.tenant, call.operation, call.operation
            )));
        }
        let scope = Scope {
            tenant: caller.tenant,
            region: parts
                .region
                .parse()
                .map_err(|_| Error::InvalidArgument(format!("StreamARN {arn} names no region.")))?,
        };
        let name = parts.name;
        Ok(Self { scope, name })
    }

    /// The stream, unless it is gone.
    pub(crate) fn find(&self, call: &Call<'_>) -> Option<Arc<Stream>> {
        let name: StreamName = self.name.parse().ok()?;
        let stream = call.host.store.stream(&self.scope, &name)?;
        (!is_gone(&stream, call)).then_some(stream)
    }

    /// The stream.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub(crate) fn stream(&self, call: &Call<'_>) -> Result<Arc<Stream>, Error> {
        self.find(call).ok_or_else(|| self.not_found())
    }

    /// The stream, when it takes records.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, also while it is being made or deleted.
    pub(crate) fn writable_stream(&self, call: &Call<'_>) -> Result<Arc<Stream>, Error> {
        self.find(call)
            .filter(|stream| stream.is_usable(call.now))
            .ok_or_else(|| self.not_found())
    }

    /// What a stream is told that is not ACTIVE and has to be.
    pub(crate) fn not_active(&self, stream: &Stream, now: UnixMillis) -> Error {
        let state = describe_stream::status(stream, now);
        Error::InUse(format!(
            "Stream {} under account {} not ACTIVE, instead in state {state}",
            self.name, self.scope.tenant
        ))
    }

    pub(crate) fn not_found(&self) -> Error {
        Error::stream_not_found(self.name, &self.scope)
    }
}

/// Whether a stream's deletion is over, though the janitor may not have removed it yet.
pub(crate) fn is_gone(stream: &Stream, call: &Call<'_>) -> bool {
    gone_from(stream, call.host.settings.stream_creation_time).is_some_and(|at| at <= call.now)
}

/// When a stream that is being deleted is gone.
pub(crate) fn gone_from(stream: &Stream, takes: std::time::Duration) -> Option<UnixMillis> {
    stream.deleted.map(|at| at.plus(takes))
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ArnParts<'a> {
    region: &'a str,
    account: &'a str,
    name: &'a str,
}

/// `arn:aws…:kinesis:REGION:ACCOUNT:stream/NAME`.
fn arn_parts(arn: &str) -> Option<ArnParts<'_>> {
    let mut parts = arn.splitn(6, ':');
    let (prefix, partition) = (parts.next()?, parts.next()?);
    let (service, region, account) = (parts.next()?, parts.next()?, parts.next()?);
    let name = parts.next()?.strip_prefix("stream/")?;
    let good = prefix == "arn"
        && partition.starts_with("aws")
        && service == "kinesis"
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && !name.is_empty()
        && !name.contains(char::is_whitespace);
    good.then_some(ArnParts {
        region,
        account,
        name,
    })
}

/// Whether a text is a stream's ARN. Stricter than AWS's pattern only where that one lets
/// colons into the region.
pub(crate) fn is_stream_arn(text: &str) -> bool {
    arn_parts(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_are_taken_apart() {
        let arn = "arn:aws:kinesis:us-east-1:123456789012:stream/a.b";
        let want = ArnParts {
            region: "us-east-1",
            account: "123456789012",
            name: "a.b",
        };
        assert_eq!(arn_parts(arn), Some(want));
        for bad in [
            "",
            "arn:aws:kinesis:us-east-1:123456789012:stream/",
            "arn:aws:kinesis:us-east-1:12345678901:stream/a",
            "arn:aws:kinesis:us-east-1:123456789012:stream/a b",
            "arn:aws:sqs:us-east-1:123456789012:stream/a",
            "arn:aws:kinesis:us-east-1:123456789012:a",
        ] {
            assert_eq!(arn_parts(bad), None, "{bad}");
        }
    }
}
