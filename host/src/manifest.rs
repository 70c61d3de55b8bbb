//! `shardmill.toml`: what a host should hold. Read into a raw shape, checked into this one, and
//! reconciled with the store at start and whenever it or a module changes.
//!
//! Nothing of a manifest is used unless all of it is good. Its rules and defaults are in
//! `docs/manifest.md`.

mod build;
mod check;
mod check_alias;
mod check_delivery;
mod check_tenants;
mod error;
mod reconcile;
mod table;
mod watch;

pub use build::{BuildSpec, Language};
pub(crate) use check::{check_function, check_mapping, check_quotas, instant};
pub(crate) use check_alias::check_alias;
pub(crate) use check_delivery::check_on_failure;
pub use error::ManifestError;
pub(crate) use error::{BadKey, closest, unknown_key};
pub use reconcile::{Problem, Reconciler, Summary};
pub(crate) use table::{AliasTable, FunctionTable, Instant, MappingTable, StreamTable};
pub use watch::WatchedFiles;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shardmill_core::mapping::{Policy, StartingPosition};
use shardmill_core::quotas::FunctionQuotas;
use shardmill_core::{Scope, StreamName, TenantId};

use crate::delivery::{self, Destination};
use crate::functions::{self, FunctionSettings};
use crate::mapping::FailureBounds;
use crate::server::{Connections, TlsFiles};
use crate::tenancy::{OperatorSpec, SecretSource, TenantSpec};

/// A manifest whose every value is in its range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// How the host itself runs.
    pub server: ServerSettings,
    /// Streams that should exist.
    pub streams: Vec<StreamSpec>,
    /// Functions that should be deployed.
    pub functions: Vec<FunctionSpec>,
    /// Aliases of functions that should exist.
    pub aliases: Vec<AliasSpec>,
    /// Mappings that should run.
    pub mappings: Vec<MappingSpec>,
    /// Queues that should exist.
    pub queues: Vec<QueueSpec>,
    /// How deliveries to on-failure destinations are made.
    pub delivery: delivery::Settings,
    /// Whether what the manifest named once and no longer names is removed.
    pub prune: bool,
    /// Who may call, and how much each may use.
    pub tenants: Vec<TenantSpec>,
    /// Who may see to all tenants.
    pub operators: Vec<OperatorSpec>,
    /// How `shardmill build` makes the module next to it.
    pub build: Option<BuildSpec>,
}

/// How the host itself runs. The command line's flags win over it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSettings {
    /// Where to listen.
    pub listen: Option<SocketAddr>,
    /// Where the data is; relative to the manifest in the file, absolute here.
    pub data_dir: Option<PathBuf>,
    /// Account and region of what the manifest names; the region also of callers that name none.
    pub scope: Scope,
    /// What each tenant may keep in the failure store.
    pub failures: FailureBounds,
    /// Whether callers must prove who they are.
    pub closed: bool,
    /// How far a signature's time may be from now; `None`: AWS's five minutes.
    pub clock_skew: Option<Duration>,
    /// The file with the key that seals secrets at rest.
    pub secret_key_file: Option<PathBuf>,
    /// What connections may take.
    pub connections: Connections,
    /// What the listener shows, if it speaks TLS.
    pub tls: Option<TlsFiles>,
}

/// A stream that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// Account and region.
    pub scope: Scope,
    /// Its name.
    pub name: StreamName,
    /// Its shards when it is made.
    pub shards: u32,
    /// How long records are kept, hours.
    pub retention_hours: u32,
}

/// A function that should be deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSpec {
    /// Account and region.
    pub scope: Scope,
    /// Its name.
    pub name: String,
    /// Its module, absolute.
    pub wasm: PathBuf,
    /// What it runs with.
    pub settings: FunctionSettings,
    /// What it is due among its tenant's functions; `None` leaves it alone.
    pub quotas: Option<FunctionQuotas>,
}

