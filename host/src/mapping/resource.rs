//! What is stored of a mapping, and the operations on it.
//!
//! - `inner`: what the pollers of all mappings share
//! - `keys`: where things are stored

mod inner;
mod keys;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shardmill_core::mapping::{
    BadPolicy, Cursor, FilterCriteria, Policy, Position, StartingPosition, may_be_named,
};
use shardmill_core::{Sandbox, Scope, ShardKey, StreamId, StreamName, UnixMillis, timestamp};
use shardmill_store::{CommitError, Expect, Key, ReadError, Store, Table, Tx, Urgency, Value};
use tokio_util::sync::CancellationToken;

pub(super) use self::inner::Inner;
use self::inner::Parts;
pub(super) use self::keys::{
    cursor_key, cursor_prefix, mapping_key, seek_of, shard_of, shards_in_order,
};
use super::failures::FailuresError;
use super::ids::Ids;
use super::supervisor;
use crate::clock::Clock;
use crate::delivery::{self, Delivery, DeliveryError, Destination};
use crate::functions::{
    BadReference, FunctionError, FunctionRef, Functions, Qualifier, keys_of, to_json,
};

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
    /// The function that it invokes: its name, to which keyed state and counters belong.
    pub function: String,
    /// Which version of it; `$LATEST` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qualifier: Option<Qualifier>,
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

impl Mapping {
    /// What it invokes.
    pub fn named(&self) -> FunctionRef {
        FunctionRef {
            name: self.function.clone(),
            qualifier: self.qualifier.clone(),
        }
    }
}

/// A mapping to be made.
#[derive(Clone, Debug)]
pub struct CreateMapping {
    /// Its name; without one, its UUID.
    pub name: Option<String>,
    /// The stream.
    pub stream: StreamName,
    /// The function, which must exist: `NAME`, or `NAME:VERSION`, `NAME:ALIAS`, `NAME:$LATEST`.
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
    /// The function, as in [`CreateMapping`].
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
    /// No name for a mapping.
    #[error("mapping name {0:?}: 1 to 128 characters expected, none of them control characters")]
    Name(String),
    /// The stream does not exist.
    #[error("stream {0} does not exist: create it first")]
    NoStream(StreamName),
    /// The function does not exist.
    #[error("{0}: deploy, publish or name it first")]
    NoFunction(FunctionError),
    /// A text that names no function.
    #[error(transparent)]
    Function(#[from] BadReference),
    /// The same stream and function are mapped already, or the name is taken.
    #[error("mapping {0:?} exists: change or delete it")]
    Exists(String),
    /// It is on its way out.
    #[error("mapping {0:?} is being deleted: wait until it is gone")]
    Deleting(String),
    /// Whether aggregates are taken apart was settled when it was made.
    #[error("mapping {0:?}: deaggregate stays as it was made: make another mapping")]
    Deaggregate(String),
    /// Nothing runs beside it.
    #[error(
        "mapping {0:?} has no shadow: `shardmill mappings update {0} --set shadow=:VERSION` sets one"
    )]
    NoShadow(String),
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
    /// Records cannot be read from a time that has not come.
    #[error(
        "starting_position_timestamp {} is in the future: at most {} expected, which is now",
        timestamp::format(*at),
        timestamp::format(*now)
    )]
    Future {
        /// The time.
        at: UnixMillis,
        /// When that was.
        now: UnixMillis,
    },
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
    /// What it would lose cannot be left in the failure store.
    #[error(transparent)]
    Failures(#[from] FailuresError),
}

