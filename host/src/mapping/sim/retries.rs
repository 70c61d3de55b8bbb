//! The laws of attempts: request ids, budgets, and the waits between.

use std::collections::{BTreeMap, BTreeSet};

use shardmill_core::mapping::{Reason, backoff};
use shardmill_core::sandbox::{Carrier, Mode};

use super::facts::{Facts, numbers_of};
use super::handler::{Call, CallEnd};
use super::plan::{Act, FaultKind};

impl Facts<'_> {
    /// A request id stands for one batch, of which only what ended otherwise may be missing later.
    pub(super) fn request_ids_stand_for_their_batch(&self) {
        let (sometimes, always) = self.filtered();
        if sometimes != always {
            return;
        }
        let released = |n: &usize| self.is_done(*n);
        let marked = self.failures.iter().filter(|(entry, _)| entry.parked);
        let released = marked.filter(|(_, batch)| numbers_of(batch).iter().any(released));
        self.world.log.reach("released", released.count() as u64);
        // What was parked meanwhile may be done since.
        let mut steps = self.plan.steps.iter();
        let released = steps.any(|step| matches!(step.act, Act::Release));
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
                let mut missing = missing.into_iter();
                let shrunk = missing.all(|n| released || may_go.contains(n) || trimmed(n));
                let kept = call.records.iter().all(|n| before.records.contains(n));
                if !shrunk || !kept || before.shard != call.shard {
                    let (before, after) = (&before.records, &call.records);
                    self.broken(format!("one request id for {before:?} and {after:?}"));
                }
            }
        }
    }

    pub(super) fn unchanged_batches_keep_their_request_id(&self) {
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
    pub(super) fn unchanged_batches_wait_longer_each_time(&self) {
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

    /// The attempts of a batch, or of a record in record mode, are one and the retries: no fewer
    /// when they are what ended it, and no more, but for those that died with the host.
    pub(super) fn budgets_are_used_up_and_not_exceeded(&self) {
        let most = |budget: usize| budget + self.world.deaths;
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
                let too_few = given_up.contains(&number) && tries < budget;
                if tries > most(budget) || too_few {
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
            if !(budget..=most(budget)).contains(&tries) {
                let first = entry.first_sequence_number;
                self.broken(format!(
                    "the batch at {first:?} had {tries} attempts of {budget}"
                ));
            }
        }
    }
}
