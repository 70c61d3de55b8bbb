//! Who receives from a queue now: one at a time looks at its messages, the others wait, and a new
//! message wakes those of its queue only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The receivers of all queues, by the queue's id. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiters {
    queues: Arc<Mutex<HashMap<String, Arc<Shared>>>>,
}

/// What the receivers of one queue share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Changes whenever a message may have become visible.
    pub(super) sent: watch::Sender<u64>,
    /// Held by who looks, so that no two take the same messages.
    pub(super) looking: tokio::sync::Mutex<()>,
}

/// A receiver's part. The last one to go takes the queue out.
#[derive(Debug)]
pub(super) struct Waiter {
    all: Waiters,
    queue: String,
    pub(super) shared: Arc<Shared>,
}

impl Waiters {
    /// Joins the receivers of a queue.
    pub(super) fn join(&self, queue: &str) -> Waiter {
        let shared = Arc::clone(self.queues().entry(queue.into()).or_default());
        Waiter {
            all: self.clone(),
            queue: queue.into(),
            shared,
        }
    }

    /// Wakes the receivers of a queue.
    pub(super) fn wake(&self, queue: &str) {
        if let Some(shared) = self.queues().get(queue) {
            shared.sent.send_modify(|n| *n += 1);
        }
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<String, Arc<Shared>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Whether it waits for messages of this queue.
    pub(super) fn is_of(&self, queue: &str) -> bool {
        self.queue == queue
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut queues = self.all.queues();
        // This one's and the map's. Others are made under the lock only.
        if Arc::strong_count(&self.shared) == 2 {
            queues.remove(&self.queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_wakes_its_own_queue_only_and_nothing_is_left() {
        let waiters = Waiters::default();
        let (one, other) = (waiters.join("a"), waiters.join("b"));
        let again = waiters.join("a");
        let mut seen = [&one, &again, &other].map(|w| w.shared.sent.subscribe());
        waiters.wake("a");
        waiters.wake("nobody");
        let woken = seen.each_mut().map(|s| s.has_changed().expect("a sender"));
        assert_eq!(woken, [true, true, false]);
        drop((one, other));
        assert_eq!(waiters.queues().len(), 1);
        drop(again);
        assert!(waiters.queues().is_empty());
    }
}
