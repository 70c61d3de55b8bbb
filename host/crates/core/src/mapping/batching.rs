//! When a batch is ready, how many records it takes, and which of them are too old.

use std::time::Duration;

use crate::batch::Batch;
use crate::mapping::Policy;
use crate::time::UnixMillis;

/// Whether a batch can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Now.
    Now,
    /// At this instant, or earlier when more records come.
    At(UnixMillis),
    /// Nothing to send.
    Empty,
}

/// Whether a batch can go that has gathered `records` of which the first arrived at `first`,
/// when the lane has been free since `free_since`. `full`: it can take no more bytes.
///
/// The window begins when there is a record and the lane is free. A closed shard's last batch
/// does not wait, and no batch waits until its first record is too old to be delivered.
pub fn ready(
    policy: &Policy,
    records: usize,
    full: bool,
    (first, free_since): (UnixMillis, UnixMillis),
    now: UnixMillis,
) -> Ready {
    if records == 0 {
        return Ready::Empty;
    }
    if full || records >= policy.batch_size as usize || policy.batching_window == Duration::ZERO {
        return Ready::Now;
    }
    let over = first.max(free_since).plus(policy.batching_window);
    let last_chance = policy.maximum_record_age.map(|age| first.plus(age));
    let end = last_chance.map_or(over, |last_chance| last_chance.min(over));
    if now >= end {
        Ready::Now
    } else {
        Ready::At(end)
    }
}

/// What a batch takes of the records that are offered to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// How many records.
    pub records: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Whether the bytes ended it.
    pub full: bool,
}

/// Cuts from `sizes` (bytes per record, in order) what a batch takes: at most `room` records,
/// and no more than `budget` bytes. An empty batch takes one record of any size.
pub fn cut(
    sizes: impl IntoIterator<Item = usize>,
    is_empty: bool,
    room: usize,
    budget: usize,
) -> Cut {
    let mut cut = Cut {
        records: 0,
        bytes: 0,
        full: false,
    };
    for size in sizes.into_iter().take(room) {
        let first = is_empty && cut.records == 0;
        if !first && cut.bytes.saturating_add(size) > budget {
            return Cut { full: true, ..cut };
        }
        cut.records += 1;
        cut.bytes = cut.bytes.saturating_add(size);
    }
    cut
}

/// How many records at the head of `batch` are older than the mapping allows. Arrival never
/// goes back in a shard, so they are a prefix.
pub fn expired_len(batch: &Batch, policy: &Policy, now: UnixMillis) -> usize {
    let Some(limit) = policy.maximum_record_age else {
        return 0;
    };
    batch
        .iter()
        .take_while(|record| now.since(record.arrival) > limit)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_goes_at_the_first_of_size_bytes_and_window() {
        let policy = Policy {
            batch_size: 3,
            batching_window: Duration::from_secs(10),
            maximum_record_age: Some(Duration::from_secs(70)),
            ..Policy::aws()
        };
        let at = |seconds: u64| UnixMillis(seconds * 1000);
        for (name, records, full, first, free_since, now, want) in [
            ("nothing there", 0, false, 0, 0, 99, Ready::Empty),
            (
                "window runs from the first record",
                1,
                false,
                100,
                0,
                101,
                Ready::At(at(110)),
            ),
            (
                "window runs from the lane's release",
                1,
                false,
                100,
                105,
                106,
                Ready::At(at(115)),
            ),
            (
                "the record is too old before the window is over",
                1,
                false,
                100,
                165,
                166,
                Ready::At(at(170)),
            ),
            ("window over", 1, false, 100, 0, 110, Ready::Now),
            ("size reached", 3, false, 100, 0, 100, Ready::Now),
            ("bytes reached", 2, true, 100, 0, 100, Ready::Now),
        ] {
            assert_eq!(
                ready(&policy, records, full, (at(first), at(free_since)), at(now)),
                want,
                "{name}"
            );
        }
    }

    #[test]
    fn a_batch_takes_at_least_one_record_and_no_byte_too_many() {
        for (sizes, is_empty, room, want) in [
            (vec![], true, 10, (0, 0, false)),
            (vec![20, 1], true, 10, (1, 20, true)),
            (vec![20, 1], false, 10, (0, 0, true)),
            (vec![4, 6, 1], true, 10, (2, 10, true)),
            (vec![4, 6], true, 10, (2, 10, false)),
            (vec![1, 1, 1], true, 2, (2, 2, false)),
        ] {
            let got = cut(sizes.clone(), is_empty, room, 10);
            assert_eq!((got.records, got.bytes, got.full), want, "{sizes:?}");
        }
    }
}
