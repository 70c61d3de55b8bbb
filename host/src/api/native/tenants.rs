//! Tenants: their quotas, and what they use of them. An operator sees all, a tenant itself.

use serde::Serialize;
use serde_json::{Map, Value, json};
use shardmill_core::TenantId;

use super::error::Error;
use super::request::Call;
use super::{Answer, ok};
use crate::auth::Role;
use crate::tenancy::{Quota, Tenant, Usage};

#[derive(Serialize)]
struct TenantView<'a> {
    account: TenantId,
    name: &'a str,
    weight: u32,
    /// `None`: no such quota.
    quotas: Quotas,
    usage: UsageView,
    /// How often each quota was hit since the host began, where it was.
    hits: Map<String, Value>,
    access_keys: &'a [String],
}

/// In the manifest's units.
#[derive(Serialize)]
struct Quotas {
    stored_mib: Option<u64>,
    shards: Option<u32>,
    functions: Option<u32>,
    requests_per_second: Option<u32>,
    concurrent_invocations: Option<u32>,
    guest_memory_mib: Option<u64>,
    fuel_per_second: Option<u64>,
}

#[derive(Serialize)]
struct UsageView {
    stored_bytes: u64,
    shards: u32,
    functions: u32,
}

/// All tenants that the caller may see.
pub(super) async fn list(call: &Call<'_>) -> Result<Answer, Error> {
    let tenancy = &call.host.tenancy;
    let mut tenants = tenancy.tenants();
    tenants.retain(|tenant| may_see(call, tenant.account));
    let mut views = Vec::new();
    for tenant in &tenants {
        views.push(view(call, tenant).await?);
    }
    ok(&json!({ "tenants": views }))
}

/// One tenant.
pub(super) async fn get(call: &Call<'_>, account: &str) -> Result<Answer, Error> {
    let found = account.parse().ok().filter(|id| may_see(call, *id));
    let found = found.and_then(|id| call.host.tenancy.tenant(id));
    let found = found.ok_or_else(|| {
        Error::not_found(format!("no tenant {account}"))
            .hint("`shardmill tenants` lists them; they are made in the manifest")
    })?;
    ok(&view(call, &found).await?)
}

fn may_see(call: &Call<'_>, account: TenantId) -> bool {
    call.role == Role::Operator || call.scope.tenant == account
}

async fn view<'a>(call: &Call<'_>, tenant: &'a Tenant) -> Result<TenantView<'a>, Error> {
    let store = call.host.store.as_ref();
    let Usage {
        stored_bytes,
        shards,
        functions,
    } = call.host.tenancy.usage(tenant.account, store).await?;
    let quotas = &tenant.quotas;
    let hits = Quota::ALL.into_iter().zip(tenant.meter.hits());
    let hits = hits.filter(|(_, count)| *count > 0);
    Ok(TenantView {
        account: tenant.account,
        name: &tenant.name,
        weight: quotas.weight,
        quotas: Quotas {
            stored_mib: quotas.stored_bytes.map(|bytes| bytes >> 20),
            shards: quotas.shards,
            functions: quotas.functions,
            requests_per_second: quotas.requests_per_second,
            concurrent_invocations: quotas.concurrent_invocations,
            guest_memory_mib: quotas.guest_memory_bytes.map(|bytes| bytes >> 20),
            fuel_per_second: quotas.fuel_per_second,
        },
        usage: UsageView {
            stored_bytes,
            shards,
            functions,
        },
        hits: hits.map(|(q, n)| (q.name().to_owned(), n.into())).collect(),
        access_keys: &tenant.access_keys,
    })
}
