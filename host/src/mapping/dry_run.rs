//! Dry runs: what other filters or another module would have made of the records that are there.
//! Nothing is moved and nothing kept: no cursor, no state, no counter, no record.
//!
//! A dry run is pulled: each call does about a second of it and answers with what is known so
//! far, so that nothing runs for somebody who went away. Shards are run in order, parents before
//! children, one batch at a time; batches are cut as the mapping would cut them, if it found all
//! records there at once.

mod compare;
mod cut;
mod filtered;
mod version;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use shardmill_core::mapping::{BadFilter, FilterCriteria, Policy};
use shardmill_core::sandbox::LoadError;
use shardmill_core::{Scope, ShardId, ShardKey, UnixMillis};
use shardmill_store::{ReadError, Seek};
use uuid::Uuid;

use self::compare::{Comparison, Differences};
use self::cut::Cutter;
use self::filtered::{FilterReport, FilterTrial};
use self::version::{Trial, Version, VersionReport};
use super::operate::RewindTo;
use super::resource::{Inner, Mapping, MappingError, Mappings};
use crate::functions::{FunctionError, Loaded};

/// Records that a dry run takes when nobody says how many.
pub const DEFAULT_DRY_RUN_RECORDS: u64 = 10_000;
/// Records that a dry run takes at the most.
pub const MAX_DRY_RUN_RECORDS: u64 = 1_000_000;

/// Dry runs at a time, over all accounts: each may hold 512 MiB of state.
const MAX_AT_A_TIME: usize = 4;
/// Dry runs of one account at a time: others come to it, too.
const MAX_OF_AN_ACCOUNT: usize = 2;
/// A dry run that nobody has asked for so long is forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// How long one call works before it answers.
const PAGE: Duration = Duration::from_secs(1);

/// What to try.
pub struct DryRunRequest {
    /// Filters instead of the mapping's.
    pub filters: Option<Vec<String>>,
    /// A module to be compared with the function's current one.
    pub module: Option<Bytes>,
    /// Where to begin.
    pub from: RewindTo,
    /// Records at the most, 1 … 1,000,000; a record that is an aggregate is one.
    pub limit: u64,
}

/// How far a dry run is.
#[derive(Clone, Debug, Serialize)]
pub struct DryRunPage {
    /// By this it is asked to go on, within a minute.
    pub id: String,
    /// Whether this is all.
    pub done: bool,
    /// Records that were looked at.
    pub records: u64,
    /// Records that there are to be looked at.
    pub total: u64,
    /// What filters made of them; none without filters.
    pub filter: Option<FilterReport>,
    /// The current version's run; none without a module.
    pub current: Option<VersionReport>,
    /// The module's run.
    pub new: Option<VersionReport>,
    /// How they differ.
    pub differences: Option<Differences>,
}

/// Why there is no dry run.
#[derive(Debug, thiserror::Error)]
pub enum DryRunError {
    /// No such mapping, place, or store.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// Filters that are none.
    #[error(transparent)]
    Filter(#[from] BadFilter),
    /// A module that cannot be used.
    #[error(transparent)]
    Module(#[from] LoadError),
    /// The function's current version cannot be run.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// A limit out of its range.
    #[error("limit {0}: 1 to {MAX_DRY_RUN_RECORDS} records expected")]
    Limit(u64),
    /// Nothing to try.
    #[error("mapping {0:?} has no filters: name filters or a module to try")]
    Nothing(String),
    /// State of windows cannot be made up.
    #[error("mapping {0:?} has a tumbling window: a module cannot be tried on it")]
    Window(String),
    /// Others are at it.
    #[error(
        "{MAX_AT_A_TIME} dry runs are going on, or {MAX_OF_AN_ACCOUNT} of this account: wait \
         until one has ended"
    )]
    TooMany,
    /// It ended, or nobody asked for a minute.
    #[error("dry run {0:?} is not going on: begin a new one")]
    NotFound(String),
    /// The host has no room for invocations.
    #[error("the host has no room: {0}: try again when there is less to do")]
    Throttled(String),
    /// More state than is held in memory.
    #[error("the dry run wrote more than {0} bytes of keyed state: take fewer records")]
    TooMuchState(usize),
}

impl From<ReadError> for DryRunError {
    fn from(error: ReadError) -> Self {
        Self::Mapping(error.into())
    }
}

/// Those that are going on.
#[derive(Default)]
pub(super) struct DryRuns {
    held: Mutex<HashMap<String, Held>>,
}

struct Held {
    scope: Scope,
    used: UnixMillis,
    /// `None` while it is being begun.
    run: Option<Arc<tokio::sync::Mutex<DryRun>>>,
}

