//! On-failure destinations: what a mapping gives up is reported to a queue, an object store, a
//! folder or a webhook, through a durable outbox. `docs/delivery.md` says what is promised.
//!
//! The transaction that gives records up also writes the delivery ([`Delivery::outbox_entry`]), so
//! none is lost, and no shard waits for a destination. One task makes the deliveries
//! ([`Delivery::run`]); which goes next is [`schedule`]'s to say, how one is sent [`send`]'s.

mod allowed;
mod deliverer;
mod destination;
mod document;
mod http;
mod list;
mod object;
mod outbox;
mod schedule;
mod send;
mod webhook;

pub use allowed::Allowed;
pub(crate) use destination::is_queue_name;
pub use destination::{BadDestination, Destination, Kind};
pub(crate) use document::GivenUp;
pub use list::{Filter, Listed, Page};
pub use object::S3Settings;
pub use outbox::{Bounds, Entry, Undeliverable};

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use shardmill_core::{Scope, UnixMillis};
use shardmill_store::{CommitError, Expect, Key, ReadError, Store, Table, Tx, Urgency, Value};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::functions::to_json;
use crate::queues::{QueueError, Queues};
use outbox::{MAX_COPIED_BYTES, Usage, entry_key};
use schedule::{LaneId, Schedule};

/// How deliveries are made.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Age at which a delivery that fails once more is given up. Default 24 h.
    pub maximum_age: Duration,
    /// How long one attempt may take, and 1 s more for each MiB that it sends. Default 10 s.
    pub timeout: Duration,
    /// What an account may keep in the outbox.
    pub bounds: Bounds,
    /// Signs what webhooks are sent; unsigned without one.
    pub webhook_secret: Option<String>,
    /// The object store.
    pub s3: S3Settings,
    /// Which destinations may be named.
    pub allowed: Allowed,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            maximum_age: Duration::from_secs(86_400),
            timeout: Duration::from_secs(10),
            bounds: Bounds::default(),
            webhook_secret: None,
            s3: S3Settings::default(),
            allowed: Allowed::default(),
        }
    }
}

impl std::fmt::Debug for Settings {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("maximum_age", &self.maximum_age)
            .field("timeout", &self.timeout)
            .field("bounds", &self.bounds)
            .field("s3", &self.s3)
            .field("allowed", &self.allowed)
            .finish_non_exhaustive()
    }
}

/// What became of a mapping's deliveries since the host started, and what waits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Records that were reported: `OnFailureDestinationDeliveredEventCount`.
    pub delivered: u64,
    /// Deliveries that could not be made: `DestinationDeliveryFailures`.
    pub delivery_failures: u64,
    /// Deliveries that wait.
    pub deliveries_pending: u64,
    /// What the last attempt met, if it failed.
    pub delivery_problem: Option<String>,
}

