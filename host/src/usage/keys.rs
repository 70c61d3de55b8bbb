//! Which partition keys of a function burn the most fuel: an estimate in bounded memory.
//!
//! Of each attempt [`SAMPLES`] points are taken, equally far apart in its fuel; each point's
//! distance is charged to the key of the record that was current there. So a key's estimate is
//! right on average, and an attempt costs the same however many records it has. The sums are kept
//! for [`KEYS`] keys: a new one takes the place of the smallest and inherits its sum as what it may
//! be too high by ("Space-Saving", Metwally et al. 2005).
//!
//! Record mode only: elsewhere the host is not told where a record begins.

use std::collections::HashMap;

use shardmill_core::Batch;

/// Points of one attempt.
const SAMPLES: u64 = 64;
/// Keys of one function.
const KEYS: usize = 128;

/// The keys of one function.
#[derive(Debug, Default)]
pub(super) struct Keys {
    sums: HashMap<Box<str>, Sum>,
}

#[derive(Clone, Copy, Debug)]
struct Sum {
    fuel: u64,
    /// How much of it may be others'.
    doubt: u64,
}

impl Keys {
    /// Adds an attempt that burnt `fuel`; `marks` says how much when each record began.
    pub(super) fn note(&mut self, batch: &Batch, marks: &[u64], fuel: u64) {
        let Some(&first) = marks.first() else {
            return;
        };
        let step = fuel.saturating_sub(first).div_ceil(SAMPLES).max(1);
        // The first point lies anywhere in the first step; the attempt's own end will do for chance.
        let mut at = first + fuel % step;
        while at < fuel {
            let record = marks.partition_point(|mark| *mark <= at).saturating_sub(1);
            if let Some(record) = batch.get(record) {
                self.add(record.parts.key, step);
            }
            at = at.saturating_add(step);
        }
    }

    fn add(&mut self, key: &str, fuel: u64) {
        if let Some(sum) = self.sums.get_mut(key) {
            sum.fuel = sum.fuel.saturating_add(fuel);
            return;
        }
        let mut doubt = 0;
        if self.sums.len() >= KEYS {
            let least = self.sums.iter().min_by_key(|(_, sum)| sum.fuel);
            let least = least.map(|(key, sum)| (key.clone(), sum.fuel));
            if let Some((key, fuel)) = least {
                self.sums.remove(&key);
                doubt = fuel;
            }
        }
        let fuel = fuel.saturating_add(doubt);
        self.sums.insert(key.into(), Sum { fuel, doubt });
    }

    /// The keys, the highest first: their fuel, and how much of it may be others'.
    pub(super) fn top(&self, count: usize) -> Vec<(String, u64, u64)> {
        let mut all: Vec<_> = self.sums.iter().collect();
        all.sort_by(|(a, x), (b, y)| y.fuel.cmp(&x.fuel).then_with(|| a.cmp(b)));
        let view = |(key, sum): (&Box<str>, &Sum)| (key.to_string(), sum.fuel, sum.doubt);
        all.into_iter().take(count).map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::ledger::tests::batch;

    #[test]
    fn the_key_that_burns_the_most_is_found_and_its_fuel_is_right_on_average() {
        let mut keys = Keys::default();
        let (mut total, mut heavy) = (0u64, 0u64);
        for attempt in 0..500u64 {
            // 99 cheap keys that are never the same, and one in their middle that burns a third.
            let names: Vec<String> = (0..100)
                .map(|n| match n {
                    50 => "heavy".into(),
                    n => format!("{attempt}-{n}"),
                })
                .collect();
            let batch = batch(&names);
            let (mut marks, mut fuel) = (Vec::new(), 1_000);
            for record in 0..100u64 {
                marks.push(fuel);
                let burnt = if record == 50 {
                    50_000
                } else {
                    1_000 + attempt % 7
                };
                fuel += burnt;
                heavy += if record == 50 { burnt } else { 0 };
            }
            total += fuel;
            keys.note(&batch, &marks, fuel);
        }
        let top = keys.top(3);
        assert_eq!(top[0].0, "heavy");
        let off = top[0].1.abs_diff(heavy) as f64 / heavy as f64;
        assert!(off < 0.05, "{} is off by {off}", top[0].1);
        assert!(top[1].1 < total / 50, "{top:?}");
        assert!(keys.sums.len() <= KEYS);
    }
}
