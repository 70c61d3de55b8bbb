//! What must hold when everything is delivered. What must hold at every moment is checked where it
//! happens: progress in `store.rs`, ages and parents in `handler.rs`.
//!
//! A record that was parked and let go on ends as done.

use std::collections::{BTreeMap, BTreeSet};

use shardmill_core::ShardId;
use shardmill_core::mapping::{Policy, Reason};
use shardmill_core::sandbox::{Carrier, Mode};

use super::facts::{Facts, numbers_of};
use super::handler::number_of;
use super::plan::{FaultKind, Planned};
use super::world::World;
use crate::mapping::FailureEntry;

/// Checks every law.
pub(super) async fn check(world: &World) {
    let facts = Facts::of(world).await;
    facts.every_record_ends_in_one_way();
    facts.effects_are_there_exactly_once();
    facts.keys_stay_in_order();
    facts.ages_are_the_records_own();
    facts.windows_are_closed_once_and_whole();
    facts.request_ids_stand_for_their_batch();
    facts.nothing_innocent_is_given_up();
    if world.plan.is_calm() && !world.was_paused {
        facts.unchanged_batches_keep_their_request_id();
        facts.unchanged_batches_wait_longer_each_time();
    }
    if world.plan.keeps_count() && !world.was_paused {
        facts.budgets_are_used_up_and_not_exceeded();
    }
}

