//! Who may call, and how much each may use: tenants, operators and their access keys, as the
//! manifest names them. Changed as a whole, without a restart.
//!
//! This is the one owner of both questions. What a tenant uses of the sandbox is decided there;
//! requests and stored bytes are counted here ([`Meter`]), and what a store takes is held against
//! it by [`MeteredStore`]. An account that no `[[tenant]]` names has no quotas and no keys.

mod bucket;
mod meter;
mod metered;
mod secret;
#[cfg(test)]
mod tests;

pub use meter::{Hits, Meter, Quota};
pub use metered::MeteredStore;
pub use secret::Secret;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use shardmill_core::quotas::Quotas;
use shardmill_core::reshard::open_count;
use shardmill_core::{Sandbox, TenantId, UnixMillis};
use shardmill_store::{Key, ReadError, Store, Table};

/// Shortest secret of an access key, characters. AWS's have 40.
pub(crate) const MIN_SECRET_CHARS: usize = 16;

/// A tenant, as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSpec {
    /// Its account.
    pub account: TenantId,
    /// What people call it; may be empty.
    pub name: String,
    /// What it may use.
    pub quotas: Quotas,
    /// Its access keys.
    pub access_keys: Vec<AccessKeySpec>,
}

/// Somebody who may see to all tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorSpec {
    /// What people call it.
    pub name: String,
    /// Its access keys.
    pub access_keys: Vec<AccessKeySpec>,
}

/// An access key, as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKeySpec {
    /// Its id, which no other key has.
    pub id: String,
    /// Where its secret is.
    pub secret: SecretSource,
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In the manifest.
    Inline(Secret),
    /// In a file, which is read again when it changes; blanks around it do not count.
    File(PathBuf),
    /// In a variable of the host's environment.
    Variable(String),
}

/// Why tenants are not taken over. Those before stay.
#[derive(Debug, thiserror::Error)]
pub enum TenancyError {
    /// The file with a secret cannot be read.
    #[error("access key {id}: read its secret from {}: {source}", path.display())]
    Unreadable {
        /// The key.
        id: String,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The environment does not have the secret.
    #[error("access key {id}: environment variable {name} is not set")]
    NoVariable {
        /// The key.
        id: String,
        /// The variable.
        name: String,
    },
    /// A secret that is too short to be one.
    #[error("access key {id}: a secret of {length} characters, {MIN_SECRET_CHARS} at least")]
    Short {
        /// The key.
        id: String,
        /// How long it is.
        length: usize,
    },
}

/// Whom a key speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This account only.
    Tenant(TenantId),
    /// Every account, and the host itself.
    Operator,
}

/// An access key with its secret.
#[derive(Debug)]
pub struct AccessKey {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: Secret,
    /// Whom it speaks for.
    pub owner: Owner,
}

/// A tenant, as it is in force.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its account.
    pub account: TenantId,
    /// What people call it; may be empty.
    pub name: String,
    /// What it may use.
    pub quotas: Quotas,
    /// Ids of its access keys.
    pub access_keys: Vec<String>,
    /// What it has used.
    pub meter: Arc<Meter>,
}

/// What a tenant has now, of what stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of data and partition keys in its streams.
    pub stored_bytes: u64,
    /// Open shards, in all regions.
    pub shards: u32,
    /// Functions, in all regions.
    pub functions: u32,
}

/// Why a request is not taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// How many the tenant may make, 1/s.
    pub allowed: u32,
    /// When there is room for one.
    pub retry_after: Duration,
}

/// Tenants, keys and quotas.
#[derive(Default)]
pub struct Tenancy {
    // Held for a look-up and the clone of an `Arc`; written only when a manifest is taken over.
    state: RwLock<Arc<State>>,
}

#[derive(Default)]
struct State {
    tenants: BTreeMap<TenantId, Arc<Tenant>>,
    /// Whether any of them has a quota of stored bytes.
    bounds_bytes: bool,
    keys: HashMap<String, Arc<AccessKey>>,
}