/// A place among the dry runs, given back unless it is filled.
struct Slot<'a> {
    runs: &'a DryRuns,
    id: String,
}

impl Slot<'_> {
    fn fill(self, run: DryRun, now: UnixMillis) -> String {
        let id = self.id.clone();
        if let Some(held) = self.runs.held().get_mut(&id) {
            held.used = now;
            held.run = Some(Arc::new(tokio::sync::Mutex::new(run)));
        }
        id
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut held = self.runs.held();
        if held.get(&self.id).is_some_and(|held| held.run.is_none()) {
            held.remove(&self.id);
        }
    }
}

impl DryRuns {
    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a dry run that is about to be begun, which costs something, too.
    fn reserve(&self, scope: &Scope, now: UnixMillis) -> Result<Slot<'_>, DryRunError> {
        self.sweep(now);
        let mut held = self.held();
        let of_account = held.values().filter(|h| h.scope.tenant == scope.tenant);
        if held.len() >= MAX_AT_A_TIME || of_account.count() >= MAX_OF_AN_ACCOUNT {
            return Err(DryRunError::TooMany);
        }
        let id = Uuid::new_v4().to_string();
        let entry = Held {
            scope: scope.clone(),
            used: now,
            run: None,
        };
        held.insert(id.clone(), entry);
        Ok(Slot { runs: self, id })
    }

    /// Forgets those that nobody has asked for in a minute.
    fn sweep(&self, now: UnixMillis) {
        let at_work = |held: &Held| match &held.run {
            None => true,
            Some(run) => run.try_lock().is_err(),
        };
        self.held()
            .retain(|_, held| now.since(held.used) < IDLE || at_work(held));
    }

    fn find(
        &self,
        scope: &Scope,
        id: &str,
        now: UnixMillis,
    ) -> Option<Arc<tokio::sync::Mutex<DryRun>>> {
        let mut held = self.held();
        let found = held.get_mut(id).filter(|h| h.scope == *scope)?;
        found.used = now;
        found.run.clone()
    }
}

/// A dry run.
struct DryRun {
    mapping: Mapping,
    criteria: FilterCriteria,
    shards: VecDeque<Stretch>,
    cutter: Option<Cutter>,
    /// Whether a page is being worked on. Found at the beginning of one, the last was cut off in
    /// the middle of a batch, and what is known of it makes no sense.
    torn: bool,
    records: u64,
    total: u64,
    filter: Option<FilterTrial>,
    versions: Option<Comparison>,
}

/// What is looked at of a shard.
struct Stretch {
    shard: ShardId,
    from: u64,
    to: u64,
}

impl Mappings {
    /// Begins a dry run and does the first second of it.
    ///
    /// # Errors
    /// See [`DryRunError`].
    pub async fn dry_run(
        &self,
        scope: &Scope,
        name: &str,
        request: DryRunRequest,
    ) -> Result<DryRunPage, DryRunError> {
        let now = || self.inner.clock.now();
        let slot = self.inner.dry_runs.reserve(scope, now())?;
        let run = self.inner.begin_dry_run(scope, name, request).await?;
        let id = slot.fill(run, now());
        self.dry_run_on(scope, &id).await
    }

    /// Forgets dry runs that nobody has asked for in a minute, and frees what they hold.
    pub fn sweep_dry_runs(&self) {
        self.inner.dry_runs.sweep(self.inner.clock.now());
    }

    /// Goes on with a dry run for about a second.
    ///
    /// # Errors
    /// See [`DryRunError`]; the dry run has ended after any.
    pub async fn dry_run_on(&self, scope: &Scope, id: &str) -> Result<DryRunPage, DryRunError> {
        let (inner, dry_runs) = (&self.inner, &self.inner.dry_runs);
        let run = dry_runs.find(scope, id, inner.clock.now());
        let run = run.ok_or_else(|| DryRunError::NotFound(id.into()))?;
        let mut run = run.lock().await;
        let page = run.page(inner, id).await;
        match &page {
            Ok(page) if !page.done => {
                let _ = dry_runs.find(scope, id, inner.clock.now());
            }
            _ => drop(dry_runs.held().remove(id)),
        }
        page
    }
}

