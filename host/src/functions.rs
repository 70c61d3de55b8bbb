//! Functions: a name, a module and the settings it runs with. Modules are kept by content;
//! a deploy makes a new version, and any failure on its way leaves the old one running.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shardmill_core::limits::FunctionLimits;
use shardmill_core::outcome::Outcome;
use shardmill_core::sandbox::{
    Carrier, Input, Invocation, LoadError, Module, NoState, Owner, Report,
};
use shardmill_core::{Batch, BatchContext, Sandbox, Scope, UnixMillis};
use shardmill_store::{CommitError, Expect, Key, ReadError, Store, Table, Tx, Urgency, Value};
use tokio::sync::watch;

use crate::clock::Clock;

/// A function as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its name: 1 to 64 of `a-z A-Z 0-9 - _`.
    pub name: String,
    /// Counts the deploys, from 1.
    pub version: u64,
    /// SHA-256 of the module, in hexadecimal.
    pub digest: String,
    /// Size of the module in bytes.
    pub code_size: u64,
    /// When it was deployed.
    pub last_modified: UnixMillis,
    /// What it runs with.
    pub settings: FunctionSettings,
}

/// What a function runs with, beside its module. Its `Debug` names the variables only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FunctionSettings {
    /// Its limits.
    pub limits: FunctionLimits,
    /// Its environment variables: all that its environment holds.
    pub environment: BTreeMap<String, String>,
}

impl fmt::Debug for FunctionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.keys().collect();
        f.debug_struct("FunctionSettings")
            .field("limits", &self.limits)
            .field("environment", &names)
            .finish()
    }
}

/// A function that is ready to run.
pub struct Loaded {
    /// The function.
    pub function: Function,
    /// Its module.
    pub module: Arc<dyn Module>,
    /// Its environment, shared by its invocations.
    pub environment: Arc<BTreeMap<String, String>>,
    /// Who pays for its invocations.
    pub owner: Arc<Owner>,
}

/// Why a function could not be deployed. The version that was running goes on.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A name that is none.
    #[error("function name {0:?}: 1 to 64 of a-z A-Z 0-9 - _ expected")]
    Name(String),
    /// A module that cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The dry run of an empty batch failed.
    #[error("the dry run of an empty batch failed: {0}")]
    DryRun(String),
    /// The store refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a stored function could not be made ready.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FunctionError {
    /// There is none.
    #[error("function {0:?} does not exist")]
    NotFound(String),
    /// A module that is not kept.
    #[error(
        "the module {0} is not in this store: import the failure with its module, or replay it \
         --with the file"
    )]
    NoModule(String),
    /// Its module cannot be loaded any more.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What is stored makes no sense.
    #[error("function {0:?}: what is stored of it cannot be read")]
    Damaged(String),
}

type LoadedBy = HashMap<(Scope, String), Arc<Loaded>>;

/// Deploys functions and makes them ready when they are first needed.
pub struct Functions {
    store: Arc<dyn Store>,
    sandbox: Arc<dyn Sandbox>,
    clock: Clock,
    loaded: Mutex<LoadedBy>,
    /// The last module that was loaded by its digest: replays come in series.
    replayed: Mutex<Option<Arc<dyn Module>>>,
    /// One deploy at a time: compiling is heavy, and the last one in line must win.
    deploying: tokio::sync::Mutex<()>,
    loading: tokio::sync::Mutex<()>,
    changes: watch::Sender<u64>,
}

