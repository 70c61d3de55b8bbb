//! Which delivery goes next, and what follows from one that failed. No clock, no store, no I/O.
//!
//! Deliveries to one destination are a lane: in the order of their ids, one at a time. What is
//! wrong with the destination makes its lane wait; what is wrong with one delivery makes that one
//! wait while the others go on. Where an answer does not tell which it is, the next delivery is
//! tried in between: if that one arrives, the first was at fault. Lanes never wait for each other,
//! and those that may go take turns.
//!
//! Laws: a delivery leaves the schedule by [`Schedule::delivered`] or, not before its bounded
//! age, by a failure; a lane has at most one delivery under way. Every step but a failure costs
//! the logarithm of what waits.

mod lane;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use shardmill_core::{Scope, UnixMillis};

use lane::Lane;

/// A destination within an account and region.
pub(super) type LaneId = (Scope, String);

/// A delivery that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Its lane.
    pub(super) lane: LaneId,
    /// Its stable id; later ones sort behind it.
    pub(super) id: String,
    /// When it was begun; its age counts from then.
    pub(super) created: UnixMillis,
    /// The mapping's UUID.
    pub(super) mapping_id: String,
    /// How many records it reports.
    pub(super) records: u64,
}

/// What kind of failure an attempt met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The destination cannot be reached, or says that it has no room: tried again soon.
    Unreachable,
    /// The destination refuses whatever comes: tried again slowly.
    Misconfigured,
    /// The destination refuses this delivery: it is tried again slowly, the others go on.
    Refused,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) failed: Failed,
    pub(super) why: String,
}

/// All deliveries that wait.
#[derive(Debug)]
pub(super) struct Schedule {
    lanes: HashMap<LaneId, Lane>,
    /// Lanes that may go now, by turn.
    due: BTreeMap<u64, LaneId>,
    /// Lanes that wait for time to pass.
    later: BTreeMap<(UnixMillis, u64), LaneId>,
    /// Turns that were given out.
    turns: u64,
    /// How many deliveries of each mapping wait.
    waiting: HashMap<String, u64>,
    maximum_age: Duration,
}

impl Schedule {
    /// An empty schedule; a delivery that fails at `maximum_age` or later is given up.
    pub(super) fn new(maximum_age: Duration) -> Self {
        Self {
            lanes: HashMap::new(),
            due: BTreeMap::new(),
            later: BTreeMap::new(),
            turns: 0,
            waiting: HashMap::new(),
            maximum_age,
        }
    }

    /// Adds a delivery; nothing is changed when it is there.
    pub(super) fn add(&mut self, delivery: Waiting) {
        self.add_at(delivery, UnixMillis(0));
    }

    /// Adds a delivery that may not go before `at`.
    pub(super) fn add_at(&mut self, delivery: Waiting, at: UnixMillis) {
        let (id, mapping) = (delivery.lane.clone(), delivery.mapping_id.clone());
        let lane = self.lanes.entry(id.clone()).or_default();
        if lane.add(delivery, at) {
            *self.waiting.entry(mapping).or_default() += 1;
            self.place(&id);
        }
    }

    /// Adds a delivery, or brings it forward: nothing of its lane waits for time to pass.
    pub(super) fn hurry(&mut self, delivery: Waiting) {
        let (lane, id) = (delivery.lane.clone(), delivery.id.clone());
        self.add(delivery);
        if let Some(found) = self.lanes.get_mut(&lane) {
            found.hurry(&id);
        }
        self.place(&lane);
    }

