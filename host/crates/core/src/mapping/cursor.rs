//! Progress of a mapping in a shard: a low mark, ranges that are done above it, and the parts
//! that are to be tried again. The value that is stored, as JSON, in the table of cursors.

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

/// A run of positions, `from..to`, not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first.
    pub from: Position,
    /// After the last.
    pub to: Position,
}

/// A run of records that waits for an attempt: the durable retry state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its records.
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
}

/// Why a shard stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// For people.
    pub reason: String,
    /// The function's version that could not go on: another one resumes the shard.
    pub version: u64,
}

/// Progress of a mapping in a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Grows when a person moves the cursor: what was begun before then does not count.
    pub epoch: u64,
    /// Everything before it is done.
    pub low: Position,
    /// What is done above `low`: in order, apart, not empty.
    pub done: Vec<Span>,
    /// What waits for another attempt: in order, apart, at or above `low`, not done.
    pub parts: Vec<Part>,
    /// Whether the shard stands still, and why.
    pub paused: Option<Paused>,
}

impl Cursor {
    /// A cursor that has done nothing from `low` on.
    pub fn starting_at(low: Position) -> Self {
        Self {
            epoch: 1,
            low,
            done: Vec::new(),
            parts: Vec::new(),
            paused: None,
        }
    }

    /// Lets a paused shard go on: what was given up on is tried again from the start. Says
    /// whether it was paused.
    pub fn resume(&mut self) -> bool {
        let was_paused = self.paused.take().is_some();
        if was_paused {
            for part in &mut self.parts {
                (part.attempts, part.not_before) = (0, UnixMillis(0));
            }
        }
        was_paused
    }

    /// Notes that `span` is done and moves the low mark as far as it goes. What was done before
    /// is not changed.
    pub fn mark_done(&mut self, span: Span) {
        let at = self.done.partition_point(|d| d.from < span.from);
        self.done.insert(at, span);
        let mut joined: Vec<Span> = Vec::with_capacity(self.done.len());
        for next in self.done.drain(..) {
            match joined.last_mut() {
                Some(last) if next.from <= last.to => last.to = last.to.max(next.to),
                _ => joined.push(next),
            }
        }
        if let Some(first) = joined.first().copied()
            && first.from <= self.low
        {
            self.low = self.low.max(first.to);
            joined.remove(0);
        }
        self.done = joined;
    }

    /// Where the next batch that is not a part begins: behind everything done or waiting.
    pub fn frontier(&self) -> Position {
        let done = self.done.last().map_or(self.low, |d| d.to);
        self.parts.last().map_or(done, |p| p.span.to.max(done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, to: u64) -> Span {
        Span {
            from: Position::of(from),
            to: Position::of(to),
        }
    }

    #[test]
    fn done_ranges_join_and_lift_the_low_mark() {
        let mut cursor = Cursor::starting_at(Position::of(1));
        cursor.mark_done(span(5, 7));
        cursor.mark_done(span(3, 4));
        assert_eq!(
            (cursor.low.record, cursor.done.as_slice()),
            (1, [span(3, 4), span(5, 7)].as_slice())
        );
        cursor.mark_done(span(4, 5));
        assert_eq!(
            (cursor.low.record, cursor.done.as_slice()),
            (1, [span(3, 7)].as_slice())
        );
        cursor.mark_done(span(1, 3));
        assert_eq!((cursor.low.record, cursor.done.len()), (7, 0));
        cursor.mark_done(span(2, 5));
        assert_eq!(
            (cursor.low.record, cursor.done.len()),
            (7, 0),
            "progress never goes back"
        );
        assert_eq!(cursor.frontier().record, 7);
    }

    #[test]
    fn the_stored_form_is_settled() {
        let mut cursor = Cursor::starting_at(Position::of(4));
        cursor.parts.push(Part {
            span: span(4, 9),
            attempts: 2,
            invocations: 3,
            not_before: UnixMillis(17),
            request_id: "r".into(),
        });
        let json = r#"{"epoch":1,"low":[4,0],"done":[],"parts":[{"from":[4,0],"to":[9,0],"attempts":2,"invocations":3,"not_before":17,"request_id":"r"}],"paused":null}"#;
        assert_eq!(serde_json::to_string(&cursor).expect("json"), json);
        assert_eq!(serde_json::from_str::<Cursor>(json).expect("json"), cursor);
        assert_eq!(cursor.frontier().record, 9);
    }
}
