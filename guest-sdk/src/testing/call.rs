//! The host calls of one invocation, kept in memory until it ends.

use std::collections::BTreeMap;

use crate::Level;
use crate::host::{ABSENT, BAD_ARGUMENT, DONE, Host, NO_CURRENT_RECORD, UNKNOWN};
use crate::testing::{Emitted, KeyedState, Outcome, TestRecord};

// The limits of `docs/abi.md`, "Limits".
const STATE_NAME_BYTES: usize = 256;
const STATE_VALUE_BYTES: usize = 256 * 1024;
const COUNTER_NAME_BYTES: usize = 128;
const STREAM_NAME_BYTES: usize = 128;
const PARTITION_KEY_CHARS: usize = 256;
const EMITTED_BYTES: usize = 1024 * 1024;
const LOG_TEXT_BYTES: usize = 4 * 1024;

/// One invocation as the host sees it.
pub(super) struct Call<'a> {
    kept: &'a KeyedState,
    records: &'a [TestRecord],
    /// This invocation's own writes, by partition key and name. `None`: deleted.
    written: BTreeMap<(String, String), Option<Vec<u8>>>,
    done: Done,
}

/// What is left of an invocation when it has ended.
#[derive(Default)]
pub(super) struct Done {
    pub(super) current: Option<u32>,
    pub(super) effects: Vec<Effect>,
    pub(super) logs: Vec<(Level, String)>,
}

/// Something to commit, and the record it was done for.
pub(super) struct Effect {
    pub(super) record: Option<u32>,
    what: What,
}

enum What {
    /// `None`: deleted.
    State {
        place: (String, String),
        value: Option<Vec<u8>>,
    },
    Counter {
        name: String,
        n: i64,
    },
    Emit(Emitted),
}

impl Effect {
    pub(super) fn is_untagged(&self) -> bool {
        self.record.is_none()
    }

    pub(super) fn apply(self, state: &mut KeyedState, outcome: &mut Outcome) {
        match self.what {
            What::State {
                place,
                value: Some(value),
            } => {
                state.insert(place, value);
            }
            What::State { place, value: None } => {
                state.remove(&place);
            }
            What::Counter { name, n } => *outcome.counters.entry(name).or_default() += n,
            What::Emit(emitted) => outcome.emitted.push(emitted),
        }
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(kept: &'a KeyedState, records: &'a [TestRecord]) -> Self {
        Self {
            kept,
            records,
            written: BTreeMap::new(),
            done: Done::default(),
        }
    }

    pub(super) fn end(self) -> Done {
        self.done
    }

    fn key(&self) -> Option<&'a str> {
        Some(&self.records[self.done.current? as usize].partition_key)
    }

    fn set_state(&mut self, name: &str, value: Option<&[u8]>) -> i32 {
        let Some(key) = self.key() else {
            return NO_CURRENT_RECORD;
        };
        let value_bytes = value.map_or(0, <[u8]>::len);
        if !(1..=STATE_NAME_BYTES).contains(&name.len()) || value_bytes > STATE_VALUE_BYTES {
            return BAD_ARGUMENT;
        }
        let place = (key.to_owned(), name.to_owned());
        let value = value.map(<[u8]>::to_vec);
        self.written.insert(place.clone(), value.clone());
        self.effect(What::State { place, value })
    }

    fn effect(&mut self, what: What) -> i32 {
        self.done.effects.push(Effect {
            record: self.done.current,
            what,
        });
        DONE
    }
}

impl Host for Call<'_> {
    fn progress(&mut self, index: u32) -> i32 {
        if index as usize >= self.records.len() {
            return UNKNOWN;
        }
        self.done.current = Some(index);
        DONE
    }

    fn state_get(&mut self, name: &str, out: &mut [u8]) -> i64 {
        let Some(key) = self.key() else {
            return NO_CURRENT_RECORD.into();
        };
        if !(1..=STATE_NAME_BYTES).contains(&name.len()) {
            return BAD_ARGUMENT.into();
        }
        let place = (key.to_owned(), name.to_owned());
        let value = match self.written.get(&place) {
            Some(own) => own.as_ref(),
            None => self.kept.get(&place),
        };
        let Some(value) = value else {
            return ABSENT.into();
        };
        if let Some(out) = out.get_mut(..value.len()) {
            out.copy_from_slice(value);
        }
        value.len() as i64
    }

    fn state_set(&mut self, name: &str, value: &[u8]) -> i32 {
        self.set_state(name, Some(value))
    }

    fn state_delete(&mut self, name: &str) -> i32 {
        self.set_state(name, None)
    }

    fn counter_add(&mut self, name: &str, n: i64) -> i32 {
        if !(1..=COUNTER_NAME_BYTES).contains(&name.len()) {
            return BAD_ARGUMENT;
        }
        self.effect(What::Counter {
            name: name.to_owned(),
            n,
        })
    }

    fn emit(&mut self, stream: &str, key: &str, data: &[u8]) -> i32 {
        let fits = (1..=STREAM_NAME_BYTES).contains(&stream.len())
            && (1..=PARTITION_KEY_CHARS).contains(&key.chars().count())
            && key.len() + data.len() <= EMITTED_BYTES;
        if !fits {
            return BAD_ARGUMENT;
        }
        self.effect(What::Emit(Emitted {
            stream: stream.to_owned(),
            partition_key: key.to_owned(),
            data: data.to_vec(),
        }))
    }

    fn log(&mut self, level: i32, text: &str) -> i32 {
        let level = match level {
            1 => Level::Error,
            2 => Level::Warn,
            3 => Level::Info,
            4 => Level::Debug,
            5 => Level::Trace,
            _ => return UNKNOWN,
        };
        self.done.logs.push((
            level,
            text[..text.floor_char_boundary(LOG_TEXT_BYTES)].to_owned(),
        ));
        DONE
    }
}