impl Tenancy {
    /// Takes over what a manifest names: all of it or nothing. Quotas that the sandbox keeps are
    /// handed to it; those of tenants that are no longer named end.
    ///
    /// # Errors
    /// A secret that cannot be had.
    pub fn apply(
        &self,
        tenants: &[TenantSpec],
        operators: &[OperatorSpec],
        sandbox: &dyn Sandbox,
    ) -> Result<(), TenancyError> {
        let before = self.state();
        let mut state = State::default();
        for spec in tenants {
            for key in &spec.access_keys {
                state.add(key, Owner::Tenant(spec.account))?;
            }
            let meter = before.tenants.get(&spec.account);
            let tenant = Tenant {
                account: spec.account,
                name: spec.name.clone(),
                quotas: spec.quotas.clone(),
                access_keys: spec.access_keys.iter().map(|key| key.id.clone()).collect(),
                meter: meter.map(|old| Arc::clone(&old.meter)).unwrap_or_default(),
            };
            tenant.meter.allow_bytes(spec.quotas.stored_bytes);
            state.bounds_bytes |= spec.quotas.stored_bytes.is_some();
            state.tenants.insert(spec.account, Arc::new(tenant));
        }
        for key in operators.iter().flat_map(|operator| &operator.access_keys) {
            state.add(key, Owner::Operator)?;
        }
        for account in before.tenants.keys() {
            if !state.tenants.contains_key(account) {
                sandbox.set_quotas(*account, &Quotas::default());
            }
        }
        for tenant in state.tenants.values() {
            sandbox.set_quotas(tenant.account, &tenant.quotas);
        }
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
        Ok(())
    }

    /// The access key with this id.
    pub fn access_key(&self, id: &str) -> Option<Arc<AccessKey>> {
        self.state().keys.get(id).cloned()
    }

    /// Whether anybody could call a closed host.
    pub fn has_keys(&self) -> bool {
        !self.state().keys.is_empty()
    }

    /// Whether any tenant has a quota of stored bytes.
    pub fn bounds_bytes(&self) -> bool {
        self.state().bounds_bytes
    }

    /// A tenant that the manifest names.
    pub fn tenant(&self, account: TenantId) -> Option<Arc<Tenant>> {
        self.state().tenants.get(&account).cloned()
    }

    /// All tenants that the manifest names, by account.
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.state().tenants.values().cloned().collect()
    }

    /// Counts a request against the tenant's rate.
    ///
    /// # Errors
    /// There were too many: the client should come again later.
    pub fn admit(&self, account: TenantId, now: UnixMillis) -> Result<(), TooMany> {
        let state = self.state();
        let Some(tenant) = state.tenants.get(&account) else {
            return Ok(());
        };
        match tenant.quotas.requests_per_second {
            None => Ok(()),
            Some(allowed) => tenant.meter.admit(allowed, now).map_err(|wait| TooMany {
                allowed,
                retry_after: wait,
            }),
        }
    }

    /// What an account has now.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn usage(&self, account: TenantId, store: &dyn Store) -> Result<Usage, ReadError> {
        Ok(Usage {
            stored_bytes: stored_bytes(account, store).await?,
            shards: shard_count(account, store),
            functions: function_count(account, store)?,
        })
    }

    /// Whether an account may have `more` open shards.
    ///
    /// # Errors
    /// How many it has, and how many it may have.
    pub fn room_for_shards(
        &self,
        account: TenantId,
        more: u32,
        store: &dyn Store,
    ) -> Result<(), (u32, u32)> {
        let Some(tenant) = self.tenant(account) else {
            return Ok(());
        };
        let Some(allowed) = tenant.quotas.shards else {
            return Ok(());
        };
        let current = shard_count(account, store);
        if current.saturating_add(more) <= allowed {
            return Ok(());
        }
        tenant.meter.hit(Quota::Shards);
        Err((current, allowed))
    }

    /// Whether an account may have one more function.
    ///
    /// # Errors
    /// How many it may have; or the store cannot be read.
    pub fn room_for_function(
        &self,
        account: TenantId,
        store: &dyn Store,
    ) -> Result<Result<(), u32>, ReadError> {
        let Some(tenant) = self.tenant(account) else {
            return Ok(Ok(()));
        };
        let Some(allowed) = tenant.quotas.functions else {
            return Ok(Ok(()));
        };
        if function_count(account, store)? < allowed {
            return Ok(Ok(()));
        }
        tenant.meter.hit(Quota::Functions);
        Ok(Err(allowed))
    }

    /// Counts anew what tenants with such a quota have stored. In between, what is put is added
    /// and nothing is taken off, so the count is never too low.
    ///
    /// # Errors
    /// The store cannot be read; the counts stay as they are.
    pub async fn measure(&self, store: &dyn Store) -> Result<(), ReadError> {
        for tenant in self.tenants() {
            if tenant.quotas.stored_bytes.is_some() {
                let begun = tenant.meter.begin_measure();
                let bytes = stored_bytes(tenant.account, store).await?;
                tenant.meter.measured(begun, bytes);
            }
        }
        Ok(())
    }

    fn state(&self) -> Arc<State> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&state)
    }
}

