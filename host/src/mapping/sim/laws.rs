//! What must hold when everything is delivered. What must hold at every moment is checked where it
//! happens: progress in `store.rs`, ages and parents in `handler.rs`.
//!
//! A record that was parked and let go on ends as done.

use std::collections::{BTreeMap, BTreeSet};

use shardmill_core::mapping::{Position, Reason, backoff};
use shardmill_core::sandbox::{Carrier, Mode};
use shardmill_core::{Batch, Scope, ShardId};
use shardmill_store::{Key, ReadLimit, Store, Table};

use super::handler::{Call, CallEnd, LIST, number_of};
use super::plan::{Act, FaultKind, Plan};
use super::world::World;
use crate::mapping::{FailureEntry, FailureFilter, Failures, ParkedKey};

/// What a run has left behind.
struct Facts<'a> {
    world: &'a World,
    plan: &'a Plan,
    counters: BTreeMap<String, i64>,
    /// Lists of numbers in keyed state, by key.
    lists: BTreeMap<String, Vec<usize>>,
    /// Side logs, by key.
    parked: BTreeMap<String, Vec<usize>>,
    parked_keys: BTreeMap<String, ParkedKey>,
    failures: Vec<(FailureEntry, Batch)>,
    emitted: Vec<usize>,
    calls: Vec<Call>,
}

/// Checks every law.
pub(super) async fn check(world: &World) {
    let facts = Facts::of(world).await;
    facts.every_record_ends_in_one_way();
    facts.effects_are_there_exactly_once();
    facts.keys_stay_in_order();
    facts.ages_are_the_records_own();
    facts.windows_are_closed_once_and_whole();
    facts.request_ids_stand_for_their_batch();
    if world.plan.is_calm() && !world.was_paused {
        facts.unchanged_batches_keep_their_request_id();
        facts.unchanged_batches_wait_longer_each_time();
        facts.budgets_are_used_up_and_not_exceeded();
    }
}

impl<'a> Facts<'a> {
    async fn of(world: &'a World) -> Self {
        let (memory, scope) = (&world.shell.memory, Scope::default());
        let counters = memory.counters(&scope, "f").expect("counters");
        let lists = Key::new(Table::State, &scope).part("f");
        let lists = memory.scan(&lists, None, usize::MAX).expect("state");
        let lists = lists.into_iter().filter_map(|(key, value)| {
            let (_, parts) = key.split()?;
            let name = String::from_utf8_lossy(parts[1]).into_owned();
            let text = String::from_utf8_lossy(&value.value).into_owned();
            let numbers = text.split_terminator(',').filter_map(|n| n.parse().ok());
            (parts[2] == LIST.as_bytes()).then(|| (name, numbers.collect()))
        });
        Self {
            world,
            plan: &world.plan,
            counters: counters.into_iter().collect(),
            lists: lists.collect(),
            parked: parked(world).await,
            parked_keys: parked_keys(world),
            failures: failures(world).await,
            emitted: emitted(world).await,
            calls: world.handler.seen.lock().unwrap().calls.clone(),
        }
    }

    fn broken(&self, text: String) {
        self.world.log.violation(text);
    }

    fn counter(&self, name: &str) -> i64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    fn is_done(&self, number: usize) -> bool {
        self.counter(&format!("r{number}")) > 0
    }

    fn shard_of(&self, number: usize) -> ShardId {
        self.world.places[&number].shard
    }

