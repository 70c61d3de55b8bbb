//! The one writer: decides transactions in order and writes them, a group at a time. It works on
//! a head that is ahead of what readers see by the groups that are not synced yet.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

use bytes::Bytes;
use shardmill_core::{ShardKey, UnixMillis};
use tokio::sync::oneshot;

use super::queue::{Queue, Request};
use super::shared::Shared;
use crate::catalog::Catalog;
use crate::decide::{Decision, Values, decide};
use crate::frame::{Contents, Encoded, Group, PutValue};
use crate::journal::{self, AppendError, Frame, Piece, Place, Position};
use crate::resolved::{NewBlock, Resolved};
use crate::tx::{CommitError, Receipt, Urgency, Value};
use crate::{Clock, Key, ReadError, Table, Versioned};

/// Who waits, and what to say once the group is durable.
pub(super) type Answer = (
    oneshot::Sender<Result<Receipt, CommitError>>,
    Result<Receipt, CommitError>,
    tokio::sync::OwnedSemaphorePermit,
);

/// A group on its way to the syncer.
#[derive(Debug)]
pub(super) struct InFlight {
    /// `None`: nothing was written, but the answers wait for what was written before.
    pub(super) frame: Option<WrittenFrame>,
    pub(super) answers: Vec<Answer>,
}

/// A frame that was written and is not synced.
#[derive(Debug)]
pub(super) struct WrittenFrame {
    pub(super) contents: Arc<Contents>,
    pub(super) blocks: Vec<NewBlock>,
    pub(super) place: Place,
    pub(super) end: Position,
}

/// The writer's state.
pub(super) struct Writing {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    head: Head,
    clock: Clock,
    to_syncer: SyncSender<InFlight>,
}

/// What earlier transactions left, synced or not.
struct Head {
    catalog: Catalog,
    /// Groups that were written and may not be visible yet, oldest first.
    pending: VecDeque<Arc<Contents>>,
    /// How many names a function has counters for: by the beginning of their keys.
    counter_names: HashMap<Key, usize>,
}

