//! The order of deliveries, and who waits for what.

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

fn trouble(failed: Failed) -> Trouble {
    let why = format!("{failed:?}");
    Trouble { failed, why }
}

impl Schedule {
    fn fails(&mut self, delivery: &Waiting, failed: Failed, at: UnixMillis) -> Vec<Waiting> {
        self.failed(delivery, &trouble(failed), at, 0.0)
    }

    fn arrives(&mut self, lane: &str, id: &str, at: UnixMillis) {
        self.delivered(&delivery(lane, id), at, 0.0);
    }
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
    schedule.arrives("a", "1", NOW);
    assert_eq!(next(&mut schedule, NOW).as_deref(), Some("2"));
    schedule.arrives("a", "2", NOW);
    assert_eq!(schedule.waiting("m"), 1);
    assert_eq!(next(&mut schedule, NOW).as_deref(), Some("3"));
}

#[test]
fn a_dead_destination_delays_no_other() {
    let mut schedule = schedule(&[("dead", "1"), ("dead", "2"), ("good", "3")]);
    assert_eq!(next(&mut schedule, NOW).as_deref(), Some("1"));
    let over = schedule.fails(&delivery("dead", "1"), Failed::Unreachable, NOW);
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
    assert!(schedule.fails(&first, Failed::Refused, NOW).is_empty());
    assert_eq!(next(&mut schedule, NOW).as_deref(), Some("2"));
    schedule.arrives("a", "2", NOW);
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
        assert!(schedule.fails(&young, failed, before).is_empty());
        assert_eq!(schedule.fails(&young, failed, late), [young]);
        assert_eq!((schedule.waiting("m"), schedule.wake_at()), (0, None));
    }
    let mut schedule = schedule(&[("a", "1"), ("a", "2")]);
    let mut fresh = delivery("a", "3");
    fresh.created = seconds(1);
    schedule.add(fresh);
    let late = seconds(86_400);
    let over = schedule.fails(&delivery("a", "1"), Failed::Unreachable, late);
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

/// A delivery that its destination answers with 500 is no reason to hold up the others for a day.
#[test]
fn a_delivery_that_alone_fails_steps_aside_when_the_next_arrives() {
    let mut schedule = schedule(&[("a", "1"), ("a", "2"), ("a", "3")]);
    let bad = delivery("a", "1");
    let mut at = NOW;
    for wait in [1, 2, 4] {
        assert_eq!(next(&mut schedule, at).as_deref(), Some("1"));
        assert!(schedule.fails(&bad, Failed::Unreachable, at).is_empty());
        assert_eq!(next(&mut schedule, at), None);
        at = at.plus(Duration::from_secs(wait));
        assert_eq!(schedule.wake_at(), Some(at), "the lane's back-off is kept");
    }
    assert_eq!(next(&mut schedule, at).as_deref(), Some("2"), "the probe");
    schedule.arrives("a", "2", at);
    assert_eq!(next(&mut schedule, at).as_deref(), Some("3"));
    schedule.arrives("a", "3", at);
    let minute = Duration::from_secs(60);
    assert_eq!(schedule.wake_at(), Some(at.plus(minute)));
    // It comes back first, and costs the others one wait of a second.
    schedule.add(delivery("a", "4"));
    at = at.plus(minute);
    assert_eq!(next(&mut schedule, at).as_deref(), Some("1"));
    assert!(schedule.fails(&bad, Failed::Unreachable, at).is_empty());
    at = at.plus(Duration::from_secs(1));
    assert_eq!(next(&mut schedule, at).as_deref(), Some("4"));
    schedule.arrives("a", "4", at);
    assert_eq!(schedule.wake_at(), Some(at.plus(2 * minute)));
}

#[test]
fn a_dead_destination_keeps_its_order() {
    let mut schedule = schedule(&[("a", "1"), ("a", "2")]);
    let mut tried = String::new();
    let mut at = NOW;
    for _ in 0..8 {
        let one = schedule.next(at).expect("it is time");
        tried += &one.id;
        assert!(schedule.fails(&one, Failed::Unreachable, at).is_empty());
        at = schedule.wake_at().expect("the lane waits");
    }
    assert_eq!(tried, "11121112");
    assert_eq!(next(&mut schedule, at).as_deref(), Some("1"));
    schedule.arrives("a", "1", at);
    assert_eq!(next(&mut schedule, at).as_deref(), Some("2"));
}

#[test]
fn lanes_take_turns_whatever_their_names() {
    let mut schedule = schedule(&[("a", "1"), ("a", "2"), ("b", "3"), ("c", "4")]);
    let mut order = String::new();
    while let Some(one) = schedule.next(NOW) {
        order += &one.id;
        schedule.delivered(&one, NOW, 0.0);
    }
    assert_eq!(order, "1342");
}

#[test]
fn a_pending_delivery_tells_what_holds_it_up() {
    let mut schedule = schedule(&[("a", "1"), ("a", "2"), ("b", "3")]);
    let lane = |name: &str| (Scope::default(), name.to_owned());
    let first = delivery("a", "1");
    assert!(schedule.fails(&first, Failed::Refused, NOW).is_empty());
    assert_eq!(schedule.problem(&lane("a"), "1"), Some("Refused"));
    assert_eq!(schedule.problem(&lane("a"), "2"), None);
    let second = delivery("a", "2");
    assert!(schedule.fails(&second, Failed::Unreachable, NOW).is_empty());
    assert_eq!(schedule.problem(&lane("a"), "2"), Some("Unreachable"));
    assert_eq!(schedule.problem(&lane("b"), "3"), None);
    schedule.arrives("a", "2", NOW);
    assert_eq!(schedule.problem(&lane("a"), "1"), Some("Refused"));
}

/// Pollers wait for the schedule's lock while it looks: a million entries are no reason to look
/// at each of them.
#[test]
fn a_long_lane_is_as_quick_as_a_short_one() {
    let mut schedule = Schedule::new(DAY);
    const MANY: usize = 50_000;
    for n in 0..MANY {
        schedule.add(delivery("a", &format!("{n:06}")));
        assert_eq!(schedule.waiting("m"), n as u64 + 1);
    }
    // Half of them step aside; with a look at every entry each time this takes minutes.
    for n in 0..MANY {
        let one = schedule.next(NOW).expect("one is ready");
        assert_eq!(one.id, format!("{n:06}"));
        if n % 2 == 0 {
            schedule.delivered(&one, NOW, 0.0);
        } else {
            assert!(schedule.fails(&one, Failed::Refused, NOW).is_empty());
        }
    }
    assert_eq!(schedule.waiting("m"), MANY as u64 / 2);
    assert_eq!(schedule.wake_at(), Some(seconds(60)));
    assert_eq!(next(&mut schedule, seconds(60)).as_deref(), Some("000001"));
}
