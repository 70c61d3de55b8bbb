//! One attempt at one delivery: to whom, with what, within a time.

use std::time::Duration;

use bytes::Bytes;
use shardmill_core::{Batch, Scope};
use shardmill_store::{CommitError, Key, ReadError, Store, Table, Tx, Urgency};

use super::destination::Kind;
use super::document::{object_key, with_payload};
use super::http::{Http, chain};
use super::object::{Buckets, put_file};
use super::outbox::{Entry, delete, payload_key};
use super::schedule::Failed;
use super::{Settings, webhook};
use crate::queues::{MessageAttribute, NewMessage, Queues};

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) failed: Failed,
    pub(super) why: String,
}

/// Sends to every kind of destination.
pub(super) struct Sender {
    http: Http,
    buckets: Buckets,
    queues: Queues,
    timeout: Duration,
    secret: Option<String>,
}

impl Sender {
    pub(super) fn new(settings: &Settings, queues: Queues) -> Self {
        let http = Http::new();
        Self {
            buckets: Buckets::new(settings.s3.clone(), http.clone()),
            http,
            queues,
            timeout: settings.timeout,
            secret: settings.webhook_secret.clone(),
        }
    }

    /// Makes one attempt. On `Ok` the outbox's entry is gone, too.
    pub(super) async fn attempt(&self, store: &dyn Store, entry: &Entry) -> Result<(), Trouble> {
        if let Kind::Queue { scope, name } = entry.destination.kind() {
            return self.enqueue(store, entry, scope, name).await;
        }
        let sent = tokio::time::timeout(self.timeout, self.send(store, entry));
        let late = |_| Trouble {
            failed: Failed::Unreachable,
            why: format!("no answer within {:?}", self.timeout),
        };
        sent.await.map_err(late)??;
        let committed = store.commit(removal(entry)).await;
        committed.map(drop).map_err(|e| of_store(&e))
    }

    async fn send(&self, store: &dyn Store, entry: &Entry) -> Result<(), Trouble> {
        let key = || object_key(&entry.mapping_id, &entry.shard, entry.created, &entry.id);
        match entry.destination.kind() {
            Kind::Webhook(address) => {
                webhook::post(&self.http, address, self.secret.as_deref(), entry).await
            }
            Kind::Folder(folder) => put_file(folder, &key(), body(store, entry).await?).await,
            Kind::Bucket { bucket, prefix } => {
                let key = match prefix.as_str() {
                    "" => key(),
                    prefix => format!("{prefix}/{}", key()),
                };
                let body = body(store, entry).await?;
                self.buckets.put(bucket, &key, body).await
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

fn removal(entry: &Entry) -> Tx {
    Tx {
        writes: delete(entry),
        urgency: Urgency::Housekeeping,
        ..Tx::default()
    }
}

/// The object's body: with the outbox's own copy of the records, or else the failure store's.
async fn body(store: &dyn Store, entry: &Entry) -> Result<String, Trouble> {
    let Entry { scope, id, .. } = entry;
    let found = match stored(store, &payload_key(scope, id)).await? {
        Some(found) => Some(found),
        None => stored(store, &Key::new(Table::FailurePayload, scope).part(id)).await?,
    };
    let batch = found.map(Batch::from_stored).transpose();
    let batch = batch.map_err(|error| of_store(&error))?;
    if batch.is_none() {
        tracing::warn!(id, "the records are gone: the object tells only of them");
    }
    Ok(with_payload(
        &entry.document,
        scope,
        &entry.stream,
        batch.as_ref(),
    ))
}

async fn stored(store: &dyn Store, key: &Key) -> Result<Option<Bytes>, Trouble> {
    store
        .blob(key)
        .await
        .map_err(|error: ReadError| of_store(&error))
}

/// Trouble at home: tried again soon.
fn of_store(error: &(dyn std::error::Error + 'static)) -> Trouble {
    let why = chain(error);
    let failed = Failed::Unreachable;
    Trouble { failed, why }
}
