//! A client's visits, counted while its hits arrive nearly, but not quite, in order.
//!
//! A session is what a client does without being silent for more than 30 minutes. The state of a
//! client is the list of its sessions as spans of time: a hit lengthens a span, opens one, or
//! joins two that it lies between. So the number of spans is at any time what sorting all hits so
//! far and cutting at the gaps would give.
//!
//! ```text
//! span    16 B   start i64, end i64: milliseconds since the Unix epoch, little-endian
//! list           spans in order, any two more than 30 minutes apart; at most 64
//! ```
//!
//! Of more than 64 sessions the oldest are forgotten; they stay counted. A hit older than a full
//! list opens no session: it is taken for a part of one that was forgotten.

/// A longer silence ends a session.
pub const GAP_MS: i64 = 30 * 60 * 1_000;

/// How many sessions of a client are kept: late hits join the right one among them.
pub const KEPT: usize = 64;

const SPAN_BYTES: usize = 16;

/// What a hit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// By how much the number of sessions changed: 1, 0, or −1 when two were joined.
    pub count: i64,
    /// Whether the list is a different one now.
    pub is_stored: bool,
}

/// Adds a hit to a list of spans. An empty list is a client without sessions.
pub fn add(list: &mut Vec<u8>, at_ms: i64) -> Change {
    // Spans `first .. end` are so near that the hit belongs to them: none, one, or two. The
    // search goes from the newest, where a hit nearly always belongs.
    let count = list.len() / SPAN_BYTES;
    let mut end = count;
    while end > 0 && span(list, end - 1).0 > at_ms.saturating_add(GAP_MS) {
        end -= 1;
    }
    let mut first = end;
    while first > 0 && span(list, first - 1).1 >= at_ms.saturating_sub(GAP_MS) {
        first -= 1;
    }
    match end - first {
        0 if first == 0 && count == KEPT => Change {
            count: 0,
            is_stored: false,
        },
        0 => {
            let at = first * SPAN_BYTES;
            list.splice(at..at, encode((at_ms, at_ms)));
            if count == KEPT {
                list.drain(..SPAN_BYTES);
            }
            Change {
                count: 1,
                is_stored: true,
            }
        }
        near => {
            let (old, newest) = (span(list, first), span(list, end - 1));
            let joined = (old.0.min(at_ms), newest.1.max(at_ms));
            let is_stored = near > 1 || joined != old;
            if is_stored {
                list[first * SPAN_BYTES..][..SPAN_BYTES].copy_from_slice(&encode(joined));
                list.drain((first + 1) * SPAN_BYTES..end * SPAN_BYTES);
            }
            Change {
                count: 1 - near as i64,
                is_stored,
            }
        }
    }
}

fn span(list: &[u8], index: usize) -> (i64, i64) {
    let bytes = u128::from_le_bytes(list.as_chunks().0[index]);
    (bytes as i64, (bytes >> 64) as i64)
}

fn encode((start, end): (i64, i64)) -> [u8; SPAN_BYTES] {
    (u128::from(start.cast_unsigned()) | u128::from(end.cast_unsigned()) << 64).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds hits at these minutes; gives the sum of the changes and the spans in minutes.
    fn check(minutes: impl IntoIterator<Item = i64>) -> (i64, Vec<(i64, i64)>) {
        let mut list = Vec::new();
        let sessions = minutes
            .into_iter()
            .map(|at| add(&mut list, at * 60_000).count)
            .sum();
        let spans = (0..list.len() / SPAN_BYTES).map(|i| span(&list, i));
        (
            sessions,
            spans
                .map(|(start, end)| (start / 60_000, end / 60_000))
                .collect(),
        )
    }

    #[test]
    fn exactly_thirty_minutes_of_silence_do_not_end_a_session() {
        assert_eq!(check([0, 30, 60]), (1, vec![(0, 60)]));
        assert_eq!(check([0, 31]), (2, vec![(0, 0), (31, 31)]));
        assert_eq!(check([-1, -32]), (2, vec![(-32, -32), (-1, -1)]));
    }

    #[test]
    fn a_late_hit_joins_the_sessions_around_it() {
        assert_eq!(check([0, 100, 50]), (3, vec![(0, 0), (50, 50), (100, 100)]));
        assert_eq!(check([0, 60, 30]), (1, vec![(0, 60)]));
        assert_eq!(check([0, 60, 30, 10, 60]), (1, vec![(0, 60)]));
    }

    #[test]
    fn any_order_counts_what_sorting_would() {
        for seed in 0..200_u64 {
            let mut state = seed;
            let hits: Vec<i64> = std::iter::repeat_with(|| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 33) as i64 % 1_800
            })
            .take(40)
            .collect();
            let mut sorted = hits.clone();
            sorted.sort_unstable();
            let cuts = sorted
                .windows(2)
                .filter(|pair| pair[1] - pair[0] > 30)
                .count();
            assert_eq!(check(hits).0, cuts as i64 + 1, "seed {seed}");
        }
    }

    #[test]
    fn the_oldest_sessions_are_forgotten_and_stay_counted() {
        let hours = (0..70).map(|hour| hour * 60);
        let (sessions, spans) = check(hours.clone());
        assert_eq!((sessions, spans.len(), spans[0]), (70, KEPT, (360, 360)));
        assert_eq!(check(hours.chain([0, 5])), (sessions, spans));
    }
}
