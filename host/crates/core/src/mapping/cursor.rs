//! Progress of a mapping in a shard: per lane a mark and the parts that are to be tried again;
//! the tumbling window that is open; whether the shard stands still. The value that is stored, as
//! JSON, in the table of cursors.
//!
//! A lane takes the records whose partition key falls to it ([`lane_of`]), in order. What a lane
//! has done above the lowest mark of the shard is thereby known in one position, however many
//! ranges of records that is, and a restart delivers none of it again.

use serde::{Deserialize, Serialize};

use crate::time::UnixMillis;

/// A place in a shard: a record, and where in it when it is an aggregate that was taken apart.
/// Stored as `[record, sub]`; `sub` is 0 for every other record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u64, u32)", into = "(u64, u32)")]
pub struct Position {
    /// The record's counter in its shard, 1 and up.
    pub record: u64,
    /// The sub-sequence number inside it.
    pub sub: u32,
}

impl Position {
    /// The beginning of the record with this counter.
    pub const fn of(record: u64) -> Self {
        Self { record, sub: 0 }
    }
}

impl From<(u64, u32)> for Position {
    fn from((record, sub): (u64, u32)) -> Self {
        Self { record, sub }
    }
}

impl From<Position> for (u64, u32) {
    fn from(position: Position) -> Self {
        (position.record, position.sub)
    }
}

/// A run of positions, `from..to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first.
    pub from: Position,
    /// After the last.
    pub to: Position,
}

impl Span {
    /// Whether it holds no record: the retry state of a window's final invocation.
    pub fn is_empty(&self) -> bool {
        self.from >= self.to
    }
}

/// A lane's records in a span, which wait for an attempt: the durable retry state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Where its records lie. Empty: the final invocation of the window, which has none.
    #[serde(flatten)]
    pub span: Span,
    /// Failed attempts so far: of the part's first record in record mode, of the part otherwise.
    pub attempts: u32,
    /// Times that a handler was run on the part's first record.
    pub invocations: u32,
    /// Not to be tried before.
    pub not_before: UnixMillis,
    /// The request id, kept while the part is retried unchanged.
    pub request_id: String,
    /// Records in the span that are not the part's any more: they were parked meanwhile. In order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<Position>,
    /// Whether it comes from before a suspect. When such a part fails all the same, the handler's
    /// hints mislead (a flush at the end of the batch fails, say), and halves are what helps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub doubted: bool,
}

impl Part {
    /// A part that was never tried.
    pub fn fresh(span: Span, request_id: String) -> Self {
        Self {
            span,
            attempts: 0,
            invocations: 0,
            not_before: UnixMillis(0),
            request_id,
            without: Vec::new(),
            doubted: false,
        }
    }

    /// The records of `span`, which is inside this part, as a part that was never tried.
    #[must_use]
    pub fn split_off(&self, span: Span, request_id: String) -> Self {
        let inside = |at: &&Position| (span.from..span.to).contains(*at);
        Self {
            without: self.without.iter().filter(inside).copied().collect(),
            ..Self::fresh(span, request_id)
        }
    }
}

/// Why a shard stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// For people.
    pub reason: String,
    /// The function's version that could not go on: another one resumes the shard.
    pub version: u64,
}

/// Progress of one lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// Every record of the lane before it is done or in `parts`.
    pub mark: Position,
    /// What waits for another attempt: in order, apart, before `mark`.
    pub parts: Vec<Part>,
}

impl Lane {
    /// A lane that has done everything before `mark`.
    pub fn at(mark: Position) -> Self {
        Self {
            mark,
            parts: Vec::new(),
        }
    }

    /// Every record of the lane before it is done.
    pub fn low(&self) -> Position {
        // The final invocation of a window stands at the mark, before parts that lie before it.
        let parts = self.parts.iter().map(|part| part.span.from);
        parts.min().map_or(self.mark, |from| from.min(self.mark))
    }
}

