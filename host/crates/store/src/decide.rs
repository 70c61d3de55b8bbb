//! The one place where it is decided whether a transaction holds and what becomes of it. Pure: a
//! function of the transaction, the time, and the state that all earlier transactions left.
//!
//! Laws, each with a test:
//! - positions are dense: in a shard the first record has 1, the next the one after;
//! - arrival never goes back in a shard, nor before the shard's creation;
//! - revisions grow with every transaction;
//! - a transaction that is refused changes nothing;
//! - a stream is changed only by who has seen its last change, and no shard closes before its
//!   newest record;
//! - a producer's number is done once, and stands for the records it was first used for.

use std::collections::HashMap;
use std::sync::Arc;

use shardmill_core::reshard;
use shardmill_core::{Scope, Shard, ShardKey, Stream, StreamId, StreamName, UnixMillis};

use crate::catalog::{Catalog, Tail};
use crate::receipt::Sent;
use crate::resolved::{NewBlock, Resolved, StreamSet};
use crate::route::{Packed, Prepared, PreparedAppend, Sorted};
use crate::tx::{Appended, CommitError, Expect, ProducerMark, Receipt, StreamChange, Trim, Value};
use crate::{Key, ReadError, Versioned};
use crate::{counters, receipt};

/// The lease epoch of an engine with one process.
pub const EPOCH: u64 = 0;

/// The values that earlier transactions left, synced or not.
pub(crate) trait Values {
    /// The value of a key; for a blob only its revision counts.
    fn get(&self, key: &Key) -> Result<Option<Versioned>, ReadError>;

    /// How many keys begin with `prefix`.
    fn count(&self, prefix: &Key) -> Result<usize, ReadError>;
}

/// What becomes of a transaction that is not refused.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It is to be done.
    Do(Resolved, Receipt),
    /// It was done before.
    Repeated(Receipt),
}

/// Decides.
///
/// # Errors
/// See [`CommitError`]; `Unknown` only when a value that the decision needs cannot be read.
pub(crate) fn decide(
    prepared: Prepared,
    now: UnixMillis,
    catalog: &Catalog,
    values: &dyn Values,
) -> Result<Decision, CommitError> {
    let Prepared {
        tx, appends, sent, ..
    } = prepared;
    let producer = tx.producer.as_ref().zip(sent);
    if tx.epoch != EPOCH {
        return Err(CommitError::Fenced);
    }
    if let Some((mark, sent)) = producer
        && let Some(receipt) = seen_before(mark, sent, values)?
    {
        return Ok(Decision::Repeated(receipt));
    }
    for expect in &tx.expect {
        check(expect, catalog, values)?;
    }
    let revision = catalog.revision() + 1;
    let mut turn = Turn {
        now,
        catalog,
        streams: HashMap::new(),
        tails: HashMap::new(),
        resolved: Resolved {
            revision,
            ..Resolved::default()
        },
        receipt: Receipt {
            revision,
            ..Receipt::default()
        },
    };
    for change in tx.streams {
        turn.change_stream(change)?;
    }
    for append in appends {
        turn.append(append)?;
    }
    turn.resolved.puts = tx.writes;
    counters::add(&tx.counters, values, &mut turn.resolved).map_err(unreadable)?;
    for trim in tx.trims {
        turn.trim(trim);
    }
    if let Some((mark, sent)) = producer {
        let value = receipt::encode(mark.number, sent, &turn.receipt);
        let put = (receipt::key(mark), Value::Inline(value));
        turn.resolved.puts.push(put);
    }
    Ok(Decision::Do(turn.resolved, turn.receipt))
}

fn unreadable(error: ReadError) -> CommitError {
    CommitError::Unknown(format!("not done: {error}"))
}

fn seen_before(
    mark: &ProducerMark,
    sent: Sent,
    values: &dyn Values,
) -> Result<Option<Receipt>, CommitError> {
    let key = receipt::key(mark);
    let Some(stored) = values.get(&key).map_err(unreadable)? else {
        return Ok(None);
    };
    let last = receipt::decode(&stored.value, stored.revision)
        .map_err(|e| unreadable(ReadError::Damaged(e.to_string())))?;
    match mark.number.cmp(&last.number) {
        std::cmp::Ordering::Greater => Ok(None),
        std::cmp::Ordering::Equal if sent == last.sent => Ok(Some(last.receipt)),
        std::cmp::Ordering::Equal => Err(CommitError::ProducerReused {
            id: mark.id.clone(),
            number: mark.number,
        }),
        std::cmp::Ordering::Less => Err(CommitError::ProducerBehind {
            id: mark.id.clone(),
            number: mark.number,
            last: last.number,
        }),
    }
}

fn check(expect: &Expect, catalog: &Catalog, values: &dyn Values) -> Result<(), CommitError> {
    match expect {
        Expect::Revision(key, wanted) => {
            let stored = values.get(key).map_err(unreadable)?;
            if stored.map(|v| v.revision) == *wanted {
                Ok(())
            } else {
                Err(CommitError::Conflict(key.clone()))
            }
        }
        Expect::Present(key) => match values.get(key).map_err(unreadable)? {
            Some(_) => Ok(()),
            None => Err(CommitError::Conflict(key.clone())),
        },
        Expect::StreamExists(id) => match catalog.stream(*id) {
            Some(stream) if stream.deleted.is_none() => Ok(()),
            _ => Err(CommitError::NoSuchStream(*id)),
        },
    }
}

