//! A turn that gives records up: how much of them there is room for, and the entry that it
//! leaves in its transaction.

use shardmill_core::{Batch, BatchContext, RecordRef, ShardId};
use shardmill_store::{Tx, Value};

use super::entry::{entry_key, inputs_key, payload_key};
use super::inputs::{BatchAt, Ended, Packed};
use super::ledger::KeptBatch;
use super::{FailureEntry, Replay, Room};
use crate::functions::to_json;
use crate::mapping::commit::{Attempt, GivenUp, Turn};
use crate::mapping::poller::limits_of;
use crate::mapping::resource::{Inner, Mapping, Origin};

/// Bytes that an entry takes beside its blobs, about: a trap report of 40 frames has 4 KiB.
const ENTRY_BYTES: u64 = 4 << 10;

/// Why an entry keeps no records.
const STORE_WAS_FULL: &str =
    "the failure store was full when they were given up (failures_max_mib in [server])";

/// Why there is no room for records that a mapping of the manifest would give up: its shard
/// pauses instead. A mapping of the API goes on: its entry keeps no records, and when there is
/// no room for entries either, it leaves none.
pub(in crate::mapping) fn full(
    inner: &Inner,
    mapping: &Mapping,
    batch: &Batch,
    why: &str,
) -> Option<String> {
    let asked = bytes_of(batch);
    if batch.is_empty()
        || mapping.origin != Origin::Manifest
        || inner.ledger.room(&mapping.scope, asked) >= Room::Records
    {
        return None;
    }
    let (used, allowed) = inner.ledger.used(&mapping.scope);
    Some(format!(
        "the failure store is full: {used} of {allowed} bytes are used and {asked} are needed: \
         redrive and delete failures (`shardmill failures delete`), or raise failures_max_mib in \
         [server]; then `shardmill mappings resume {}`. To be given up: {why}",
        mapping.name
    ))
}

/// Adds the entry for what a turn gives up, and gives it back. Without room for it there is only
/// the entry that is given back.
pub(in crate::mapping) fn keep(
    tx: &mut Tx,
    turn: &Turn<'_>,
    given_up: &GivenUp,
    (inner, mapping, shard): (&Inner, &Mapping, ShardId),
) -> FailureEntry {
    let room = inner.ledger.room(&mapping.scope, bytes_of(&given_up.batch));
    let mut entry = describe(turn, given_up, (inner, mapping, shard));
    let key = |of: fn(&_, &str) -> _| of(&mapping.scope, entry.id.as_str());
    let (entry_key, payload_key, inputs_key) = (key(entry_key), key(payload_key), key(inputs_key));
    // A mapping of the manifest was asked before (`full`): should others have taken the room
    // since, its entry goes over the bound rather than without its records. Parked ones are kept
    // elsewhere.
    let last_copy = !given_up.batch.is_empty() && !given_up.parked;
    let must_be_kept = last_copy && mapping.origin == Origin::Manifest;
    if room == Room::None && !must_be_kept {
        drop_entry(&entry, (inner, mapping, shard));
        return entry;
    }
    if room < Room::Records && !must_be_kept {
        if !given_up.batch.is_empty() || turn.attempt.is_some() {
            entry.withheld = Some(STORE_WAS_FULL.into());
        }
    } else {
        if !given_up.batch.is_empty() {
            let payload = given_up.batch.to_stored();
            entry.bytes += payload.len() as u64;
            tx.writes.push((payload_key, Value::Blob(payload.into())));
        }
        if let (Some(attempt), Some(replay)) = (turn.attempt, &mut entry.replay) {
            let packed = pack(turn, given_up, attempt, (inner, mapping, shard, &entry.id));
            replay.inexact = packed.inexact;
            entry.bytes += packed.blob.len() as u64;
            tx.writes.push((inputs_key, Value::Blob(packed.blob)));
        }
    }
    entry.bytes += to_json(&entry).len() as u64;
    inner
        .ledger
        .take(&mapping.scope, &entry.id, entry.bytes, entry.created);
    tx.writes.push((entry_key, Value::Inline(to_json(&entry))));
    entry
}

/// Counts an entry that is not kept, and says so now and then.
fn drop_entry(entry: &FailureEntry, (inner, mapping, shard): (&Inner, &Mapping, ShardId)) {
    let counts = inner.metrics_of(&mapping.id).shard(shard);
    counts.add(&counts.failures_dropped, 1);
    if let Some(dropped) = inner.ledger.dropped(entry.created) {
        let (used, allowed) = inner.ledger.used(&mapping.scope);
        tracing::warn!(
            dropped,
            used,
            allowed,
            mapping = entry.mapping,
            "the failure store is full: what is given up leaves no entry; `shardmill failures \
             delete` makes room, failures_max_mib in [server] gives more"
        );
    }
}

