//! Receiving: taking visible messages, hiding them, and what a receipt may do to one.

use std::time::Duration;

use shardmill_core::{Scope, UnixMillis};
use shardmill_store::{CommitError, Expect, Key, Tx, Urgency, Value};

use super::{Message, PAGE, Queue, QueueError, Queues, Receipt, Received, message_prefix, parse};
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
        let mut sent = self.sent.subscribe();
        loop {
            sent.borrow_and_update();
            let queue = self.get(scope, name)?;
            let Look { received, next } = self.look(&queue, most, hidden).await?;
            if !received.is_empty() || self.clock.now() >= until {
                return Ok(received);
            }
            tokio::select! {
                _ = sent.changed() => {}
                () = self.clock.sleep_until(next.unwrap_or(until).min(until)) => {}
            }
        }
    }

    async fn look(
        &self,
        queue: &Queue,
        most: usize,
        hidden: Option<u32>,
    ) -> Result<Look, QueueError> {
        let _receiving = self.receiving.lock().await;
        let hidden = hidden.unwrap_or(queue.attributes.visibility_timeout_seconds);
        let prefix = message_prefix(queue);
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
            let mut after: Option<Key> = None;
            while look.received.len() < most {
                let page = self.store.scan(&prefix, after.as_ref(), PAGE)?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                for (key, found) in page {
                    let mut message: Message = parse(&found.value)?;
                    if message.is_over(queue, now) {
                        tx.writes.push((key, Value::Delete));
                    } else if message.visible_at > now {
                        let next = look.next.unwrap_or(message.visible_at);
                        look.next = Some(next.min(message.visible_at));
                    } else if look.received.len() < most {
                        message.receives += 1;
                        message.first_received.get_or_insert(now);
                        message.visible_at = now.plus(Duration::from_secs(hidden.into()));
                        tx.expect
                            .push(Expect::Revision(key.clone(), Some(found.revision)));
                        look.received.push(received(queue, &key, message.clone()));
                        tx.writes.push((key, Value::Inline(to_json(&message))));
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

    /// Deletes the message that a receipt stands for. A receipt that a later receive has replaced
    /// deletes nothing, and is no error, as on AWS.
    ///
    /// # Errors
    /// `NotFound`, `BadReceipt`, or the store's.
    pub async fn delete_message(
        &self,
        scope: &Scope,
        name: &str,
        receipt: &Receipt,
    ) -> Result<(), QueueError> {
        let queue = self.get(scope, name)?;
        self.with_message(&queue, receipt, |message| match message {
            Some(message) if message.receives == receipt.receives => Ok(Some(Value::Delete)),
            _ => Ok(None),
        })
        .await
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
        let queue = self.get(scope, name)?;
        let now = self.clock.now();
        self.with_message(&queue, receipt, |message| {
            let in_flight = |m: &&mut Message| m.receives == receipt.receives && m.visible_at > now;
            let message = message.filter(in_flight).ok_or(QueueError::NotInFlight)?;
            message.visible_at = now.plus(Duration::from_secs(hidden.into()));
            Ok(Some(Value::Inline(to_json(&*message))))
        })
        .await?;
        self.announce();
        Ok(())
    }

    /// Writes what `decide` makes of a receipt's message, decided again when it was changed.
    async fn with_message(
        &self,
        queue: &Queue,
        receipt: &Receipt,
        decide: impl Fn(Option<&mut Message>) -> Result<Option<Value>, QueueError>,
    ) -> Result<(), QueueError> {
        if receipt.queue != queue.id {
            return Err(QueueError::BadReceipt);
        }
        let key = message_prefix(queue).part(&receipt.message);
        loop {
            let found = self.store.get(&key)?;
            let mut message = found
                .as_ref()
                .map(|found| parse::<Message>(&found.value))
                .transpose()?;
            let Some(write) = decide(message.as_mut())? else {
                return Ok(());
            };
            let revision = found.map(|found| found.revision);
            let tx = Tx {
                expect: vec![Expect::Revision(key.clone(), revision)],
                writes: vec![(key.clone(), write)],
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            match self.store.commit(tx).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
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
