//! Measures what an invocation uses of its wall clock, and cuts it.
//!
//! An invocation is charged for its own running and its own sleeping, not for its waiting for a
//! slice: a neighbour that spins costs it latency, never its deadline. Every slice ends where the
//! guest yields (each [`SLICE_FUEL`] of fuel) or sleeps; that is where the deadline is checked.
//!
//! On simulated time running counts nothing, which differs from run to run, and sleeping counts in
//! full but is over at once: fuel bounds the one, the deadline the other, both exactly.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

// Invoker threads have no runtime, so this is always the real clock, which a guest's running needs.
use tokio::time::Instant;

/// Fuel of one slice: measured at 45 to 90 µs, at a cost of 0 to 3 %.
pub(crate) const SLICE_FUEL: u64 = 1_000_000;

/// The shortest time for which an attempt is put aside: for less than that, putting it aside would
/// be most of the work.
const LEAST_SLEEP: Duration = Duration::from_micros(100);

/// What an attempt, its invoker and its caller tell each other.
#[derive(Default)]
pub(crate) struct Signals {
    cancelled: AtomicBool,
    finished: AtomicBool,
    slices: AtomicU64,
    fuel: AtomicU64,
    bed: Mutex<Option<(Instant, u64)>>,
    wake_at: Mutex<Option<Instant>>,
    /// Set on simulated time: what was slept and is not charged yet.
    skipped: Option<Mutex<Duration>>,
}

impl Signals {
    /// Those of an attempt on simulated time.
    pub(crate) fn simulated() -> Self {
        Self {
            skipped: Some(Mutex::default()),
            ..Self::default()
        }
    }

    /// Nobody waits for the attempt any more.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    pub(crate) fn finish(&self) {
        self.finished.store(true, Ordering::Release);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// So much fuel is burnt as far as is known: when it goes to sleep, and at its end.
    pub(crate) fn spent(&self, fuel: u64) {
        self.fuel.store(fuel, Ordering::Relaxed);
    }

    /// Where the attempt was last put to sleep.
    pub(crate) fn bed(&self) -> Option<(Instant, u64)> {
        *self.bed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lie_down(&self, bed: (Instant, u64)) {
        *self.bed.lock().unwrap_or_else(PoisonError::into_inner) = Some(bed);
    }

    /// Fuel that the attempt is known to have burnt.
    pub(crate) fn fuel(&self) -> u64 {
        self.fuel.load(Ordering::Relaxed)
    }

    /// Number of the slice that runs, from 1.
    pub(crate) fn slice(&self) -> u64 {
        self.slices.load(Ordering::Relaxed)
    }

    /// When a sleeping attempt wants to go on; `None` when it only yielded.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        *self.wake_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_wake_at(&self, at: Option<Instant>) {
        *self.wake_at.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

/// Sleeps without holding the thread: the invoker puts the attempt aside until then. On simulated
/// time the attempt only yields, so that the span is charged.
pub(crate) async fn sleep(signals: &Signals, span: Duration) {
    if let Some(skipped) = &signals.skipped {
        let mut charged = false;
        return poll_fn(|_| {
            if std::mem::replace(&mut charged, true) {
                return Poll::Ready(());
            }
            *skipped.lock().unwrap_or_else(PoisonError::into_inner) = span;
            Poll::Pending
        })
        .await;
    }
    // A span past what the clock can say is past every deadline, too.
    let now = Instant::now();
    let until = now
        .checked_add(span.max(LEAST_SLEEP))
        .unwrap_or(now + Duration::from_secs(1 << 30));
    poll_fn(|_| {
        if Instant::now() >= until {
            return Poll::Ready(());
        }
        signals.set_wake_at(Some(until));
        Poll::Pending
    })
    .await;
}

/// Why an attempt was stopped from outside.
#[derive(Debug)]
pub(crate) enum Cut {
    /// Its wall clock ran out.
    TimedOut,
    /// Code of the host panicked.
    Panicked(String),
}

/// An attempt's wall clock.
pub(crate) struct Meter {
    allowed: Duration,
    used: Duration,
    asleep: Option<(Instant, Instant)>,
}

impl Meter {
    pub(crate) fn new(allowed: Duration) -> Self {
        Self {
            allowed,
            used: Duration::ZERO,
            asleep: None,
        }
    }

    /// Running and sleeping until now.
    pub(crate) fn used(&self) -> Duration {
        self.used
    }

    /// Runs `work` to its end, or until its wall clock runs out or the host's code panics in it.
    /// What it borrowed is free again in each case.
    pub(crate) async fn run<T>(
        &mut self,
        signals: &Signals,
        work: impl Future<Output = T>,
    ) -> Result<T, Cut> {
        let mut work = pin!(work);
        poll_fn(|cx| self.slice(signals, work.as_mut(), cx)).await
    }

    fn slice<T>(
        &mut self,
        signals: &Signals,
        work: Pin<&mut impl Future<Output = T>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, Cut>> {
        if let Some((from, until)) = self.asleep.take() {
            self.used += until.saturating_duration_since(from);
            if self.used >= self.allowed {
                return Poll::Ready(Err(Cut::TimedOut));
            }
        }
        signals.slices.fetch_add(1, Ordering::Relaxed);
        signals.set_wake_at(None);
        let start = Instant::now();
        let polled = catch_unwind(AssertUnwindSafe(|| work.poll(cx)));
        let end = Instant::now();
        let ran = match &signals.skipped {
            None => end.saturating_duration_since(start),
            Some(skipped) => {
                let span =
                    std::mem::take(&mut *skipped.lock().unwrap_or_else(PoisonError::into_inner));
                span.min(self.allowed.saturating_sub(self.used))
            }
        };
        self.used += ran;
        match polled {
            Err(panic) => Poll::Ready(Err(Cut::Panicked(panic_message(&*panic)))),
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Ok(Poll::Pending) if self.used >= self.allowed => Poll::Ready(Err(Cut::TimedOut)),
            Ok(Poll::Pending) => {
                if let Some(wake_at) = signals.wake_at() {
                    let until = wake_at.min(end + (self.allowed - self.used));
                    signals.set_wake_at(Some(until));
                    self.asleep = Some((end, until));
                }
                Poll::Pending
            }
        }
    }
}

/// The text of a panic.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
