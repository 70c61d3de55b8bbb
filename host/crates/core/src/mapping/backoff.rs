//! How long a failed batch waits. AWS publishes no figures; observed: about 0.2 s, then doubling.

use std::time::Duration;

const BASE: Duration = Duration::from_millis(200);
const CAP: Duration = Duration::from_secs(60);

/// The wait after the `attempts`-th failed attempt, 1 and up: 0.2 s, doubling, at most 60 s.
pub fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    (BASE * 2u32.pow(doublings)).min(CAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute() {
        let waits: Vec<_> = [1, 2, 3, 8, 9, 10, u32::MAX]
            .map(|n| backoff(n).as_millis())
            .into();
        assert_eq!(waits, [200, 400, 800, 25_600, 51_200, 60_000, 60_000]);
    }
}
