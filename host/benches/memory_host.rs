//! A handler's host in the same process that keeps effects by the sandbox's rules in record mode:
//! counters are summed by name, the last write of a value wins, and what the current record did
//! is kept apart until it is done; names are checked, items and bytes are counted against limits, and
//! what was read is listed for the commit to check. As fast as is natural, so that a comparison
//! with the sandbox is one of sandboxes and not of hosts.

use std::collections::HashMap;

use bytes::Bytes;
use shardmill_core::Batch;
use shardmill_core::effects::{CounterAdd, StateRead, StateWrite};
use shardmill_core::limits::{
    DEFAULT_EFFECT_BYTES, MAX_COUNTER_NAME_BYTES, MAX_STATE_NAME_BYTES, MAX_STATE_VALUE_BYTES,
};
use shardmill_guest::host::{ABSENT, BAD_ARGUMENT, DONE, Host, NO_CURRENT_RECORD, UNKNOWN};

/// As many as the sandbox is given for this comparison.
pub(crate) const EFFECT_ITEMS: usize = 1 << 20;

type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What a handler did.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    #[expect(dead_code, reason = "made, as the sandbox makes it, to be dropped")]
    pub(crate) counters: Vec<CounterAdd>,
    #[expect(dead_code, reason = "made, as the sandbox makes it, to be dropped")]
    pub(crate) state: Vec<StateWrite>,
    #[expect(dead_code, reason = "made, as the sandbox makes it, to be dropped")]
    pub(crate) reads: Vec<StateRead>,
}

/// One invocation's host.
pub(crate) struct MemoryHost {
    /// The records' partition keys one behind the other, and where each ends.
    keys: String,
    ends: Vec<usize>,
    items: usize,
    bytes: usize,
    current: Option<u32>,
    names: FastMap<Box<str>, usize>,
    counters: Vec<Sum>,
    added: Vec<usize>,
    /// By partition key: the names that it has values under, few of them, with their places.
    slots: FastMap<Box<str>, Vec<(Box<str>, usize)>>,
    values: Vec<Value>,
    written: Vec<usize>,
}

#[derive(Default)]
struct Sum {
    done: i64,
    pending: Option<i64>,
}

#[derive(Default)]
struct Value {
    done: Option<Bytes>,
    pending: Option<Bytes>,
    /// The first record that read it before it was written.
    read: Option<u32>,
}

impl MemoryHost {
    pub(crate) fn new(batch: &Batch) -> Self {
        let (mut keys, mut ends) = (String::new(), Vec::with_capacity(batch.len()));
        for record in batch.iter() {
            keys.push_str(record.parts.key);
            ends.push(keys.len());
        }
        Self {
            keys,
            ends,
            items: 0,
            bytes: 0,
            current: None,
            names: FastMap::default(),
            counters: Vec::new(),
            added: Vec::new(),
            slots: FastMap::default(),
            values: Vec::new(),
            written: Vec::new(),
        }
    }

    /// The effects of all records.
    pub(crate) fn finish(mut self) -> Effects {
        self.fold();
        let counters = self.names.into_iter().map(|(name, at)| CounterAdd {
            name,
            amount: self.counters[at].done,
        });
        let (mut state, mut reads) = (Vec::new(), Vec::new());
        for (key, names) in self.slots {
            for (name, at) in names {
                let value = &mut self.values[at];
                if let Some(first_record) = value.read {
                    reads.push(StateRead {
                        key: key.clone(),
                        name: name.clone(),
                        revision: None,
                        first_record,
                    });
                }
                if let Some(done) = value.done.take() {
                    state.push(StateWrite {
                        key: key.clone(),
                        name,
                        value: Some(done),
                    });
                }
            }
        }
        Effects {
            counters: counters.collect(),
            state,
            reads,
        }
    }

