//! Batches that wait for the shadow. Whoever puts one in waits for nothing.
//!
//! **Bounds.** [`MAX_BATCHES`] and [`MAX_BYTES`] of each mapping.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Shown;
use super::report::Dropped;

/// Batches that wait.
pub(super) const MAX_BATCHES: usize = 64;
/// Their bytes: records, effects and keyed state.
const MAX_BYTES: usize = 64 << 20;

pub(super) struct Queue {
    held: Mutex<Held>,
    wake: Notify,
}

struct Held {
    batches: VecDeque<(Shown, usize)>,
    bytes: usize,
    is_open: bool,
}

impl Default for Queue {
    fn default() -> Self {
        let held = Held {
            batches: VecDeque::new(),
            bytes: 0,
            is_open: true,
        };
        Self {
            held: Mutex::new(held),
            wake: Notify::new(),
        }
    }
}

impl Queue {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a batch behind the others; says why it is left out, if it is.
    pub(super) fn push(&self, shown: Shown) -> Result<(), Dropped> {
        let bytes = shown.bytes();
        {
            let mut held = self.held();
            if !held.is_open {
                return Err(Dropped::Stopped);
            }
            if held.batches.len() == MAX_BATCHES || held.bytes + bytes > MAX_BYTES {
                return Err(Dropped::QueueFull);
            }
            held.bytes += bytes;
            held.batches.push_back((shown, bytes));
        }
        self.wake.notify_one();
        Ok(())
    }

    /// The next batch, as soon as there is one. Cancel-safe. For one runner at a time.
    pub(super) async fn next(&self) -> Shown {
        loop {
            if let Some(shown) = self.pop() {
                return shown;
            }
            self.wake.notified().await;
        }
    }

    fn pop(&self) -> Option<Shown> {
        let mut held = self.held();
        let (shown, bytes) = held.batches.pop_front()?;
        held.bytes -= bytes;
        Some(shown)
    }

    pub(super) fn len(&self) -> usize {
        self.held().batches.len()
    }

    pub(super) fn open(&self) {
        self.held().is_open = true;
    }

    /// Takes nothing any more. Gives how many batches were left out by that.
    pub(super) fn close(&self) -> u64 {
        let left = {
            let mut held = self.held();
            held.is_open = false;
            held.bytes = 0;
            std::mem::take(&mut held.batches)
        };
        left.len() as u64
    }
}