/// The tumbling window that is open in a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenWindow {
    /// Where it begins, on the grid of the mapping's windows.
    pub start: UnixMillis,
    /// Where it ends, exclusive, whatever the mapping's windows are by then.
    #[serde(default)]
    pub end: UnixMillis,
    /// The state that the last invocation returned, JSON.
    pub state: String,
    /// Whether the state has grown too large, so that the window ends before its time.
    pub ended_early: bool,
}

/// Progress of a mapping in a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Grows when a person moves the cursor: what was begun before then does not count.
    pub epoch: u64,
    /// The lanes; as many as the parallelization factor with which they were made, at least one.
    pub lanes: Vec<Lane>,
    /// The window that is open, with `TumblingWindowInSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<OpenWindow>,
    /// No window that begins earlier opens any more: those before it were closed.
    #[serde(default)]
    pub windows_closed_to: UnixMillis,
    /// Whether the shard stands still, and why.
    pub paused: Option<Paused>,
    /// The versions that ran last, oldest first, each with the first record that it was given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<FirstOf>,
}

/// The first batch of a version in a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstOf {
    /// The version, as [`Paused::version`].
    pub version: u64,
    /// The sequence number of the batch's first record.
    pub sequence_number: String,
    /// When it began.
    pub at: UnixMillis,
}

/// Versions whose first records a shard remembers.
const MAX_VERSIONS: usize = 8;

impl Cursor {
    /// Notes the first record of a version that did not run before this one. With `beside`, both
    /// take batches in turns. Says whether it is new.
    pub fn note_version(&mut self, first: FirstOf, beside: Option<u64>) -> bool {
        let version = first.version;
        let mut last = self.versions.iter().rev();
        let runs = match beside {
            // Which of the two ran last says nothing.
            Some(other) => last
                .take_while(|v| v.version == version || v.version == other)
                .any(|v| v.version == version),
            None => last.next().is_some_and(|v| v.version == version),
        };
        if runs {
            return false;
        }
        self.versions.retain(|v| v.version != version);
        self.versions.push(first);
        let excess = self.versions.len().saturating_sub(MAX_VERSIONS);
        self.versions.drain(..excess);
        true
    }

    /// A cursor of one lane that has done nothing from `low` on.
    pub fn starting_at(low: Position) -> Self {
        Self {
            epoch: 1,
            lanes: vec![Lane::at(low)],
            window: None,
            windows_closed_to: UnixMillis(0),
            paused: None,
            versions: Vec::new(),
        }
    }

    /// Every record before it is done.
    pub fn low(&self) -> Position {
        let lows = self.lanes.iter().map(Lane::low);
        lows.min().unwrap_or(Position::of(1))
    }

    /// No record from it on has been begun: where lanes meet before their number changes.
    pub fn high(&self) -> Position {
        let marks = self.lanes.iter().map(|lane| lane.mark);
        marks.max().unwrap_or(Position::of(1))
    }

    /// Whether no part waits in any lane.
    pub fn has_no_parts(&self) -> bool {
        self.lanes.iter().all(|lane| lane.parts.is_empty())
    }

    /// Gives the shard `count` lanes if all lanes have met, which is when the records before
    /// [`Cursor::high`] are done, and no window is open, whose state only one lane can have. Says
    /// whether there are `count` now.
    pub fn relane(&mut self, count: usize) -> bool {
        if self.lanes.len() == count {
            return true;
        }
        let high = self.high();
        if self.low() != high || !self.has_no_parts() || self.window.is_some() {
            return false;
        }
        self.lanes = vec![Lane::at(high); count];
        true
    }

    /// Lets a paused shard go on: what was given up on is tried again from the start. Says
    /// whether it was paused.
    pub fn resume(&mut self) -> bool {
        let was_paused = self.paused.take().is_some();
        if was_paused {
            for part in self.lanes.iter_mut().flat_map(|lane| &mut lane.parts) {
                (part.attempts, part.not_before) = (0, UnixMillis(0));
            }
        }
        was_paused
    }
}

