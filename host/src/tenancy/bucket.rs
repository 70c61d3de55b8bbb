//! So many a second, a second's worth at once: the rate limit, as a function of time.

use std::time::Duration;

use shardmill_core::UnixMillis;

const SECOND_NANOS: u64 = 1_000_000_000;
const MILLI_NANOS: u64 = 1_000_000;

/// Tokens of a tenant. Full at first.
///
/// Kept as the instant at which it is full again (the generic cell rate algorithm): one number,
/// whatever the rate, so that a changed rate needs no conversion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    /// Nanoseconds since the epoch.
    full_at: u64,
}

impl Bucket {
    /// Takes a token of `rate` a second, at least 1.
    ///
    /// # Errors
    /// How long until there is one; at most a second.
    pub(super) fn take(&mut self, rate: u32, now: UnixMillis) -> Result<(), Duration> {
        let now = now.0.saturating_mul(MILLI_NANOS);
        let token = SECOND_NANOS / u64::from(rate.max(1));
        let full_at = self.full_at.max(now) + token;
        let over = (full_at - now).saturating_sub(SECOND_NANOS);
        if over > 0 {
            return Err(Duration::from_nanos(over));
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2100-01-01.
    const NOW: u64 = 4_102_444_800_000;

    #[test]
    fn a_seconds_worth_comes_at_once_and_then_as_many_as_time_brings() {
        for rate in [1, 3, 7, 1_000, 1_000_000] {
            let mut bucket = Bucket::default();
            let mut take = |millis| bucket.take(rate, UnixMillis(NOW + millis));
            for n in 0..rate {
                assert_eq!(take(0), Ok(()), "{rate}: {n}");
            }
            let wait = take(0).expect_err("no more");
            assert!(wait <= Duration::from_secs(1), "{wait:?}");
            let mut taken = 0;
            for millis in 1..=3_000 {
                while take(millis).is_ok() {
                    taken += 1;
                }
            }
            // Three seconds' worth, and what rounding down a token's time adds.
            assert!(
                (3 * rate..=3 * rate + 1).contains(&taken),
                "{rate}: {taken}"
            );
        }
    }

    #[test]
    fn waiting_as_long_as_told_is_enough_and_a_pause_saves_up_one_second_only() {
        let mut bucket = Bucket::default();
        for _ in 0..4 {
            assert_eq!(bucket.take(4, UnixMillis(NOW)), Ok(()));
        }
        let wait = bucket.take(4, UnixMillis(NOW)).expect_err("no more");
        assert_eq!(wait, Duration::from_millis(250));
        assert_eq!(bucket.take(4, UnixMillis(NOW + 250)), Ok(()));
        let later = UnixMillis(NOW + 3_600_000);
        let taken = (0..100).filter(|_| bucket.take(4, later).is_ok()).count();
        assert_eq!(taken, 4);
    }

    #[test]
    fn a_higher_rate_holds_at_once() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(1, UnixMillis(NOW)), Ok(()));
        assert!(bucket.take(1, UnixMillis(NOW + 500)).is_err());
        assert_eq!(bucket.take(100, UnixMillis(NOW + 500)), Ok(()));
    }
}
