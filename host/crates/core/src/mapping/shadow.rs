//! A version that runs beside the mapping's own: which batches it is shown, and how much fuel it may
//! burn on them.

use serde::{Deserialize, Serialize};

use super::routing::hash;
use crate::limits::{DEFAULT_SHADOW_FUEL_PER_SECOND, MAX_FUEL, MIN_FUEL};
use crate::time::UnixMillis;

/// A version that runs beside the mapping's own on the same batches, and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    /// What runs: `:VERSION` or `:ALIAS` of the mapping's function, or another function as a
    /// mapping names it.
    pub function: String,
    /// Share of the batches that it is shown, 1 … 100 %.
    pub percent: u32,
    /// Fuel that it may burn, units/s, 1,000,000 … 10^12; a second's worth may be burnt at once.
    pub fuel_per_second: u64,
}

impl Shadow {
    /// This one on every batch, with the default bound.
    pub fn of(function: impl Into<String>) -> Self {
        Self {
            function: function.into(),
            percent: 100,
            fuel_per_second: DEFAULT_SHADOW_FUEL_PER_SECOND,
        }
    }

    /// Whether it is shown the batch with this request id. The same id gives the same answer, and
    /// one that is shown still is when the share grows. Has nothing to do with which version of an
    /// alias takes the request.
    pub fn is_shown(&self, request_id: &str) -> bool {
        const SALT: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = (hash(request_id) ^ SALT).wrapping_mul(SALT) >> 32;
        mixed % 100 < u64::from(self.percent)
    }

    /// What is out of its range: the setting, its value, and what is possible.
    pub(super) fn out_of_range(&self) -> Option<(&'static str, String, &'static str)> {
        if !(1..=100).contains(&self.percent) {
            let percent = self.percent.to_string();
            return Some(("percentage of a shadow", percent, "1 to 100 percent"));
        }
        let good = (MIN_FUEL..=MAX_FUEL).contains(&self.fuel_per_second);
        (!good).then(|| {
            (
                "fuel of a shadow",
                self.fuel_per_second.to_string(),
                "1000000 to 1000000000000 units per second",
            )
        })
    }
}

/// Fuel that may still be burnt. A batch begins while there is any and may burn more than there is:
/// how much is known when it has ended. What it owes is paid off before the next one begins.
#[derive(Clone, Debug)]
pub struct FuelBudget {
    per_second: u64,
    level: i128,
    at: UnixMillis,
}

impl FuelBudget {
    /// A second's worth to begin with.
    pub fn new(per_second: u64, now: UnixMillis) -> Self {
        Self {
            per_second,
            level: i128::from(per_second),
            at: now,
        }
    }

    /// Whether a batch may begin.
    pub fn is_open(&mut self, now: UnixMillis) -> bool {
        let gained = u128::from(self.per_second) * now.since(self.at).as_millis() / 1000;
        if gained > 0 {
            let most = i128::from(self.per_second);
            let gained = i128::try_from(gained).unwrap_or(most);
            self.level = self.level.saturating_add(gained).min(most);
            self.at = now;
        }
        self.level > 0
    }

    /// Takes what a batch has burnt.
    pub fn burn(&mut self, fuel: u64) {
        self.level -= i128::from(fuel);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    #[test]
    fn a_shadow_is_shown_its_share_and_keeps_what_it_was_shown() {
        let shown = |percent: u32, n: u32| {
            let shadow = Shadow {
                percent,
                ..Shadow::of(":2")
            };
            shadow.is_shown(&format!("00000000-0000-4000-8000-{n:012x}"))
        };
        for percent in [1, 10, 50, 99] {
            let count = (0..20_000).filter(|n| shown(percent, *n)).count();
            let expected = 200 * percent as usize;
            assert!(count.abs_diff(expected) < 400, "{percent} %: {count}");
            assert!((0..2_000).all(|n| !shown(percent, n) || shown(percent + 1, n)));
        }
        assert!((0..2_000).all(|n| shown(100, n)));
    }

    #[test]
    fn which_batches_are_shown_does_not_follow_an_aliass_weight() {
        let weight = crate::mapping::Weight::try_from(0.5).expect("a weight");
        let half = Shadow {
            percent: 50,
            ..Shadow::of(":2")
        };
        let ids = (0..10_000).map(|n| format!("00000000-0000-4000-8000-{n:012x}"));
        let both = ids.filter(|id| weight.takes(id) && half.is_shown(id));
        let both = both.count();
        assert!((2_250..2_750).contains(&both), "{both} of 10000");
    }

    #[test]
    fn fuel_that_is_owed_is_paid_off_before_the_next_batch() {
        let mut budget = FuelBudget::new(1000, NOW);
        assert!(budget.is_open(NOW));
        budget.burn(3500);
        for (millis, open) in [(0, false), (2_000, false), (2_500, false), (2_501, true)] {
            let now = NOW.plus(Duration::from_millis(millis));
            assert_eq!(budget.is_open(now), open, "{millis} ms");
        }
        // However long it rests, a second's worth is all there is.
        let later = NOW.plus(Duration::from_secs(3600));
        assert!(budget.is_open(later));
        budget.burn(1001);
        assert!(!budget.is_open(later));
        assert!(budget.is_open(later.plus(Duration::from_millis(2))));
    }

    #[test]
    fn no_fuel_is_lost_between_two_looks_that_are_less_than_a_unit_apart() {
        let mut budget = FuelBudget::new(100, NOW);
        budget.burn(100);
        // 100 units per second are one in ten milliseconds.
        let open = (1..=10).map(|ms| budget.is_open(NOW.plus(Duration::from_millis(ms))));
        assert_eq!(open.filter(|open| *open).count(), 1);
    }
}
