//! A store in memory that fails as it is told, and counts what is read.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, mpsc};

use shardmill_core::UnixMillis;
use shardmill_core::sandbox::BoxFuture;
use shardmill_store::{CommitError, Key, Memory, ReadError, Receipt, Store, Tx, Versioned};
use tokio::sync::Notify;

/// What becomes of commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Its end is not known; it was done, or it was not.
    Unknown {
        done: bool,
    },
    /// It takes until it is let go on; it is done at once, or then.
    Held {
        done: bool,
    },
}

pub(super) struct Faulty {
    memory: Memory,
    pub(super) fault: Mutex<Fault>,
    pub(super) go_on: Notify,
    /// Values that were read by scans, and the most of one.
    pub(super) values: AtomicUsize,
    pub(super) page: AtomicUsize,
    /// A scan tells the first when it has read, and waits for the second.
    pub(super) held_scan: Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
}

impl Faulty {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: Memory::new(Arc::new(|| UnixMillis(0))),
            fault: Mutex::new(Fault::None),
            go_on: Notify::new(),
            values: AtomicUsize::new(0),
            page: AtomicUsize::new(0),
            held_scan: Mutex::default(),
        })
    }
}

impl Store for Faulty {
    fn commit(&self, tx: Tx) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        let fault = *self.fault.lock().unwrap();
        Box::pin(async move {
            match fault {
                Fault::None => self.memory.commit(tx).await,
                Fault::Unknown { done } => {
                    if done {
                        self.memory.commit(tx).await?;
                    }
                    Err(CommitError::Unknown("on purpose".into()))
                }
                Fault::Held { done: true } => {
                    let receipt = self.memory.commit(tx).await;
                    self.go_on.notified().await;
                    receipt
                }
                Fault::Held { done: false } => {
                    self.go_on.notified().await;
                    self.memory.commit(tx).await
                }
            }
        })
    }

    fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, ReadError> {
        let found = self.memory.scan(prefix, after, limit)?;
        self.values.fetch_add(found.len(), Relaxed);
        self.page.fetch_max(found.len(), Relaxed);
        if let Some((read, go_on)) = self.held_scan.lock().unwrap().take() {
            read.send(()).unwrap();
            go_on.recv().unwrap();
        }
        Ok(found)
    }

    shardmill_store::pass_on!(memory: read seek extent subscribe get scan_back blob has_room catalog);
}
