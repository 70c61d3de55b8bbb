//! What is stored of a mapping, and the operations on it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use shardmill_core::mapping::{
    BadPolicy, Cursor, FilterCriteria, Policy, Position, StartingPosition,
};
use shardmill_core::{Sandbox, Scope, ShardId, ShardKey, Stream, StreamId, StreamName, UnixMillis};
use shardmill_store::{
    CommitError, Expect, Key, ReadError, Seek, Store, Table, Tx, Urgency, Value,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::dry_run::DryRuns;
use super::failures::Ledger;
use super::ids::Ids;
use super::metrics::MappingMetrics;
use super::parked::ParkedKeys;
use super::supervisor;
use crate::clock::Clock;
use crate::delivery::{self, Delivery, DeliveryError, Destination};
use crate::functions::{Functions, function_key, to_json};

/// Who made a mapping: its defaults differ, and the manifest owns its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The manifest, by name.
    Manifest,
    /// An API call.
    Api,
}

/// A mapping as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Its UUID.
    pub id: String,
    /// Its name, unique in its scope; the UUID when it was given none.
    pub name: String,
    /// Account and region.
    pub scope: Scope,
    /// The stream that it reads.
    pub stream: StreamName,
    /// That stream's incarnation.
    pub stream_id: StreamId,
    /// The function that it invokes.
    pub function: String,
    /// Where shards without a checkpoint are read from.
    pub starting_position: StartingPosition,
    /// How it cuts, retries and gives up.
    pub policy: Policy,
    /// Whether it runs.
    pub enabled: bool,
    /// When it was last changed.
    pub last_modified: UnixMillis,
    /// Who made it.
    pub origin: Origin,
    /// Grows when a person moves its cursors.
    #[serde(default)]
    pub epoch: u64,
    /// Whether it goes as soon as its running batches have ended.
    #[serde(default)]
    pub deleting: bool,
    /// Where what it gives up is reported, beside the failure store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Destination>,
}

/// A mapping to be made.
#[derive(Clone, Debug)]
pub struct CreateMapping {
    /// Its name; without one, its UUID.
    pub name: Option<String>,
    /// The stream.
    pub stream: StreamName,
    /// The function, which must exist.
    pub function: String,
    /// Where to begin.
    pub starting_position: StartingPosition,
    /// How to cut, retry and give up.
    pub policy: Policy,
    /// Whether it runs.
    pub enabled: bool,
    /// Who makes it.
    pub origin: Origin,
    /// Where what it gives up is reported.
    pub on_failure: Option<Destination>,
}

/// What can be changed of a mapping. `None` keeps it.
#[derive(Clone, Debug, Default)]
pub struct UpdateMapping {
    /// The function.
    pub function: Option<String>,
    /// How to cut, retry and give up.
    pub policy: Option<Policy>,
    /// Whether it runs.
    pub enabled: Option<bool>,
    /// Where what it gives up is reported; `Some(None)`: nowhere any more.
    pub on_failure: Option<Option<Destination>>,
}