/// One transaction being decided: the catalog with this transaction's own changes above it.
struct Turn<'a> {
    now: UnixMillis,
    catalog: &'a Catalog,
    streams: HashMap<StreamId, Option<Arc<Stream>>>,
    tails: HashMap<ShardKey, Tail>,
    resolved: Resolved,
    receipt: Receipt,
}

impl Turn<'_> {
    fn stream(&self, id: StreamId) -> Option<Arc<Stream>> {
        match self.streams.get(&id) {
            Some(own) => own.clone(),
            None => self.catalog.stream(id).cloned(),
        }
    }

    fn name_is_taken(&self, scope: &Scope, name: &StreamName) -> bool {
        let own = self.streams.values().flatten();
        let mut own = own.filter(|s| s.scope == *scope && s.name == *name);
        own.next().is_some()
            || self
                .catalog
                .named(scope, name)
                .is_some_and(|id| !self.streams.contains_key(&id))
    }

    fn change_stream(&mut self, change: StreamChange) -> Result<(), CommitError> {
        let set = match change {
            StreamChange::Create(mut stream) => {
                if self.name_is_taken(&stream.scope, &stream.name) {
                    return Err(CommitError::StreamExists(stream.name));
                }
                let id = StreamId(self.catalog.next_stream() + self.receipt.created.len() as u64);
                stream.id = id;
                stream.revision = self.resolved.revision;
                self.receipt.created.push(id);
                let stream: Arc<Stream> = stream.into();
                self.streams.insert(id, Some(Arc::clone(&stream)));
                StreamSet::Put(stream)
            }
            StreamChange::Update(mut stream) => {
                let old = self
                    .stream(stream.id)
                    .ok_or(CommitError::NoSuchStream(stream.id))?;
                if old.revision != stream.revision {
                    return Err(CommitError::StreamChanged(stream.id));
                }
                // A stream keeps its identity, whatever the caller's copy says.
                stream.scope = old.scope.clone();
                stream.name = old.name.clone();
                stream.revision = self.resolved.revision;
                reshard::close_after_newest(&old, &mut stream, |shard| {
                    let key = ShardKey {
                        stream: old.id,
                        shard: shard.id,
                    };
                    self.tail(key, shard).arrival
                });
                let stream: Arc<Stream> = stream.into();
                self.streams.insert(stream.id, Some(Arc::clone(&stream)));
                StreamSet::Put(stream)
            }
            StreamChange::Remove(id) => {
                if self.stream(id).is_none() {
                    return Ok(());
                }
                self.streams.insert(id, None);
                StreamSet::Remove(id)
            }
        };
        self.resolved.streams.push(set);
        Ok(())
    }

    fn append(&mut self, append: PreparedAppend) -> Result<(), CommitError> {
        let id = append.stream;
        let stream = self
            .stream(id)
            .filter(|stream| stream.deleted.is_none())
            .ok_or(CommitError::NoSuchStream(id))?;
        match append.records {
            Sorted::Chosen(shard, records) => {
                let key = ShardKey { stream: id, shard };
                let shard = stream
                    .shard(shard)
                    .filter(|shard| shard.closed_seconds.is_none())
                    .ok_or(CommitError::ShardClosed(key))?;
                let placed = self.place(key, shard, records);
                self.receipt.appended.push(placed);
            }
            Sorted::Hashed(hashed) => {
                let hashed = if hashed.holds(&stream) {
                    hashed
                } else {
                    hashed.again(&stream)?
                };
                let mut next = Vec::with_capacity(hashed.groups.len());
                for (shard, records) in hashed.groups {
                    let key = ShardKey { stream: id, shard };
                    let shard = stream.shard(shard).ok_or(CommitError::ShardClosed(key))?;
                    next.push(self.place(key, shard, records));
                }
                self.receipt.appended.reserve(hashed.order.len());
                for group in hashed.order {
                    let next = &mut next[group as usize];
                    self.receipt.appended.push(*next);
                    next.first += 1;
                }
            }
        }
        Ok(())
    }

    fn place(&mut self, key: ShardKey, shard: &Shard, packed: Packed) -> Appended {
        let tail = self.tail(key, shard);
        let placed = Appended {
            shard: key.shard,
            first: tail.next,
            arrival: self.now.max(tail.arrival),
        };
        if packed.records.is_empty() {
            return placed;
        }
        let (index, blob) = packed.records.into_parts();
        let block = NewBlock {
            shard: key,
            created_seconds: shard.created_seconds,
            first: placed.first,
            arrival: placed.arrival,
            index: index.into(),
            blob: blob.into(),
            sums: packed.sums,
        };
        let tail = Tail {
            next: block.end(),
            arrival: placed.arrival,
            ..tail
        };
        self.tails.insert(key, tail);
        self.resolved.blocks.push(block);
        placed
    }

    fn tail(&self, key: ShardKey, shard: &Shard) -> Tail {
        let own = self.tails.get(&key).copied();
        own.or_else(|| self.catalog.tail(key))
            .unwrap_or_else(|| Tail::of_new(shard))
    }

    fn trim(&mut self, trim: Trim) {
        let Some(stream) = self.stream(trim.shard.stream) else {
            return;
        };
        let Some(shard) = stream.shard(trim.shard.shard) else {
            return;
        };
        let tail = self.tail(trim.shard, shard);
        let before = trim.before.min(tail.next);
        if before > tail.floor {
            self.tails.insert(
                trim.shard,
                Tail {
                    floor: before,
                    ..tail
                },
            );
            self.resolved.trims.push(Trim {
                shard: trim.shard,
                before,
            });
        }
    }
}

#[cfg(test)]
mod tests;
