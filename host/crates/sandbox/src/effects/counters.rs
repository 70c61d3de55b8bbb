//! Additions to counters, summed as they come in: by name in record mode, by record and name
//! otherwise.

use shardmill_core::effects::{CounterAdd, Tag};

use super::intern::{FastMap, Interner};
use super::{Budget, Called, Code, Tagging};

/// Bytes of an amount.
const AMOUNT_BYTES: usize = 8;

#[derive(Default)]
pub(super) struct Counters {
    names: Interner,
    /// By a name's number: the entry that was added to last.
    latest: Vec<u32>,
    entries: Vec<Entry>,
    /// Batch mode: entries by record and name. Used when a name's latest entry has another record.
    tagged: FastMap<(Tag, u32), u32>,
    /// Record mode: entries that the current record added to.
    pending: Vec<u32>,
}

struct Entry {
    name: u32,
    /// Batch mode: the record. Record mode: the last done record; `None` while there is none.
    tag: Tag,
    amount: i64,
    /// Record mode: what the current record added, if it did.
    pending: Option<i64>,
}

impl Counters {
    pub(super) fn add(
        &mut self,
        tagging: Tagging,
        current: Tag,
        name: &[u8],
        amount: i64,
        budget: &mut Budget,
    ) -> Called<()> {
        let known = self.names.find(name);
        let entry = match (known, tagging) {
            (Some(name), Tagging::Fold) => Some(self.latest[name as usize]),
            (Some(name), Tagging::Tag) => self.find_tagged(current, name),
            (None, _) => None,
        };
        let entry = match entry {
            Some(entry) => entry,
            None => {
                let Ok(text) = std::str::from_utf8(name) else {
                    return Ok(Err(Code::BadArgument));
                };
                budget.take(text.len() + AMOUNT_BYTES, 1)?;
                let name = known.unwrap_or_else(|| {
                    self.latest.push(0);
                    self.names.add(text)
                });
                self.new_entry(tagging, current, name)
            }
        };
        let number = entry;
        let entry = &mut self.entries[number as usize];
        match (tagging, &mut entry.pending) {
            (Tagging::Tag, _) => entry.amount = entry.amount.wrapping_add(amount),
            (Tagging::Fold, Some(pending)) => *pending = pending.wrapping_add(amount),
            (Tagging::Fold, pending @ None) => {
                *pending = Some(amount);
                self.pending.push(number);
            }
        }
        Ok(Ok(()))
    }

    /// Adds what the current record added to what the done ones did.
    pub(super) fn fold(&mut self, record: u32) {
        for number in self.pending.drain(..) {
            let entry = &mut self.entries[number as usize];
            entry.amount = entry.amount.wrapping_add(entry.pending.take().unwrap_or(0));
            entry.tag = Some(record);
        }
    }

    pub(super) fn finish(self, tagging: Tagging) -> Vec<(Tag, CounterAdd)> {
        let Self { entries, names, .. } = self;
        entries
            .into_iter()
            .filter(|entry| tagging == Tagging::Tag || entry.tag.is_some())
            .map(|entry| {
                (
                    entry.tag,
                    CounterAdd {
                        name: names.name(entry.name).into(),
                        amount: entry.amount,
                    },
                )
            })
            .collect()
    }

    fn find_tagged(&self, current: Tag, name: u32) -> Option<u32> {
        let latest = self.latest[name as usize];
        if self.entries[latest as usize].tag == current {
            return Some(latest);
        }
        self.tagged.get(&(current, name)).copied()
    }

    fn new_entry(&mut self, tagging: Tagging, current: Tag, name: u32) -> u32 {
        let number = self.entries.len() as u32;
        let tag = match tagging {
            Tagging::Tag => {
                self.tagged.insert((current, name), number);
                current
            }
            Tagging::Fold => None,
        };
        self.entries.push(Entry {
            name,
            tag,
            amount: 0,
            pending: None,
        });
        self.latest[name as usize] = number;
        number
    }
}