impl Functions {
    /// Over this store and sandbox. Loads nothing yet.
    pub fn new(store: Arc<dyn Store>, sandbox: Arc<dyn Sandbox>, clock: Clock) -> Self {
        Self {
            store,
            sandbox,
            clock,
            loaded: Mutex::default(),
            replayed: Mutex::default(),
            deploying: tokio::sync::Mutex::default(),
            loading: tokio::sync::Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// Changes with every deploy and delete.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Deploys a module under a name: load, dry run, store, swap. Batches that are running
    /// finish on the version that they began with. The same module with the same settings
    /// changes nothing.
    ///
    /// # Errors
    /// See [`DeployError`].
    pub async fn deploy(
        &self,
        scope: &Scope,
        name: &str,
        wasm: Bytes,
        settings: FunctionSettings,
    ) -> Result<Arc<Loaded>, DeployError> {
        check_name(name)?;
        let _deploying = self.deploying.lock().await;
        let key = function_key(scope, name);
        let before = self.store.get(&key)?;
        let old = before
            .as_ref()
            .and_then(|v| serde_json::from_slice::<Function>(&v.value).ok());
        let code_size = wasm.len() as u64;
        let module = self.sandbox.load(wasm.clone()).await?;
        let unchanged = |f: &Function| f.digest == module.digest() && f.settings == settings;
        if old.as_ref().is_some_and(unchanged)
            && let Ok(loaded) = self.get(scope, name).await
        {
            return Ok(loaded);
        }
        let function = Function {
            name: name.into(),
            version: old.map_or(0, |f| f.version) + 1,
            digest: module.digest().into(),
            code_size,
            last_modified: self.clock.now(),
            settings,
        };
        let loaded = Arc::new(Loaded::new(scope, function, module));
        self.dry_run(scope, &loaded).await?;
        let module_key = module_key(scope, loaded.module.digest());
        let mut writes = Vec::new();
        if self.store.get(&module_key)?.is_none() {
            writes.push((module_key, Value::Blob(wasm)));
        }
        writes.push((key.clone(), Value::Inline(to_json(&loaded.function))));
        let expect = vec![Expect::Revision(key, before.map(|v| v.revision))];
        self.store
            .commit(Tx {
                expect,
                writes,
                ..Tx::default()
            })
            .await?;
        self.loaded()
            .insert((scope.clone(), name.into()), Arc::clone(&loaded));
        self.changes.send_modify(|n| *n += 1);
        tracing::info!(function = name, version = loaded.function.version, digest = %&loaded.module.digest()[..12], "deployed");
        Ok(loaded)
    }

    /// The function, ready to run; loads it when it is first needed.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub async fn get(&self, scope: &Scope, name: &str) -> Result<Arc<Loaded>, FunctionError> {
        let id = (scope.clone(), name.to_owned());
        if let Some(loaded) = self.loaded().get(&id) {
            return Ok(Arc::clone(loaded));
        }
        // One load at a time: a hundred pollers that start together need one compilation.
        let _loading = self.loading.lock().await;
        if let Some(loaded) = self.loaded().get(&id) {
            return Ok(Arc::clone(loaded));
        }
        let function = self.describe(scope, name)?;
        let blob = self.wasm(scope, &function.digest).await?;
        let wasm = blob.ok_or_else(|| FunctionError::Damaged(name.into()))?;
        let module = self.sandbox.load(wasm).await?;
        let loaded = Arc::new(Loaded::new(scope, function, module));
        // A deploy that finished meanwhile has put a newer version here, which stays; what was
        // deleted meanwhile stays so.
        self.describe(scope, name)?;
        Ok(Arc::clone(self.loaded().entry(id).or_insert(loaded)))
    }

    /// A module by its digest, ready to run: that of a failure's attempt, whatever its function
    /// runs now. Modules that were deployed are not removed: they outlive the version and the
    /// function.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub async fn module(
        &self,
        scope: &Scope,
        digest: &str,
    ) -> Result<Arc<dyn Module>, FunctionError> {
        let running = self.loaded().iter().find_map(|((of, _), loaded)| {
            (of == scope && loaded.module.digest() == digest).then(|| Arc::clone(&loaded.module))
        });
        if let Some(module) = running {
            return Ok(module);
        }
        let _loading = self.loading.lock().await;
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

    /// What is stored of a function.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub fn describe(&self, scope: &Scope, name: &str) -> Result<Function, FunctionError> {
        let stored = self.store.get(&function_key(scope, name))?;
        let stored = stored.ok_or_else(|| FunctionError::NotFound(name.into()))?;
        serde_json::from_slice(&stored.value).map_err(|_| FunctionError::Damaged(name.into()))
    }

