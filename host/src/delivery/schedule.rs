//! Which delivery goes next, and what follows from one that failed. No clock, no store, no I/O.
//!
//! Deliveries to one destination are a lane: in the order of their ids, one at a time. What is
//! wrong with the destination makes its lane wait; what is wrong with one delivery makes that one
//! wait while the others go on. Lanes never wait for each other.
//!
//! Laws: a delivery leaves the schedule by [`Schedule::delivered`] or, not before its bounded
//! age, by a failure; a lane has at most one delivery under way.

use std::collections::BTreeMap;
use std::time::Duration;

use shardmill_core::{Scope, UnixMillis};

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

#[derive(Debug, Default)]
struct Lane {
    waiting: BTreeMap<String, Slot>,
    busy: bool,
    failures: u32,
    not_before: UnixMillis,
}

#[derive(Debug)]
struct Slot {
    delivery: Waiting,
    refusals: u32,
    not_before: UnixMillis,
}

/// All deliveries that wait.
#[derive(Debug)]
pub(super) struct Schedule {
    lanes: BTreeMap<LaneId, Lane>,
    maximum_age: Duration,
}

impl Schedule {
    /// An empty schedule; a delivery that fails at `maximum_age` or later is given up.
    pub(super) fn new(maximum_age: Duration) -> Self {
        Self {
            lanes: BTreeMap::new(),
            maximum_age,
        }
    }

    /// Adds a delivery; nothing is changed when it is there.
    pub(super) fn add(&mut self, delivery: Waiting) {
        let lane = self.lanes.entry(delivery.lane.clone()).or_default();
        lane.waiting
            .entry(delivery.id.clone())
            .or_insert_with(|| Slot {
                delivery,
                refusals: 0,
                not_before: UnixMillis(0),
            });
    }

    /// Adds a delivery, or brings it forward: nothing of its lane waits for time to pass.
    pub(super) fn hurry(&mut self, delivery: Waiting) {
        let (lane, id) = (delivery.lane.clone(), delivery.id.clone());
        self.add(delivery);
        let Some(lane) = self.lanes.get_mut(&lane) else {
            return;
        };
        lane.not_before = UnixMillis(0);
        if let Some(slot) = lane.waiting.get_mut(&id) {
            slot.not_before = UnixMillis(0);
        }
    }

    /// The delivery that has waited longest for its turn, if one may go; its lane is then busy.
    pub(super) fn next(&mut self, now: UnixMillis) -> Option<Waiting> {
        let ready = self.lanes.values_mut().filter(|lane| !lane.busy);
        let (_, lane) = ready
            .filter_map(|lane| Some((lane.ready_at()?, lane)))
            .filter(|(at, _)| *at <= now)
            .min_by_key(|(at, _)| *at)?;
        lane.busy = true;
        let mut slots = lane.waiting.values();
        slots
            .find(|slot| slot.not_before <= now)
            .map(|slot| slot.delivery.clone())
    }

    /// When the next delivery may go; `None` while nothing waits for time to pass.
    pub(super) fn wake_at(&self) -> Option<UnixMillis> {
        let idle = self.lanes.values().filter(|lane| !lane.busy);
        idle.filter_map(Lane::ready_at).min()
    }

    /// A delivery has arrived.
    pub(super) fn delivered(&mut self, delivery: &Waiting) {
        if let Some(lane) = self.lanes.get_mut(&delivery.lane) {
            lane.waiting.remove(&delivery.id);
            (lane.busy, lane.failures, lane.not_before) = (false, 0, UnixMillis(0));
        }
        self.tidy(&delivery.lane);
    }

    /// A delivery is gone, whatever became of it.
    pub(super) fn remove(&mut self, lane: &LaneId, id: &str) {
        if let Some(found) = self.lanes.get_mut(lane) {
            found.waiting.remove(id);
        }
        self.tidy(lane);
    }

    /// An attempt has failed: `chance` is a random number, 0 … 1. Returns the deliveries whose
    /// time is over; they are out of the schedule.
    #[must_use]
    pub(super) fn failed(
        &mut self,
        delivery: &Waiting,
        failed: Failed,
        now: UnixMillis,
        chance: f64,
    ) -> Vec<Waiting> {
        let old = now.minus(self.maximum_age);
        let Some(lane) = self.lanes.get_mut(&delivery.lane) else {
            return Vec::new();
        };
        lane.busy = false;
        let over: Vec<String> = match failed {
            Failed::Refused => {
                (lane.failures, lane.not_before) = (0, UnixMillis(0));
                if let Some(slot) = lane.waiting.get_mut(&delivery.id) {
                    slot.refusals += 1;
                    slot.not_before = now.plus(wait(failed, slot.refusals, chance));
                }
                let over = delivery.created <= old;
                over.then(|| delivery.id.clone()).into_iter().collect()
            }
            // The others would fare no better: whose time is over need not try.
            Failed::Unreachable | Failed::Misconfigured => {
                lane.failures += 1;
                lane.not_before = now.plus(wait(failed, lane.failures, chance));
                let over = |slot: &&Slot| slot.delivery.created <= old;
                let over = lane.waiting.values().filter(over);
                over.map(|slot| slot.delivery.id.clone()).collect()
            }
        };
        let removed = over.iter().filter_map(|id| lane.waiting.remove(id));
        let removed = removed.map(|slot| slot.delivery).collect();
        self.tidy(&delivery.lane);
        removed
    }

