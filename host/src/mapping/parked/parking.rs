//! Records that a transaction parks, by key.

use std::collections::BTreeMap;

use shardmill_core::Batch;

/// Records to be parked, by key.
#[derive(Default)]
pub(in crate::mapping) struct Parking {
    pub(super) keys: BTreeMap<String, Run>,
}

/// The records of one key.
#[derive(Default)]
pub(super) struct Run {
    pub(super) batch: Batch,
    pub(super) bytes: u64,
    /// Why the key is parked with them; `None`: it was parked before.
    pub(super) reason: Option<String>,
}

impl Parking {
    /// Adds the records of a batch. `reason`: their attempts ended, which parks their keys.
    pub(in crate::mapping) fn add(&mut self, batch: &Batch, reason: Option<&str>) {
        for (record, single) in batch.singles() {
            let key = record.parts.key;
            let run = match self.keys.get_mut(key) {
                Some(run) => run,
                None => self.keys.entry(key.to_owned()).or_default(),
            };
            run.batch.append(&single);
            run.bytes += record.payload_bytes() as u64;
            if run.reason.is_none() {
                run.reason = reason.map(str::to_owned);
            }
        }
    }

    /// Adds what comes behind, of keys that are parked.
    pub(in crate::mapping) fn append(&mut self, later: Self) {
        for (key, run) in later.keys {
            let mine = self.keys.entry(key).or_default();
            mine.batch.append(&run.batch);
            mine.bytes += run.bytes;
        }
    }

    pub(in crate::mapping) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many records there are.
    pub(in crate::mapping) fn count(&self) -> usize {
        self.keys.values().map(|run| run.batch.len()).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.keys.values().map(|run| run.bytes).sum()
    }
}
