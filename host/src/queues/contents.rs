//! What lies in a queue: counted, tidied, and cleared, a few messages at a time.

use std::vec::IntoIter;

use shardmill_core::{Scope, UnixMillis};
use shardmill_store::{Key, ReadError, Store, Table, Tx, Urgency, Value, Versioned};

use super::message::Head;
use super::{Counts, Queue, QueueError, Queues, message_prefix, parse, undamaged};

/// Messages that are read at a time: each may have a MiB, and more with its escapes.
const PAGE: usize = 16;

/// Deletions of one transaction.
pub(super) const MAX_DELETIONS: usize = 256;

impl Queues {
    /// The messages of a queue in the order of their sending, as they are stored.
    pub(super) fn contents(&self, queue: &Queue) -> Contents<'_> {
        Contents {
            store: self.store.as_ref(),
            prefix: message_prefix(queue),
            after: None,
            page: Vec::new().into_iter(),
            // Often the first one says all.
            next_page: 1,
        }
    }

    /// How many messages there are. Reads all of them.
    ///
    /// # Errors
    /// The store's.
    pub fn counts(&self, queue: &Queue) -> Result<Counts, QueueError> {
        let now = self.clock.now();
        let mut counts = Counts::default();
        for found in self.contents(queue) {
            let (_, found) = found?;
            let Some(message) = undamaged::<Head>(&found.value) else {
                continue;
            };
            if message.is_over(queue, now) {
                continue;
            }
            *match (message.visible_at <= now, message.receives) {
                (true, _) => &mut counts.visible,
                (false, 0) => &mut counts.delayed,
                (false, _) => &mut counts.in_flight,
            } += 1;
        }
        Ok(counts)
    }

    /// Deletes a queue's messages.
    ///
    /// # Errors
    /// `NotFound`, or the store's.
    pub async fn purge(&self, scope: &Scope, name: &str) -> Result<(), QueueError> {
        let queue = self.get(scope, name)?;
        self.clear(&queue).await
    }

    pub(super) async fn clear(&self, queue: &Queue) -> Result<(), QueueError> {
        self.delete_from_head(queue, |_| Fate::Goes).await
    }

    /// Removes messages whose retention is over, of all queues: frees the space. What is wrong
    /// with one queue is reported, and no matter to the others.
    ///
    /// # Errors
    /// The queues cannot be listed.
    pub async fn tidy(&self) -> Result<(), QueueError> {
        let prefix = Key::table_prefix(Table::Queue);
        for (_, found) in self.store.scan(&prefix, None, usize::MAX)? {
            let queue: Queue = match parse(&found.value) {
                Ok(queue) => queue,
                Err(error) => {
                    tracing::error!(%error, "a queue is left out");
                    continue;
                }
            };
            let now = self.clock.now();
            if let Err(error) = self.tidy_one(&queue, now).await {
                tracing::warn!(%error, queue = queue.arn(), "its old messages stay for now");
            }
        }
        Ok(())
    }

    async fn tidy_one(&self, queue: &Queue, now: UnixMillis) -> Result<(), QueueError> {
        // In the order of their sending: what is over stands at the head.
        let fate = |found: &Versioned| match undamaged::<Head>(&found.value) {
            Some(message) if message.is_over(queue, now) => Fate::Goes,
            Some(_) => Fate::StaysWithTheRest,
            None => Fate::Stays,
        };
        self.delete_from_head(queue, fate).await
    }

    /// Deletes messages from the first one on.
    async fn delete_from_head(
        &self,
        queue: &Queue,
        fate: impl Fn(&Versioned) -> Fate,
    ) -> Result<(), QueueError> {
        let mut contents = self.contents(queue);
        loop {
            let mut tx = Tx {
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            let mut more = false;
            for found in contents.by_ref() {
                let (key, found) = found?;
                match fate(&found) {
                    Fate::Goes => tx.writes.push((key, Value::Delete)),
                    Fate::Stays => continue,
                    Fate::StaysWithTheRest => break,
                }
                more = tx.writes.len() == MAX_DELETIONS;
                if more {
                    break;
                }
            }
            if !tx.writes.is_empty() {
                self.store.commit(tx).await?;
            }
            if !more {
                return Ok(());
            }
        }
    }
}

/// What becomes of a message.
enum Fate {
    Goes,
    Stays,
    /// So do all that were sent later.
    StaysWithTheRest,
}

/// Messages of a queue, read as they are asked for.
pub(super) struct Contents<'a> {
    store: &'a dyn Store,
    prefix: Key,
    after: Option<Key>,
    page: IntoIter<(Key, Versioned)>,
    next_page: usize,
}

impl Iterator for Contents<'_> {
    type Item = Result<(Key, Versioned), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.as_slice().is_empty() {
            let after = self.after.as_ref();
            match self.store.scan(&self.prefix, after, self.next_page) {
                Ok(page) => self.page = page.into_iter(),
                Err(error) => return Some(Err(error)),
            }
            self.next_page = PAGE;
        }
        let (key, found) = self.page.next()?;
        self.after = Some(key.clone());
        Some(Ok((key, found)))
    }
}
