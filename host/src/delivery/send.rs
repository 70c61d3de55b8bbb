//! One attempt at one delivery: to whom, with what, within a time.

use std::time::Duration;

use bytes::Bytes;
use shardmill_core::{Batch, Scope};
use shardmill_store::{CommitError, Key, ReadError, Store, Table, Tx, Urgency};

use super::allowed::Allowed;
use super::destination::Kind;
use super::document::{object_key, with_payload};
use super::http::{Http, chain};
use super::object::{Buckets, put_file};
use super::outbox::{Entry, delete, payload_key};
use super::schedule::{Failed, Trouble};
use super::{Settings, webhook};
use crate::queues::{MessageAttribute, NewMessage, Queues};

/// Sends to every kind of destination.
pub(super) struct Sender {
    http: Http,
    buckets: Buckets,
    queues: Queues,
    allowed: Allowed,
    timeout: Duration,
    secret: Option<String>,
}

/// What an attempt gets beyond its time for each MiB that it sends.
const MIB_TIME: Duration = Duration::from_secs(1);

impl Sender {
    pub(super) fn new(settings: &Settings, queues: Queues) -> Self {
        let http = Http::new();
        Self {
            buckets: Buckets::new(settings.s3.clone(), http.clone()),
            http,
            queues,
            allowed: settings.allowed.clone(),
            timeout: settings.timeout,
            secret: settings.webhook_secret.clone(),
        }
    }

    /// Makes one attempt. On `Ok` the outbox's entry is gone, too.
    pub(super) async fn attempt(&self, store: &dyn Store, entry: &Entry) -> Result<(), Trouble> {
        let allowed = self.allowed.check(&entry.destination);
        allowed.map_err(|error| Trouble {
            failed: Failed::Misconfigured,
            why: error.why,
        })?;
        if let Kind::Queue { scope, name } = entry.destination.kind() {
            return self.enqueue(store, entry, scope, name).await;
        }
        let body = match entry.destination.takes_payload() {
            true => body(store, entry).await?,
            false => Bytes::from(entry.document.get().to_owned()),
        };
        let limit = limit(self.timeout, body.len());
        let sent = tokio::time::timeout(limit, self.send(entry, body));
        let late = |_| Trouble {
            failed: Failed::Unreachable,
            why: format!("no answer within {limit:?}"),
        };
        sent.await.map_err(late)??;
        let committed = store.commit(removal(entry)).await;
        committed.map(drop).map_err(|e| of_store(&e))
    }

    async fn send(&self, entry: &Entry, body: Bytes) -> Result<(), Trouble> {
        let key = || object_key(&entry.mapping_id, &entry.shard, entry.created, &entry.id);
        match entry.destination.kind() {
            Kind::Webhook(address) => {
                let secret = self.secret.as_deref();
                webhook::post(&self.http, address, secret, (&entry.id, body)).await
            }
            Kind::Folder(folder) => put_file(folder, &key(), body).await,
            Kind::Bucket { bucket, prefix } => {
                self.buckets.put(bucket, (prefix, &key()), body).await
            }
            // Done above, where the message and the entry's end are one transaction.
            Kind::Queue { .. } => Ok(()),
        }
    }

    /// The message and the end of the outbox's entry are one transaction: exactly once.
    async fn enqueue(
        &self,
        store: &dyn Store,
        entry: &Entry,
        scope: &Scope,
        name: &str,
    ) -> Result<(), Trouble> {
        let id = MessageAttribute::text(webhook::ID_HEADER, &entry.id);
        let message = NewMessage {
            body: entry.document.get().to_owned(),
            attributes: vec![id],
            delay: None,
        };
        loop {
            let queue = self.queues.known(scope, name).map_err(|error| Trouble {
                failed: Failed::Unreachable,
                why: error.to_string(),
            })?;
            let mut tx = removal(entry);
            let (expect, write, _) = self.queues.message(&queue, message.clone());
            tx.expect.push(expect);
            tx.writes.push(write);
            match store.commit(tx).await {
                Ok(_) => {
                    self.queues.announce(&queue);
                    return Ok(());
                }
                // The queue was changed or deleted meanwhile.
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(of_store(&error)),
            }
        }
    }
}

/// How long an attempt with so many bytes may take.
fn limit(timeout: Duration, bytes: usize) -> Duration {
    timeout + MIB_TIME * (bytes >> 20) as u32
}

fn removal(entry: &Entry) -> Tx {
    Tx {
        writes: delete(entry),
        urgency: Urgency::Housekeeping,
        ..Tx::default()
    }
}

/// The object's body: with the outbox's own copy of the records, or else the failure store's.
async fn body(store: &dyn Store, entry: &Entry) -> Result<Bytes, Trouble> {
    let Entry { scope, id, .. } = entry;
    let copies = [
        payload_key(scope, id),
        Key::new(Table::FailurePayload, scope).part(id),
    ];
    let (mut batch, mut damage) = (None, None);
    for copy in copies {
        match read_batch(store, &copy).await {
            Ok(None) => continue,
            Ok(found) => batch = found,
            Err(error @ ReadError::Damaged(_)) => {
                damage = Some(error);
                continue;
            }
            Err(error) => return Err(of_store(&error)),
        }
        break;
    }
    match (&batch, damage) {
        (None, Some(error)) => return Err(of_store(&error)),
        (None, None) => tracing::warn!(id, "the records are gone: the object tells only of them"),
        (Some(_), _) => {}
    }
    Ok(with_payload(
        &entry.document,
        scope,
        &entry.stream,
        batch.as_ref(),
    ))
}

async fn read_batch(store: &dyn Store, key: &Key) -> Result<Option<Batch>, ReadError> {
    let found = store.blob(key).await?;
    let batch = found.map(Batch::from_stored).transpose();
    batch.map_err(|error| ReadError::Damaged(chain(&error)))
}

/// Trouble at home: tried again soon, but for damage, which is this delivery's own.
pub(super) fn of_store(error: &(dyn std::error::Error + 'static)) -> Trouble {
    let failed = match error.downcast_ref() {
        Some(ReadError::Damaged(_)) => Failed::Refused,
        _ => Failed::Unreachable,
    };
    let why = chain(error);
    Trouble { failed, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_object_has_time_to_arrive() {
        let ten = Duration::from_secs(10);
        assert_eq!(limit(ten, 2_000), ten);
        assert_eq!(limit(ten, 20 << 20), Duration::from_secs(30));
    }
}
