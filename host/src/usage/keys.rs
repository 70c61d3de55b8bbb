//! Which partition keys of a function burn the most fuel: an estimate in bounded memory.
//!
//! Of each attempt [`SAMPLES`] points are taken, equally far apart in its fuel; each point's
//! distance is charged to the key of the record that was current there. So an attempt costs the
//! same however many records it has. Where the first point lies moves from attempt to attempt by
//! the golden section of the distance: that visits every place equally often whatever attempts
//! have in common, so a key's estimate is right on average, also where each burns the same.
//!
//! The sums are kept for [`MAX_KEYS`] keys: a new one takes the place of the smallest and inherits
//! its sum as what it may be too high by ("Space-Saving", Metwally et al. 2005).
//!
//! Record mode only: elsewhere the host is not told where a record begins.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use shardmill_core::Batch;

/// Points of one attempt.
const SAMPLES: u64 = 64;
/// Keys of one function that are estimated.
pub const MAX_KEYS: usize = 128;
/// How far the first point moves from one attempt to the next, in 2^-64 of the points' distance.
const GOLDEN_SECTION: u64 = 0x9E37_79B9_7F4A_7C15;
/// Longest key that is kept whole, bytes.
const WHOLE_KEY_BYTES: usize = 256;
/// What is kept of the beginning of a longer one, bytes at most. 16 digits of its SHA-256 follow.
const BEGINNING_BYTES: usize = WHOLE_KEY_BYTES - 19;
/// What a key takes beside its text, bytes: two entries and their share of empty places.
const ENTRY_BYTES: usize = 160;

/// The keys of one function.
#[derive(Debug, Default)]
pub(super) struct Keys {
    sums: HashMap<Arc<str>, Sum>,
    /// The same: the smallest first, of equal ones the last by name.
    by_fuel: BTreeSet<(u64, Reverse<Arc<str>>)>,
    bytes: usize,
    /// Where the first point of the last attempt lay, in 2^-64 of the points' distance.
    phase: u64,
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
        self.phase = self.phase.wrapping_add(GOLDEN_SECTION);
        let offset = (u128::from(self.phase) * u128::from(step)) >> 64;
        let mut at = first.saturating_add(offset as u64);
        // Points that lie in one record are added at once.
        let (mut current, mut sum) = (0, 0);
        while at < fuel {
            let record = marks.partition_point(|mark| *mark <= at).saturating_sub(1);
            if record != current {
                self.add_record(batch, current, sum);
                (current, sum) = (record, 0);
            }
            sum += step;
            at = at.saturating_add(step);
        }
        self.add_record(batch, current, sum);
    }

    fn add_record(&mut self, batch: &Batch, record: usize, fuel: u64) {
        if fuel > 0
            && let Some(record) = batch.get(record)
        {
            self.add(&kept(record.parts.key), fuel);
        }
    }

    fn add(&mut self, key: &str, fuel: u64) {
        let (key, before) = match self.sums.get_key_value(key) {
            Some((key, before)) => {
                let key = Arc::clone(key);
                let before = *before;
                self.by_fuel
                    .remove(&(before.fuel, Reverse(Arc::clone(&key))));
                (key, before)
            }
            None => {
                let doubt = self.make_room();
                self.bytes += key.len() + ENTRY_BYTES;
                (key.into(), Sum { fuel: doubt, doubt })
            }
        };
        let fuel = before.fuel.saturating_add(fuel);
        self.by_fuel.insert((fuel, Reverse(Arc::clone(&key))));
        self.sums.insert(key, Sum { fuel, ..before });
    }

    /// Forgets the smallest where there is no place for another one; its fuel, or 0.
    fn make_room(&mut self) -> u64 {
        if self.sums.len() < MAX_KEYS {
            return 0;
        }
        let Some((fuel, Reverse(key))) = self.by_fuel.pop_first() else {
            return 0;
        };
        self.sums.remove(&key);
        self.bytes -= key.len() + ENTRY_BYTES;
        fuel
    }

    /// About what it takes, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The keys, the highest first: their fuel, and how much of it may be others'.
    pub(super) fn top(&self, count: usize) -> Vec<(String, u64, u64)> {
        let highest = self.by_fuel.iter().rev().take(count);
        let view = |(fuel, Reverse(key)): &(u64, Reverse<Arc<str>>)| {
            let doubt = self.sums.get(key).map_or(0, |sum| sum.doubt);
            (key.to_string(), *fuel, doubt)
        };
        highest.map(view).collect()
    }
}

/// The key as it is kept: a long one as its beginning and a digest, which keeps it apart from
/// others.
fn kept(key: &str) -> Cow<'_, str> {
    if key.len() <= WHOLE_KEY_BYTES {
        return key.into();
    }
    let beginning = &key[..key.floor_char_boundary(BEGINNING_BYTES)];
    let digest = Sha256::digest(key.as_bytes());
    let digits: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("{beginning}…{digits}").into()
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
                let burnt = if record == 50 { 50_000 } else { 1_000 };
                fuel += burnt;
                heavy += if record == 50 { burnt } else { 0 };
            }
            total += fuel;
            keys.note(&batch, &marks, fuel);
        }
        let top = keys.top(3);
        assert_eq!(top[0].0, "heavy");
        let off = top[0].1.abs_diff(heavy) as f64 / heavy as f64;
        assert!(off < 0.02, "{} is off by {off}", top[0].1);
        assert!(top[1].1 < total / 50, "{top:?}");
        assert_eq!(keys.sums.len(), MAX_KEYS);
        assert_eq!(keys.by_fuel.len(), MAX_KEYS);
        let bytes: usize = keys.sums.keys().map(|key| key.len() + ENTRY_BYTES).sum();
        assert_eq!(keys.bytes(), bytes);
    }

    /// The first point once lay where the attempt's own end said: with the same fuel in each
    /// attempt, the same records were seen each time, and the others never.
    #[test]
    fn estimates_are_right_where_every_attempt_burns_the_same() {
        for rotation in [0, 1, 7, 25, 50] {
            let mut keys = Keys::default();
            for attempt in 0..1_000 {
                let name = |n| format!("key-{}", (n + attempt * rotation) % 100);
                let names: Vec<String> = (0..100).map(name).collect();
                let marks: Vec<u64> = (0..100).map(|record| 500 + record * 1_000).collect();
                keys.note(&batch(&names), &marks, 100_500);
            }
            let top = keys.top(MAX_KEYS);
            assert_eq!(top.len(), 100, "rotation {rotation}");
            for (key, fuel, doubt) in top {
                let off = fuel.abs_diff(1_000_000);
                assert!(off < 20_000, "rotation {rotation}: {key} is off by {off}");
                assert_eq!(doubt, 0);
            }
        }
    }

    #[test]
    fn long_keys_are_kept_apart_in_bounded_bytes() {
        let long = |end: char| "ü".repeat(600) + &end.to_string();
        let mut keys = Keys::default();
        let names = [long('a'), long('b'), "c".repeat(WHOLE_KEY_BYTES)];
        keys.note(&batch(&names), &[0, 100, 200], 300);
        let top = keys.top(3);
        assert_eq!(top.len(), 3, "{top:?}");
        for (key, ..) in &top {
            assert!(key.len() <= WHOLE_KEY_BYTES, "{} bytes", key.len());
        }
        assert!(top.iter().any(|(key, ..)| *key == names[2]), "whole");
    }
}