    /// How many deliveries of a mapping wait.
    pub(super) fn waiting(&self, mapping_id: &str) -> u64 {
        let slots = self.lanes.values().flat_map(|lane| lane.waiting.values());
        slots
            .filter(|slot| slot.delivery.mapping_id == mapping_id)
            .count() as u64
    }

    fn tidy(&mut self, lane: &LaneId) {
        let over = |lane: &Lane| lane.waiting.is_empty() && !lane.busy;
        if self.lanes.get(lane).is_some_and(over) {
            self.lanes.remove(lane);
        }
    }
}

impl Lane {
    fn ready_at(&self) -> Option<UnixMillis> {
        let first = self.waiting.values().map(|slot| slot.not_before).min()?;
        Some(first.max(self.not_before))
    }
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
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    /// The year 2100.
    const NOW: UnixMillis = UnixMillis(4_102_444_800_000);

    fn delivery(lane: &str, id: &str) -> Waiting {
        Waiting {
            lane: (Scope::default(), lane.into()),
            id: id.into(),
            created: NOW,
            mapping_id: "m".into(),
            records: 1,
        }
    }

    fn schedule(deliveries: &[(&str, &str)]) -> Schedule {
        let mut schedule = Schedule::new(DAY);
        for (lane, id) in deliveries {
            schedule.add(delivery(lane, id));
        }
        schedule
    }

    fn seconds(n: u64) -> UnixMillis {
        NOW.plus(Duration::from_secs(n))
    }

    fn next(schedule: &mut Schedule, at: UnixMillis) -> Option<String> {
        schedule.next(at).map(|d| d.id)
    }

    #[test]
    fn a_lane_sends_in_order_and_one_at_a_time() {
        let mut schedule = schedule(&[("a", "2"), ("a", "1"), ("a", "3")]);
        assert_eq!(next(&mut schedule, NOW).as_deref(), Some("1"));
        assert_eq!(next(&mut schedule, NOW), None, "one is under way");
        assert_eq!(schedule.wake_at(), None);
        schedule.delivered(&delivery("a", "1"));
        assert_eq!(next(&mut schedule, NOW).as_deref(), Some("2"));
        schedule.delivered(&delivery("a", "2"));
        assert_eq!(schedule.waiting("m"), 1);
        assert_eq!(next(&mut schedule, NOW).as_deref(), Some("3"));
    }

    #[test]
    fn a_dead_destination_delays_no_other() {
        let mut schedule = schedule(&[("dead", "1"), ("dead", "2"), ("good", "3")]);
        assert_eq!(next(&mut schedule, NOW).as_deref(), Some("1"));
        let over = schedule.failed(&delivery("dead", "1"), Failed::Unreachable, NOW, 0.0);
        assert!(over.is_empty());
        assert_eq!(next(&mut schedule, NOW).as_deref(), Some("3"));
        assert_eq!(next(&mut schedule, NOW), None, "the dead lane waits");
        assert_eq!(schedule.wake_at(), Some(seconds(1)));
        assert_eq!(next(&mut schedule, seconds(1)).as_deref(), Some("1"));
    }

    #[test]
    fn a_refused_delivery_steps_aside() {
        let mut schedule = schedule(&[("a", "1"), ("a", "2")]);
        let first = schedule.next(NOW).expect("the first");
        assert!(
            schedule
                .failed(&first, Failed::Refused, NOW, 0.0)
                .is_empty()
        );
        assert_eq!(next(&mut schedule, NOW).as_deref(), Some("2"));
        schedule.delivered(&delivery("a", "2"));
        assert_eq!(next(&mut schedule, seconds(59)), None);
        assert_eq!(next(&mut schedule, seconds(60)).as_deref(), Some("1"));
    }

    #[test]
    fn nothing_is_given_up_before_its_age_and_everything_after_it() {
        for failed in [Failed::Unreachable, Failed::Misconfigured, Failed::Refused] {
            let mut schedule = schedule(&[("a", "1")]);
            let young = delivery("a", "1");
            let late = seconds(86_400);
            let before = UnixMillis(late.0 - 1);
            assert!(schedule.failed(&young, failed, before, 0.0).is_empty());
            assert_eq!(schedule.failed(&young, failed, late, 0.0), [young]);
            assert_eq!((schedule.waiting("m"), schedule.wake_at()), (0, None));
        }
        let mut schedule = schedule(&[("a", "1"), ("a", "2")]);
        let mut fresh = delivery("a", "3");
        fresh.created = seconds(1);
        schedule.add(fresh);
        let over = schedule.failed(
            &delivery("a", "1"),
            Failed::Unreachable,
            seconds(86_400),
            0.0,
        );
        let ids: Vec<_> = over.iter().map(|d| d.id.as_str()).collect();
        assert_eq!(ids, ["1", "2"], "all whose time is over, and no other");
        assert_eq!(schedule.waiting("m"), 1);
    }

    #[test]
    fn waits_double_and_chance_takes_off_up_to_half() {
        for (failed, failures, chance, want) in [
            (Failed::Unreachable, 1, 0.0, 1_000),
            (Failed::Unreachable, 1, 1.0, 500),
            (Failed::Unreachable, 4, 0.0, 8_000),
            (Failed::Unreachable, u32::MAX, 0.0, 300_000),
            (Failed::Misconfigured, 1, 0.0, 60_000),
            (Failed::Misconfigured, 3, 0.5, 180_000),
            (Failed::Refused, 100, 0.0, 3_600_000),
        ] {
            let waits = wait(failed, failures, chance).as_millis();
            assert_eq!(waits, want, "{failed:?} {failures} {chance}");
        }
    }
}
