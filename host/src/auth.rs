//! Who is calling: account, region and role, from a request's signature.
//!
//! In the open mode the signature must be there and be whole, as AWS demands, but any is taken:
//! an access key of 12 digits names the account, the credential's scope the region. In the closed
//! mode it must be that of a key which the manifest names, over this very request, made within a
//! few minutes of now. A request that was caught can be sent again within that time: signatures
//! authenticate, TLS hides.
//!
//! Two steps: [`Claim::of`] looks at the headers, before a byte of the body is kept;
//! [`Claim::check`] holds the body against the signature. Rules: Signature Version 4,
//! "Authentication methods"; texts as AWS answers them.

mod canonical;
mod chunked;
mod error;
pub(crate) mod fuzzing;
mod sign;
mod signature;
#[cfg(test)]
mod tests;
mod verify;

pub(crate) use error::AuthError;
pub(crate) use sign::{Credentials, sign};
pub(crate) use verify::{ACCOUNT, Claim, Service};

use shardmill_core::{Region, Scope, TenantId};

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The account and the region that are addressed.
    pub(crate) scope: Scope,
    /// What else is open to it.
    pub(crate) role: Role,
}

/// What is open to a caller beside its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing.
    Tenant,
    /// All accounts, and what belongs to the host. In the open mode, everybody.
    Operator,
}

/// `ACCESS_KEY/DATE/REGION/SERVICE/aws4_request`; whatever is not there gets its default.
fn scope_of(credential: &str, region: &Region) -> Scope {
    let mut parts = credential.split('/');
    let tenant = parts.next().and_then(|key| key.parse().ok());
    let named = parts.nth(1).and_then(|name| name.parse().ok());
    Scope {
        tenant: tenant.unwrap_or(TenantId::DEFAULT),
        region: named.unwrap_or_else(|| region.clone()),
    }
}

/// Names and values of a query string, percent-decoded.
pub(crate) fn parameters(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decoded(name), percent_decoded(value))
    })
}

/// A text with its `%41` and the like decoded; broken ones are taken as they are.
pub(crate) fn percent_decoded(text: &str) -> String {
    String::from_utf8_lossy(&canonical::decoded(text)).into_owned()
}
