//! The host's one clock: start time plus what tokio's clock says has passed, so that a paused
//! runtime moves both.

use std::time::Duration;

use shardmill_core::UnixMillis;
use tokio::time::Instant;

/// Tells the time. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_at: UnixMillis,
}

impl Clock {
    /// A clock that begins at `started_at`.
    pub fn starting_at(started_at: UnixMillis) -> Self {
        Self {
            started: Instant::now(),
            started_at,
        }
    }

    /// A clock that begins at the system's time.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the system's clock"
    )]
    pub fn system() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let millis = now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        Self::starting_at(UnixMillis(millis))
    }

    /// Now.
    pub fn now(&self) -> UnixMillis {
        self.started_at.plus(self.started.elapsed())
    }

    /// Waits until `instant`; returns at once when it is past. Cancel-safe.
    pub async fn sleep_until(&self, instant: UnixMillis) {
        let span = Duration::from_millis(instant.0.saturating_sub(self.started_at.0));
        tokio::time::sleep_until(self.started + span).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_paused_runtime_moves_the_clock() {
        let clock = Clock::starting_at(UnixMillis(4_102_444_800_000));
        clock
            .sleep_until(UnixMillis(4_102_444_800_000 + 86_400_000))
            .await;
        assert_eq!(clock.now(), UnixMillis(4_102_444_800_000 + 86_400_000));
    }
}
