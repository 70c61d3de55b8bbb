use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::stream::{StreamId, StreamMode};

const CREATED: UnixMillis = UnixMillis(1_700_000_002_000);
const LATER: UnixMillis = UnixMillis(1_700_000_100_999);

fn stream(shards: u32) -> Stream {
    Stream {
        id: StreamId(1),
        scope: Default::default(),
        name: "s".parse().expect("a name"),
        created: CREATED,
        active_from: CREATED,
        deleted: None,
        mode: StreamMode::Provisioned,
        retention_hours: Stream::DEFAULT_RETENTION_HOURS,
        max_record_size_kib: Stream::DEFAULT_MAX_RECORD_SIZE_KIB,
        tags: BTreeMap::new(),
        revision: 0,
        updating_until: None,
        count_updates: Vec::new(),
        shards: Stream::initial_shards(shards, CREATED),
    }
}

fn ids(stream: &Stream) -> Vec<u32> {
    stream.open_shards().map(|shard| shard.id.0).collect()
}

fn ranges(stream: &Stream) -> Vec<HashKeyRange> {
    let mut ranges: Vec<_> = stream.open_shards().map(|shard| shard.range).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    ranges
}

/// Whether ranges, in any order, cover the hash space once.
fn tile(mut ranges: Vec<HashKeyRange>) -> bool {
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.first().is_some_and(|range| range.start.0 == 0)
        && ranges.last().is_some_and(|range| range.end.0 == u128::MAX)
        && ranges
            .windows(2)
            .all(|pair| pair[0].end.0.checked_add(1) == Some(pair[1].start.0))
}

/// The laws of a stream that was made at [`CREATED`].
#[track_caller]
fn check_laws(stream: &Stream, seed: &str) {
    assert!(tile(ranges(stream)), "{seed}: open shards tile");
    assert!(stream.shards.is_sorted_by_key(|shard| shard.id), "{seed}");
    let mut seconds = BTreeSet::from([CREATED.seconds()]);
    for shard in &stream.shards {
        seconds.extend([shard.created_seconds, shard.created_seconds + 1]);
        seconds.extend(shard.closed_seconds);
        assert!(shard.range.start <= shard.range.end, "{seed}");
        assert!(
            shard
                .closed_seconds
                .is_none_or(|at| at >= shard.created_seconds),
            "{seed}: closed before it was made: {shard:?}"
        );
        assert!(shard.parents.len() <= 2, "{seed}");
        for parent in &shard.parents {
            assert!(*parent < shard.id, "{seed}: {shard:?}");
            let Some(parent) = stream.shard(*parent) else {
                continue;
            };
            assert_eq!(
                parent.closed_seconds.map(|closed| closed + 1),
                Some(shard.created_seconds),
                "{seed}: {shard:?} after {parent:?}"
            );
            let last = parent.ending_sequence_number().expect("it is closed");
            assert!(shard.starting_sequence_number() > last, "{seed}");
        }
        if let [parent, adjacent] = shard.parents[..]
            && let (Some(parent), Some(adjacent)) = (stream.shard(parent), stream.shard(adjacent))
        {
            assert_eq!(parent.range.start, shard.range.start, "{seed}");
            assert_eq!(adjacent.range.end, shard.range.end, "{seed}");
        }
    }
    for second in seconds.range(CREATED.seconds()..) {
        let open = stream.shards.iter().filter(|shard| {
            shard.created_seconds <= *second
                && shard.closed_seconds.is_none_or(|closed| closed >= *second)
        });
        let open = open.map(|shard| shard.range).collect();
        assert!(tile(open), "{seed}: open shards tile at {second}");
    }
}

#[test]
fn a_split_needs_room_for_two_hash_keys_on_each_side() {
    let two = stream(2);
    let (start, end) = (two.shards[1].range.start.0, two.shards[1].range.end.0);
    let refused = Refusal::HashKey {
        shard: ShardId(1),
        range: two.shards[1].range,
    };
    for (at, good) in [
        (0, false),
        (start, false),
        (start + 1, false),
        (start + 2, true),
        (end - 1, true),
        (end, false),
    ] {
        let split = split(&two, ShardId(1), HashKey(at), LATER);
        assert_eq!(split.as_ref().err(), (!good).then_some(&refused), "{at}");
    }
}