    /// The filters that were in force: at some time, and always.
    fn filtered(&self) -> (bool, bool) {
        let mut policies = vec![&self.plan.policy];
        policies.extend(self.plan.steps.iter().filter_map(|step| match &step.act {
            Act::Update(policy) => Some(&**policy),
            _ => None,
        }));
        let mut filters = policies.iter().map(|p| !p.filter_criteria.is_empty());
        (filters.clone().any(|f| f), filters.all(|f| f))
    }

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
    fn wanted(&self, has: impl Fn(&super::plan::Planned) -> bool) -> Vec<usize> {
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

    /// A request id stands for one batch, of which only what ended otherwise may be missing later.
    fn request_ids_stand_for_their_batch(&self) {
        let (sometimes, always) = self.filtered();
        if sometimes != always {
            return;
        }
        let released = |n: &usize| self.is_done(*n);
        let marked = self.failures.iter().filter(|(entry, _)| entry.parked);
        let released = marked.filter(|(_, batch)| numbers_of(batch).iter().any(released));
        self.world.log.reach("released", released.count() as u64);
        let mut may_go: BTreeSet<usize> = self.parked.values().flatten().copied().collect();
        for (entry, batch) in &self.failures {
            if entry.reason == Reason::RecordAgeExceeded {
                may_go.extend(numbers_of(batch));
            }
        }
        let mut batches: BTreeMap<&str, &Call> = BTreeMap::new();
        for call in &self.calls {
            if let Some(before) = batches.insert(&call.request_id, call) {
                let gone = |n: &&usize| !call.records.contains(n);
                let trimmed = |n: &usize| {
                    let place = &self.world.places[n];
                    self.world
                        .trimmed
                        .get(&place.shard)
                        .is_some_and(|t| place.first < *t)
                };
                let missing: Vec<_> = before.records.iter().filter(gone).collect();
                let shrunk = missing.iter().all(|n| may_go.contains(*n) || trimmed(n));
                let kept = call.records.iter().all(|n| before.records.contains(n));
                if !shrunk || !kept || before.shard != call.shard {
                    let (before, after) = (&before.records, &call.records);
                    self.broken(format!("one request id for {before:?} and {after:?}"));
                }
            }
        }
    }

    fn unchanged_batches_keep_their_request_id(&self) {
        let mut last: BTreeMap<(u32, &[usize]), &Call> = BTreeMap::new();
        for call in self.calls.iter().filter(|call| !call.is_final) {
            let id = (call.shard, call.records.as_slice());
            if let Some(before) = last.insert(id, call)
                && before.request_id != call.request_id
            {
                let records = &call.records;
                self.broken(format!(
                    "{records:?} were tried again under another request id"
                ));
            }
        }
    }

    /// A batch that failed and is tried unchanged waits 0.2 s, and then twice as long each time.
    /// What became of its expired head in the meantime does not hurry it.
    fn unchanged_batches_wait_longer_each_time(&self) {
        if self.can_conflict() {
            return;
        }
        let mut last: BTreeMap<&str, (&Call, u32)> = BTreeMap::new();
        for call in &self.calls {
            let failures = match last.get(call.request_id.as_str()) {
                Some((before, failures)) => {
                    let gap = call.began.since(before.began.plus(before.takes));
                    let failed = !matches!(before.ended, CallEnd::Done | CallEnd::Throttled);
                    if failed && *failures > 0 && gap < backoff(*failures) {
                        let records = &call.records;
                        self.broken(format!(
                            "{records:?} waited {gap:?} after {failures} failures"
                        ));
                    }
                    *failures
                }
                None => 0,
            };
            // In record mode a shared limit at a later record has no failure of this batch's.
            let counts = match call.ended {
                CallEnd::Failed(Some(record)) => call.records.first() == Some(&record),
                CallEnd::Failed(None) => false,
                CallEnd::Partial => true,
                CallEnd::Done | CallEnd::Throttled => false,
            };
            let failures = failures + u32::from(counts);
            last.insert(&call.request_id, (call, failures));
        }
    }

    /// Whether an attempt may be made again because of what another one, or a missing stream, did.
    fn can_conflict(&self) -> bool {
        let emits_fail = !self.plan.has_target && self.plan.records.iter().any(|r| r.emits);
        // Only keys that stand in several shards are changed by two batches at a time.
        emits_fail || self.plan.records.iter().any(|r| r.hash.is_some())
    }

    /// The attempts of a batch, or of a record in record mode, are one and the retries: no more,
    /// and no fewer when they are what ended it.
    fn budgets_are_used_up_and_not_exceeded(&self) {
        let Some(retries) = self.plan.policy.maximum_retry_attempts else {
            return;
        };
        let budget = 1 + retries as usize;
        if self.can_conflict() {
            return;
        }
        let record_mode = self.plan.policy.window().is_none()
            && matches!(
                self.plan.carrier,
                Carrier::Packed {
                    mode: Mode::Record,
                    ..
                }
            );
        let exhausted = self
            .failures
            .iter()
            .filter(|(entry, _)| entry.reason == Reason::RetryAttemptsExhausted);
        if record_mode {
            let unnamed = [FaultKind::Hidden, FaultKind::Malformed];
            let mut faults = self.plan.records.iter().filter_map(|r| r.fault);
            if faults.any(|fault| unnamed.contains(&fault.kind)) {
                return;
            }
            let tries = |n: usize| {
                let calls = self.calls.iter();
                calls
                    .filter(|call| call.ended == CallEnd::Failed(Some(n)))
                    .count()
            };
            let given_up: Vec<usize> = exhausted.flat_map(|(_, batch)| numbers_of(batch)).collect();
            for number in self.world.places.keys().copied() {
                let tries = tries(number);
                if tries > budget || (given_up.contains(&number) && tries != budget) {
                    self.broken(format!("record {number} had {tries} attempts of {budget}"));
                }
            }
            return;
        }
        for (entry, _) in exhausted {
            let failed = |call: &&Call| matches!(call.ended, CallEnd::Failed(_) | CallEnd::Partial);
            let calls = self
                .calls
                .iter()
                .filter(|call| call.request_id == entry.request_id);
            let tries = calls.filter(failed).count();
            if tries != budget {
                let first = entry.first_sequence_number;
                self.broken(format!(
                    "the batch at {first:?} had {tries} attempts of {budget}"
                ));
            }
        }
    }
}

fn numbers_of(batch: &Batch) -> Vec<usize> {
    batch
        .iter()
        .map(|record| number_of(record.parts.data))
        .collect()
}

async fn failures(world: &World) -> Vec<(FailureEntry, Batch)> {
    let scope = Scope::default();
    let failures = Failures::new(
        world.shell.memory.clone(),
        world.handler.clone(),
        world.functions.clone(),
        world.clock,
    );
    let filter = FailureFilter::default();
    let mut all = Vec::new();
    for entry in failures.list(&scope, &filter).expect("entries") {
        let batch = failures
            .payload(&scope, &entry.id)
            .await
            .expect("a payload");
        all.push((entry, batch));
    }
    all
}

fn parked_keys(world: &World) -> BTreeMap<String, ParkedKey> {
    let prefix = Key::new(Table::ParkedKey, &Scope::default()).part(&world.truth.mapping().id);
    let found = world.shell.memory.scan(&prefix, None, usize::MAX);
    let keys = found.expect("parked keys").into_iter().map(|(_, stored)| {
        let key: ParkedKey = serde_json::from_slice(&stored.value).expect("a parked key");
        (key.key.clone(), key)
    });
    keys.collect()
}

async fn parked(world: &World) -> BTreeMap<String, Vec<usize>> {
    let memory = &world.shell.memory;
    let prefix = Key::new(Table::Parked, &Scope::default()).part(&world.truth.mapping().id);
    let mut parked: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (key, _) in memory.scan(&prefix, None, usize::MAX).expect("parked runs") {
        let stored = memory.blob(&key).await.expect("a blob").expect("a blob");
        let batch = Batch::from_stored(stored).expect("a batch");
        let (_, parts) = key.split().expect("a key");
        let name = String::from_utf8_lossy(parts[1]).into_owned();
        parked.entry(name).or_default().extend(numbers_of(&batch));
    }
    parked
}

async fn emitted(world: &World) -> Vec<usize> {
    let memory = &world.shell.memory;
    let name = "out".parse().expect("a name");
    let Some(stream) = memory.stream(&Scope::default(), &name) else {
        return Vec::new();
    };
    let limit = ReadLimit {
        records: usize::MAX,
        bytes: usize::MAX,
    };
    let shard = shardmill_core::ShardKey {
        stream: stream.id,
        shard: stream.shards[0].id,
    };
    let from = Position::of(1).record;
    let blocks = memory.read(shard, from, limit).await.expect("blocks");
    let records = blocks.iter().flat_map(|block| block.iter());
    let number = |data: &[u8]| String::from_utf8_lossy(data).parse().expect("a number");
    records.map(|record| number(record.parts.data)).collect()
}