/// The lane of `count` that takes a partition key: all its records go there, whatever hash key a
/// producer gave them. AWS publishes no rule. This one is part of the stored format: FNV-1a of
/// the key's bytes, mixed so that every bit counts.
pub fn lane_of(partition_key: &str, count: usize) -> usize {
    const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const FNV_PRIME: u64 = 0x0100_0000_01b3;
    if count <= 1 {
        return 0;
    }
    let bytes = partition_key.bytes();
    let mut hash = bytes.fold(FNV_OFFSET, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(FNV_PRIME)
    });
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    (hash % count as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(from: u64, to: u64) -> Part {
        let (from, to) = (Position::of(from), Position::of(to));
        Part {
            attempts: 2,
            invocations: 3,
            not_before: UnixMillis(17),
            ..Part::fresh(Span { from, to }, "r".into())
        }
    }

    #[test]
    fn the_low_mark_is_the_lowest_of_the_lanes() {
        let mut cursor = Cursor::starting_at(Position::of(1));
        assert!(cursor.relane(3));
        cursor.lanes[0].mark = Position::of(9);
        cursor.lanes[1].mark = Position::of(5);
        cursor.lanes[2].mark = Position::of(12);
        assert_eq!((cursor.low().record, cursor.high().record), (5, 12));
        cursor.lanes[2].parts.push(part(2, 4));
        assert_eq!(cursor.low().record, 2);
    }

    #[test]
    fn lanes_change_their_number_only_where_they_have_met() {
        let mut cursor = Cursor::starting_at(Position::of(1));
        assert!(cursor.relane(2));
        cursor.lanes[1].mark = Position::of(7);
        assert!(!cursor.relane(3), "lane 0 is behind");
        cursor.lanes[0].mark = Position::of(7);
        cursor.lanes[0].parts.push(part(3, 4));
        assert!(!cursor.relane(3), "a part waits");
        cursor.lanes[0].parts.clear();
        cursor.window = Some(OpenWindow {
            start: UnixMillis(0),
            end: UnixMillis(1000),
            state: "{}".into(),
            ended_early: false,
        });
        assert!(!cursor.relane(3), "a window is open");
        cursor.window = None;
        assert!(cursor.relane(3));
        assert_eq!(cursor.lanes, vec![Lane::at(Position::of(7)); 3]);
    }

    #[test]
    fn keys_spread_evenly_and_stay_in_their_lane() {
        let mut counts = [0; 10];
        for n in 0..10_000 {
            counts[lane_of(&format!("key-{n}"), 10)] += 1;
        }
        assert!(
            counts.iter().all(|c| (800..1_200).contains(c)),
            "{counts:?}"
        );
        assert_eq!(lane_of("k", 7), lane_of("k", 7));
        assert_eq!(lane_of("k", 1), 0);
    }

    #[test]
    fn a_version_is_new_where_another_ran_before_it() {
        let mut cursor = Cursor::starting_at(Position::of(1));
        let mut ran = |version, beside| {
            let first = FirstOf {
                version,
                sequence_number: "1".into(),
                at: UnixMillis(0),
            };
            cursor.note_version(first, beside)
        };
        assert!(ran(1, None));
        assert!(!ran(1, None));
        assert!(ran(2, Some(1)), "a canary");
        assert!(!ran(1, Some(2)), "in turns");
        assert!(!ran(2, Some(1)));
        assert!(ran(1, None), "it runs alone again");
        for version in 3..20 {
            assert!(ran(version, None));
        }
        assert_eq!(cursor.versions.len(), MAX_VERSIONS);
    }

    #[test]
    fn the_stored_form_is_settled() {
        let mut cursor = Cursor::starting_at(Position::of(9));
        cursor.lanes[0].parts.push(part(4, 9));
        let json = r#"{"epoch":1,"lanes":[{"mark":[9,0],"parts":[{"from":[4,0],"to":[9,0],"attempts":2,"invocations":3,"not_before":17,"request_id":"r"}]}],"windows_closed_to":0,"paused":null}"#;
        assert_eq!(serde_json::to_string(&cursor).expect("json"), json);
        assert_eq!(serde_json::from_str::<Cursor>(json).expect("json"), cursor);
    }
}