impl Facts<'_> {
    fn every_record_ends_in_one_way(&self) {
        let mut ends: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for number in self.world.places.keys() {
            for _ in 0..self.counter(&format!("r{number}")) {
                ends.entry(*number).or_default().push("done".into());
            }
        }
        for (entry, batch) in self.failures.iter().filter(|(entry, _)| !entry.parked) {
            for number in numbers_of(batch) {
                let reason = format!("given up: {:?}", entry.reason);
                ends.entry(number).or_default().push(reason);
            }
        }
        for number in self.parked.values().flatten() {
            ends.entry(*number).or_default().push("parked".into());
        }
        let (sometimes, always) = self.filtered();
        let mut lost: BTreeMap<ShardId, u64> = BTreeMap::new();
        for (number, place) in &self.world.places {
            let dropped = !self.plan.records[*number].kept;
            let trimmed = self.world.trimmed.get(&place.shard).copied().unwrap_or(0);
            match ends.get(number).map_or(&[][..], Vec::as_slice) {
                [_] if always && dropped => {
                    self.broken(format!("record {number} passed the filter"));
                }
                [_] => {}
                [] if sometimes && dropped => {}
                [] if place.first < trimmed => *lost.entry(place.shard).or_default() += 1,
                ends => self.broken(format!("record {number} ended in {ends:?}")),
            }
        }
        for (shard, count) in lost {
            let told = self.failures.iter().map(|(entry, _)| entry);
            let told = told.filter(|e| e.reason == Reason::Expired && e.shard == shard.to_string());
            let told: u64 = told.map(|e| e.records).sum();
            if told < count {
                let text = format!("{count} records of {shard} expired, entries tell of {told}");
                self.broken(text);
            }
        }
    }

    fn effects_are_there_exactly_once(&self) {
        for (name, value) in &self.counters {
            if *value != 1 {
                self.broken(format!("counter {name} is {value}"));
            }
        }
        let listed: Vec<usize> = self.lists.values().flatten().copied().collect();
        for (what, found, wanted) in [
            ("list", &listed, self.wanted(|p| p.adds)),
            ("emitted", &self.emitted, self.wanted(|p| p.emits)),
        ] {
            let mut found = found.clone();
            found.sort_unstable();
            if found != wanted {
                self.broken(format!("{what}: {found:?}, expected {wanted:?}"));
            }
        }
    }

    /// Records that are done and have such an effect, in order.
    fn wanted(&self, has: impl Fn(&Planned) -> bool) -> Vec<usize> {
        let all = self.world.places.keys().copied();
        all.filter(|n| has(&self.plan.records[*n]) && self.is_done(*n))
            .collect()
    }

    /// Delivered effects of a key are in the order in which its records were put, through splits
    /// and merges; so are its parked records, and none of them was overtaken. A key that was put
    /// into several shards at once has an order in each.
    fn keys_stay_in_order(&self) {
        for (name, key) in &self.parked_keys {
            let numbers = self.parked.get(name).map_or(0, Vec::len) as u64;
            if key.reason.is_empty() || key.records != numbers || numbers == 0 {
                self.broken(format!(
                    "{numbers} records are parked, and this is said: {key:?}"
                ));
            }
        }
        let keys: BTreeSet<&String> = self.lists.keys().chain(self.parked.keys()).collect();
        for key in keys {
            let listed = self.lists.get(key).map_or(&[][..], Vec::as_slice);
            let parked = self.parked.get(key).map_or(&[][..], Vec::as_slice);
            for (what, numbers) in [("delivered", listed), ("parked", parked)] {
                for (shard, numbers) in self.orders(numbers) {
                    if !numbers.is_sorted() {
                        self.broken(format!(
                            "{key} was {what} out of order: {numbers:?} {shard:?}"
                        ));
                    }
                }
            }
            let done = |n: &usize| self.is_done(*n) && self.plan.records[*n].key == *key;
            let done: Vec<usize> = self.world.places.keys().copied().filter(done).collect();
            let parked = self.orders(parked);
            for (shard, done) in self.orders(&done) {
                let first = parked.get(&shard).and_then(|numbers| numbers.iter().min());
                if first.is_some_and(|first| done.iter().any(|n| n > first)) {
                    self.broken(format!(
                        "{key}: {done:?} are done, {first:?} is parked, {shard:?}"
                    ));
                }
            }
        }
    }

    /// The numbers by what they are in order with: all of them, or those of their shard.
    fn orders(&self, numbers: &[usize]) -> BTreeMap<Option<ShardId>, Vec<usize>> {
        let mut orders: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for number in numbers {
            let spread = self.plan.records[*number].hash.is_some();
            let shard = spread.then(|| self.shard_of(*number));
            orders.entry(shard).or_default().push(*number);
        }
        orders
    }

    /// Where a batch is taken apart, its attempts end for the record at fault and for no other.
    fn nothing_innocent_is_given_up(&self) {
        let policies = self.policies();
        let record_mode = matches!(
            self.plan.carrier,
            Carrier::Packed {
                mode: Mode::Record,
                ..
            }
        );
        // An answer that breaks the contract of record mode is held against the whole batch.
        let malformed = |planned: &Planned| {
            planned
                .fault
                .is_some_and(|f| f.kind == FaultKind::Malformed)
        };
        let record_mode = record_mode && !self.plan.records.iter().any(malformed);
        let taken_apart = |policy: &&Policy| {
            policy.bisect_batch_on_function_error || (record_mode && policy.window().is_none())
        };
        if !policies.iter().all(taken_apart) {
            return;
        }
        for (entry, batch) in &self.failures {
            if entry.reason != Reason::RetryAttemptsExhausted {
                continue;
            }
            let numbers = numbers_of(batch);
            let innocent = |n: &&usize| {
                let planned = &self.plan.records[**n];
                planned.fault.is_none() && (self.plan.has_target || !planned.emits)
            };
            let innocent: Vec<_> = numbers.iter().filter(innocent).collect();
            if !innocent.is_empty() {
                let text = format!("of {numbers:?}, given up, {innocent:?} had no fault");
                self.broken(text);
            }
        }
    }

    /// Nobody is given up by age while young.
    fn ages_are_the_records_own(&self) {
        let limit = self.plan.policy.maximum_record_age;
        for (entry, batch) in &self.failures {
            if entry.reason != Reason::RecordAgeExceeded {
                continue;
            }
            self.world.log.reach("too old", 1);
            for record in batch.iter() {
                let age = entry.created.since(record.arrival);
                if limit.is_none_or(|limit| age <= limit) {
                    let number = number_of(record.parts.data);
                    self.broken(format!("record {number} was given up {age:?} old"));
                }
            }
        }
    }

    /// Each window is closed once (its counter is 1, see the effects), with the state of all its
    /// records, in order; each record that was done in a window is in one that was closed.
    fn windows_are_closed_once_and_whole(&self) {
        let mut closed = BTreeMap::new();
        let mut told = Vec::new();
        for name in self.counters.keys() {
            let Some(window) = name.strip_prefix("W|") else {
                continue;
            };
            let mut parts = window.split('|');
            let id = (parts.next(), parts.next());
            let list: Vec<usize> = parts
                .next()
                .into_iter()
                .flat_map(|l| l.split(','))
                .filter_map(|n| n.parse().ok())
                .collect();
            self.world.log.reach("window closed", 1);
            if let Some(before) = closed.insert(id, list.clone()) {
                self.broken(format!(
                    "window {id:?} was closed with {before:?} and {list:?}"
                ));
            }
            if !list.is_sorted() {
                self.broken(format!("window {id:?} was closed with {list:?}"));
            }
            told.extend(list);
        }
        told.sort_unstable();
        let all = self.world.places.keys().copied();
        let inside: Vec<usize> = all.filter(|n| self.counter(&format!("v{n}")) > 0).collect();
        let is_window = |e: &FailureEntry| e.records == 0;
        let whole = match self.failures.iter().any(|(entry, _)| is_window(entry)) {
            // The state of a window that was given up is gone.
            true => told.windows(2).all(|w| w[0] < w[1]) && told.iter().all(|n| inside.contains(n)),
            false => told == inside,
        };
        if !whole {
            self.broken(format!(
                "windows were closed with {told:?}, done in them: {inside:?}"
            ));
        }
    }
}