/// Makes, changes, shows and runs mappings. Cheap to clone.
#[derive(Clone)]
pub struct Mappings {
    pub(super) inner: Arc<Inner>,
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
        let parts = Parts {
            store,
            sandbox,
            functions,
            clock,
            notes,
            delivery,
            ids,
        };
        Self {
            inner: Arc::new(Inner::new(parts)),
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
        if let Some(name) = request.name.as_ref().filter(|name| !may_be_named(name)) {
            return Err(MappingError::Name(name.clone()));
        }
        let _control = self.inner.control.lock().await;
        let filters = request.policy.compile()?;
        let now = self.inner.clock.now();
        if let StartingPosition::AtTimestamp(at) = request.starting_position
            && at > now
        {
            return Err(MappingError::Future { at, now });
        }
        warn_of_filters(request.name.as_deref().unwrap_or(""), &filters);
        let inner = &self.inner;
        let stream = inner
            .store
            .stream(scope, &request.stream)
            .filter(|s| s.deleted.is_none());
        let stream = stream.ok_or_else(|| MappingError::NoStream(request.stream.clone()))?;
        let (named, mut function_keys) = self.named(scope, &request.function)?;
        function_keys.extend(self.shadow_keys(scope, &named.name, &request.policy)?);
        self.refuse_another(scope, |other| {
            let same = other.stream_id == stream.id && other.named() == named;
            same || request.name.as_ref() == Some(&other.name)
        })?;
        let destination = request.on_failure.as_ref();
        let destination = destination.map(|d| inner.delivery.check(scope, d));
        let destination = destination.transpose()?.flatten();
        let id = inner.ids.next(scope.tenant);
        let mapping = Mapping {
            name: request.name.unwrap_or_else(|| id.clone()),
            id,
            scope: scope.clone(),
            stream: request.stream,
            stream_id: stream.id,
            function: named.name,
            qualifier: named.qualifier,
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
        let mut expect = vec![Expect::StreamExists(stream.id)];
        expect.extend(function_keys.into_iter().map(Expect::Present));
        expect.extend(destination);
        inner
            .store
            .commit(Tx {
                expect,
                writes,
                ..Tx::default()
            })
            .await?;
        self.inner.filters.keep(&mapping, filters);
        self.inner.changed(&mapping.id);
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
        // One that was there before may have lost its version: no reason to refuse another change.
        let mut checks_shadow = false;
        if let Some(policy) = change.policy {
            warn_of_filters(name, &policy.compile()?);
            let (before, shadow) = (&mapping.policy.shadow, &policy.shadow);
            checks_shadow |=
                before.as_ref().map(|s| &s.function) != shadow.as_ref().map(|s| &s.function);
            if policy.deaggregate != mapping.policy.deaggregate {
                return Err(MappingError::Deaggregate(mapping.name));
            }
            let keys = self.inner.parked_of(&mapping)?.sums().keys;
            if keys > 0 && policy.window().is_some() {
                // What is let go on is delivered without a window.
                let name = mapping.name;
                return Err(MappingError::Parked { name, keys });
            }
            mapping.policy = policy;
        }
        if let Some(function) = change.function {
            let (named, keys) = self.named(scope, &function)?;
            expect.extend(keys.into_iter().map(Expect::Present));
            self.refuse_another(scope, |other| {
                let same = other.stream_id == mapping.stream_id && other.named() == named;
                same && other.id != mapping.id
            })?;
            checks_shadow |= named.name != mapping.function;
            (mapping.function, mapping.qualifier) = (named.name, named.qualifier);
        }
        if checks_shadow {
            let keys = self.shadow_keys(scope, &mapping.function, &mapping.policy)?;
            expect.extend(keys.into_iter().map(Expect::Present));
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
        self.inner.changed(&mapping.id);
        Ok(mapping)
    }

    /// A function that a caller names, with the keys under which it is stored.
    fn named(&self, scope: &Scope, text: &str) -> Result<(FunctionRef, Vec<Key>), MappingError> {
        let named: FunctionRef = text.parse()?;
        match self.inner.functions.route(scope, &named) {
            Ok(_) => {}
            Err(FunctionError::Read(error)) => return Err(error.into()),
            Err(error) => return Err(MappingError::NoFunction(error)),
        }
        let keys = keys_of(scope, &named);
        Ok((named, keys))
    }

    /// The keys under which a mapping's shadow is stored, which must exist; none without one.
    fn shadow_keys(
        &self,
        scope: &Scope,
        function: &str,
        policy: &Policy,
    ) -> Result<Vec<Key>, MappingError> {
        let Some(shadow) = &policy.shadow else {
            return Ok(Vec::new());
        };
        let named = FunctionRef::beside(function, &shadow.function)?;
        Ok(self.named(scope, &named.to_string())?.1)
    }

    /// Refuses what another mapping stands in the way of.
    fn refuse_another(
        &self,
        scope: &Scope,
        is_in_the_way: impl Fn(&Mapping) -> bool,
    ) -> Result<(), MappingError> {
        match self.list(scope)?.into_iter().find(is_in_the_way) {
            Some(other) if other.deleting => Err(MappingError::Deleting(other.name)),
            Some(other) => Err(MappingError::Exists(other.name)),
            None => Ok(()),
        }
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

/// Says what in a mapping's filters is allowed and hardly meant.
fn warn_of_filters(mapping: &str, filters: &FilterCriteria) {
    for warning in filters.lint() {
        tracing::warn!(mapping, %warning, "a filter");
    }
}
