//! What a guest did through the host, kept until its attempt has ended.
//!
//! In record mode the effects of the records that are done are folded (counters summed by name,
//! the last write of a value wins) and those of the current record kept apart, so that they can
//! be dropped alone. In batch and event mode each effect carries the record that was current.
//!
//! Limits. Items: counters (by tag and name; in record mode by name), values of keyed state that
//! were read or written (and in batch mode each further write under another tag), emitted
//! records. Bytes: their names, keys and values, 8 for a counter's amount. Passing either ends the
//! attempt.

mod counters;
mod intern;
mod state;

use bytes::Bytes;
use shardmill_core::Batch;
use shardmill_core::effects::{Effects, Emit, Tag};
use shardmill_core::limits::{
    FunctionLimits, MAX_COUNTER_NAME_BYTES, MAX_EMIT_BYTES, MAX_PARTITION_KEY_CHARS,
    MAX_STATE_NAME_BYTES, MAX_STATE_VALUE_BYTES,
};
use shardmill_core::sandbox::StateView;

use self::counters::Counters;
use self::state::State;
use crate::trap::Stop;

/// Longest name of a stream, bytes. CreateStream, "StreamName".
pub(crate) const MAX_STREAM_NAME_BYTES: usize = 128;

/// A host call's answer below zero, as `docs/abi.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The value does not exist.
    Absent = -1,
    /// There is no current record.
    NoRecord = -2,
    /// A name, key or value that is too long, empty or not UTF-8.
    BadArgument = -3,
    /// An unknown index or level.
    Unknown = -4,
}

/// A host call's answer, or the end of the attempt.
pub(crate) type Called<T> = Result<Result<T, Code>, Stop>;

/// How the records of an attempt are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tagging {
    /// `progress` counts up; effects are folded per done record.
    Fold,
    /// `progress` is a hint; effects carry it.
    Tag,
}

/// Which effects of an attempt are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// None.
    Nothing,
    /// Those of the records before the current one.
    Done,
    /// All.
    All,
}

/// The effects of one attempt, as they come in.
pub(crate) struct EffectBuffer {
    tagging: Tagging,
    count: u32,
    keys: Keys,
    open: bool,
    current: Tag,
    /// The current record's partition key, by its number in `state`, once it was asked for.
    current_key: Option<u32>,
    budget: Budget,
    counters: Counters,
    state: State,
    emits: Vec<(Tag, Emit)>,
    done_emits: usize,
}

impl EffectBuffer {
    /// For an attempt at `count` records. Keyed state needs `records`.
    pub(crate) fn new(
        tagging: Tagging,
        count: usize,
        records: Option<Batch>,
        limits: &FunctionLimits,
    ) -> Self {
        Self {
            tagging,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            keys: Keys::new(records),
            open: false,
            current: None,
            current_key: None,
            budget: Budget {
                bytes: 0,
                items: 0,
                max_bytes: limits.effect_bytes,
                max_items: limits.effect_items,
            },
            counters: Counters::default(),
            state: State::new(limits.effect_bytes),
            emits: Vec::new(),
            done_emits: 0,
        }
    }

    /// From here on the guest handles its batch; before that every call answers `NoRecord`.
    pub(crate) fn open(&mut self) {
        self.open = true;
    }

    /// The current record.
    pub(crate) fn current(&self) -> Tag {
        self.current
    }

    /// Whether the guest goes through its records one by one.
    pub(crate) fn is_by_record(&self) -> bool {
        self.tagging == Tagging::Fold
    }

    /// Whether every record has been current; of interest in record mode.
    pub(crate) fn reached_the_end(&self) -> bool {
        self.current.map_or(0, |record| record + 1) == self.count
    }

    /// Makes `index` the current record.
    pub(crate) fn progress(&mut self, index: u32) -> Called<()> {
        if !self.open {
            return Ok(Err(Code::NoRecord));
        }
        match self.tagging {
            Tagging::Fold => {
                let expected = self.current.map_or(0, |record| record + 1);
                if index != expected || index >= self.count {
                    return Err(Stop::OutOfOrder {
                        index,
                        expected,
                        count: self.count,
                    });
                }
                self.fold();
            }
            Tagging::Tag if index >= self.count => return Ok(Err(Code::Unknown)),
            Tagging::Tag => {}
        }
        (self.current, self.current_key) = (Some(index), None);
        Ok(Ok(()))
    }

    /// Adds `amount` to a counter.
    pub(crate) fn counter_add(&mut self, name: &[u8], amount: i64) -> Called<()> {
        if !self.may_act() {
            return Ok(Err(Code::NoRecord));
        }
        if name.is_empty() || name.len() > MAX_COUNTER_NAME_BYTES {
            return Ok(Err(Code::BadArgument));
        }
        self.counters
            .add(self.tagging, self.current, name, amount, &mut self.budget)
    }

    /// Reads a value of keyed state of the current record's partition key.
    pub(crate) fn state_get(&mut self, name: &[u8], view: &dyn StateView) -> Called<Bytes> {
        let Some((record, key)) = self.state_key() else {
            return Ok(Err(Code::NoRecord));
        };
        if name.is_empty() || name.len() > MAX_STATE_NAME_BYTES {
            return Ok(Err(Code::BadArgument));
        }
        let Some(slot) = self.state.slot(key, name, &mut self.budget)? else {
            return Ok(Err(Code::BadArgument));
        };
        Ok(self.state.get(slot, record, view)?.ok_or(Code::Absent))
    }