    /// The delivery whose lane has waited longest for its turn, if one may go; its lane is then
    /// busy.
    pub(super) fn next(&mut self, now: UnixMillis) -> Option<Waiting> {
        while let Some(first) = self.later.first_entry().filter(|e| e.key().0 <= now) {
            let id = first.remove();
            self.turns += 1;
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.place = Some(Place::Due(self.turns));
            }
            self.due.insert(self.turns, id);
        }
        let (_, id) = self.due.pop_first()?;
        let lane = self.lanes.get_mut(&id)?;
        lane.place = None;
        lane.begin(now)
    }

    /// When the next delivery may go; `None` while nothing waits for time to pass.
    pub(super) fn wake_at(&self) -> Option<UnixMillis> {
        if !self.due.is_empty() {
            return Some(UnixMillis(0));
        }
        self.later.first_key_value().map(|((at, _), _)| *at)
    }

    /// A delivery has arrived: `chance` as for [`Schedule::failed`].
    pub(super) fn delivered(&mut self, delivery: &Waiting, now: UnixMillis, chance: f64) {
        if let Some(lane) = self.lanes.get_mut(&delivery.lane) {
            let removed = lane.delivered(&delivery.id, now, chance);
            self.count_out(removed.as_ref());
        }
        self.place(&delivery.lane);
    }

    /// A delivery is gone, whatever became of it.
    pub(super) fn remove(&mut self, lane: &LaneId, id: &str) {
        if let Some(found) = self.lanes.get_mut(lane) {
            let removed = found.remove(id);
            self.count_out(removed.as_ref());
        }
        self.place(lane);
    }

    /// An attempt has failed: `chance` is a random number, 0 … 1. Returns the deliveries whose
    /// time is over; they are out of the schedule.
    #[must_use]
    pub(super) fn failed(
        &mut self,
        delivery: &Waiting,
        trouble: &Trouble,
        now: UnixMillis,
        chance: f64,
    ) -> Vec<Waiting> {
        let old = now.minus(self.maximum_age);
        let Some(lane) = self.lanes.get_mut(&delivery.lane) else {
            return Vec::new();
        };
        lane.failed(&delivery.id, trouble, now, chance);
        let over = match trouble.failed {
            Failed::Refused if delivery.created <= old => vec![delivery.id.clone()],
            Failed::Refused => Vec::new(),
            // The others would fare no better: whose time is over need not try.
            Failed::Unreachable | Failed::Misconfigured => lane.older_than(old),
        };
        let removed: Vec<Waiting> = over.iter().filter_map(|id| lane.remove(id)).collect();
        for one in &removed {
            self.count_out(Some(one));
        }
        self.place(&delivery.lane);
        removed
    }

    /// How many deliveries of a mapping wait.
    pub(super) fn waiting(&self, mapping_id: &str) -> u64 {
        self.waiting.get(mapping_id).copied().unwrap_or_default()
    }

    /// What the last attempt met: at this delivery, or else at its destination.
    pub(super) fn problem(&self, lane: &LaneId, id: &str) -> Option<&str> {
        self.lanes.get(lane)?.problem(id)
    }

    fn count_out(&mut self, removed: Option<&Waiting>) {
        let Some(removed) = removed else { return };
        if let Some(count) = self.waiting.get_mut(&removed.mapping_id) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&removed.mapping_id);
            }
        }
    }

    /// Puts a lane where its state says that it belongs. One that may go keeps its turn.
    fn place(&mut self, id: &LaneId) {
        let Some(lane) = self.lanes.get_mut(id) else {
            return;
        };
        let ready_at = lane.ready_at();
        match (lane.place, ready_at) {
            (Some(Place::Due(_)), Some(UnixMillis(0))) => return,
            (Some(Place::Later(at, _)), Some(ready)) if at == ready => return,
            (Some(Place::Due(turn)), _) => drop(self.due.remove(&turn)),
            (Some(Place::Later(at, turn)), _) => drop(self.later.remove(&(at, turn))),
            (None, _) => {}
        }
        self.turns += 1;
        lane.place = match ready_at {
            None => None,
            Some(UnixMillis(0)) => {
                self.due.insert(self.turns, id.clone());
                Some(Place::Due(self.turns))
            }
            Some(at) => {
                self.later.insert((at, self.turns), id.clone());
                Some(Place::Later(at, self.turns))
            }
        };
        if lane.is_over() {
            self.lanes.remove(id);
        }
    }
}

/// Where a lane stands: in the turns, or until when it waits. A busy one nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Due(u64),
    Later(UnixMillis, u64),
}

/// The wait after the `failures`-th failure in a row, 1 and up. It doubles from 1 s to 5 min, or
/// from 1 min to 1 h where waiting is not likely to help; `chance` takes off up to a half.
fn wait(failed: Failed, failures: u32, chance: f64) -> Duration {
    const SOON: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
    const SLOWLY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
    let (base, cap) = match failed {
        Failed::Unreachable => SOON,
        Failed::Misconfigured | Failed::Refused => SLOWLY,
    };
    let whole = (base * 2u32.pow(failures.saturating_sub(1).min(16))).min(cap);
    whole.mul_f64(1.0 - 0.5 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests;
