//! Functions: a name, a module and the settings it runs with. Modules are kept by content;
//! a deploy makes a new version, and any failure on its way leaves the old one running.
//!
//! `$LATEST` is what was deployed last and may change; versions are what it was when they were
//! published, and never change; aliases name one version, or two that share the requests.

mod aliases;
mod cache;
mod deploy;
mod error;
mod keys;
mod locks;
mod model;
mod quotas;
mod reference;
mod route;
#[cfg(test)]
mod tests;
mod versions;

pub use aliases::AliasSpec;
pub use deploy::Deploy;
pub use error::{AliasError, DeleteError, DeployError, FunctionError, RemoveError};
pub use keys::function_key;
pub(crate) use keys::{keys_of, module_key};
pub use model::{
    Alias, FailedDeploy, Function, FunctionRecord, FunctionSettings, LATEST, Loaded, Second, label,
};
pub use quotas::QuotasError;
pub use reference::{BadReference, FunctionRef, Qualifier};
pub use route::{Ready, Route};

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use shardmill_core::quotas::FunctionQuotas;
use shardmill_core::sandbox::{Input, Invocation, Module, NoState, Report};
use shardmill_core::{BatchContext, Sandbox, Scope};
use shardmill_store::{Key, ReadError, Store, Table, Tx, Urgency, Value, Versioned};
use tokio::sync::watch;

use self::cache::Cache;
use self::locks::Locks;
use crate::clock::Clock;

/// Deploys functions and makes them ready when they are first needed.
pub struct Functions {
    store: Arc<dyn Store>,
    sandbox: Arc<dyn Sandbox>,
    clock: Clock,
    cache: Mutex<Cache>,
    /// The last module that was loaded by its digest: replays come in series.
    replayed: Mutex<Option<Arc<dyn Module>>>,
    /// One deploy of a function at a time: the last one in line must win.
    deploying: Locks<(Scope, String)>,
    /// One load of a version at a time: a hundred pollers that start together need one.
    loading: Locks<(Scope, String)>,
    /// Held while what is stored of functions changes.
    changing: tokio::sync::Mutex<()>,
    changes: watch::Sender<u64>,
}

impl Functions {
    /// Over this store and sandbox. Loads nothing yet.
    pub fn new(store: Arc<dyn Store>, sandbox: Arc<dyn Sandbox>, clock: Clock) -> Self {
        Self {
            store,
            sandbox,
            clock,
            cache: Mutex::default(),
            replayed: Mutex::default(),
            deploying: Locks::default(),
            loading: Locks::default(),
            changing: tokio::sync::Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// Changes with every deploy and delete, and with aliases.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// `$LATEST` of a function, ready to run; loads it when it is first needed.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub async fn get(&self, scope: &Scope, name: &str) -> Result<Arc<Loaded>, FunctionError> {
        let latest = FunctionRef {
            name: name.into(),
            qualifier: None,
        };
        self.choose(scope, &latest, "").await
    }

    /// A version, ready to run; loads it when it is not held.
    async fn load(
        &self,
        scope: &Scope,
        function: &Arc<Function>,
    ) -> Result<Arc<Loaded>, FunctionError> {
        if let Some(loaded) = self.cache().loaded(scope, function) {
            return Ok(loaded);
        }
        let _loading = self
            .loading
            .lock((scope.clone(), function.digest.clone()))
            .await;
        if let Some(loaded) = self.cache().loaded(scope, function) {
            return Ok(loaded);
        }
        // Another version with other settings may run the same module.
        let held = self.cache().with_digest(scope, &function.digest);
        let module = match held {
            Some(other) => Arc::clone(&other.module),
            None => {
                let blob = self.wasm(scope, &function.digest).await?;
                let wasm = blob.ok_or_else(|| FunctionError::Damaged(function.name.clone()))?;
                self.sandbox.load(wasm).await?
            }
        };
        let loaded = Arc::new(Loaded::new(scope, Arc::clone(function), module));
        self.cache().keep(scope, &loaded);
        Ok(loaded)
    }

    /// A module by its digest, ready to run: that of a failure's attempt, whatever its function
    /// runs now.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub async fn module(
        &self,
        scope: &Scope,
        digest: &str,
    ) -> Result<Arc<dyn Module>, FunctionError> {
        if let Some(loaded) = self.cache().with_digest(scope, digest) {
            return Ok(Arc::clone(&loaded.module));
        }
        let _loading = self.loading.lock((scope.clone(), digest.to_owned())).await;
        let last = self.replayed().clone();
        if let Some(module) = last.filter(|module| module.digest() == digest) {
            return Ok(module);
        }
        let wasm = self.wasm(scope, digest).await?;
        let wasm = wasm.ok_or_else(|| FunctionError::NoModule(digest.into()))?;
        let module = self.sandbox.load(wasm).await?;
        *self.replayed() = Some(Arc::clone(&module));
        Ok(module)
    }

