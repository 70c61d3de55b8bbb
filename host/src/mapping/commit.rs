//! One turn of a poller as one transaction: progress, effects, failure entry, retry state.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use shardmill_core::block::MAX_HOPS;
use shardmill_core::effects::{Effects, Emit, Tag};
use shardmill_core::event::EventWindow;
use shardmill_core::mapping::{Cursor, Judgement, Part, Reason, Span};
use shardmill_core::outcome::{Cause, Failure};
use shardmill_core::sandbox::{Report, StateView};
use shardmill_core::{Batch, Records, Scope, ShardId, StreamId, StreamName, UnixMillis};
use shardmill_store::{Append, CounterAdd, Expect, Key, Route, Store, Table, Tx, Urgency, Value};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use super::failures::{self, FailureEntry, Given};
use super::metrics::ShardMetrics;
use super::resource::{Inner, Mapping, cursor_key};
use crate::delivery;
use crate::functions::{Loaded, to_json};

/// Held from an invocation to its commit: batches of a function share it; one that met too many
/// conflicts is alone.
pub(super) enum FunctionGuard {
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Alone { _guard: OwnedRwLockWriteGuard<()> },
}

/// An attempt that has ended, with what is needed to repeat it.
pub(super) struct Attempt {
    pub(super) report: Report,
    pub(super) seed: [u8; 32],
    pub(super) now: UnixMillis,
    pub(super) loaded: Arc<Loaded>,
    pub(super) given: Given,
    /// Whether the mapping's shadow is to see it.
    pub(super) is_shown: bool,
    pub(super) _guard: FunctionGuard,
}

/// Records that are given up, and why.
pub(super) struct GivenUp {
    pub(super) batch: Batch,
    pub(super) reason: Reason,
    pub(super) span: Span,
    pub(super) cause: Option<Cause>,
    /// Whether their keys are parked, so that they are still to be delivered.
    pub(super) parked: bool,
}

impl GivenUp {
    /// The final invocation of a window, which has no records.
    pub(super) fn window(span: Span, judgement: &Judgement) -> Self {
        Self {
            batch: Batch::default(),
            reason: Reason::RetryAttemptsExhausted,
            span,
            cause: match judgement {
                Judgement::Failed(failure) => Some(failure.cause.clone()),
                _ => None,
            },
            parked: false,
        }
    }
}

/// What a turn came to, before it is committed.
pub(super) struct Turn<'a> {
    pub(super) cursor: Cursor,
    pub(super) given_up: Option<GivenUp>,
    pub(super) loaded: &'a Loaded,
    pub(super) attempt: Option<&'a Attempt>,
    pub(super) part: &'a Part,
    /// All records of the attempt.
    pub(super) batch: &'a Batch,
    /// The tumbling window of the attempt.
    pub(super) window: Option<&'a EventWindow>,
}

/// What a turn adds to a mapping's metrics: records, and batches that were put back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) processed: usize,
    pub(super) given_up: usize,
    pub(super) expired: usize,
    pub(super) parked: usize,
    /// Of those that were given up or parked: never sent to the function.
    pub(super) unsent: usize,
    pub(super) retried: usize,
    pub(super) split: usize,
    /// Windows whose final invocation succeeded.
    pub(super) windows_closed: usize,
}

impl Counts {
    pub(super) fn add_to(&self, counts: &ShardMetrics) {
        counts.add(&counts.processed, self.processed);
        counts.add(&counts.given_up, self.given_up);
        counts.add(&counts.expired, self.expired);
        counts.add(&counts.parked, self.parked);
        counts.add(&counts.unsent, self.unsent);
        counts.add(&counts.retried, self.retried);
        counts.add(&counts.split, self.split);
        counts.add(&counts.windows_closed, self.windows_closed);
    }
}

impl Turn<'_> {
    pub(super) fn into_cursor(self) -> Cursor {
        self.cursor
    }

    /// The transaction, and the cursor's key.
    pub(super) fn transaction(
        &self,
        inner: &Inner,
        mapping: &Mapping,
        shard: ShardId,
        revision: u64,
    ) -> (Tx, Key) {
        let key = cursor_key(mapping, shard);
        let mut tx = Tx {
            expect: vec![Expect::Revision(key.clone(), Some(revision))],
            writes: vec![(key.clone(), Value::Inline(to_json(&self.cursor)))],
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        if let Some(attempt) = self.attempt {
            let owner = Owner {
                scope: &mapping.scope,
                function: &mapping.function,
            };
            add_effects(
                &mut tx,
                inner.store.as_ref(),
                owner,
                &attempt.report.effects,
                self.batch,
            );
        }
        if let Some(given_up) = &self.given_up {
            let entry = failures::keep(&mut tx, self, given_up, (inner, mapping, shard));
            // Parked records are not lost: they are still to be delivered.
            if let Some(destination) = mapping.on_failure.as_ref().filter(|_| !given_up.parked) {
                let told = told(&entry, &given_up.batch, self.window);
                inner.delivery.outbox_entry(&mut tx, destination, &told);
            }
        }
        (tx, key)
    }
}