fn bytes_of(batch: &Batch) -> u64 {
    batch.packed_len(&BatchContext::default()) as u64 + ENTRY_BYTES
}

fn pack(
    turn: &Turn<'_>,
    given_up: &GivenUp,
    attempt: &Attempt,
    (inner, mapping, shard, id): (&Inner, &Mapping, ShardId, &str),
) -> Packed {
    let span = turn.batch.first_position().zip(turn.batch.end_position());
    let elsewhere = if given_up.batch.len() == turn.batch.len() {
        Some(BatchAt::Payload)
    } else {
        let other = span.and_then(|span| inner.ledger.batch_with(&mapping.id, shard, span));
        // Its transaction may have been refused.
        let other = other.filter(|other| {
            let found = inner.store.get(&inputs_key(&mapping.scope, other));
            found.is_ok_and(|found| found.is_some())
        });
        other
            .zip(span)
            .map(|(id, (from, _))| BatchAt::EndOf { id, from })
    };
    let here = elsewhere.is_none();
    let packed = attempt.given.pack(Ended {
        scope: &mapping.scope,
        outcome: &attempt.report.outcome,
        batch: turn.batch,
        elsewhere,
        roomy: inner.ledger.room(&mapping.scope, bytes_of(turn.batch)) == Room::Whole,
    });
    if let Some((from, to)) = span
        && here
        && packed.inexact.is_none()
    {
        let id = id.to_owned();
        let kept = KeptBatch { id, from, to };
        inner.ledger.keeps(&mapping.id, shard, kept);
    }
    packed
}

fn describe(
    turn: &Turn<'_>,
    given_up: &GivenUp,
    (inner, mapping, shard): (&Inner, &Mapping, ShardId),
) -> FailureEntry {
    let now = inner.clock.now();
    let batch = &given_up.batch;
    let first = batch.get(0);
    let last = batch.get(batch.len().saturating_sub(1));
    FailureEntry {
        id: inner.ledger.new_id(now),
        scope: mapping.scope.clone(),
        created: now,
        mapping: mapping.name.clone(),
        mapping_id: mapping.id.clone(),
        function: mapping.function.clone(),
        version: turn.loaded.function.version,
        digest: turn.loaded.function.digest.clone(),
        stream: mapping.stream.to_string(),
        shard: shard.to_string(),
        reason: given_up.reason,
        cause: given_up.cause.clone(),
        request_id: turn.part.request_id.clone(),
        invocations: turn.part.invocations + u32::from(turn.attempt.is_some()),
        records: match batch.len() {
            0 => given_up.span.to.record - given_up.span.from.record,
            len => len as u64,
        },
        span: Some(given_up.span),
        first_sequence_number: first.map(|r| r.sequence_number()),
        last_sequence_number: last.map(|r| r.sequence_number()),
        first_arrival: first.map(|r| r.arrival),
        last_arrival: last.map(|r| r.arrival),
        replay: turn
            .attempt
            .map(|attempt| circumstances(turn, given_up, attempt, inner)),
        parked: given_up.parked,
        redriven: None,
        redriven_to: None,
        bytes: 0,
        withheld: None,
        imported: None,
    }
}

fn circumstances(turn: &Turn<'_>, given_up: &GivenUp, attempt: &Attempt, inner: &Inner) -> Replay {
    let usage = attempt.report.usage;
    let first = given_up.batch.first_position();
    let at_first = |record: &RecordRef<'_>| Some(record.beginning()) == first;
    Replay {
        seed: attempt.seed.iter().map(|b| format!("{b:02x}")).collect(),
        now: attempt.now,
        fuel: usage.fuel,
        fuel_allowed: usage.fuel_allowed,
        memory_bytes: usage.memory_bytes,
        duration_micros: usage.duration.as_micros() as u64,
        limits: limits_of(turn.loaded, turn.window.is_some()),
        batch_len: turn.batch.len(),
        given_up_from: turn.batch.iter().position(|r| at_first(&r)).unwrap_or(0),
        engine: inner.sandbox.engine(),
        stderr_tail: attempt.report.stderr_tail.clone(),
        inexact: None,
    }
}
