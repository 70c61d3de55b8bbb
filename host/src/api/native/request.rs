//! A native request, taken apart: path, parameters, body, and for whom it is.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request};
use serde::de::DeserializeOwned;
use shardmill_core::limits::MAX_EVENT_BYTES;
use shardmill_core::{Scope, TenantId};
use tokio::sync::OwnedMutexGuard;

use super::error::Error;
use crate::auth::{self, AuthError, Caller, Claim, Role};
use crate::server::{discard_body, read_body};
use crate::services::{Access, Services};
use crate::workloads::Workloads;

/// Largest module, bytes: it is stored in one transaction (`shardmill_store::MAX_TX_BYTES`).
const MAX_MODULE_BYTES: usize = 40 << 20;
/// Largest exported failure, bytes: its records and inputs are one transaction, its module
/// another.
const MAX_EXPORTED_BYTES: usize = 80 << 20;
/// Largest JSON body, bytes, other than an event.
const MAX_JSON_BYTES: usize = 1 << 20;

/// A request.
pub(super) struct Call<'a> {
    pub(super) host: &'a Arc<Services>,
    /// Account and region.
    pub(super) scope: Scope,
    /// What is open to the caller beside that.
    pub(super) role: Role,
    pub(super) method: Method,
    /// The path's segments below `/_shardmill/`, decoded.
    pub(super) path: Vec<String>,
    query: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl<'a> Call<'a> {
    /// Reads a request with its body.
    pub(super) async fn read(
        host: &'a Arc<Services>,
        request: Request<Incoming>,
    ) -> Result<Self, Error> {
        let (parts, body) = request.into_parts();
        let claim = match Claim::of(host, &parts, auth::Service::Native) {
            Ok(claim) => Some(claim),
            Err(AuthError::Missing) if is_for_all(host, &parts) => None,
            Err(error) => {
                discard_body(body).await;
                return Err(error.into());
            }
        };
        let path = path_of(&parts);
        let limit = match path
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .as_slice()
        {
            ["functions", _] => MAX_MODULE_BYTES,
            ["functions", _, "invoke"] => MAX_EVENT_BYTES,
            ["failures", _, "replay"] => MAX_MODULE_BYTES,
            ["failures"] => MAX_EXPORTED_BYTES,
            // A module in base64, in JSON.
            ["mappings", _, "dry-run"] => MAX_MODULE_BYTES.div_ceil(3) * 4 + MAX_JSON_BYTES,
            _ => MAX_JSON_BYTES,
        };
        let body = read_body(body, limit, host.settings.connections.body_grace).await?;
        let (caller, body) = match claim {
            Some(claim) => claim.check(&parts, body)?,
            None => (nobody(host), body),
        };
        Self::of(host, parts, caller, body)
    }

    /// A request whose body is there, of a known caller.
    ///
    /// # Errors
    /// The caller makes more requests than it may.
    pub(super) fn of(
        host: &'a Arc<Services>,
        parts: Parts,
        caller: Caller,
        body: Bytes,
    ) -> Result<Self, Error> {
        let path = path_of(&parts);
        let Caller { scope, role } = caller;
        // An operator sees to a host, and is held up by nobody's quota.
        let counts = host.settings.access != Access::Closed || role == Role::Tenant;
        if counts && path != ["health"] {
            host.tenancy
                .admit(scope.tenant, host.clock.now())
                .map_err(|too_many| Error::too_many(scope.tenant, too_many))?;
        }
        Ok(Self {
            host,
            scope,
            role,
            query: auth::parameters(parts.uri.query().unwrap_or_default()).collect(),
            method: parts.method,
            path,
            body,
        })
    }

    /// Lets operators in; in the open mode, everybody.
    ///
    /// # Errors
    /// `forbidden`.
    pub(super) fn operators_only(&self) -> Result<(), Error> {
        match self.role {
            Role::Operator => Ok(()),
            Role::Tenant => Err(Error::forbidden(
                "this is for operators: it concerns every tenant of the host",
            )
            .hint("sign with a key of an [[operator]] in the manifest")),
        }
    }

    /// A place for one more function under the tenant's quota, until it is dropped; `None` where
    /// there is no such quota.
    ///
    /// # Errors
    /// The quota is used up.
    pub(super) async fn place_for_function(&self) -> Result<Option<OwnedMutexGuard<()>>, Error> {
        let account = self.scope.tenant;
        let Some(tenant) = self.host.tenancy.tenant(account) else {
            return Ok(None);
        };
        if tenant.quotas.functions.is_none() {
            return Ok(None);
        }
        let place = tenant.meter.deploying().await;
        let room = self
            .host
            .tenancy
            .room_for_function(account, self.host.store.as_ref())?;
        match room {
            Ok(()) => Ok(Some(place)),
            Err(allowed) => Err(Error::quota(format!(
                "account {account} may have {allowed} functions, in all regions together"
            ))
            .hint("delete one, or have the operator raise the quota")),
        }
    }

    /// Functions and mappings.
    pub(super) fn workloads(&self) -> Result<&'a Workloads, Error> {
        let workloads = self.host.workloads.as_ref();
        workloads.ok_or_else(|| Error::not_found("this host runs no functions"))
    }

    /// A parameter of the query; `None` where it is absent or empty.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self
            .query
            .iter()
            .find(|(n, value)| n == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// A parameter that is `true` or `false`; false where it is absent.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Error> {
        match self.parameter(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(Error::bad_request(format!(
                "{name} = {other:?}: true or false expected"
            ))),
        }
    }

    /// A parameter that is a number, with its default.
    pub(super) fn number(&self, name: &str, default: usize) -> Result<usize, Error> {
        match self.parameter(name) {
            None => Ok(default),
            Some(text) => {
                let bad = |_| Error::bad_request(format!("{name} = {text:?}: a number expected"));
                text.parse().map_err(bad)
            }
        }
    }

    /// The body as JSON; the default of `T` where there is none.
    pub(super) fn json<T: DeserializeOwned + Default>(&self) -> Result<T, Error> {
        if self.body.is_empty() {
            return Ok(T::default());
        }
        serde_json::from_slice(&self.body).map_err(|e| Error::json("body", &e))
    }
}

/// The path's segments below `/_shardmill/`, decoded.
fn path_of(parts: &Parts) -> Vec<String> {
    let path = parts.uri.path().trim_start_matches("/_shardmill/");
    path.split('/').map(auth::percent_decoded).collect()
}

/// Whether a request needs no signature: all of the open mode; of a closed host only whether it
/// is well, for what watches over it.
fn is_for_all(host: &Services, parts: &Parts) -> bool {
    host.settings.access != Access::Closed
        || (parts.method == Method::GET && parts.uri.path() == "/_shardmill/health")
}

fn nobody(host: &Services) -> Caller {
    let role = match host.settings.access {
        Access::Closed => Role::Tenant,
        Access::Loopback | Access::Anyone => Role::Operator,
    };
    Caller {
        scope: Scope {
            tenant: TenantId::DEFAULT,
            region: host.settings.region.clone(),
        },
        role,
    }
}