/// Why an operation on deliveries was refused.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// There is none.
    #[error("delivery {0:?} does not exist: it was made, or dropped")]
    NotFound(String),
    /// Several ids begin so.
    #[error("the ids of {count} deliveries begin with {id:?}: give more of it")]
    Ambiguous {
        /// What was given.
        id: String,
        /// How many there are, at least.
        count: usize,
    },
    /// The operator does not let this destination be named.
    #[error(transparent)]
    NotAllowed(#[from] BadDestination),
    /// The destination cannot be used by this account.
    #[error("destination {destination}: queues of account {account} only")]
    ForeignQueue {
        /// The destination.
        destination: Destination,
        /// The mapping's account.
        account: String,
    },
    /// The destination's queue does not exist.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Makes deliveries. Cheap to clone.
#[derive(Clone)]
pub struct Delivery {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    clock: Clock,
    settings: Settings,
    queues: Queues,
    state: Mutex<State>,
    woken: Notify,
}

struct State {
    schedule: Schedule,
    usage: Usage,
    /// Written into transactions that may or may not have been committed yet.
    announced: Vec<Announced>,
    figures: HashMap<String, Figures>,
    /// Ids of those that are not tried any more. An account that had some stays, with none.
    undeliverable: BTreeMap<Scope, HashSet<String>>,
}

/// An entry that a transaction holds.
struct Announced {
    scope: Scope,
    id: String,
    at: UnixMillis,
    /// Not before then is it looked for.
    look_at: UnixMillis,
}

impl Delivery {
    /// Over this store. Delivers nothing before [`Delivery::run`].
    pub fn new(store: Arc<dyn Store>, clock: Clock, settings: Settings) -> Self {
        let state = State {
            schedule: Schedule::new(settings.maximum_age),
            usage: Usage::default(),
            announced: Vec::new(),
            figures: HashMap::new(),
            undeliverable: BTreeMap::new(),
        };
        Self {
            inner: Arc::new(Inner {
                queues: Queues::new(Arc::clone(&store), clock),
                store,
                clock,
                settings,
                state: Mutex::new(state),
                woken: Notify::new(),
            }),
        }
    }

    /// The queues that deliveries may go to.
    pub fn queues(&self) -> &Queues {
        &self.inner.queues
    }

    /// Checks that a mapping of `scope` may report to `destination` now. Returns what must still
    /// hold when the mapping is written.
    ///
    /// # Errors
    /// A queue of another account, or one that does not exist; a place that is not allowed.
    pub fn check(
        &self,
        scope: &Scope,
        destination: &Destination,
    ) -> Result<Option<Expect>, DeliveryError> {
        self.inner.settings.allowed.check(destination)?;
        let Kind::Queue { scope: owner, name } = destination.kind() else {
            return Ok(None);
        };
        if owner.tenant != scope.tenant {
            return Err(DeliveryError::ForeignQueue {
                destination: destination.clone(),
                account: scope.tenant.to_string(),
            });
        }
        self.inner.queues.get(owner, name)?;
        Ok(Some(Expect::Present(crate::queues::queue_key(owner, name))))
    }

    /// Checks that a caller of this host's API may name `destination` at all.
    ///
    /// # Errors
    /// A place that is not allowed.
    pub fn check_caller(&self, destination: &Destination) -> Result<(), DeliveryError> {
        Ok(self.inner.settings.allowed.check_caller(destination)?)
    }

    /// Writes the delivery of records that `tx` gives up into it. Without room in the outbox the
    /// delivery is counted as failed: the failure store has the records all the same.
    pub(crate) fn outbox_entry(
        &self,
        tx: &mut Tx,
        destination: &Destination,
        given_up: &GivenUp<'_>,
    ) {
        let Some(document) = document::document(given_up) else {
            return;
        };
        let payload = destination
            .takes_payload()
            .then(|| Bytes::from(given_up.batch.to_stored()))
            .filter(|payload| !payload.is_empty() && payload.len() <= MAX_COPIED_BYTES);
        let entry = Entry {
            id: given_up.id.into(),
            scope: given_up.scope.clone(),
            created: given_up.now,
            mapping: given_up.mapping.into(),
            mapping_id: given_up.mapping_id.into(),
            destination: destination.clone(),
            stream: given_up.stream.into(),
            shard: given_up.shard.into(),
            records: given_up.batch.len() as u64,
            payload_bytes: payload.as_ref().map_or(0, |p| p.len() as u64),
            document,
            tried_since: None,
            undeliverable: None,
        };
        let json = to_json(&entry);
        let bytes = json.len() as u64 + entry.payload_bytes;
        let bounds = self.inner.settings.bounds;
        let mut state = self.inner.state();
        if !state.usage.take(&entry.scope, &entry.id, bytes, bounds) {
            let problem = format!(
                "the outbox is full ({} deliveries or {} bytes of an account): \
                 `shardmill deliveries` lists what is there",
                bounds.entries, bounds.bytes
            );
            tracing::warn!(mapping = entry.mapping, id = entry.id, problem);
            state.count(&entry.mapping_id, |figures| {
                figures.delivery_failures += 1;
                figures.delivery_problem = Some(problem);
            });
            return;
        }
        state.announced.push(Announced {
            scope: entry.scope.clone(),
            id: entry.id.clone(),
            at: given_up.now,
            look_at: UnixMillis(0),
        });
        drop(state);
        tx.writes.extend(outbox::write(&entry, json, payload));
        self.inner.woken.notify_one();
    }

    /// A mapping's figures.
    pub fn figures(&self, mapping_id: &str) -> Figures {
        let state = self.inner.state();
        let figures = state.figures.get(mapping_id).cloned().unwrap_or_default();
        Figures {
            deliveries_pending: state.schedule.waiting(mapping_id),
            ..figures
        }
    }

    /// Deliveries that are listed and not tried any more, of each account and region that has had
    /// some since the host started.
    pub fn undeliverable(&self) -> Vec<(Scope, u64)> {
        let state = self.inner.state();
        let counts = state.undeliverable.iter();
        counts
            .map(|(scope, ids)| (scope.clone(), ids.len() as u64))
            .collect()
    }

    /// Forgets the figures of mappings that are no more.
    ///
    /// # Errors
    /// The store's.
    pub fn tidy(&self) -> Result<(), ReadError> {
        if self.inner.state().figures.is_empty() {
            return Ok(());
        }
        let prefix = Key::table_prefix(Table::Mapping);
        let mappings = self.inner.store.scan(&prefix, None, usize::MAX)?;
        let ids: HashSet<String> = mappings
            .iter()
            .filter_map(|(key, _)| outbox::id_of(key))
            .collect();
        self.inner
            .state()
            .figures
            .retain(|mapping, _| ids.contains(mapping));
        Ok(())
    }

    /// Tries a delivery at once, and anew for the whole of its age if it had been given up.
    ///
    /// # Errors
    /// `NotFound`, or the store's.
    pub async fn retry(&self, scope: &Scope, id: &str) -> Result<Entry, DeliveryError> {
        let key = entry_key(scope, id);
        loop {
            let found = self.inner.store.get(&key)?;
            let (Some(found), Some(mut entry)) =
                (found, outbox::find(self.inner.store.as_ref(), scope, id)?)
            else {
                return Err(DeliveryError::NotFound(id.into()));
            };
            if entry.undeliverable.take().is_some() {
                entry.tried_since = Some(self.inner.clock.now());
                let tx = Tx {
                    expect: vec![Expect::Revision(key.clone(), Some(found.revision))],
                    writes: vec![(key.clone(), Value::Inline(to_json(&entry)))],
                    urgency: Urgency::Housekeeping,
                    ..Tx::default()
                };
                match self.inner.store.commit(tx).await {
                    Ok(_) => {}
                    Err(CommitError::Conflict(_)) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            let mut state = self.inner.state();
            state.is_tried(scope, id);
            state.schedule.hurry(entry.waiting());
            drop(state);
            self.inner.woken.notify_one();
            return Ok(entry);
        }
    }

    /// Drops a delivery. The failure store keeps its entry.
    ///
    /// # Errors
    /// `NotFound`, or the store's.
    pub async fn drop_entry(&self, scope: &Scope, id: &str) -> Result<Entry, DeliveryError> {
        let found = outbox::find(self.inner.store.as_ref(), scope, id)?;
        let entry = found.ok_or_else(|| DeliveryError::NotFound(id.into()))?;
        let tx = Tx {
            writes: outbox::delete(&entry),
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        self.inner.store.commit(tx).await?;
        let lane: LaneId = entry.waiting().lane;
        let mut state = self.inner.state();
        state.schedule.remove(&lane, id);
        state.is_tried(scope, id);
        state.usage.free(scope, id);
        Ok(entry)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&mut self, mapping_id: &str, add: impl FnOnce(&mut Figures)) {
        add(self.figures.entry(mapping_id.into()).or_default());
    }

    /// A delivery is not tried any more.
    fn is_undeliverable(&mut self, scope: &Scope, id: &str) {
        let ids = self.undeliverable.entry(scope.clone()).or_default();
        ids.insert(id.into());
    }

    /// A delivery is tried again, or gone.
    fn is_tried(&mut self, scope: &Scope, id: &str) {
        if let Some(ids) = self.undeliverable.get_mut(scope) {
            ids.remove(id);
        }
    }
}

#[cfg(test)]
mod tests;