/// What a destination is told of a failure entry.
fn told<'a>(
    entry: &'a FailureEntry,
    batch: &'a Batch,
    window: Option<&'a EventWindow>,
) -> delivery::GivenUp<'a> {
    delivery::GivenUp {
        id: &entry.id,
        scope: &entry.scope,
        mapping: &entry.mapping,
        mapping_id: &entry.mapping_id,
        function: &entry.function,
        stream: &entry.stream,
        shard: &entry.shard,
        reason: entry.reason,
        function_error: entry.cause.is_some(),
        request_id: &entry.request_id,
        invocations: entry.invocations,
        batch,
        now: entry.created,
        window,
    }
}

/// The function that effects belong to.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) scope: &'a Scope,
    pub(super) function: &'a str,
}

/// Adds the effects of an attempt at `batch` to a transaction. Emits that [`refused_emit`] did
/// not find possible must be gone by now.
pub(super) fn add_effects(
    tx: &mut Tx,
    store: &dyn Store,
    owner: Owner<'_>,
    effects: &Effects,
    batch: &Batch,
) {
    for read in &effects.reads {
        let key = state_key(owner, &read.key, &read.name);
        tx.expect.push(Expect::Revision(key, read.revision));
    }
    for (_, write) in &effects.state {
        let value = write.value.clone().map_or(Value::Delete, Value::Inline);
        tx.writes
            .push((state_key(owner, &write.key, &write.name), value));
    }
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for (_, add) in &effects.counters {
        let sum = sums.entry(&add.name).or_default();
        *sum = sum.wrapping_add(add.amount);
    }
    tx.counters
        .extend(sums.into_iter().map(|(name, amount)| CounterAdd {
            scope: owner.scope.clone(),
            function: owner.function.into(),
            name: name.into(),
            amount,
        }));
    if effects.emits.is_empty() {
        return;
    }
    let hops: Vec<u8> = batch.iter().map(|record| record.parts.hops).collect();
    let mut streams: BTreeMap<StreamId, Records> = BTreeMap::new();
    for (tag, emit) in &effects.emits {
        // One that went since it was looked for is refused by the commit.
        let stream = target(store, owner.scope, emit).unwrap_or(StreamId(u64::MAX));
        let records = streams.entry(stream).or_default();
        records.push_emitted(&emit.key, hops_of(&hops, *tag) + 1, &emit.data);
    }
    tx.urgency = Urgency::Growth;
    tx.appends
        .extend(streams.into_iter().map(|(stream, records)| Append {
            stream,
            route: Route::HashKey,
            records,
        }));
}

/// The first emit among the records below `done` that cannot be put: its stream does not exist,
/// or its record has been emitted too often on its way. A function error of that record.
pub(super) fn refused_emit(
    store: &dyn Store,
    scope: &Scope,
    effects: &Effects,
    batch: &Batch,
    done: usize,
) -> Option<Failure> {
    if effects.emits.is_empty() {
        return None;
    }
    let hops: Vec<u8> = batch.iter().map(|record| record.parts.hops).collect();
    let kept = effects
        .emits
        .iter()
        .filter(|(tag, _)| tag.is_none_or(|t| (t as usize) < done));
    for (tag, emit) in kept {
        let reason = if hops_of(&hops, *tag) >= MAX_HOPS {
            format!(
                "loop: the record was emitted {MAX_HOPS} times on its way to {}",
                emit.stream
            )
        } else if target(store, scope, emit).is_none() {
            format!(
                "stream {} does not exist: create it, then redrive",
                emit.stream
            )
        } else {
            continue;
        };
        return Some(Failure {
            cause: Cause::EffectsRefused { reason },
            record: *tag,
        });
    }
    None
}

/// Emissions before this one: of the record that was current, or the most in the batch.
fn hops_of(hops: &[u8], tag: Tag) -> u8 {
    let own = tag.and_then(|record| hops.get(record as usize));
    own.or_else(|| hops.iter().max()).copied().unwrap_or(0)
}

fn target(store: &dyn Store, scope: &Scope, emit: &Emit) -> Option<StreamId> {
    let name: StreamName = emit.stream.parse().ok()?;
    store
        .stream(scope, &name)
        .filter(|s| s.deleted.is_none())
        .map(|s| s.id)
}

fn state_key(owner: Owner<'_>, partition_key: &str, name: &str) -> Key {
    Key::new(Table::State, owner.scope)
        .part(owner.function)
        .part(partition_key)
        .part(name)
}

/// Keyed state of one function, read from the store.
pub(super) struct StoredState {
    pub(super) store: Arc<dyn Store>,
    pub(super) scope: Scope,
    pub(super) function: String,
}

impl StateView for StoredState {
    fn get(&self, partition_key: &str, name: &str) -> Result<Option<(Bytes, u64)>, String> {
        let owner = Owner {
            scope: &self.scope,
            function: &self.function,
        };
        let found = self.store.get(&state_key(owner, partition_key, name));
        found
            .map(|v| v.map(|v| (v.value, v.revision)))
            .map_err(|error| error.to_string())
    }
}

impl Inner {
    /// The lock that batches of a function share.
    pub(super) fn function_lock(
        &self,
        scope: &Scope,
        function: &str,
    ) -> Arc<tokio::sync::RwLock<()>> {
        let mut locks = self
            .function_locks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Arc::clone(
            locks
                .entry((scope.clone(), function.to_owned()))
                .or_default(),
        )
    }
}
