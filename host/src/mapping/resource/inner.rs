//! What the pollers of all mappings share.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shardmill_core::{Sandbox, Scope, ShardId};
use shardmill_store::{Expect, Key, ReadError, Store, Tx, Urgency, Value};
use tokio::sync::watch;

use super::{Mapping, MappingError, cursor_prefix, mapping_key};
use crate::clock::Clock;
use crate::delivery::Delivery;
use crate::functions::{Functions, to_json};
use crate::mapping::dry_run::DryRuns;
use crate::mapping::failures::Ledger;
use crate::mapping::filters::CompiledFilters;
use crate::mapping::ids::Ids;
use crate::mapping::metrics::MappingMetrics;
use crate::mapping::parked::ParkedKeys;
use crate::mapping::rollouts::{MappingRollout, rollout_key};
use crate::mapping::shadow::MappingShadow;
use crate::mapping::supervisor::{Worker, WorkerId};

type FunctionLocks = HashMap<(Scope, String), Arc<tokio::sync::RwLock<()>>>;

/// What pollers share.
pub(in crate::mapping) struct Inner {
    pub(in crate::mapping) store: Arc<dyn Store>,
    pub(in crate::mapping) sandbox: Arc<dyn Sandbox>,
    pub(in crate::mapping) functions: Arc<Functions>,
    pub(in crate::mapping) clock: Clock,
    /// Changes with any mapping.
    pub(in crate::mapping) changes: watch::Sender<u64>,
    /// Changes with one mapping: what its own pollers look at.
    wakes: Mutex<HashMap<String, watch::Sender<u64>>>,
    /// Workers that died of a bug, the mapping that they ran, and how they died.
    dead: Mutex<BTreeMap<WorkerId, (Mapping, String)>>,
    /// Changes when a change of a mapping has taken effect.
    pub(in crate::mapping) settled: watch::Sender<u64>,
    pub(in crate::mapping) metrics: Mutex<HashMap<String, Arc<MappingMetrics>>>,
    /// Held while a mapping is made or changed, so that what was looked up still holds.
    pub(in crate::mapping) control: tokio::sync::Mutex<()>,
    /// The filter criteria of mappings.
    pub(in crate::mapping) filters: CompiledFilters,
    /// Parked keys, by mapping.
    pub(in crate::mapping) parked: Mutex<HashMap<String, Arc<ParkedKeys>>>,
    /// The versions that mappings trust, by mapping.
    pub(in crate::mapping) rollouts: Mutex<HashMap<String, Arc<MappingRollout>>>,
    /// What runs beside mappings, by mapping.
    pub(in crate::mapping) shadows: Mutex<HashMap<String, Arc<MappingShadow>>>,
    /// Mappings as they run: nothing older of them does. By id.
    pub(in crate::mapping) applied: Mutex<BTreeMap<String, Mapping>>,
    /// Where pollers note what they have in flight; nowhere without one.
    pub(in crate::mapping) notes: Option<PathBuf>,
    pub(in crate::mapping) ids: Ids,
    /// Batches of one function share this lock; one that met three conflicts holds it alone.
    pub(in crate::mapping) function_locks: Mutex<FunctionLocks>,
    /// Reports what is given up.
    pub(in crate::mapping) delivery: Delivery,
    /// How much is kept of what was given up.
    pub(in crate::mapping) ledger: Ledger,
    /// What the simulator is tested with.
    #[cfg(test)]
    pub(in crate::mapping) defect: std::sync::OnceLock<crate::mapping::sim::defect::Defect>,
    #[cfg(test)]
    pub(in crate::mapping) defect_fired: std::sync::atomic::AtomicBool,
    /// Dry runs that somebody is looking at.
    pub(in crate::mapping) dry_runs: DryRuns,
}

/// What comes from outside.
pub(super) struct Parts {
    pub(super) store: Arc<dyn Store>,
    pub(super) sandbox: Arc<dyn Sandbox>,
    pub(super) functions: Arc<Functions>,
    pub(super) clock: Clock,
    pub(super) notes: Option<PathBuf>,
    pub(super) delivery: Delivery,
    pub(super) ids: Ids,
}