    /// Sets a value of keyed state, or deletes it.
    pub(crate) fn state_set(&mut self, name: &[u8], value: Option<&[u8]>) -> Called<()> {
        let Some((record, key)) = self.state_key() else {
            return Ok(Err(Code::NoRecord));
        };
        let too_long = value.is_some_and(|value| value.len() > MAX_STATE_VALUE_BYTES);
        if name.is_empty() || name.len() > MAX_STATE_NAME_BYTES || too_long {
            return Ok(Err(Code::BadArgument));
        }
        let Some(slot) = self.state.slot(key, name, &mut self.budget)? else {
            return Ok(Err(Code::BadArgument));
        };
        self.budget.take(value.map_or(0, <[u8]>::len), 0)?;
        self.state.set(
            self.tagging,
            slot,
            record,
            value.map(Bytes::copy_from_slice),
            &mut self.budget,
        )?;
        Ok(Ok(()))
    }

    /// Emits a record.
    pub(crate) fn emit(&mut self, stream: &[u8], key: &[u8], data: &[u8]) -> Called<()> {
        if !self.may_act() {
            return Ok(Err(Code::NoRecord));
        }
        // Lengths first: what is too long was not paid for, and must not be looked at.
        if stream.len() > MAX_STREAM_NAME_BYTES || key.len() > 4 * MAX_PARTITION_KEY_CHARS {
            return Ok(Err(Code::BadArgument));
        }
        let (Ok(stream), Ok(key)) = (std::str::from_utf8(stream), std::str::from_utf8(key)) else {
            return Ok(Err(Code::BadArgument));
        };
        let fits = (1..=MAX_STREAM_NAME_BYTES).contains(&stream.len())
            && (1..=MAX_PARTITION_KEY_CHARS).contains(&key.chars().count())
            && key.len() + data.len() <= MAX_EMIT_BYTES;
        if !fits {
            return Ok(Err(Code::BadArgument));
        }
        self.budget.take(stream.len() + key.len() + data.len(), 1)?;
        let emit = Emit {
            stream: stream.into(),
            key: key.into(),
            data: Bytes::copy_from_slice(data),
        };
        self.emits.push((self.current, emit));
        Ok(Ok(()))
    }

    /// The effects in the form in which they are committed.
    pub(crate) fn finish(mut self, keep: Keep) -> Effects {
        match (keep, self.tagging) {
            (Keep::Nothing, _) | (Keep::Done, Tagging::Tag) => return Effects::default(),
            (Keep::All, Tagging::Fold) => self.fold(),
            (Keep::All, Tagging::Tag) | (Keep::Done, Tagging::Fold) => {}
        }
        if keep == Keep::Done {
            self.emits.truncate(self.done_emits);
        }
        let end = if keep == Keep::Done {
            self.current.unwrap_or(0)
        } else {
            self.count
        };
        let (state, reads) = self.state.finish(self.tagging, end);
        Effects {
            counters: self.counters.finish(self.tagging),
            state,
            emits: self.emits,
            reads,
        }
    }

    /// The current record and its partition key's number.
    fn state_key(&mut self) -> Option<(u32, u32)> {
        let record = self.current?;
        if self.current_key.is_none() {
            self.current_key = Some(self.state.key(self.keys.get(record)?));
        }
        Some((record, self.current_key?))
    }

    /// Counters and emitted records need a current record in record mode only.
    fn may_act(&self) -> bool {
        self.open && (self.tagging == Tagging::Tag || self.current.is_some())
    }

    /// The current record is done.
    fn fold(&mut self) {
        if let Some(record) = self.current {
            self.counters.fold(record);
            self.state.fold(record, &mut self.budget);
            self.done_emits = self.emits.len();
        }
    }
}

/// What the effects may still take.
pub(crate) struct Budget {
    bytes: usize,
    items: usize,
    max_bytes: usize,
    max_items: usize,
}

impl Budget {
    fn take(&mut self, bytes: usize, items: usize) -> Result<(), Stop> {
        let exceeded = |asked: usize, allowed: usize, unit| Stop::EffectsExceeded {
            asked: asked as u64,
            allowed: allowed as u64,
            unit,
        };
        let (all_bytes, all_items) = (self.bytes + bytes, self.items + items);
        if all_items > self.max_items {
            return Err(exceeded(all_items, self.max_items, "items"));
        }
        if all_bytes > self.max_bytes {
            return Err(exceeded(all_bytes, self.max_bytes, "bytes"));
        }
        (self.bytes, self.items) = (all_bytes, all_items);
        Ok(())
    }

    fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }
}

/// The records' partition keys, laid out at the first use of keyed state: a batch is a list of
/// packed blocks, in which the record at an index is found by walking. A JSON event has none that
/// the host knows, so keyed state has no record there.
struct Keys {
    records: Option<Batch>,
    text: String,
    ends: Vec<usize>,
}

impl Keys {
    fn new(records: Option<Batch>) -> Self {
        Self {
            records,
            text: String::new(),
            ends: Vec::new(),
        }
    }

    fn get(&mut self, record: u32) -> Option<&str> {
        if let Some(records) = self.records.take() {
            for record in records.iter() {
                self.text.push_str(record.parts.key);
                self.ends.push(self.text.len());
            }
        }
        let record = record as usize;
        let start = record
            .checked_sub(1)
            .map_or(0, |before| self.ends.get(before).copied().unwrap_or(0));
        self.text.get(start..*self.ends.get(record)?)
    }
}