impl Inner {
    async fn begin_dry_run(
        &self,
        scope: &Scope,
        name: &str,
        request: DryRunRequest,
    ) -> Result<DryRun, DryRunError> {
        if !(1..=MAX_DRY_RUN_RECORDS).contains(&request.limit) {
            return Err(DryRunError::Limit(request.limit));
        }
        let all = self.stored(&shardmill_store::Key::new(
            shardmill_store::Table::Mapping,
            scope,
        ))?;
        let mapping = all.into_iter().find(|m| m.name == name || m.id == name);
        let mapping = mapping.ok_or_else(|| MappingError::NotFound(name.into()))?;
        let texts = request
            .filters
            .unwrap_or_else(|| mapping.policy.filter_criteria.clone());
        let criteria = FilterCriteria::compile(&texts)?;
        if criteria.is_empty() && request.module.is_none() {
            return Err(DryRunError::Nothing(mapping.name));
        }
        let versions = match request.module {
            None => None,
            Some(_) if mapping.policy.window().is_some() => {
                return Err(DryRunError::Window(mapping.name));
            }
            Some(wasm) => Some(self.versions(&mapping, wasm).await?),
        };
        let stream = self.store.stream_by_id(mapping.stream_id);
        let stream = stream.ok_or_else(|| MappingError::NoStream(mapping.stream.clone()))?;
        let mut shards = VecDeque::new();
        let mut left = request.limit;
        for (shard, at) in self.places(&stream, request.from).await? {
            let key = ShardKey {
                stream: stream.id,
                shard,
            };
            let floor = self.store.seek(key, Seek::TrimHorizon).await?;
            let end = self.store.seek(key, Seek::Latest).await?;
            let from = at.record.max(floor).min(end);
            let to = end.min(from.saturating_add(left));
            left -= to - from;
            if from < to {
                shards.push_back(Stretch { shard, from, to });
            }
        }
        Ok(DryRun {
            total: request.limit - left,
            filter: (!criteria.is_empty()).then(|| FilterTrial::new(&criteria)),
            mapping,
            criteria,
            shards,
            cutter: None,
            torn: false,
            records: 0,
            versions,
        })
    }

    /// The current version and the module in the same place, with the same settings.
    async fn versions(&self, mapping: &Mapping, wasm: Bytes) -> Result<Comparison, DryRunError> {
        let running = self.running(mapping)?;
        let current = self.functions.ready(&mapping.scope, &running.route).await?;
        let current = current.first;
        let module = self.sandbox.load(wasm).await?;
        let new = Arc::new(Loaded {
            function: Arc::clone(&current.function),
            module,
            environment: Arc::clone(&current.environment),
            owner: Arc::clone(&current.owner),
        });
        Ok(Comparison::new(Version::new(current), Version::new(new)))
    }
}

impl DryRun {
    /// Works until the page is full or nothing is left.
    async fn page(&mut self, inner: &Inner, id: &str) -> Result<DryRunPage, DryRunError> {
        if std::mem::replace(&mut self.torn, true) {
            return Err(DryRunError::NotFound(id.into()));
        }
        let until = inner.clock.now().plus(PAGE);
        let mut done = false;
        while !done && inner.clock.now() < until {
            done = !self.step(inner).await?;
        }
        self.torn = false;
        let versions = self.versions.as_ref();
        Ok(DryRunPage {
            id: id.into(),
            done,
            records: self.records,
            total: self.total,
            filter: self.filter.as_ref().map(FilterTrial::report),
            current: versions.map(|v| v.current.report()),
            new: versions.map(|v| v.new.report()),
            differences: versions.map(Comparison::report),
        })
    }

    /// Reads on, or runs a batch. `false`: nothing is left.
    async fn step(&mut self, inner: &Inner) -> Result<bool, DryRunError> {
        let Some(cutter) = &mut self.cutter else {
            let Some(stretch) = self.shards.pop_front() else {
                return Ok(false);
            };
            self.cutter = Some(Cutter::new(inner, &self.mapping, &stretch));
            return Ok(true);
        };
        if let Some(batch) = cutter.next_batch() {
            if let Some(versions) = &mut self.versions {
                let trial = Trial {
                    inner,
                    mapping: &self.mapping,
                    shard: cutter.shard(),
                    now: inner.clock.now(),
                };
                versions.run(&trial, &batch).await?;
            }
            return Ok(true);
        }
        let before = cutter.at();
        let new = self.versions.as_ref().map(|v| v.new.loaded());
        let measure = (&self.mapping, new);
        cutter
            .read_on(measure, &self.criteria, self.filter.as_mut())
            .await?;
        self.records += cutter.at().saturating_sub(before);
        if cutter.is_at_end() {
            self.cutter = None;
        }
        Ok(true)
    }
}

/// The policy under which batches are cut and failures isolated: nothing is waited for, nothing
/// tried twice, since the same records would fail again.
fn policy_of(mapping: &Mapping) -> Policy {
    Policy {
        batching_window: Duration::from_secs(300),
        maximum_retry_attempts: Some(0),
        maximum_record_age: None,
        on_exhausted: shardmill_core::mapping::OnExhausted::Discard,
        ..mapping.policy.clone()
    }
}