impl Inner {
    /// Nothing runs yet.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            store,
            sandbox,
            functions,
            clock,
            notes,
            delivery,
            ids,
        } = parts;
        Self {
            store,
            sandbox,
            functions,
            clock,
            changes: watch::Sender::new(0),
            wakes: Mutex::default(),
            dead: Mutex::default(),
            settled: watch::Sender::new(0),
            metrics: Mutex::default(),
            control: tokio::sync::Mutex::default(),
            filters: CompiledFilters::default(),
            parked: Mutex::default(),
            rollouts: Mutex::default(),
            shadows: Mutex::default(),
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
        }
    }

    /// Every mapping whose key begins with `prefix`. One that is damaged is reported and left
    /// out: the others run.
    pub(in crate::mapping) fn stored(&self, prefix: &Key) -> Result<Vec<Mapping>, ReadError> {
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
    pub(in crate::mapping) async fn write(&self, mapping: &Mapping) -> Result<(), MappingError> {
        let key = mapping_key(mapping);
        let tx = Tx {
            expect: vec![Expect::Present(key.clone())],
            writes: vec![(key, Value::Inline(to_json(mapping)))],
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        self.store.commit(tx).await?;
        self.changed(&mapping.id);
        Ok(())
    }

    /// Tells the supervisor, and the pollers of the mapping, that it has changed.
    pub(in crate::mapping) fn changed(&self, mapping: &str) {
        if let Some(wake) = held(&self.wakes).get(mapping) {
            wake.send_modify(|n| *n += 1);
        }
        self.changes.send_modify(|n| *n += 1);
    }

    /// Tells when a mapping changes.
    pub(in crate::mapping) fn watch(&self, mapping: &str) -> watch::Receiver<u64> {
        let mut wakes = held(&self.wakes);
        wakes.entry(mapping.to_owned()).or_default().subscribe()
    }

    /// Notes that a worker died. It is not started again with the mapping as it is.
    pub(in crate::mapping) fn note_dead(&self, id: WorkerId, mapping: &Mapping, error: &str) {
        if id.1 == Worker::Shadow {
            // The mapping itself gets on.
            self.note_shadow_dead(mapping, error);
        } else {
            let problem = format!("PROBLEM: {error}");
            self.metrics_of(&mapping.id).set_last_result(&problem);
        }
        held(&self.dead).insert(id, (mapping.clone(), error.to_owned()));
    }

    /// Whether a worker died of running the mapping as it is.
    pub(in crate::mapping) fn is_dead(&self, id: &WorkerId, mapping: &Mapping) -> bool {
        let dead = held(&self.dead);
        dead.get(id).is_some_and(|(with, _)| with == mapping)
    }

    /// How the poller of a shard died, if it stands still since.
    pub(in crate::mapping) fn death(&self, mapping: &Mapping, shard: ShardId) -> Option<String> {
        let id = (mapping.id.clone(), Worker::Poller(shard));
        let dead = held(&self.dead);
        let found = dead.get(&id).filter(|(with, _)| with == mapping);
        found.map(|(_, error)| error.clone())
    }

    /// Lets the workers of a mapping that died begin anew. Gives how many.
    pub(in crate::mapping) fn forget_dead(&self, mapping: &str) -> usize {
        let mut dead = held(&self.dead);
        let before = dead.len();
        dead.retain(|(id, _), _| id != mapping);
        before - dead.len()
    }

    pub(in crate::mapping) fn metrics_of(&self, mapping: &str) -> Arc<MappingMetrics> {
        let mut all = held(&self.metrics);
        Arc::clone(all.entry(mapping.to_owned()).or_default())
    }

    /// The parked keys of a mapping, which all its pollers share.
    pub(in crate::mapping) fn parked_of(
        &self,
        mapping: &Mapping,
    ) -> Result<Arc<ParkedKeys>, ReadError> {
        let mut all = held(&self.parked);
        if let Some(found) = all.get(&mapping.id) {
            return Ok(Arc::clone(found));
        }
        let parked = Arc::new(ParkedKeys::open(self, mapping)?);
        all.insert(mapping.id.clone(), Arc::clone(&parked));
        Ok(parked)
    }

    /// The versions that a mapping trusts.
    pub(in crate::mapping) fn rollout_of(
        &self,
        mapping: &Mapping,
    ) -> Result<Arc<MappingRollout>, ReadError> {
        let mut all = held(&self.rollouts);
        if let Some(found) = all.get(&mapping.id) {
            return Ok(Arc::clone(found));
        }
        let rollout = Arc::new(MappingRollout::open(self, mapping)?);
        all.insert(mapping.id.clone(), Arc::clone(&rollout));
        Ok(rollout)
    }

    /// Notes as what mappings run.
    pub(in crate::mapping) fn note_applied(&self, applied: BTreeMap<String, Mapping>) {
        let before = std::mem::replace(&mut *held(&self.applied), applied.clone());
        let settled = before != applied;
        if settled {
            self.settled.send_modify(|n| *n += 1);
        }
    }

    /// As what a mapping runs; `None` when something older of it does, or nothing did yet.
    pub(in crate::mapping) fn applied(&self, id: &str) -> Option<Mapping> {
        held(&self.applied).get(id).cloned()
    }

    /// Removes a mapping of which nothing runs, with its checkpoints and parked records.
    pub(in crate::mapping) async fn remove(&self, mapping: &Mapping) -> Result<(), MappingError> {
        let mut tx = Tx {
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        tx.writes.push((mapping_key(mapping), Value::Delete));
        tx.writes.push((rollout_key(mapping), Value::Delete));
        for (key, _) in self.store.scan(&cursor_prefix(mapping), None, usize::MAX)? {
            tx.writes.push((key, Value::Delete));
        }
        self.parked_of(mapping)?.delete_all(self, &mut tx)?;
        self.store.commit(tx).await?;
        self.forget_dead(&mapping.id);
        held(&self.parked).remove(&mapping.id);
        held(&self.rollouts).remove(&mapping.id);
        self.forget_shadow(&mapping.id);
        self.filters.forget(mapping);
        held(&self.metrics).remove(&mapping.id);
        held(&self.wakes).remove(&mapping.id);
        // Others take the lock of its function again.
        held(&self.function_locks).retain(|_, lock| Arc::strong_count(lock) > 1);
        self.changed(&mapping.id);
        Ok(())
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