    /// The bytes of a module by its digest, if it is kept.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn wasm(&self, scope: &Scope, digest: &str) -> Result<Option<Bytes>, ReadError> {
        self.store.blob(&module_key(scope, digest)).await
    }

    /// `$LATEST` of a function.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub fn describe(&self, scope: &Scope, name: &str) -> Result<Function, FunctionError> {
        Ok(self.record(scope, name)?.latest)
    }

    /// What is stored of a function.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub fn record(&self, scope: &Scope, name: &str) -> Result<FunctionRecord, FunctionError> {
        let stored = self.stored(scope, name)?;
        let (record, _) = stored.ok_or_else(|| FunctionError::NotFound(name.into()))?;
        Ok(record)
    }

    /// The same, with its revision; `None` where there is none.
    fn stored(
        &self,
        scope: &Scope,
        name: &str,
    ) -> Result<Option<(FunctionRecord, u64)>, FunctionError> {
        let stored = self.store.get(&function_key(scope, name))?;
        let parse = |stored: Versioned| Ok((parse_record(&stored.value, name)?, stored.revision));
        stored.map(parse).transpose()
    }

    /// All functions of a scope, by name.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub fn list(&self, scope: &Scope) -> Result<Vec<FunctionRecord>, FunctionError> {
        let all = self
            .store
            .scan(&Key::new(Table::Function, scope), None, usize::MAX)?;
        all.iter()
            .map(|(_, stored)| parse_record(&stored.value, "?"))
            .collect()
    }

    /// Removes a function with its versions and aliases. Gives the digests of its modules, which
    /// stay until [`Functions::remove_module`]: failures may name them.
    ///
    /// # Errors
    /// `NotFound`, or what the store says.
    pub async fn delete(&self, scope: &Scope, name: &str) -> Result<Vec<String>, DeleteError> {
        let _deploying = self.deploying.lock((scope.clone(), name.into())).await;
        let _changing = self.changing.lock().await;
        let latest = self.describe(scope, name)?;
        let mut digests = BTreeSet::from([latest.digest]);
        let mut writes = vec![(function_key(scope, name), Value::Delete)];
        for version in self.versions(scope, name)? {
            let key = keys::version_key(scope, name, version.version);
            writes.push((key, Value::Delete));
            digests.insert(version.digest);
        }
        for alias in self.aliases(scope, name)? {
            let key = keys::alias_key(scope, name, &alias.name);
            writes.push((key, Value::Delete));
        }
        self.store
            .commit(Tx {
                writes,
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            })
            .await?;
        self.cache().gone(scope, name, None);
        self.apply(scope, name, FunctionQuotas::default());
        self.tell();
        Ok(digests.into_iter().collect())
    }

    /// Removes a module, unless a function or a version runs it.
    ///
    /// # Errors
    /// See [`RemoveError`].
    pub(crate) async fn remove_module(
        &self,
        scope: &Scope,
        digest: &str,
    ) -> Result<(), RemoveError> {
        // A deploy of the same module either is stored, or stores the module again.
        let _changing = self.changing.lock().await;
        if self.is_used(scope, digest)? {
            return Ok(());
        }
        let tx = Tx {
            writes: vec![(module_key(scope, digest), Value::Delete)],
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        self.store.commit(tx).await?;
        Ok(())
    }

    /// Whether a function or a version runs a module.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub(crate) fn is_used(&self, scope: &Scope, digest: &str) -> Result<bool, FunctionError> {
        let latest = self.list(scope)?.iter().any(|f| f.latest.digest == digest);
        Ok(latest || self.is_of_version(scope, digest)?)
    }

    /// Runs a version by hand on a JSON event, or on a batch of records. Its effects are not
    /// committed.
    pub async fn invoke(&self, loaded: &Loaded, input: Input, request_id: String) -> Report {
        let function = &loaded.function;
        let scope = &loaded.owner.scope;
        let invocation = Invocation {
            owner: Arc::clone(&loaded.owner),
            mapping: None,
            module: Arc::clone(&loaded.module),
            input,
            context: BatchContext {
                request_id,
                function: function.name.clone(),
                version: function.label(),
                tenant: scope.tenant.to_string(),
                attempt: 1,
                ..BatchContext::default()
            },
            limits: function.settings.limits.clone(),
            environment: Arc::clone(&loaded.environment),
            state: Arc::new(NoState),
            now: self.clock.now(),
            seed: [0; 32],
        };
        self.sandbox.invoke(invocation).await
    }

    /// Tells whoever watches that something has changed.
    fn tell(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    fn replayed(&self) -> MutexGuard<'_, Option<Arc<dyn Module>>> {
        self.replayed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse_record(bytes: &[u8], name: &str) -> Result<FunctionRecord, FunctionError> {
    let parsed = serde_json::from_slice::<FunctionRecord>(bytes);
    let mut record = parsed.map_err(|_| FunctionError::Damaged(name.into()))?;
    record.newest = record.newest.max(record.latest.version);
    Ok(record)
}

/// JSON of a value whose serialization cannot fail: no maps with keys other than strings.
pub(crate) fn to_json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value)
        .expect("a value that is always JSON")
        .into()
}
