//! Keyed state as an attempt sees it: what it read, and over that what it wrote itself.
//!
//! A value is read from the store when the guest asks for it, and only once: later reads of the
//! attempt see the same. A write needs no read; what was never read puts no condition on the
//! commit.

use bytes::Bytes;
use shardmill_core::effects::{Revision, StateRead, StateWrite, Tag};
use shardmill_core::sandbox::StateView;

use super::intern::{FastMap, Interner};
use super::{Budget, Tagging};
use crate::trap::Stop;

/// A value; `None`: absent.
type Value = Option<Bytes>;

pub(super) struct State {
    keys: Interner,
    names: Interner,
    numbers: FastMap<(u32, u32), u32>,
    slots: Vec<Slot>,
    /// Batch mode: writes with their slots, in order.
    writes: Vec<(u32, u32, Value)>,
    /// Record mode: slots that the current record wrote.
    pending: Vec<u32>,
    cached_bytes: usize,
    max_cached_bytes: usize,
}

/// Everything about one value of one key.
struct Slot {
    key: u32,
    name: u32,
    read: Option<Read>,
    /// Record mode: the write of the done records, with the record that made it.
    done: Option<(u32, Value)>,
    /// The latest write: in record mode, of the current record.
    written: Option<Value>,
    /// Batch mode: the latest write's place in `writes`.
    latest: usize,
}

struct Read {
    revision: Revision,
    first_record: u32,
    /// `None`: too much was cached already, so it is read again.
    cached: Option<Value>,
}

impl State {
    /// Keeps at most `max_cached_bytes` of values that were read.
    pub(super) fn new(max_cached_bytes: usize) -> Self {
        Self {
            keys: Interner::default(),
            names: Interner::default(),
            numbers: FastMap::default(),
            slots: Vec::new(),
            writes: Vec::new(),
            pending: Vec::new(),
            cached_bytes: 0,
            max_cached_bytes,
        }
    }

    /// The number of a partition key.
    pub(super) fn key(&mut self, key: &str) -> u32 {
        self.keys
            .find(key.as_bytes())
            .unwrap_or_else(|| self.keys.add(key))
    }

    /// The slot of a value; `None`: its name is not UTF-8.
    pub(super) fn slot(
        &mut self,
        key: u32,
        name: &[u8],
        budget: &mut Budget,
    ) -> Result<Option<u32>, Stop> {
        let known = self.names.find(name);
        if let Some(slot) = known.and_then(|name| self.numbers.get(&(key, name))) {
            return Ok(Some(*slot));
        }
        let Ok(text) = std::str::from_utf8(name) else {
            return Ok(None);
        };
        budget.take(self.keys.name(key).len() + name.len(), 1)?;
        let name = known.unwrap_or_else(|| self.names.add(text));
        let slot = self.slots.len() as u32;
        self.numbers.insert((key, name), slot);
        self.slots.push(Slot {
            key,
            name,
            read: None,
            done: None,
            written: None,
            latest: 0,
        });
        Ok(Some(slot))
    }

    /// The value as the attempt sees it, for `record`.
    pub(super) fn get(
        &mut self,
        slot: u32,
        record: u32,
        view: &dyn StateView,
    ) -> Result<Value, Stop> {
        let slot = &mut self.slots[slot as usize];
        if let Some(value) = slot
            .written
            .as_ref()
            .or(slot.done.as_ref().map(|(_, value)| value))
        {
            return Ok(value.clone());
        }
        if let Some(read) = &mut slot.read {
            // The handler may have gone back.
            read.first_record = read.first_record.min(record);
            if let Some(value) = &read.cached {
                return Ok(value.clone());
            }
        }
        let found = view
            .get(self.keys.name(slot.key), self.names.name(slot.name))
            .map_err(Stop::State)?;
        let (value, revision) = found.unzip();
        let read = slot.read.get_or_insert(Read {
            revision,
            first_record: record,
            cached: None,
        });
        let size = value.as_ref().map_or(0, Bytes::len);
        if self.cached_bytes + size <= self.max_cached_bytes {
            self.cached_bytes += size;
            read.cached = Some(value.clone());
        }
        Ok(value)
    }

    /// Writes a value whose bytes were taken from the budget.
    pub(super) fn set(
        &mut self,
        tagging: Tagging,
        number: u32,
        record: u32,
        value: Value,
        budget: &mut Budget,
    ) -> Result<(), Stop> {
        let slot = &mut self.slots[number as usize];
        match tagging {
            Tagging::Fold => match slot.written.replace(value) {
                Some(old) => budget.give_back(bytes_of(&old)),
                None => self.pending.push(number),
            },
            Tagging::Tag => {
                let again = slot.written.is_some();
                let latest = self.writes.get_mut(slot.latest).filter(|_| again);
                match latest {
                    Some((_, tag, old)) if *tag == record => {
                        budget.give_back(bytes_of(old));
                        *old = value.clone();
                    }
                    _ => {
                        // The slot's item stands for its first write.
                        budget.take(0, usize::from(again))?;
                        slot.latest = self.writes.len();
                        self.writes.push((number, record, value.clone()));
                    }
                }
                slot.written = Some(value);
            }
        }
        Ok(())
    }

    /// The current record is done: its writes replace those of the records before it.
    pub(super) fn fold(&mut self, record: u32, budget: &mut Budget) {
        for number in self.pending.drain(..) {
            let slot = &mut self.slots[number as usize];
            if let Some(value) = slot.written.take()
                && let Some((_, old)) = slot.done.replace((record, value))
            {
                budget.give_back(bytes_of(&old));
            }
        }
    }

    /// The writes, and the reads of the records below `end`.
    pub(super) fn finish(
        self,
        tagging: Tagging,
        end: u32,
    ) -> (Vec<(Tag, StateWrite)>, Vec<StateRead>) {
        let Self {
            keys,
            names,
            slots,
            writes,
            ..
        } = self;
        let text = |slot: &Slot| {
            (
                Box::<str>::from(keys.name(slot.key)),
                Box::<str>::from(names.name(slot.name)),
            )
        };
        let reads = slots.iter().filter_map(|slot| {
            let read = slot.read.as_ref().filter(|read| read.first_record < end)?;
            let (key, name) = text(slot);
            Some(StateRead {
                key,
                name,
                revision: read.revision,
                first_record: read.first_record,
            })
        });
        let reads = reads.collect();
        let write = |slot: &Slot, value| {
            let (key, name) = text(slot);
            StateWrite { key, name, value }
        };
        let writes = match tagging {
            Tagging::Tag => writes
                .into_iter()
                .map(|(slot, tag, value)| (Some(tag), write(&slots[slot as usize], value)))
                .collect(),
            Tagging::Fold => slots
                .iter()
                .filter_map(|slot| {
                    let (tag, value) = slot.done.clone()?;
                    Some((Some(tag), write(slot, value)))
                })
                .collect(),
        };
        (writes, reads)
    }
}

fn bytes_of(value: &Value) -> usize {
    value.as_ref().map_or(0, Bytes::len)
}