impl State {
    fn add(&mut self, spec: &AccessKeySpec, owner: Owner) -> Result<(), TenancyError> {
        let id = spec.id.clone();
        let secret = match &spec.secret {
            SecretSource::Inline(secret) => secret.clone(),
            SecretSource::File(path) => read(path).map_err(|source| TenancyError::Unreadable {
                id: id.clone(),
                path: path.clone(),
                source,
            })?,
            SecretSource::Variable(name) => match std::env::var(name) {
                Ok(text) => text.into(),
                Err(_) => {
                    let name = name.clone();
                    return Err(TenancyError::NoVariable { id, name });
                }
            },
        };
        let length = secret.reveal().chars().count();
        if length < MIN_SECRET_CHARS {
            return Err(TenancyError::Short { id, length });
        }
        let key = AccessKey {
            id: id.clone(),
            secret,
            owner,
        };
        self.keys.insert(id, Arc::new(key));
        Ok(())
    }
}

fn read(path: &Path) -> std::io::Result<Secret> {
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(path)?);
    Ok(text.trim().to_owned().into())
}

/// Bytes in all streams of an account; streams that are being deleted count until they are gone.
async fn stored_bytes(account: TenantId, store: &dyn Store) -> Result<u64, ReadError> {
    let mut bytes = 0;
    for stream in store.streams(None) {
        if stream.scope.tenant != account {
            continue;
        }
        for shard in &stream.shards {
            let key = shardmill_core::ShardKey {
                stream: stream.id,
                shard: shard.id,
            };
            match store.extent(key, 1, u64::MAX).await {
                Ok(extent) => bytes += extent.bytes,
                // Gone meanwhile.
                Err(ReadError::NoSuchShard(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(bytes)
}

/// Open shards of an account, in all regions; a stream that is being deleted no longer counts.
fn shard_count(account: TenantId, store: &dyn Store) -> u32 {
    let streams = store.streams(None);
    let own = streams
        .iter()
        .filter(|stream| stream.scope.tenant == account && stream.deleted.is_none());
    own.map(|stream| open_count(stream)).sum()
}

/// Functions of an account, in all regions.
fn function_count(account: TenantId, store: &dyn Store) -> Result<u32, ReadError> {
    let all = store.scan(&Key::table_prefix(Table::Function), None, usize::MAX)?;
    let scopes = all.iter().filter_map(|(key, _)| key.split());
    let own = scopes.filter(|(scope, _)| scope.tenant == account);
    Ok(u32::try_from(own.count()).unwrap_or(u32::MAX))
}
