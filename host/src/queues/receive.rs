//! Receiving: taking visible messages, hiding them, and what a receipt may do to one.

use std::time::Duration;

use shardmill_core::{Scope, UnixMillis};
use shardmill_store::{CommitError, Expect, Key, Tx, Urgency, Value};

use super::contents::MAX_DELETIONS;
use super::message::Head;
use super::waiters::Waiter;
use super::{Message, Queue, QueueError, Queues, Receipt, Received};
use super::{message_prefix, parse, undamaged};
use crate::functions::to_json;

/// What one look at a queue found.
struct Look {
    received: Vec<Received>,
    /// When the next hidden message becomes visible.
    next: Option<UnixMillis>,
}

impl Queues {
    /// Receives up to `most` messages, at least one if one becomes visible within `wait`. They
    /// stay hidden for `hidden`, or as long as the queue says. Durable on return: the count of
    /// receives never goes back. Dropping the future may leave messages hidden.
    ///
    /// # Errors
    /// `NotFound`, or the store's.
    pub async fn receive(
        &self,
        scope: &Scope,
        name: &str,
        most: usize,
        hidden: Option<u32>,
        wait: Duration,
    ) -> Result<Vec<Received>, QueueError> {
        let until = self.clock.now().plus(wait);
        let mut waiter = self.waiters.join(&self.get(scope, name)?.id);
        loop {
            let mut sent = waiter.shared.sent.subscribe();
            let queue = self.get(scope, name)?;
            if waiter.is_of(&queue.id) {
                let Look { received, next } = self.look(&queue, &waiter, most, hidden).await?;
                if !received.is_empty() || self.clock.now() >= until {
                    return Ok(received);
                }
                tokio::select! {
                    _ = sent.changed() => {}
                    () = self.clock.sleep_until(next.unwrap_or(until).min(until)) => {}
                }
            } else {
                // It was deleted and made again.
                waiter = self.waiters.join(&queue.id);
            }
        }
    }

    async fn look(
        &self,
        queue: &Queue,
        waiter: &Waiter,
        most: usize,
        hidden: Option<u32>,
    ) -> Result<Look, QueueError> {
        let _looking = waiter.shared.looking.lock().await;
        let hidden = hidden.unwrap_or(queue.attributes.visibility_timeout_seconds);
        loop {
            let now = self.clock.now();
            let mut tx = Tx {
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            let mut look = Look {
                received: Vec::new(),
                next: None,
            };
            let mut over = 0;
            for found in self.contents(queue) {
                let (key, found) = found?;
                let Some(head) = undamaged::<Head>(&found.value) else {
                    continue;
                };
                if head.is_over(queue, now) {
                    // The rest is for the next look, or the janitor.
                    if over < MAX_DELETIONS {
                        tx.writes.push((key, Value::Delete));
                        over += 1;
                    }
                } else if head.visible_at > now {
                    let next = look.next.unwrap_or(head.visible_at);
                    look.next = Some(next.min(head.visible_at));
                } else if let Some(mut message) = undamaged::<Message>(&found.value) {
                    message.receives += 1;
                    message.first_received.get_or_insert(now);
                    message.visible_at = now.plus(Duration::from_secs(hidden.into()));
                    tx.expect
                        .push(Expect::Revision(key.clone(), Some(found.revision)));
                    let write = (key.clone(), Value::Inline(to_json(&message)));
                    look.received.push(received(queue, &key, message));
                    tx.writes.push(write);
                    if look.received.len() == most {
                        break;
                    }
                }
            }
            if tx.writes.is_empty() {
                return Ok(look);
            }
            match self.store.commit(tx).await {
                Ok(_) => return Ok(look),
                // Deleted, or given back, between the look and the commit.
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Deletes the messages that receipts stand for, in one transaction. A receipt that a later
    /// receive has replaced deletes nothing, and is no error, as on AWS. Says of each receipt
    /// whether it is one of this queue.
    ///
    /// # Errors
    /// `NotFound`, or the store's.
    pub async fn delete_messages(
        &self,
        scope: &Scope,
        name: &str,
        receipts: &[Receipt],
    ) -> Result<Vec<bool>, QueueError> {
        let queue = self.get(scope, name)?;
        let prefix = message_prefix(&queue);
        let is_own = |receipt: &Receipt| receipt.queue == queue.id;
        loop {
            let mut tx = Tx {
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            for receipt in receipts.iter().filter(|receipt| is_own(receipt)) {
                let key = prefix.clone().part(&receipt.message);
                let Some(found) = self.store.get(&key)? else {
                    continue;
                };
                let head = undamaged::<Head>(&found.value);
                if head.is_some_and(|head| head.receives == receipt.receives) {
                    tx.expect
                        .push(Expect::Revision(key.clone(), Some(found.revision)));
                    tx.writes.push((key, Value::Delete));
                }
            }
            if !tx.writes.is_empty() {
                match self.store.commit(tx).await {
                    Ok(_) => {}
                    // Received again, or deleted, meanwhile.
                    Err(CommitError::Conflict(_)) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            return Ok(receipts.iter().map(is_own).collect());
        }
    }

    /// Hides a message that is in flight for `hidden` seconds from now on; 0 gives it back.
    ///
    /// # Errors
    /// `NotFound`, `BadReceipt`, `NotInFlight`, or the store's.
    pub async fn change_visibility(
        &self,
        scope: &Scope,
        name: &str,
        receipt: &Receipt,
        hidden: u32,
    ) -> Result<(), QueueError> {
        let known = self.known(scope, name)?;
        if receipt.queue != known.queue.id {
            return Err(QueueError::BadReceipt);
        }
        let key = message_prefix(&known.queue).part(&receipt.message);
        loop {
            let now = self.clock.now();
            let found = self.store.get(&key)?.ok_or(QueueError::NotInFlight)?;
            let mut message: Message = parse(&found.value)?;
            if message.receives != receipt.receives || message.visible_at <= now {
                return Err(QueueError::NotInFlight);
            }
            message.visible_at = now.plus(Duration::from_secs(hidden.into()));
            let tx = Tx {
                expect: vec![Expect::Revision(key.clone(), Some(found.revision))],
                writes: vec![(key.clone(), Value::Inline(to_json(&message)))],
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            match self.store.commit(tx).await {
                Ok(_) => break,
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.announce(&known);
        Ok(())
    }
}

fn received(queue: &Queue, key: &Key, message: Message) -> Received {
    let id = key
        .split()
        .and_then(|(_, parts)| Some(String::from_utf8_lossy(parts.last()?).into_owned()))
        .unwrap_or_default();
    let receipt = Receipt {
        queue: queue.id.clone(),
        message: id.clone(),
        receives: message.receives,
    };
    Received {
        id,
        receipt,
        message,
    }
}