impl Writing {
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: Arc<Queue>,
        catalog: Catalog,
        clock: Clock,
        to_syncer: SyncSender<InFlight>,
    ) -> Self {
        Self {
            shared,
            queue,
            head: Head {
                catalog,
                pending: VecDeque::new(),
                counter_names: HashMap::new(),
            },
            clock,
            to_syncer,
        }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self, mut journal: journal::Writer) -> journal::Writer {
        while let Some(requests) = self.queue.take(self.shared.options.group_bytes) {
            self.shared.wait_for_tables();
            let group = self.write(requests, &mut journal);
            if self.to_syncer.send(group).is_err() {
                break;
            }
        }
        journal
    }

    fn write(&mut self, requests: Vec<Request>, journal: &mut journal::Writer) -> InFlight {
        self.head.forget_shown(self.shared.shown());
        let mut group = Group::default();
        let mut answers = Vec::with_capacity(requests.len());
        let now = (self.clock)();
        let full = self.full(&requests);
        for request in requests {
            let outcome = match &full {
                Some(full) if request.prepared.tx.urgency == Urgency::Growth => Err(full.clone()),
                _ => self.decide(request.prepared, now, &mut group),
            };
            answers.push((request.reply, outcome, request.room));
        }
        if group.is_empty() {
            return InFlight {
                frame: None,
                answers,
            };
        }
        match append(journal, group.encode()) {
            Ok(frame) => {
                self.head.pending.push_back(Arc::clone(&frame.contents));
                InFlight {
                    frame: Some(frame),
                    answers,
                }
            }
            Err(error) => {
                self.take_back();
                if let AppendError::Failed(why) = &error {
                    self.shared.fail(why);
                }
                let error = self.refusal(error);
                for (_, outcome, _) in &mut answers {
                    if outcome.is_ok() {
                        *outcome = Err(error.clone());
                    }
                }
                InFlight {
                    frame: None,
                    answers,
                }
            }
        }
    }

    /// Why growth is refused now, if it is.
    fn full(&self, requests: &[Request]) -> Option<CommitError> {
        let grows = |request: &Request| request.prepared.tx.urgency == Urgency::Growth;
        if !requests.iter().any(grows) {
            return None;
        }
        let space = self.shared.journal.space().ok()?;
        space.is_low().then_some(CommitError::Full {
            free_bytes: space.free_bytes,
            low_water_bytes: space.low_water_bytes,
        })
    }

    fn decide(
        &mut self,
        prepared: crate::route::Prepared,
        now: UnixMillis,
        group: &mut Group,
    ) -> Result<Receipt, CommitError> {
        if self.shared.has_failed() {
            return Err(CommitError::Unknown(
                "not done: the store has failed".into(),
            ));
        }
        let values = HeadValues {
            group,
            head: &self.head,
            shared: &self.shared,
        };
        match decide(prepared, now, &self.head.catalog, &values) {
            Ok(Decision::Do(resolved, receipt)) => {
                self.head.apply(&resolved);
                group.add(resolved);
                Ok(receipt)
            }
            Ok(Decision::Repeated(receipt)) => Ok(receipt),
            Err(error) => {
                self.shared.counts.conflicts.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// The group was not written: the head is what is visible, and what is in flight above it.
    fn take_back(&mut self) {
        let mut catalog = self.shared.catalog();
        self.head.forget_shown(catalog.revision());
        for contents in &self.head.pending {
            catalog.apply(&contents.change());
        }
        self.head.catalog = catalog;
        self.head.counter_names.clear();
    }

    fn refusal(&self, error: AppendError) -> CommitError {
        match error {
            AppendError::Full {
                free_bytes,
                needed_bytes,
            } => CommitError::Full {
                free_bytes,
                low_water_bytes: self.shared.options.low_water_bytes.max(needed_bytes),
            },
            AppendError::TooLarge { size, allowed } => CommitError::TooLarge { size, allowed },
            AppendError::Failed(why) => CommitError::Unknown(why.to_string()),
        }
    }
}

fn append(journal: &mut journal::Writer, encoded: Encoded) -> Result<WrittenFrame, AppendError> {
    let size = encoded.len() as u64;
    let shards: Vec<ShardKey> = encoded.contents.blocks.iter().map(|b| b.shard).collect();
    let mut payload = Vec::with_capacity(1 + encoded.bodies.len());
    payload.push(Piece {
        bytes: &encoded.head,
        crc: None,
    });
    payload.extend(encoded.bodies.iter().map(|(bytes, crc)| Piece {
        bytes,
        crc: Some(*crc),
    }));
    let frame = Frame {
        number: encoded.contents.revision,
        shards: &shards,
        payload: &payload,
    };
    let group = journal.append(&[frame])?;
    let place = group.places.first().copied();
    let place = place.ok_or(AppendError::TooLarge { size, allowed: 0 })?;
    Ok(WrittenFrame {
        contents: encoded.contents,
        blocks: encoded.blocks,
        place,
        end: group.end,
    })
}

impl Head {
    fn apply(&mut self, resolved: &Resolved) {
        self.catalog.apply(&resolved.change());
        let deletes = |(key, value): &(Key, Value)| {
            *value == Value::Delete && key.table() == Some(Table::Counter)
        };
        if resolved.puts.iter().any(deletes) {
            self.counter_names.clear();
        }
        for (prefix, names) in &resolved.counter_names {
            self.counter_names.insert(prefix.clone(), *names);
        }
    }

    fn forget_shown(&mut self, revision: u64) {
        while self
            .pending
            .front()
            .is_some_and(|contents| contents.revision <= revision)
        {
            self.pending.pop_front();
        }
    }
}

/// The values that earlier transactions left: of this group, of groups in flight, of visible ones.
struct HeadValues<'a> {
    group: &'a Group,
    head: &'a Head,
    shared: &'a Shared,
}

impl Values for HeadValues<'_> {
    fn get(&self, key: &Key) -> Result<Option<Versioned>, ReadError> {
        if let Some((revision, value)) = self.group.get(key) {
            return Ok(versioned(*revision, value));
        }
        for contents in self.head.pending.iter().rev() {
            if let Ok(at) = contents.puts.binary_search_by(|put| put.key.cmp(key)) {
                let put = &contents.puts[at];
                return Ok(match &put.value {
                    PutValue::Deleted => None,
                    PutValue::Inline(value) => Some(Versioned {
                        value: value.clone(),
                        revision: put.revision,
                    }),
                    PutValue::Blob { .. } => Some(Versioned {
                        value: Bytes::new(),
                        revision: put.revision,
                    }),
                });
            }
        }
        self.shared.get(key)
    }

    fn count(&self, prefix: &Key) -> Result<usize, ReadError> {
        if let Some(names) = self.head.counter_names.get(prefix) {
            return Ok(*names);
        }
        let stored = self.shared.scan(prefix, None, usize::MAX)?;
        let mut keys: BTreeSet<Key> = stored.into_iter().map(|(key, _)| key).collect();
        let below = |key: &Key| key.as_bytes().starts_with(prefix.as_bytes());
        let mut apply = |key: &Key, lives: bool| {
            if lives {
                keys.insert(key.clone());
            } else {
                keys.remove(key);
            }
        };
        for contents in &self.head.pending {
            for put in contents.puts.iter().filter(|put| below(&put.key)) {
                apply(&put.key, put.value != PutValue::Deleted);
            }
        }
        for (key, value) in self
            .group
            .keys_from(prefix)
            .take_while(|(key, _)| below(key))
        {
            apply(key, *value != Value::Delete);
        }
        Ok(keys.len())
    }
}

fn versioned(revision: u64, value: &Value) -> Option<Versioned> {
    let value = match value {
        Value::Delete => return None,
        Value::Inline(value) => value.clone(),
        Value::Blob(_) => Bytes::new(),
    };
    Some(Versioned { value, revision })
}