/// Why an operation on a mapping was refused.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// There is none.
    #[error("mapping {0:?} does not exist")]
    NotFound(String),
    /// The stream does not exist.
    #[error("stream {0} does not exist: create it first")]
    NoStream(StreamName),
    /// The function does not exist.
    #[error("function {0:?} does not exist: deploy it first")]
    NoFunction(String),
    /// The same stream and function are mapped already, or the name is taken.
    #[error("mapping {0:?} exists: change or delete it")]
    Exists(String),
    /// It is on its way out.
    #[error("mapping {0:?} is being deleted: wait until it is gone")]
    Deleting(String),
    /// Whether aggregates are taken apart was settled when it was made.
    #[error("mapping {0:?}: deaggregate stays as it was made: make another mapping")]
    Deaggregate(String),
    /// Parked keys stand in the way.
    #[error("mapping {name:?} has {keys} parked keys: let them go on first, or drop their records")]
    Parked {
        /// The mapping.
        name: String,
        /// How many.
        keys: usize,
    },
    /// No such key is parked.
    #[error("key {0:?} is not parked: `shardmill mappings parked` lists those that are")]
    NotParked(String),
    /// A place that is not in the stream.
    #[error("{0}")]
    NoSuchPlace(String),
    /// Settings out of their ranges, or that exclude each other.
    #[error(transparent)]
    Policy(#[from] BadPolicy),
    /// What it gives up cannot be reported there.
    #[error("on_failure: {0}")]
    Destination(#[from] DeliveryError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Makes, changes, shows and runs mappings. Cheap to clone.
#[derive(Clone)]
pub struct Mappings {
    pub(super) inner: Arc<Inner>,
}

type FunctionLocks = HashMap<(Scope, String), Arc<tokio::sync::RwLock<()>>>;

/// What pollers share.
pub(super) struct Inner {
    pub(super) store: Arc<dyn Store>,
    pub(super) sandbox: Arc<dyn Sandbox>,
    pub(super) functions: Arc<Functions>,
    pub(super) clock: Clock,
    pub(super) changes: watch::Sender<u64>,
    /// Changes when a change of a mapping has taken effect.
    pub(super) settled: watch::Sender<u64>,
    pub(super) metrics: Mutex<HashMap<String, Arc<MappingMetrics>>>,
    /// Held while a mapping is made or changed, so that what was looked up still holds.
    pub(super) control: tokio::sync::Mutex<()>,
    /// Parked keys, by mapping.
    pub(super) parked: Mutex<HashMap<String, Arc<ParkedKeys>>>,
    /// Mappings as they run: nothing older of them does. By id.
    pub(super) applied: Mutex<BTreeMap<String, Mapping>>,
    /// Where pollers note what they have in flight; nowhere without one.
    pub(super) notes: Option<PathBuf>,
    pub(super) ids: Ids,
    /// Batches of one function share this lock; one that met three conflicts holds it alone.
    pub(super) function_locks: Mutex<FunctionLocks>,
    /// Reports what is given up.
    pub(super) delivery: Delivery,
    /// How much is kept of what was given up.
    pub(super) ledger: Ledger,
    /// What the simulator is tested with.
    #[cfg(test)]
    pub(super) defect: std::sync::OnceLock<super::sim::defect::Defect>,
    #[cfg(test)]
    pub(super) defect_fired: std::sync::atomic::AtomicBool,
    /// Dry runs that somebody is looking at.
    pub(super) dry_runs: DryRuns,
}

impl Mappings {
    /// Over this store, sandbox and functions. Runs nothing yet.
    pub fn new(
        store: Arc<dyn Store>,
        sandbox: Arc<dyn Sandbox>,
        functions: Arc<Functions>,
        clock: Clock,
    ) -> Self {
        let delivery = Delivery::new(Arc::clone(&store), clock, delivery::Settings::default());
        Self::with_notes(store, sandbox, functions, clock, None, delivery)
    }

    /// The same, with a folder where batches in flight are noted, so that one that kills the
    /// process is given up, and with what reports to destinations.
    pub fn with_notes(
        store: Arc<dyn Store>,
        sandbox: Arc<dyn Sandbox>,
        functions: Arc<Functions>,
        clock: Clock,
        notes: Option<PathBuf>,
        delivery: Delivery,
    ) -> Self {
        let ids = Ids::Random;
        Self::with_ids(store, sandbox, functions, clock, notes, delivery, ids)
    }

    /// The same, with ids of mappings and requests from a source of one's own.
    pub fn with_ids(
        store: Arc<dyn Store>,
        sandbox: Arc<dyn Sandbox>,
        functions: Arc<Functions>,
        clock: Clock,
        notes: Option<PathBuf>,
        delivery: Delivery,
        ids: Ids,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                sandbox,
                functions,
                clock,
                changes: watch::Sender::new(0),
                settled: watch::Sender::new(0),
                metrics: Mutex::default(),
                control: tokio::sync::Mutex::default(),
                parked: Mutex::default(),
                applied: Mutex::default(),
                notes,
                ids,
                dry_runs: DryRuns::default(),
                function_locks: Mutex::default(),
                delivery,
                ledger: Ledger::default(),
                #[cfg(test)]
                defect: std::sync::OnceLock::new(),
                #[cfg(test)]
                defect_fired: std::sync::atomic::AtomicBool::new(false),
            }),
        }
    }

    /// Runs every enabled mapping until `stop`. Then running batches finish; `kill` cuts them
    /// off, which is safe: they are run again after the next start.
    pub async fn run(&self, stop: CancellationToken, kill: CancellationToken) {
        supervisor::run(Arc::clone(&self.inner), stop, kill).await;
    }

    /// What reports to destinations.
    pub fn delivery(&self) -> &Delivery {
        &self.inner.delivery
    }

    /// Makes a mapping and writes the resolved position of every shard, so that nothing that is
    /// put after this call is missed, whatever the starting position.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub async fn create(
        &self,
        scope: &Scope,
        request: CreateMapping,
    ) -> Result<Mapping, MappingError> {
        let _control = self.inner.control.lock().await;
        request.policy.check()?;
        warn_of_filters(request.name.as_deref().unwrap_or(""), &request.policy);
        let inner = &self.inner;
        let stream = inner
            .store
            .stream(scope, &request.stream)
            .filter(|s| s.deleted.is_none());
        let stream = stream.ok_or_else(|| MappingError::NoStream(request.stream.clone()))?;
        let function_key = function_key(scope, &request.function);
        if inner.store.get(&function_key)?.is_none() {
            return Err(MappingError::NoFunction(request.function));
        }
        for other in self.list(scope)? {
            let same = other.stream_id == stream.id && other.function == request.function;
            if same || request.name.as_ref() == Some(&other.name) {
                if other.deleting {
                    return Err(MappingError::Deleting(other.name));
                }
                return Err(MappingError::Exists(other.name));
            }
        }
        let destination = request.on_failure.as_ref();
        let destination = destination.map(|d| inner.delivery.check(scope, d));
        let destination = destination.transpose()?.flatten();
        let id = inner.ids.next();
        let mapping = Mapping {
            name: request.name.unwrap_or_else(|| id.clone()),
            id,
            scope: scope.clone(),
            stream: request.stream,
            stream_id: stream.id,
            function: request.function,
            starting_position: request.starting_position,
            policy: request.policy,
            enabled: request.enabled,
            last_modified: inner.clock.now(),
            origin: request.origin,
            epoch: 0,
            deleting: false,
            on_failure: request.on_failure,
        };
        let mut writes = vec![(mapping_key(&mapping), Value::Inline(to_json(&mapping)))];
        for shard in &stream.shards {
            let key = ShardKey {
                stream: stream.id,
                shard: shard.id,
            };
            let at = inner
                .store
                .seek(key, seek_of(mapping.starting_position))
                .await?;
            let cursor = Cursor::starting_at(Position::of(at));
            writes.push((
                cursor_key(&mapping, shard.id),
                Value::Inline(to_json(&cursor)),
            ));
        }
        let mut expect = vec![
            Expect::StreamExists(stream.id),
            Expect::Present(function_key),
        ];
        expect.extend(destination);
        inner
            .store
            .commit(Tx {
                expect,
                writes,
                ..Tx::default()
            })
            .await?;
        self.inner.changed();
        Ok(mapping)
    }

    /// The mapping with this name or UUID.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub fn get(&self, scope: &Scope, name: &str) -> Result<Mapping, MappingError> {
        let found = self
            .list(scope)?
            .into_iter()
            .find(|m| m.name == name || m.id == name);
        found.ok_or_else(|| MappingError::NotFound(name.into()))
    }

    /// All mappings of a scope, by name.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub fn list(&self, scope: &Scope) -> Result<Vec<Mapping>, MappingError> {
        let mut all = self.inner.stored(&Key::new(Table::Mapping, scope))?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Changes a mapping. Running batches finish under the old settings.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub async fn update(
        &self,
        scope: &Scope,
        name: &str,
        change: UpdateMapping,
    ) -> Result<Mapping, MappingError> {
        let _control = self.inner.control.lock().await;
        let mut mapping = self.get(scope, name)?;
        let mut expect = vec![Expect::Present(mapping_key(&mapping))];
        if let Some(policy) = change.policy {
            policy.check()?;
            warn_of_filters(name, &policy);
            if policy.deaggregate != mapping.policy.deaggregate {
                return Err(MappingError::Deaggregate(mapping.name));
            }
            mapping.policy = policy;
        }
        if let Some(function) = change.function {
            let key = function_key(scope, &function);
            if self.inner.store.get(&key)?.is_none() {
                return Err(MappingError::NoFunction(function));
            }
            expect.push(Expect::Present(key));
            mapping.function = function;
        }
        if let Some(destination) = change.on_failure {
            let checked = destination.as_ref();
            let checked = checked.map(|d| self.inner.delivery.check(scope, d));
            expect.extend(checked.transpose()?.flatten());
            mapping.on_failure = destination;
        }
        mapping.enabled = change.enabled.unwrap_or(mapping.enabled);
        if mapping.deleting {
            return Err(MappingError::Deleting(mapping.name));
        }
        mapping.last_modified = self.inner.clock.now();
        let writes = vec![(mapping_key(&mapping), Value::Inline(to_json(&mapping)))];
        let urgency = Urgency::Housekeeping;
        let tx = Tx {
            expect,
            writes,
            urgency,
            ..Tx::default()
        };
        self.inner.store.commit(tx).await?;
        self.inner.changed();
        Ok(mapping)
    }

    /// Deletes a mapping with its checkpoints and parked records: it takes no more batches from
    /// now on, and goes when its running ones have ended. Keyed state, counters and failures
    /// stay: they belong to the function and to the tenant.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub async fn delete(&self, scope: &Scope, name: &str) -> Result<Mapping, MappingError> {
        let _control = self.inner.control.lock().await;
        let mut mapping = self.get(scope, name)?;
        mapping.deleting = true;
        mapping.last_modified = self.inner.clock.now();
        self.inner.write(&mapping).await?;
        Ok(mapping)
    }
}

