//! What waits for one destination, and which of it goes next.

use std::collections::{BTreeMap, BTreeSet};

use shardmill_core::UnixMillis;

use super::{Failed, Place, Trouble, Waiting, wait};

/// Failures in a row of one delivery that leave it open whether the destination or the delivery
/// is at fault: then the next one is tried.
const IN_DOUBT: u32 = 3;

/// A destination's deliveries.
#[derive(Debug, Default)]
pub(super) struct Lane {
    slots: BTreeMap<String, Slot>,
    /// Those that may go when the lane may.
    in_turn: BTreeSet<String>,
    /// Those that wait for their own time.
    aside: BTreeSet<(UnixMillis, String)>,
    by_age: BTreeSet<(UnixMillis, String)>,
    busy: bool,
    failures: u32,
    not_before: UnixMillis,
    problem: Option<String>,
    /// The delivery that failed last as if its destination were away, and how often in a row.
    suspect: Option<(String, u32)>,
    /// Where the schedule keeps it.
    pub(super) place: Option<Place>,
}

#[derive(Debug)]
struct Slot {
    delivery: Waiting,
    refusals: u32,
    not_before: UnixMillis,
    problem: Option<String>,
}

impl Lane {
    /// Adds a delivery; `false` when it is there.
    pub(super) fn add(&mut self, delivery: Waiting, not_before: UnixMillis) -> bool {
        let id = delivery.id.clone();
        if self.slots.contains_key(&id) {
            return false;
        }
        self.by_age.insert((delivery.created, id.clone()));
        let slot = Slot {
            delivery,
            refusals: 0,
            not_before,
            problem: None,
        };
        self.slots.insert(id.clone(), slot);
        if not_before == UnixMillis(0) {
            self.in_turn.insert(id);
        } else {
            self.aside.insert((not_before, id));
        }
        true
    }

    /// Nothing of the lane waits for time to pass, nor does this delivery.
    pub(super) fn hurry(&mut self, id: &str) {
        self.not_before = UnixMillis(0);
        self.suspect.take_if(|(suspect, _)| suspect == id);
        self.back_in_turn(id);
    }

    /// Whether nothing is left of it.
    pub(super) fn is_over(&self) -> bool {
        self.slots.is_empty() && !self.busy
    }

    /// When a delivery may go, 0 for at once; `None` while one is under way or there is none.
    pub(super) fn ready_at(&self) -> Option<UnixMillis> {
        if self.busy {
            return None;
        }
        if !self.in_turn.is_empty() {
            return Some(self.not_before);
        }
        self.aside.first().map(|(at, _)| self.not_before.max(*at))
    }

    /// The delivery that goes now; the lane is then busy.
    pub(super) fn begin(&mut self, now: UnixMillis) -> Option<Waiting> {
        while let Some((at, id)) = self.aside.first()
            && *at <= now
        {
            let id = id.clone();
            self.back_in_turn(&id);
        }
        let doubtful = |id: &&String| {
            let suspect = self.suspect.as_ref();
            suspect.is_some_and(|(suspect, row)| suspect == *id && *row >= IN_DOUBT)
        };
        let mut in_turn = self.in_turn.iter();
        let probe = self.in_turn.iter().find(|id| !doubtful(id));
        let id = probe.or_else(|| in_turn.next())?;
        let delivery = self.slots.get(id)?.delivery.clone();
        self.busy = true;
        Some(delivery)
    }

    /// A delivery has arrived: the destination is there, and a delivery in doubt was at fault
    /// itself.
    pub(super) fn delivered(&mut self, id: &str, now: UnixMillis, chance: f64) -> Option<Waiting> {
        let removed = self.remove(id);
        self.busy = false;
        (self.failures, self.not_before) = (0, UnixMillis(0));
        let problem = self.problem.take();
        if let Some((suspect, row)) = self.suspect.take()
            && row >= IN_DOUBT
        {
            self.step_aside(&suspect, problem, now, chance);
        }
        removed
    }

    /// An attempt has failed. The delivery stays.
    pub(super) fn failed(&mut self, id: &str, trouble: &Trouble, now: UnixMillis, chance: f64) {
        self.busy = false;
        let why = Some(trouble.why.clone());
        match trouble.failed {
            Failed::Refused => {
                (self.failures, self.not_before) = (0, UnixMillis(0));
                (self.suspect, self.problem) = (None, None);
                self.step_aside(id, why, now, chance);
            }
            Failed::Unreachable | Failed::Misconfigured => {
                self.failures += 1;
                self.not_before = now.plus(wait(trouble.failed, self.failures, chance));
                self.problem = why;
                self.suspect = match trouble.failed {
                    Failed::Unreachable => Some(self.next_suspect(id)),
                    Failed::Misconfigured | Failed::Refused => None,
                };
            }
        }
    }

    /// Whom to suspect after a failure of `id`.
    fn next_suspect(&mut self, id: &str) -> (String, u32) {
        match self.suspect.take() {
            Some((suspect, row)) if suspect == id => (suspect, row + 1),
            // The probe failed, too: the destination is away, and its order is kept.
            Some((suspect, row)) if row >= IN_DOUBT && self.slots.contains_key(&suspect) => {
                (suspect, 0)
            }
            _ => {
                // One that was at fault before is in doubt at once.
                let again = self.slots.get(id).is_some_and(|slot| slot.refusals > 0);
                (id.into(), if again { IN_DOUBT } else { 1 })
            }
        }
    }

    fn step_aside(&mut self, id: &str, problem: Option<String>, now: UnixMillis, chance: f64) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        self.in_turn.remove(id);
        self.aside.remove(&(slot.not_before, id.to_owned()));
        slot.refusals += 1;
        slot.not_before = now.plus(wait(Failed::Refused, slot.refusals, chance));
        slot.problem = problem;
        self.aside.insert((slot.not_before, id.to_owned()));
    }

    fn back_in_turn(&mut self, id: &str) {
        if let Some(slot) = self.slots.get_mut(id) {
            self.aside.remove(&(slot.not_before, id.to_owned()));
            slot.not_before = UnixMillis(0);
            self.in_turn.insert(id.into());
        }
    }

    /// Takes a delivery out.
    pub(super) fn remove(&mut self, id: &str) -> Option<Waiting> {
        let slot = self.slots.remove(id)?;
        self.in_turn.remove(id);
        self.aside.remove(&(slot.not_before, id.to_owned()));
        self.by_age.remove(&(slot.delivery.created, id.to_owned()));
        Some(slot.delivery)
    }

    /// The ids of those that were begun at `old` or before.
    pub(super) fn older_than(&self, old: UnixMillis) -> Vec<String> {
        let over = self
            .by_age
            .iter()
            .take_while(|(created, _)| *created <= old);
        over.map(|(_, id)| id.clone()).collect()
    }

    /// What the last attempt met: at this delivery, or else at the destination.
    pub(super) fn problem(&self, id: &str) -> Option<&str> {
        let own = self.slots.get(id)?.problem.as_ref();
        own.or(self.problem.as_ref()).map(String::as_str)
    }
}
