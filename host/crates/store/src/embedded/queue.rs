//! What waits for the writer: bounded by bytes, in the order in which it came.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::route::Prepared;
use crate::tx::{CommitError, Receipt};

/// A transaction and who waits for it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) prepared: Prepared,
    pub(super) reply: oneshot::Sender<Result<Receipt, CommitError>>,
    /// Its share of the bound; given back when it is dropped.
    pub(super) room: OwnedSemaphorePermit,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    room: Arc<Semaphore>,
    capacity: u32,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: VecDeque<Request>,
    closed: bool,
}

/// The bound is counted in pieces of this size: a semaphore counts to 2^29 on small machines.
const UNIT_BYTES: u64 = 1 << 10;

impl Queue {
    /// A queue of so many bytes.
    pub(super) fn new(bytes: u32) -> Self {
        let capacity = (u64::from(bytes) / UNIT_BYTES).max(1) as u32;
        Self {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            room: Arc::new(Semaphore::new(capacity as usize)),
            capacity,
        }
    }

    /// Waits, first come first served, until a transaction of this size has room. `None` when
    /// the queue is closed.
    pub(super) async fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = bytes.div_ceil(UNIT_BYTES).min(u64::from(self.capacity)) as u32;
        Arc::clone(&self.room).acquire_many_owned(units).await.ok()
    }

    /// Adds a request; gives `false` when the queue is closed.
    pub(super) fn push(&self, request: Request) -> bool {
        let mut waiting = self.lock();
        if waiting.closed {
            return false;
        }
        waiting.requests.push_back(request);
        if waiting.requests.len() == 1 {
            self.arrived.notify_one();
        }
        true
    }

    /// Waits for requests and takes as many as a group of `bytes` holds, at least one. `None`
    /// when the queue is closed and empty.
    pub(super) fn take(&self, bytes: u64) -> Option<Vec<Request>> {
        let mut waiting = self.lock();
        while waiting.requests.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting = self
                .arrived
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let mut taken = 0;
        let mut count = 0;
        for request in &waiting.requests {
            taken += request.prepared.bytes;
            if count > 0 && taken > bytes {
                break;
            }
            count += 1;
        }
        Some(waiting.requests.drain(..count).collect())
    }

    /// Takes no more requests.
    pub(super) fn close(&self) {
        self.room.close();
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Takes no more requests, and drops those that wait.
    pub(super) fn abandon(&self) {
        self.close();
        self.lock().requests.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
