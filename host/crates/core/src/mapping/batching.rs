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
/// does not wait.
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
    let end = first.max(free_since).plus(policy.batching_window);
    if now >= end {
        Ready::Now
    } else {
        Ready::At(end)
    }
}

/// How many of `sizes` (bytes per record, in order) a batch takes: at most `records`, and no
/// more than `budget` bytes, but at least one. The second value says whether the bytes ended it.
pub fn cut_len(
    sizes: impl IntoIterator<Item = usize>,
    records: usize,
    budget: usize,
) -> (usize, bool) {
    let mut taken = 0;
    let mut left = budget;
    for size in sizes {
        if taken == records {
            return (taken, false);
        }
        if size > left && taken > 0 {
            return (taken, true);
        }
        left = left.saturating_sub(size);
        taken += 1;
    }
    (taken, false)
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
        for (sizes, records, budget, want) in [
            (vec![], 10, 10, (0, false)),
            (vec![20, 1], 10, 10, (1, true)),
            (vec![4, 6, 1], 10, 10, (2, true)),
            (vec![4, 6], 10, 10, (2, false)),
            (vec![1, 1, 1], 2, 10, (2, false)),
        ] {
            assert_eq!(cut_len(sizes.clone(), records, budget), want, "{sizes:?}");
        }
    }
}
