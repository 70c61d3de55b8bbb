//! Queues of this host: durable, per account and region, with the semantics of SQS's standard
//! queues. Every send, receive and deletion is one transaction, so that what was acknowledged
//! survives the process.
//!
//! Rules: Amazon SQS API reference and developer guide, "Visibility timeout". Ours: messages are
//! received in the order in which they were sent, as far as they are visible.

mod message;
mod queue;
mod receive;

pub use message::{Message, MessageAttribute, NewMessage, Receipt, Received};
pub use queue::{Attributes, Queue};

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shardmill_core::{Scope, UnixMillis};
use shardmill_store::{CommitError, Expect, Key, ReadError, Store, Table, Tx, Urgency, Value};
use tokio::sync::watch;
use uuid::{ContextV7, Timestamp, Uuid};

use crate::clock::Clock;
use crate::functions::to_json;

/// Messages that one step of a scan reads.
const PAGE: usize = 256;

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

/// The queues. Cheap to clone.
#[derive(Clone)]
pub struct Queues {
    store: Arc<dyn Store>,
    clock: Clock,
    /// Changes whenever a message may have become visible.
    sent: watch::Sender<u64>,
    /// Held by who receives, so that no two read the same messages.
    receiving: Arc<tokio::sync::Mutex<()>>,
    /// Keeps ids of one millisecond in order.
    ids: Arc<Mutex<ContextV7>>,
}

impl Queues {
    /// Over this store.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self {
            store,
            clock,
            sent: watch::Sender::new(0),
            receiving: Arc::default(),
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
        let found = self.store.get(&queue_key(scope, name))?;
        let found = found.ok_or_else(|| QueueError::NotFound {
            scope: scope.clone(),
            name: name.into(),
        })?;
        Ok(parse(&found.value)?)
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
            let queue: Queue = parse(&found.value)?;
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
        let key = queue_key(scope, name);
        loop {
            let found = self.store.get(&key)?;
            let found = found.ok_or_else(|| QueueError::NotFound {
                scope: scope.clone(),
                name: name.into(),
            })?;
            let mut queue: Queue = parse(&found.value)?;
            let before = queue.attributes.clone();
            change(&mut queue.attributes);
            if queue.attributes == before {
                return Ok(queue);
            }
            queue.modified = self.clock.now();
            let tx = Tx {
                expect: vec![Expect::Revision(key.clone(), Some(found.revision))],
                writes: vec![(key.clone(), Value::Inline(to_json(&queue)))],
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
    /// `NotFound`, or the store's.
    pub async fn delete(&self, scope: &Scope, name: &str) -> Result<(), QueueError> {
        let queue = self.get(scope, name)?;
        let tx = Tx {
            writes: vec![(queue_key(scope, name), Value::Delete)],
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        // Before, so that a crash leaves nothing behind; and after, for what was sent meanwhile.
        self.clear(&queue).await?;
        self.store.commit(tx).await?;
        self.clear(&queue).await
    }

    /// Deletes a queue's messages.
    ///
    /// # Errors
    /// `NotFound`, or the store's.
    pub async fn purge(&self, scope: &Scope, name: &str) -> Result<(), QueueError> {
        let queue = self.get(scope, name)?;
        self.clear(&queue).await
    }

    async fn clear(&self, queue: &Queue) -> Result<(), QueueError> {
        let prefix = message_prefix(queue);
        loop {
            let page = self.store.scan(&prefix, None, PAGE)?;
            if page.is_empty() {
                return Ok(());
            }
            let tx = Tx {
                writes: page.into_iter().map(|(k, _)| (k, Value::Delete)).collect(),
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            self.store.commit(tx).await?;
        }
    }

    /// Removes messages whose retention is over, of all queues: frees the space.
    ///
    /// # Errors
    /// The store's.
    pub async fn tidy(&self) -> Result<(), QueueError> {
        let stored = self
            .store
            .scan(&Key::table_prefix(Table::Queue), None, usize::MAX)?;
        for (_, found) in stored {
            self.tidy_one(&parse(&found.value)?).await?;
        }
        Ok(())
    }

    async fn tidy_one(&self, queue: &Queue) -> Result<(), QueueError> {
        let prefix = message_prefix(queue);
        loop {
            let now = self.clock.now();
            let mut tx = Tx {
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            // In the order of their sending: what is over stands at the head.
            for (key, found) in self.store.scan(&prefix, None, PAGE)? {
                let message: Message = parse(&found.value)?;
                if !message.is_over(queue, now) {
                    break;
                }
                tx.writes.push((key, Value::Delete));
            }
            let more = tx.writes.len() == PAGE;
            if !tx.writes.is_empty() {
                self.store.commit(tx).await?;
            }
            if !more {
                return Ok(());
            }
        }
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
        let queue = self.get(scope, name)?;
        let mut tx = Tx::default();
        let mut ids = Vec::new();
        for message in messages {
            let (expect, write, id) = self.message(&queue, message);
            tx.expect = vec![expect];
            tx.writes.push(write);
            ids.push(id);
        }
        self.store.commit(tx).await?;
        self.announce();
        Ok(ids)
    }

    /// What a transaction needs to put a message into a queue: a condition, a write, and the
    /// message's id. Call [`Queues::announce`] when it is committed.
    pub(crate) fn message(&self, queue: &Queue, new: NewMessage) -> (Expect, (Key, Value), String) {
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
        let expect = Expect::Present(queue_key(&queue.scope, &queue.name));
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

    /// Wakes those who wait for messages.
    pub(crate) fn announce(&self) {
        self.sent.send_modify(|n| *n += 1);
    }

    /// How many messages there are.
    ///
    /// # Errors
    /// The store's.
    pub fn counts(&self, queue: &Queue) -> Result<Counts, QueueError> {
        let now = self.clock.now();
        let mut counts = Counts::default();
        let prefix = message_prefix(queue);
        let mut after: Option<Key> = None;
        loop {
            let page = self.store.scan(&prefix, after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok(counts);
            };
            after = Some(last.clone());
            for (_, found) in &page {
                let message: Message = parse(&found.value)?;
                if message.is_over(queue, now) {
                    continue;
                }
                *match (message.visible_at <= now, message.receives) {
                    (true, _) => &mut counts.visible,
                    (false, 0) => &mut counts.delayed,
                    (false, _) => &mut counts.in_flight,
                } += 1;
            }
        }
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

#[cfg(test)]
mod tests;