#[test]
fn the_children_of_a_split_are_the_two_parts_of_their_parent() {
    let half = 1u128 << 127;
    let after = split(&stream(1), ShardId(0), HashKey(half), LATER).expect("a split");
    check_laws(&after, "a split");
    assert_eq!(after.shards[0].closed_seconds, Some(LATER.seconds()));
    let children: Vec<_> = after.children(ShardId(0)).cloned().collect();
    let child = |id, start, end| Shard {
        id: ShardId(id),
        range: HashKeyRange {
            start: HashKey(start),
            end: HashKey(end),
        },
        created_seconds: LATER.seconds() + 1,
        parents: vec![ShardId(0)],
        closed_seconds: None,
    };
    assert_eq!(children, [child(1, 0, half - 1), child(2, half, u128::MAX)]);
    assert_eq!(
        split(&after, ShardId(0), HashKey(9), LATER),
        Err(Refusal::Closed(ShardId(0)))
    );
    assert_eq!(
        split(&after, ShardId(9), HashKey(9), LATER),
        Err(Refusal::NoShard(ShardId(9)))
    );
}

#[test]
fn only_neighbours_merge_the_lower_one_first() {
    let three = stream(3);
    for (parent, adjacent, good) in [
        (0, 1, true),
        (1, 2, true),
        (1, 0, false),
        (0, 2, false),
        (2, 0, false),
        (1, 1, false),
    ] {
        let (parent, adjacent) = (ShardId(parent), ShardId(adjacent));
        let merged = merge(&three, parent, adjacent, LATER);
        let refused = Refusal::NotAdjacent(parent, adjacent);
        assert_eq!(merged.as_ref().err(), (!good).then_some(&refused));
        if let Ok(merged) = merged {
            check_laws(&merged, "a merge");
            let child = &merged.shards[3];
            assert_eq!(child.parents, [parent, adjacent]);
            let again = merge(&merged, parent, ShardId(3), LATER);
            assert_eq!(again, Err(Refusal::Closed(parent)));
        }
    }
}

#[test]
fn a_count_is_reached_with_even_ranges_by_splits_in_two_and_merges_of_two() {
    for (from, to, open, listed) in [
        (1, 2, vec![1, 2], 3),
        (2, 4, vec![2, 3, 4, 5], 6),
        (4, 2, vec![4, 5], 6),
        // Halves become thirds: both are split, and their inner parts merge.
        (2, 3, vec![2, 5, 6], 7),
        (3, 2, vec![5, 6], 7),
        (1, 4, vec![3, 4, 5, 6], 7),
        (4, 1, vec![6], 7),
        (3, 3, vec![0, 1, 2], 3),
    ] {
        let after = scale(&stream(from), to, LATER).expect("a plan");
        check_laws(&after, &format!("{from} to {to}"));
        let tiles: Vec<_> = HashKeyRange::tiling(to).collect();
        assert_eq!(ranges(&after), tiles, "{from} to {to}");
        assert_eq!(ids(&after), open, "{from} to {to}");
        assert_eq!(after.shards.len(), listed, "{from} to {to}");
    }
}

#[test]
fn a_shard_that_has_its_range_already_is_kept() {
    let halves = split(&stream(2), ShardId(1), HashKey(3 << 126), LATER).expect("a split");
    let quarters = scale(&halves, 4, LATER).expect("a plan");
    assert_eq!(
        ids(&quarters),
        [2, 3, 4, 5],
        "the quarters of the second half stay"
    );
    check_laws(&quarters, "quarters");
}

