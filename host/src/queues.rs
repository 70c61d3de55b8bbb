//! Queues of this host: durable, per account and region, with the semantics of SQS's standard
//! queues. Every send, receive and deletion is one transaction, so that what was acknowledged
//! survives the process.
//!
//! Rules: Amazon SQS API reference and developer guide, "Visibility timeout". Ours: messages are
//! received in the order in which they were sent, as far as they are visible.

mod contents;
mod message;
mod queue;
mod receive;
mod waiters;

pub use message::{Message, MessageAttribute, NewMessage, Receipt, Received};
pub use queue::{Attributes, Queue};

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shardmill_core::{Scope, UnixMillis};
use shardmill_store::{CommitError, Expect, Key, ReadError, Store, Table, Tx, Urgency, Value};
use uuid::{ContextV7, Timestamp, Uuid};

use crate::clock::Clock;
use crate::functions::to_json;
use waiters::Waiters;

/// Why an operation on a queue was refused.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// There is none.
    #[error(
        "queue {name} of account {} in {} does not exist: make it first, with CreateQueue or a \
         [[queue]] in the manifest", scope.tenant, scope.region
    )]
    NotFound {
        /// Account and region.
        scope: Scope,
        /// Its name.
        name: String,
    },
    /// There is one with other attributes.
    #[error("queue {0} exists with other attributes")]
    Exists(String),
    /// No receipt of this queue.
    #[error("the receipt handle is none of this queue")]
    BadReceipt,
    /// The message is visible, or gone, or was received again since.
    #[error("the message is not in flight under this receipt handle")]
    NotInFlight,
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// How many messages a queue has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// That can be received now.
    pub visible: u64,
    /// That were received and neither deleted nor given back.
    pub in_flight: u64,
    /// That were sent with a delay that is not over.
    pub delayed: u64,
}

/// A queue as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// The queue.
    pub(crate) queue: Queue,
    revision: u64,
}

/// The queues. Cheap to clone.
#[derive(Clone)]
pub struct Queues {
    store: Arc<dyn Store>,
    clock: Clock,
    waiters: Waiters,
    /// Keeps ids of one millisecond in order.
    ids: Arc<Mutex<ContextV7>>,
}