    /// Removes a module, unless a function runs it.
    ///
    /// # Errors
    /// See [`DeleteError`].
    pub(crate) async fn remove_module(
        &self,
        scope: &Scope,
        digest: &str,
    ) -> Result<(), DeleteError> {
        // A deploy of the same module either stands in the list, or stores it again.
        let _deploying = self.deploying.lock().await;
        if self.list(scope)?.iter().any(|f| f.digest == digest) {
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

    /// All functions of a scope, by name.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub fn list(&self, scope: &Scope) -> Result<Vec<Function>, FunctionError> {
        let all = self
            .store
            .scan(&Key::new(Table::Function, scope), None, usize::MAX)?;
        let parse = |bytes: &[u8]| {
            serde_json::from_slice(bytes).map_err(|_| FunctionError::Damaged("?".into()))
        };
        all.iter().map(|(_, stored)| parse(&stored.value)).collect()
    }

    /// Removes a function. Its module stays: failures may name it.
    ///
    /// # Errors
    /// `NotFound`, or what the store says.
    pub async fn delete(&self, scope: &Scope, name: &str) -> Result<(), DeleteError> {
        let _deploying = self.deploying.lock().await;
        self.describe(scope, name)?;
        let writes = vec![(function_key(scope, name), Value::Delete)];
        self.store
            .commit(Tx {
                writes,
                ..Tx::default()
            })
            .await?;
        self.loaded().remove(&(scope.clone(), name.into()));
        self.changes.send_modify(|n| *n += 1);
        Ok(())
    }

    /// Runs a function by hand on a JSON event, or on a batch of records. Its effects are not
    /// committed.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub async fn invoke(
        &self,
        scope: &Scope,
        name: &str,
        input: Input,
        request_id: String,
    ) -> Result<Report, FunctionError> {
        let loaded = self.get(scope, name).await?;
        Ok(self.run(scope, &loaded, input, request_id).await)
    }

    async fn run(
        &self,
        scope: &Scope,
        loaded: &Loaded,
        input: Input,
        request_id: String,
    ) -> Report {
        let invocation = Invocation {
            owner: Arc::clone(&loaded.owner),
            module: Arc::clone(&loaded.module),
            input,
            context: BatchContext {
                request_id,
                function: loaded.function.name.clone(),
                version: loaded.function.version.to_string(),
                tenant: scope.tenant.to_string(),
                attempt: 1,
                ..BatchContext::default()
            },
            limits: loaded.function.settings.limits.clone(),
            environment: Arc::clone(&loaded.environment),
            state: Arc::new(NoState),
            now: self.clock.now(),
            seed: [0; 32],
        };
        self.sandbox.invoke(invocation).await
    }

    /// Packed handlers must get through an empty batch. The others would be run on an event that
    /// they were not made for, so they are not.
    async fn dry_run(&self, scope: &Scope, loaded: &Loaded) -> Result<(), DeployError> {
        if loaded.module.carrier().takes_json() {
            return Ok(());
        }
        let report = self
            .run(
                scope,
                loaded,
                Input::Records(Batch::default()),
                "dry-run".into(),
            )
            .await;
        match report.outcome {
            Outcome::Ok { .. } => Ok(()),
            Outcome::Failed(failure) => Err(DeployError::DryRun(failure.cause.to_string())),
            Outcome::Throttled { reason } => Err(DeployError::DryRun(reason)),
            Outcome::Partial { .. } | Outcome::Json { .. } => Err(DeployError::DryRun(
                "it names failed records of an empty batch".into(),
            )),
        }
    }

    fn replayed(&self) -> std::sync::MutexGuard<'_, Option<Arc<dyn Module>>> {
        self.replayed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, LoadedBy> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a function could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// It could not be found or read.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// The store refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Loaded {
    fn new(scope: &Scope, function: Function, module: Arc<dyn Module>) -> Self {
        Self {
            environment: Arc::new(function.settings.environment.clone()),
            owner: Arc::new(Owner {
                scope: scope.clone(),
                function: function.name.as_str().into(),
            }),
            function,
            module,
        }
    }

    /// How the module is called.
    pub fn carrier(&self) -> Carrier {
        self.module.carrier()
    }
}

/// Where a function is stored.
pub fn function_key(scope: &Scope, name: &str) -> Key {
    Key::new(Table::Function, scope).part(name)
}

/// Where a module is stored.
pub(crate) fn module_key(scope: &Scope, digest: &str) -> Key {
    Key::new(Table::Module, scope).part(digest)
}

fn check_name(name: &str) -> Result<(), DeployError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if (1..=64).contains(&name.len()) && name.bytes().all(good) {
        Ok(())
    } else {
        Err(DeployError::Name(name.into()))
    }
}

/// JSON of a value whose serialization cannot fail: no maps with keys other than strings.
pub(crate) fn to_json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value)
        .expect("a value that is always JSON")
        .into()
}