    fn fold(&mut self) {
        for at in self.added.drain(..) {
            let sum = &mut self.counters[at];
            sum.done = sum.done.wrapping_add(sum.pending.take().unwrap_or(0));
        }
        for at in self.written.drain(..) {
            let value = &mut self.values[at];
            let pending = value.pending.take();
            if let Some(old) = std::mem::replace(&mut value.done, pending) {
                self.bytes -= old.len();
            }
        }
    }

    /// Counts what effects take; `false` when it is too much.
    fn take(&mut self, bytes: usize, items: usize) -> bool {
        self.bytes += bytes;
        self.items += items;
        self.bytes <= DEFAULT_EFFECT_BYTES && self.items <= EFFECT_ITEMS
    }

    fn slot(&mut self, name: &str) -> Option<usize> {
        let record = self.current? as usize;
        let start = record.checked_sub(1).map_or(0, |before| self.ends[before]);
        let key = &self.keys[start..self.ends[record]];
        let new = self.values.len();
        let key_bytes = key.len();
        if let Some(names) = self.slots.get_mut(key) {
            if let Some((_, at)) = names.iter().find(|(known, _)| **known == *name) {
                return Some(*at);
            }
            names.push((name.into(), new));
        } else {
            self.slots.insert(key.into(), vec![(name.into(), new)]);
        }
        self.values.push(Value::default());
        self.take(key_bytes + name.len(), 1).then_some(new)
    }
}

impl Host for MemoryHost {
    fn progress(&mut self, index: u32) -> i32 {
        self.fold();
        self.current = Some(index);
        DONE
    }

    fn state_get(&mut self, name: &str, out: &mut [u8]) -> i64 {
        if !(1..=MAX_STATE_NAME_BYTES).contains(&name.len()) {
            return BAD_ARGUMENT.into();
        }
        let (Some(slot), Some(record)) = (self.slot(name), self.current) else {
            return NO_CURRENT_RECORD.into();
        };
        let value = &mut self.values[slot];
        let Some(bytes) = value.pending.as_ref().or(value.done.as_ref()) else {
            value.read.get_or_insert(record);
            return ABSENT.into();
        };
        if let Some(out) = out.get_mut(..bytes.len()) {
            out.copy_from_slice(bytes);
        }
        bytes.len() as i64
    }

    fn state_set(&mut self, name: &str, value: &[u8]) -> i32 {
        let fits = value.len() <= MAX_STATE_VALUE_BYTES;
        if !fits || !(1..=MAX_STATE_NAME_BYTES).contains(&name.len()) {
            return BAD_ARGUMENT;
        }
        let Some(slot) = self.slot(name) else {
            return NO_CURRENT_RECORD;
        };
        if !self.take(value.len(), 0) {
            return BAD_ARGUMENT;
        }
        let value = Bytes::copy_from_slice(value);
        match self.values[slot].pending.replace(value) {
            Some(old) => self.bytes -= old.len(),
            None => self.written.push(slot),
        }
        DONE
    }

    fn state_delete(&mut self, _: &str) -> i32 {
        // The measured handler deletes nothing.
        UNKNOWN
    }

    fn counter_add(&mut self, name: &str, n: i64) -> i32 {
        if !(1..=MAX_COUNTER_NAME_BYTES).contains(&name.len()) {
            return BAD_ARGUMENT;
        }
        let at = match self.names.get(name) {
            Some(at) => *at,
            None => {
                if !self.take(name.len() + 8, 1) {
                    return BAD_ARGUMENT;
                }
                self.counters.push(Sum::default());
                self.names.insert(name.into(), self.counters.len() - 1);
                self.counters.len() - 1
            }
        };
        let pending = &mut self.counters[at].pending;
        match pending {
            Some(sum) => *sum = sum.wrapping_add(n),
            None => {
                *pending = Some(n);
                self.added.push(at);
            }
        }
        DONE
    }

    fn emit(&mut self, _: &str, _: &str, _: &[u8]) -> i32 {
        // The measured handler emits nothing.
        UNKNOWN
    }

    fn log(&mut self, _: i32, _: &str) -> i32 {
        DONE
    }
}