/// An alias that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasSpec {
    /// Account and region.
    pub scope: Scope,
    /// Its name.
    pub name: String,
    /// The function.
    pub function: String,
    /// What it should be.
    pub spec: functions::AliasSpec,
}

/// A mapping that should run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingSpec {
    /// Account and region.
    pub scope: Scope,
    /// Its name.
    pub name: String,
    /// The stream that it reads.
    pub stream: StreamName,
    /// The function that it invokes, perhaps with a version or an alias.
    pub function: String,
    /// Where it begins when it is made.
    pub starting_position: StartingPosition,
    /// How it cuts, retries and gives up.
    pub policy: Policy,
    /// Whether it runs; `None` leaves a person's pause alone.
    pub enabled: Option<bool>,
    /// Where what it gives up is reported.
    pub on_failure: Option<Destination>,
}

/// A queue that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// Account and region.
    pub scope: Scope,
    /// Its name.
    pub name: String,
    /// How long a received message stays hidden, s; `None` leaves it alone.
    pub visibility_timeout_seconds: Option<u32>,
    /// How long a message is kept, s; `None` leaves it alone.
    pub message_retention_seconds: Option<u32>,
}

impl Manifest {
    /// Reads and checks the manifest at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, names unknown keys or holds a value out of its range.
    pub fn load(path: &Path) -> Result<Self, ManifestError> {
        let unreadable = |source| ManifestError::Unreadable {
            path: path.into(),
            source,
        };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let path = std::path::absolute(path).map_err(unreadable)?;
        Self::parse(&text, &path)
    }

    /// Checks the text of the manifest at `path`, which is absolute.
    ///
    /// # Errors
    /// See [`Manifest::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ManifestError> {
        let raw = toml::from_str(text).map_err(|e| ManifestError::from_toml(path, text, &e))?;
        let base = path.parent().unwrap_or(Path::new("/"));
        check::check(raw, base).map_err(|bad| ManifestError::Bad {
            path: path.into(),
            bad,
        })
    }

    /// Checks tables that make up a whole manifest; files are relative to `base`.
    ///
    /// # Errors
    /// The key that makes no sense, with its table.
    pub(crate) fn of_tables(
        stream: Vec<StreamTable>,
        function: FunctionTable,
        mapping: MappingTable,
        base: &Path,
    ) -> Result<Self, BadKey> {
        let raw = table::RawManifest {
            stream,
            function: vec![function],
            mapping: vec![mapping],
            ..table::RawManifest::default()
        };
        check::check(raw, base)
    }

    /// The same for another account.
    pub(crate) fn of_tenant(&self, tenant: TenantId) -> Self {
        let mut manifest = self.clone();
        manifest.server.scope.tenant = tenant;
        let scopes = (manifest.streams.iter_mut().map(|stream| &mut stream.scope))
            .chain(
                manifest
                    .functions
                    .iter_mut()
                    .map(|function| &mut function.scope),
            )
            .chain(
                manifest
                    .mappings
                    .iter_mut()
                    .map(|mapping| &mut mapping.scope),
            )
            .chain(manifest.queues.iter_mut().map(|queue| &mut queue.scope));
        for scope in scopes {
            scope.tenant = tenant;
        }
        manifest
    }

    /// The files, beside itself, whose change changes what it means.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let tenants = self.tenants.iter().flat_map(|tenant| &tenant.access_keys);
        let operators = self.operators.iter().flat_map(|one| &one.access_keys);
        let secrets = tenants
            .chain(operators)
            .filter_map(|key| match &key.secret {
                SecretSource::File(path) => Some(path.as_path()),
                SecretSource::Inline(_) | SecretSource::Variable(_) => None,
            });
        self.modules().chain(secrets)
    }

    /// The modules that it names.
    pub fn modules(&self) -> impl Iterator<Item = &Path> {
        self.functions.iter().map(|f| f.wasm.as_path())
    }
}

#[cfg(test)]
mod tests;