#[test]
fn a_count_has_bounds() {
    let with = |shards, updates: &[u64]| Stream {
        count_updates: updates.iter().map(|ago| LATER.minus(hours(*ago))).collect(),
        ..stream(shards)
    };
    let ten = [30, 23, 23, 20, 9, 8, 7, 6, 5, 4, 3];
    let next = LATER.plus(hours(1));
    for (stream, target, want) in [
        (with(3, &[]), 6, Ok(6)),
        (
            with(3, &[]),
            7,
            Err(Refusal::OverDouble { open: 3, target: 7 }),
        ),
        (with(3, &[]), 2, Ok(2)),
        (
            with(3, &[]),
            1,
            Err(Refusal::BelowHalf { open: 3, target: 1 }),
        ),
        (with(6_000, &[]), 10_000, Ok(10_000)),
        (
            with(6_000, &[]),
            10_001,
            Err(Refusal::TooMany {
                open: 6_000,
                target: 10_001,
            }),
        ),
        (with(3, &ten[..10]), 4, Ok(4)),
        (with(3, &ten), 4, Err(Refusal::TooOften(next))),
        (with(3, &ten), 3, Ok(3)),
    ] {
        let changed = update_count(&stream, target, LATER);
        let counted = changed
            .as_ref()
            .map(|s| s.count_updates.last() == Some(&LATER));
        let differs = open_count(&stream) != target;
        assert_eq!(
            counted.unwrap_or(differs),
            differs,
            "no change is not counted"
        );
        assert_eq!(changed.map(|s| open_count(&s)), want, "{target}");
    }
}

fn hours(count: u64) -> std::time::Duration {
    std::time::Duration::from_secs(count * 3600)
}

#[test]
fn no_shard_closes_before_its_newest_record() {
    let old = stream(2);
    let mut new = scale(&old, 3, LATER).expect("a plan");
    let on_time = new.clone();
    close_after_newest(&old, &mut new, |_| LATER);
    assert_eq!(new, on_time);
    let newest = |shard: &Shard| UnixMillis(LATER.0 + 9_000 * u64::from(shard.id.0));
    close_after_newest(&old, &mut new, newest);
    check_laws(&new, "a clock that went back");
    for (shard, before) in new.shards.iter().zip(&on_time.shards) {
        let late = if shard.id.0 < 2 { 0 } else { 9 };
        assert_eq!(shard.created_seconds, before.created_seconds + late);
        assert_eq!(shard.closed_seconds, before.closed_seconds.map(|s| s + 9));
    }
}

/// A small generator whose seed a failure prints.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[test]
fn the_laws_hold_whatever_is_done_to_a_stream() {
    for seed in 1..=60 {
        let mut dice = Dice(seed * 0x9e37_79b9);
        let mut stream = stream(1 + dice.roll(5) as u32);
        let mut now = LATER;
        let mut done = 0;
        for step in 0..40 {
            let open: Vec<Shard> = stream.open_shards().cloned().collect();
            let one = &open[dice.roll(open.len() as u64) as usize];
            // The clock stands still, runs, and goes back.
            now = UnixMillis((now.0 + dice.roll(9_000)).saturating_sub(3_000));
            let changed = match dice.roll(4) {
                0 => {
                    let width = one.range.end.0 - one.range.start.0;
                    let at = one.range.start.0 + width / (1 + u128::from(dice.roll(9)));
                    split(&stream, one.id, HashKey(at), now)
                }
                1 => {
                    let next = open
                        .iter()
                        .find(|s| Some(s.range.start.0) == one.range.end.0.checked_add(1));
                    merge(&stream, one.id, next.unwrap_or(one).id, now)
                }
                2 => update_count(&stream, 1 + dice.roll(2 * open.len() as u64) as u32, now),
                _ => scale(&stream, 1 + dice.roll(20) as u32, now),
            };
            let name = format!("seed {seed} step {step}");
            let Ok(mut changed) = changed else { continue };
            let late = dice.roll(20_000);
            close_after_newest(&stream, &mut changed, |shard| {
                UnixMillis(now.0.max(shard.created_seconds * 1000) + late)
            });
            check_laws(&changed, &name);
            for before in stream.shards.iter().filter(|shard| !shard.is_open()) {
                assert_eq!(changed.shard(before.id), Some(before), "{name}");
            }
            done += 1;
            stream = changed;
        }
        assert!(done > 15, "seed {seed}: too little happened");
    }
}

#[test]
fn a_large_stream_is_counted_anew_in_one_step() {
    let many = scale(&stream(1), 10_000, LATER).expect("a plan");
    assert_eq!(
        ranges(&many),
        HashKeyRange::tiling(10_000).collect::<Vec<_>>()
    );
    let latest = many.shards.iter().map(|shard| shard.created_seconds).max();
    assert!(
        latest <= Some(LATER.seconds() + 14),
        "as many seconds as halvings"
    );
    let one = scale(&many, 1, LATER).expect("a plan");
    assert_eq!(open_count(&one), 1);
}