impl Inner {
    /// Every mapping whose key begins with `prefix`. One that is damaged is reported and left
    /// out: the others run.
    pub(super) fn stored(&self, prefix: &Key) -> Result<Vec<Mapping>, ReadError> {
        let all = self.store.scan(prefix, None, usize::MAX)?;
        let parse = |bytes: &[u8]| {
            serde_json::from_slice(bytes)
                .inspect_err(|error| tracing::error!(%error, "a mapping is damaged and left out"))
                .ok()
        };
        Ok(all
            .iter()
            .filter_map(|(_, stored)| parse(&stored.value))
            .collect())
    }

    /// Writes a mapping that exists.
    pub(super) async fn write(&self, mapping: &Mapping) -> Result<(), MappingError> {
        let key = mapping_key(mapping);
        let tx = Tx {
            expect: vec![Expect::Present(key.clone())],
            writes: vec![(key, Value::Inline(to_json(mapping)))],
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        self.store.commit(tx).await?;
        self.changed();
        Ok(())
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    pub(super) fn metrics_of(&self, mapping: &str) -> Arc<MappingMetrics> {
        let mut all = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(mapping.to_owned()).or_default())
    }

    /// The parked keys of a mapping, which all its pollers share.
    pub(super) fn parked_of(&self, mapping: &Mapping) -> Result<Arc<ParkedKeys>, ReadError> {
        let mut all = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = all.get(&mapping.id) {
            return Ok(Arc::clone(found));
        }
        let parked = Arc::new(ParkedKeys::open(self, mapping)?);
        all.insert(mapping.id.clone(), Arc::clone(&parked));
        Ok(parked)
    }

    /// Notes as what mappings run.
    pub(super) fn note_applied(&self, applied: BTreeMap<String, Mapping>) {
        let mut held = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = *held != applied;
        *held = applied;
        drop(held);
        if settled {
            self.settled.send_modify(|n| *n += 1);
        }
    }

    /// As what a mapping runs; `None` when something older of it does, or nothing did yet.
    pub(super) fn applied(&self, id: &str) -> Option<Mapping> {
        let held = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(id).cloned()
    }

    /// Removes a mapping of which nothing runs, with its checkpoints and parked records.
    pub(super) async fn remove(&self, mapping: &Mapping) -> Result<(), MappingError> {
        let mut tx = Tx {
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        tx.writes.push((mapping_key(mapping), Value::Delete));
        for (key, _) in self.store.scan(&cursor_prefix(mapping), None, usize::MAX)? {
            tx.writes.push((key, Value::Delete));
        }
        self.parked_of(mapping)?.delete_all(self, &mut tx)?;
        self.store.commit(tx).await?;
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        parked.remove(&mapping.id);
        drop(parked);
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        metrics.remove(&mapping.id);
        drop(metrics);
        self.changed();
        Ok(())
    }
}

/// Says what in a mapping's filters is allowed and hardly meant.
fn warn_of_filters(mapping: &str, policy: &Policy) {
    let compiled = FilterCriteria::compile(&policy.filter_criteria);
    for warning in compiled.iter().flat_map(FilterCriteria::lint) {
        tracing::warn!(mapping, %warning, "a filter");
    }
}

/// Where a mapping is stored.
pub(super) fn mapping_key(mapping: &Mapping) -> Key {
    Key::new(Table::Mapping, &mapping.scope).part(&mapping.id)
}

/// Where a mapping's cursors are stored.
pub(super) fn cursor_prefix(mapping: &Mapping) -> Key {
    Key::new(Table::Cursor, &mapping.scope)
        .part(&mapping.id)
        .number(mapping.stream_id.0)
}

/// Where the cursor of a shard is stored.
pub(super) fn cursor_key(mapping: &Mapping, shard: ShardId) -> Key {
    cursor_prefix(mapping).number(u64::from(shard.0))
}

pub(super) fn shard_of(key: &Key) -> Option<ShardId> {
    let (_, parts) = key.split()?;
    let number = u64::from_be_bytes((*parts.last()?).try_into().ok()?);
    u32::try_from(number).ok().map(ShardId)
}

pub(super) fn seek_of(position: StartingPosition) -> Seek {
    match position {
        StartingPosition::TrimHorizon => Seek::TrimHorizon,
        StartingPosition::Latest => Seek::Latest,
        StartingPosition::AtTimestamp(time) => Seek::AtTime(time),
    }
}

/// A stream's shards that a mapping has to read, in an order that has parents before children.
pub(super) fn shards_in_order(stream: &Stream) -> impl Iterator<Item = ShardId> {
    stream.shards.iter().map(|s| s.id)
}
