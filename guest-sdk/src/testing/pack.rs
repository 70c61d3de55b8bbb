//! Writes batch buffers: what the host does, for tests and benchmarks without one.
//!
//! The layout of `docs/abi.md`, parts in the order drawn there, each record's key, data and hash
//! key side by side in the blob.

use crate::abi::{
    BATCH_MAGIC, ENTRY_BYTES, FLAG_WINDOW_ENDED_EARLY, FLAG_WINDOW_FINAL, HEADER_BYTES, KIND_EVENT,
    KIND_RECORDS, VERSION,
};
use crate::{Invocation, SequenceNumber};

/// What a handler under test finds in its context.
pub const INVOCATION: Invocation<'static> = Invocation {
    stream: "stream",
    shard: "shardId-000000000000",
    request_id: "00000000-0000-0000-0000-000000000000",
    function: "function",
    version: "$LATEST",
    tenant: "000000000000",
    attempt: 1,
    deadline_ms: 3_000,
    window: None,
};

/// A record to hand to a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRecord {
    /// The partition key. Keyed state belongs to it.
    pub partition_key: String,
    /// The data.
    pub data: Vec<u8>,
    /// Where it is 0, [`pack`] puts the record's place in the batch, from 1.
    pub sequence_number: SequenceNumber,
    /// Approximate arrival, in milliseconds since the Unix epoch.
    pub arrival_ms: u64,
    /// Position inside an aggregate.
    pub sub_sequence: u32,
    /// The explicit hash key, if one was given.
    pub explicit_hash_key: Option<u128>,
}

/// A record with this partition key and data, and nothing else of note.
pub fn record(partition_key: impl Into<String>, data: impl Into<Vec<u8>>) -> TestRecord {
    TestRecord {
        partition_key: partition_key.into(),
        data: data.into(),
        sequence_number: SequenceNumber::default(),
        arrival_ms: 0,
        sub_sequence: 0,
        explicit_hash_key: None,
    }
}

/// A batch buffer of records. Panics past 4 GiB.
pub fn pack(invocation: &Invocation<'_>, records: &[TestRecord]) -> Vec<u8> {
    let mut out = head(invocation);
    let index_off = out.len();
    out.resize(index_off + records.len() * ENTRY_BYTES, 0);
    let blob_off = out.len();
    for (i, record) in records.iter().enumerate() {
        let key_off = append(&mut out, record.partition_key.as_bytes());
        let data_off = append(&mut out, &record.data);
        let hash_off = record
            .explicit_hash_key
            .map_or(0, |hash| append(&mut out, &hash.to_le_bytes()));
        let sequence_number = match record.sequence_number {
            none if none == SequenceNumber::default() => SequenceNumber::from(i as u128 + 1),
            given => given,
        };
        let entry = &mut out[index_off + i * ENTRY_BYTES..][..ENTRY_BYTES];
        put(entry, 0, &key_off.to_le_bytes());
        put(entry, 4, &length(record.partition_key.len()).to_le_bytes());
        put(entry, 8, &data_off.to_le_bytes());
        put(entry, 12, &length(record.data.len()).to_le_bytes());
        put(entry, 16, &sequence_number.to_le_bytes());
        put(entry, 40, &record.arrival_ms.to_le_bytes());
        put(entry, 52, &record.sub_sequence.to_le_bytes());
        put(entry, 56, &hash_off.to_le_bytes());
    }
    put(&mut out, 6, &KIND_RECORDS.to_le_bytes());
    put(&mut out, 12, &length(records.len()).to_le_bytes());
    put(&mut out, 16, &length(index_off).to_le_bytes());
    finish(out, blob_off)
}

/// A batch buffer that holds one JSON event.
pub fn pack_event(invocation: &Invocation<'_>, event: &str) -> Vec<u8> {
    let mut out = head(invocation);
    let blob_off = out.len();
    append(&mut out, event.as_bytes());
    put(&mut out, 6, &KIND_EVENT.to_le_bytes());
    finish(out, blob_off)
}

/// The header, but for what the contents decide, and the strings, up to a multiple of 8.
fn head(invocation: &Invocation<'_>) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    put(&mut out, 0, &BATCH_MAGIC.to_le_bytes());
    put(&mut out, 4, &VERSION.to_le_bytes());
    put(&mut out, 28, &length(HEADER_BYTES).to_le_bytes());
    put(&mut out, 48, &invocation.deadline_ms.to_le_bytes());
    put(&mut out, 56, &invocation.attempt.to_le_bytes());
    if let Some(window) = invocation.window {
        let is_final = if window.is_final {
            FLAG_WINDOW_FINAL
        } else {
            0
        };
        let ended_early = if window.ended_early {
            FLAG_WINDOW_ENDED_EARLY
        } else {
            0
        };
        put(&mut out, 32, &window.start_ms.to_le_bytes());
        put(&mut out, 40, &window.end_ms.to_le_bytes());
        put(&mut out, 60, &(is_final | ended_early).to_le_bytes());
    }
    let strings = [
        invocation.stream,
        invocation.shard,
        invocation.request_id,
        invocation.function,
        invocation.version,
        invocation.tenant,
        invocation.window.map_or("", |window| window.state),
    ];
    for text in strings {
        append(&mut out, &length(text.len()).to_le_bytes());
        append(&mut out, text.as_bytes());
    }
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

fn finish(mut out: Vec<u8>, blob_off: usize) -> Vec<u8> {
    let total = out.len();
    put(&mut out, 8, &length(total).to_le_bytes());
    put(&mut out, 20, &length(blob_off).to_le_bytes());
    put(&mut out, 24, &length(total - blob_off).to_le_bytes());
    out
}

/// Appends `bytes` and gives their offset.
fn append(out: &mut Vec<u8>, bytes: &[u8]) -> u32 {
    let off = length(out.len());
    out.extend_from_slice(bytes);
    off
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn length(len: usize) -> u32 {
    u32::try_from(len).expect("a batch is below 4 GiB")
}
