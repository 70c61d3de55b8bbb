//! What one tenant has used, and which of its quotas were hit how often.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shardmill_core::UnixMillis;
use tokio::sync::OwnedMutexGuard;

use super::bucket::Bucket;

/// A quota that is decided at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// Requests a second.
    Requests,
    /// Bytes in streams.
    StoredBytes,
    /// Open shards.
    Shards,
    /// Functions.
    Functions,
}

impl Quota {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Requests,
        Self::StoredBytes,
        Self::Shards,
        Self::Functions,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests_per_second",
            Self::StoredBytes => "stored_bytes",
            Self::Shards => "shards",
            Self::Functions => "functions",
        }
    }
}

/// How often a quota was hit, in the order of [`Quota::ALL`].
pub type Hits = [u64; Quota::ALL.len()];

/// Counts what a tenant uses. Outlives changes of its quotas.
#[derive(Debug, Default)]
pub struct Meter {
    // Both are held for a few additions, once or twice a request.
    bucket: Mutex<Bucket>,
    stored: Mutex<Stored>,
    hits: [AtomicU64; Quota::ALL.len()],
    /// Held while a new function is made.
    deploying: Arc<tokio::sync::Mutex<()>>,
}

/// Bytes in streams: what was counted in the store, and what came since.
///
/// Law: what this comes to is never less than what the store holds of the tenant.
#[derive(Clone, Copy, Debug, Default)]
struct Stored {
    allowed: Option<u64>,
    /// What the store held, counted after `committed` was `counted_from`.
    counted: u64,
    counted_from: u64,
    /// All that was ever committed; only differences mean anything.
    committed: u64,
    /// Of transactions whose end is not known yet.
    in_flight: u64,
}

impl Stored {
    fn bytes(&self) -> u64 {
        let since = self.committed.saturating_sub(self.counted_from);
        self.counted
            .saturating_add(since)
            .saturating_add(self.in_flight)
    }
}

/// What had come when a count began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    committed: u64,
}

impl Meter {
    /// Counts one more refusal.
    pub fn hit(&self, quota: Quota) {
        self.hits[quota as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often each quota was hit since the process began.
    pub fn hits(&self) -> Hits {
        std::array::from_fn(|n| self.hits[n].load(Ordering::Relaxed))
    }

    /// Waits for new functions of the tenant that are being made.
    pub async fn deploying(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.deploying).lock_owned().await
    }

    pub(super) fn admit(&self, rate: u32, now: UnixMillis) -> Result<(), Duration> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = bucket.take(rate, now);
        drop(bucket);
        taken.inspect_err(|_| self.hit(Quota::Requests))
    }

    pub(super) fn allow_bytes(&self, allowed: Option<u64>) {
        self.stored().allowed = allowed;
    }

    /// Whether `bytes` more find room.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let stored = self.stored();
        let allowed = stored.allowed.unwrap_or(u64::MAX);
        stored.bytes().saturating_add(bytes) <= allowed
    }

    /// Takes room for `bytes` until [`Meter::settle`].
    ///
    /// # Errors
    /// What is stored, and how much is allowed.
    pub(super) fn reserve(&self, bytes: u64) -> Result<(), (u64, u64)> {
        let mut stored = self.stored();
        let used = stored.bytes();
        match stored.allowed {
            Some(allowed) if used.saturating_add(bytes) > allowed => {
                drop(stored);
                self.hit(Quota::StoredBytes);
                Err((used, allowed))
            }
            _ => {
                stored.in_flight += bytes;
                Ok(())
            }
        }
    }

    /// Ends a reservation; `kept`: what was reserved is stored, or may be.
    pub(super) fn settle(&self, bytes: u64, kept: bool) {
        let mut stored = self.stored();
        stored.in_flight = stored.in_flight.saturating_sub(bytes);
        if kept {
            stored.committed = stored.committed.saturating_add(bytes);
        }
    }

    pub(super) fn begin_measure(&self) -> Begun {
        let committed = self.stored().committed;
        Begun { committed }
    }

    /// What the store held at some instant since `begun`. What was committed meanwhile may be
    /// counted twice until the next time.
    pub(super) fn measured(&self, begun: Begun, bytes: u64) {
        let mut stored = self.stored();
        stored.counted = bytes;
        stored.counted_from = begun.committed;
    }

    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_never_thought_less_than_it_is() {
        let meter = Meter::default();
        meter.allow_bytes(Some(100));
        assert_eq!(meter.reserve(60), Ok(()));
        assert_eq!(
            meter.reserve(41),
            Err((60, 100)),
            "what is in flight counts"
        );
        let (early, late) = (meter.begin_measure(), meter.begin_measure());
        meter.settle(60, true);
        // Both counts began before the commit and ended after it: they may have seen it or not.
        meter.measured(early, 0);
        assert!(meter.has_room(40) && !meter.has_room(41));
        meter.measured(late, 60);
        assert!(
            !meter.has_room(0),
            "thought more than it is, until the next count"
        );
        meter.measured(meter.begin_measure(), 60);
        assert!(
            meter.has_room(40) && !meter.has_room(41),
            "a quiet count is exact"
        );
        assert_eq!(meter.reserve(40), Ok(()));
        meter.settle(40, false);
        assert!(meter.has_room(40), "what was refused leaves nothing");
        assert_eq!(meter.hits(), [0, 1, 0, 0]);
    }
}
