//! A handler's host in the same process that keeps effects by the sandbox's rules in record mode:
//! counters are summed by name, the last write of a value wins, and what the current record did
//! is kept apart until it is done. As fast as is natural, so that a comparison with the sandbox is
//! one of sandboxes and not of hosts.

use std::collections::HashMap;

use bytes::Bytes;
use shardmill_core::Batch;
use shardmill_core::effects::{CounterAdd, StateWrite};
use shardmill_guest::host::{ABSENT, DONE, Host, NO_CURRENT_RECORD};

type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What a handler did.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    #[expect(dead_code, reason = "made, as the sandbox makes it, to be dropped")]
    pub(crate) counters: Vec<CounterAdd>,
    #[expect(dead_code, reason = "made, as the sandbox makes it, to be dropped")]
    pub(crate) state: Vec<StateWrite>,
}

/// One invocation's host.
pub(crate) struct MemoryHost {
    keys: Vec<Box<str>>,
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
}

impl MemoryHost {
    pub(crate) fn new(batch: &Batch) -> Self {
        Self {
            keys: batch.iter().map(|r| r.parts.key.into()).collect(),
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
        let mut state = Vec::with_capacity(self.values.len());
        for (key, names) in self.slots {
            for (name, at) in names {
                let value = self.values[at].done.take();
                state.push(StateWrite {
                    key: key.clone(),
                    name,
                    value,
                });
            }
        }
        Effects {
            counters: counters.collect(),
            state,
        }
    }

    fn fold(&mut self) {
        for at in self.added.drain(..) {
            let sum = &mut self.counters[at];
            sum.done = sum.done.wrapping_add(sum.pending.take().unwrap_or(0));
        }
        for at in self.written.drain(..) {
            let value = &mut self.values[at];
            value.done = value.pending.take();
        }
    }

    fn slot(&mut self, name: &str) -> Option<usize> {
        let key = &self.keys[self.current? as usize];
        if let Some(names) = self.slots.get_mut(&**key) {
            if let Some((_, at)) = names.iter().find(|(known, _)| **known == *name) {
                return Some(*at);
            }
            names.push((name.into(), self.values.len()));
        } else {
            let names = vec![(name.into(), self.values.len())];
            self.slots.insert(key.clone(), names);
        }
        self.values.push(Value::default());
        Some(self.values.len() - 1)
    }
}

impl Host for MemoryHost {
    fn progress(&mut self, index: u32) -> i32 {
        self.fold();
        self.current = Some(index);
        DONE
    }

    fn state_get(&mut self, name: &str, out: &mut [u8]) -> i64 {
        let Some(slot) = self.slot(name) else {
            return NO_CURRENT_RECORD.into();
        };
        let value = &self.values[slot];
        let Some(value) = value.pending.as_ref().or(value.done.as_ref()) else {
            return ABSENT.into();
        };
        if let Some(out) = out.get_mut(..value.len()) {
            out.copy_from_slice(value);
        }
        value.len() as i64
    }

    fn state_set(&mut self, name: &str, value: &[u8]) -> i32 {
        let Some(slot) = self.slot(name) else {
            return NO_CURRENT_RECORD;
        };
        let value = Bytes::copy_from_slice(value);
        if self.values[slot].pending.replace(value).is_none() {
            self.written.push(slot);
        }
        DONE
    }

    fn state_delete(&mut self, _: &str) -> i32 {
        // The measured handler deletes nothing.
        shardmill_guest::host::UNKNOWN
    }

    fn counter_add(&mut self, name: &str, n: i64) -> i32 {
        let at = match self.names.get(name) {
            Some(at) => *at,
            None => {
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
        shardmill_guest::host::UNKNOWN
    }

    fn log(&mut self, _: i32, _: &str) -> i32 {
        DONE
    }
}