impl Queues {
    /// Over this store.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self {
            store,
            clock,
            waiters: Waiters::default(),
            ids: Arc::new(Mutex::new(ContextV7::new())),
        }
    }

    /// Makes a queue. One that exists with the same attributes is returned as it is.
    ///
    /// # Errors
    /// `Exists`, or the store's.
    pub async fn create(
        &self,
        scope: &Scope,
        name: &str,
        attributes: Attributes,
    ) -> Result<Queue, QueueError> {
        let now = self.clock.now();
        let queue = Queue {
            id: Uuid::new_v4().to_string(),
            scope: scope.clone(),
            name: name.into(),
            created: now,
            modified: now,
            attributes,
        };
        let key = queue_key(scope, name);
        let tx = Tx {
            expect: vec![Expect::Revision(key.clone(), None)],
            writes: vec![(key, Value::Inline(to_json(&queue)))],
            ..Tx::default()
        };
        match self.store.commit(tx).await {
            Ok(_) => Ok(queue),
            Err(CommitError::Conflict(_)) => {
                let found = self.get(scope, name)?;
                if found.attributes == queue.attributes {
                    Ok(found)
                } else {
                    Err(QueueError::Exists(name.into()))
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The queue with this name.
    ///
    /// # Errors
    /// `NotFound`, or the store's.
    pub fn get(&self, scope: &Scope, name: &str) -> Result<Queue, QueueError> {
        Ok(self.known(scope, name)?.queue)
    }

    /// The same, for a transaction that is to hold for this very queue.
    pub(crate) fn known(&self, scope: &Scope, name: &str) -> Result<Known, QueueError> {
        let found = self.store.get(&queue_key(scope, name))?;
        let found = found.ok_or_else(|| QueueError::NotFound {
            scope: scope.clone(),
            name: name.into(),
        })?;
        Ok(Known {
            queue: parse(&found.value)?,
            revision: found.revision,
        })
    }

    /// The queues of a scope whose name begins with `prefix`, by name.
    ///
    /// # Errors
    /// The store's.
    pub fn list(&self, scope: &Scope, prefix: &str) -> Result<Vec<Queue>, QueueError> {
        let stored = self
            .store
            .scan(&Key::new(Table::Queue, scope), None, usize::MAX)?;
        let mut queues = Vec::new();
        for (_, found) in stored {
            let Some(queue) = undamaged::<Queue>(&found.value) else {
                continue;
            };
            if queue.name.starts_with(prefix) {
                queues.push(queue);
            }
        }
        queues.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(queues)
    }

    /// Changes a queue's attributes, for messages received from now on.
    ///
    /// # Errors
    /// `NotFound`, or the store's.
    pub async fn set_attributes(
        &self,
        scope: &Scope,
        name: &str,
        change: impl Fn(&mut Attributes),
    ) -> Result<Queue, QueueError> {
        loop {
            let known = self.known(scope, name)?;
            let expect = known.unchanged();
            let mut queue = known.queue;
            let before = queue.attributes.clone();
            change(&mut queue.attributes);
            if queue.attributes == before {
                return Ok(queue);
            }
            queue.modified = self.clock.now();
            let tx = Tx {
                expect: vec![expect],
                writes: vec![(queue_key(scope, name), Value::Inline(to_json(&queue)))],
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            match self.store.commit(tx).await {
                Ok(_) => return Ok(queue),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Deletes a queue with its messages.
    ///
    /// # Errors
    /// `NotFound`, also when it is deleted meanwhile; or the store's.
    pub async fn delete(&self, scope: &Scope, name: &str) -> Result<(), QueueError> {
        let mut known = self.known(scope, name)?;
        let id = known.queue.id.clone();
        loop {
            // Before, so that a crash leaves nothing behind; and after, for what was sent meanwhile.
            self.clear(&known.queue).await?;
            let tx = Tx {
                expect: vec![known.unchanged()],
                writes: vec![(queue_key(scope, name), Value::Delete)],
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            match self.store.commit(tx).await {
                Ok(_) => break,
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
            let found = self.known(scope, name)?;
            if found.queue.id != id {
                return Err(QueueError::NotFound {
                    scope: scope.clone(),
                    name: name.into(),
                });
            }
            known = found;
        }
        self.announce(&known);
        self.clear(&known.queue).await
    }

    /// Sends messages: all of them, or none. Returns their ids in order.
    ///
    /// # Errors
    /// `NotFound`, or the store's.
    pub async fn send(
        &self,
        scope: &Scope,
        name: &str,
        messages: Vec<NewMessage>,
    ) -> Result<Vec<String>, QueueError> {
        loop {
            let known = self.known(scope, name)?;
            let mut tx = Tx::default();
            let mut ids = Vec::new();
            for message in &messages {
                let (expect, write, id) = self.message(&known, message.clone());
                tx.expect = vec![expect];
                tx.writes.push(write);
                ids.push(id);
            }
            match self.store.commit(tx).await {
                Ok(_) => {
                    self.announce(&known);
                    return Ok(ids);
                }
                // The queue was changed or deleted meanwhile.
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What a transaction needs to put a message into a queue: a condition, a write, and the
    /// message's id. Call [`Queues::announce`] when it is committed. The condition fails when the
    /// queue was changed: one of the same name that is made meanwhile gets nothing of its
    /// namesake.
    pub(crate) fn message(&self, known: &Known, new: NewMessage) -> (Expect, (Key, Value), String) {
        let queue = &known.queue;
        let now = self.clock.now();
        let id = self.next_id(now);
        let delay = new.delay.unwrap_or(queue.attributes.delay_seconds);
        let message = Message {
            body: new.body,
            attributes: new.attributes,
            sent: now,
            visible_at: now.plus(Duration::from_secs(delay.into())),
            receives: 0,
            first_received: None,
        };
        let expect = known.unchanged();
        let write = (
            message_prefix(queue).part(&id),
            Value::Inline(to_json(&message)),
        );
        (expect, write, id)
    }

    /// An id that sorts behind all that this process has given out.
    fn next_id(&self, now: UnixMillis) -> String {
        let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let nanos = (now.0 % 1000) as u32 * 1_000_000;
        Uuid::new_v7(Timestamp::from_unix(&*ids, now.seconds(), nanos)).to_string()
    }

    /// Wakes those who wait for messages of a queue.
    pub(crate) fn announce(&self, known: &Known) {
        self.waiters.wake(&known.queue.id);
    }
}

impl Known {
    /// Holds while the queue is as it was read.
    fn unchanged(&self) -> Expect {
        let key = queue_key(&self.queue.scope, &self.queue.name);
        Expect::Revision(key, Some(self.revision))
    }
}

/// Where a queue is stored.
pub(crate) fn queue_key(scope: &Scope, name: &str) -> Key {
    Key::new(Table::Queue, scope).part(name)
}

fn message_prefix(queue: &Queue) -> Key {
    Key::new(Table::QueueMessage, &queue.scope).part(&queue.id)
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, ReadError> {
    serde_json::from_slice(bytes).map_err(|error| ReadError::Damaged(format!("a queue: {error}")))
}

/// The same; what is damaged is reported and left out: the rest is served.
fn undamaged<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let report = |error: &ReadError| tracing::error!(%error, "it is left out");
    parse(bytes).inspect_err(report).ok()
}

#[cfg(test)]
mod tests;
