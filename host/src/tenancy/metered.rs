//! A store that holds tenants to their quota of stored bytes, whoever puts: clients, handlers that
//! emit, redrives.

use std::collections::BTreeMap;
use std::sync::Arc;

use shardmill_core::TenantId;
use shardmill_core::sandbox::BoxFuture;
use shardmill_store::{CommitError, Receipt, Store, Tx};

use super::{Meter, Tenancy};

/// A store, and who may put how much into it.
pub struct MeteredStore {
    store: Arc<dyn Store>,
    tenancy: Arc<Tenancy>,
}

impl MeteredStore {
    /// Holds what is put into `store` against the quotas of `tenancy`.
    pub fn new(store: Arc<dyn Store>, tenancy: Arc<Tenancy>) -> Self {
        Self { store, tenancy }
    }

    /// Takes room for the records of a transaction: all of it or none.
    fn reserve(&self, tx: &Tx) -> Result<Vec<Reserved>, CommitError> {
        let mut wanted: BTreeMap<TenantId, (Arc<Meter>, u64)> = BTreeMap::new();
        for append in &tx.appends {
            let stream = self.store.stream_by_id(append.stream);
            let Some(tenant) = stream.and_then(|s| self.tenancy.tenant(s.scope.tenant)) else {
                continue;
            };
            if tenant.quotas.stored_bytes.is_some() {
                let meter = Arc::clone(&tenant.meter);
                let (_, bytes) = wanted.entry(tenant.account).or_insert((meter, 0));
                *bytes += append.records.blob().len() as u64;
            }
        }
        let mut taken = Vec::with_capacity(wanted.len());
        for (tenant, (meter, bytes)) in wanted {
            let refused = |(stored, allowed)| CommitError::Quota {
                tenant,
                bytes,
                stored,
                allowed,
            };
            meter.reserve(bytes).map_err(refused)?;
            taken.push(Reserved {
                meter,
                bytes,
                kept: false,
            });
        }
        Ok(taken)
    }
}

/// Room that was taken; given back when it is dropped, unless it was used.
struct Reserved {
    meter: Arc<Meter>,
    bytes: u64,
    kept: bool,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.meter.settle(self.bytes, self.kept);
    }
}

impl Store for MeteredStore {
    fn commit(&self, tx: Tx) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        if tx.appends.is_empty() || !self.tenancy.bounds_bytes() {
            return self.store.commit(tx);
        }
        let mut reserved = match self.reserve(&tx) {
            Ok(reserved) => reserved,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let commit = self.store.commit(tx);
        if reserved.is_empty() {
            return commit;
        }
        // Whoever stops waiting does not take the transaction back: counted as stored until the
        // next count.
        for part in &mut reserved {
            part.kept = true;
        }
        Box::pin(async move {
            let done = commit.await;
            let stored = match &done {
                Ok(receipt) => !receipt.repeated,
                Err(error) => matches!(error, CommitError::Unknown(_)),
            };
            for part in &mut reserved {
                part.kept = stored;
            }
            done
        })
    }

    fn has_room(&self, tenant: TenantId, bytes: u64) -> bool {
        let tenant = self.tenancy.tenant(tenant);
        tenant.is_none_or(|tenant| tenant.meter.has_room(bytes))
    }

    shardmill_store::pass_on!(store: read seek extent subscribe get scan scan_back blob catalog);
}
