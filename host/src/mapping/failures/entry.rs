//! What is stored of an entry: its JSON, and beside it two blobs, the records that were given up
//! and what their last attempt ran on (`inputs`).
//!
//! ```text
//! Failure         id             JSON of FailureEntry
//! FailurePayload  id             the records, in a batch's stored form
//! FailurePayload  id, "inputs"   what the attempt ran on
//! ```
//!
//! Ids are UUIDv7 that count up within a millisecond: a later entry of this process sorts behind
//! an earlier one.

use serde::{Deserialize, Serialize};
use shardmill_core::limits::FunctionLimits;
use shardmill_core::mapping::{Reason, Span};
use shardmill_core::outcome::{Cause, Frame};
use shardmill_core::{Scope, SequenceNumber, UnixMillis};
use shardmill_store::{Key, ReadError, Table};
use uuid::{Builder, Uuid};

/// Length of an id in characters.
pub(super) const ID_LEN: usize = 36;

/// The millisecond of the last id, and how many there were in it before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LastId(u64, u16);

/// One entry of the failure store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailureEntry {
    /// Its id; ids of later entries sort behind it.
    pub id: String,
    /// Account and region.
    pub scope: Scope,
    /// When it was made.
    pub created: UnixMillis,
    /// The mapping's name.
    pub mapping: String,
    /// The mapping's UUID.
    pub mapping_id: String,
    /// The function.
    pub function: String,
    /// The function's version that ran, or would have run.
    pub version: u64,
    /// SHA-256 of its module.
    pub digest: String,
    /// The stream.
    pub stream: String,
    /// The shard.
    pub shard: String,
    /// Why the records were given up.
    pub reason: Reason,
    /// How the last attempt failed; absent when no handler ran.
    pub cause: Option<Cause>,
    /// The request id of the last attempt.
    pub request_id: String,
    /// Invocations of the batch's first record.
    pub invocations: u32,
    /// How many records there are. Records whose data is gone are counted.
    pub records: u64,
    /// Where the records lie in their shard; other lanes' records and such as were filtered out
    /// may lie between them. Absent in entries of older versions.
    #[serde(default)]
    pub span: Option<Span>,
    /// Sequence number of the first record, if it is known.
    pub first_sequence_number: Option<SequenceNumber>,
    /// Sequence number of the last record.
    pub last_sequence_number: Option<SequenceNumber>,
    /// When the first record arrived.
    pub first_arrival: Option<UnixMillis>,
    /// When the last record arrived.
    pub last_arrival: Option<UnixMillis>,
    /// What it takes to run the attempt again.
    pub replay: Option<Replay>,
    /// Whether the records are parked, and so delivered when their keys are let go on.
    #[serde(default)]
    pub parked: bool,
    /// When the entry was redriven with success.
    pub redriven: Option<UnixMillis>,
    /// The stream that its records were put to again, if that is how it was redriven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redriven_to: Option<String>,
    /// Bytes that it takes: entry, records and inputs.
    #[serde(default)]
    pub bytes: u64,
    /// Why its records are not kept, where that is the host's decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
    /// Where it comes from, if it was imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Imported>,
}

/// The circumstances of the last attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Replay {
    /// Seed of the guest's randomness, hexadecimal.
    pub seed: String,
    /// The guest's wall clock.
    pub now: UnixMillis,
    /// Fuel used, units.
    pub fuel: u64,
    /// Fuel allowed, units.
    pub fuel_allowed: u64,
    /// Highest size of linear memory, bytes.
    pub memory_bytes: u64,
    /// Its own running and sleeping, microseconds.
    pub duration_micros: u64,
    /// The limits.
    pub limits: FunctionLimits,
    /// Records of the batch that was attempted.
    pub batch_len: usize,
    /// Index in that batch of the first record that was given up.
    #[serde(default)]
    pub given_up_from: usize,
    /// The engine that ran it.
    #[serde(default)]
    pub engine: String,
    /// The end of standard error, at most 4 KiB.
    pub stderr_tail: String,
    /// Why a replay cannot be exact, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inexact: Option<String>,
}

/// Where an imported entry comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Its id there.
    pub id: String,
    /// Its account and region there.
    pub scope: Scope,
    /// When it was made there.
    pub created: UnixMillis,
}

impl FailureEntry {
    /// The guest's stack where the last attempt ended, innermost first.
    pub fn frames(&self) -> &[Frame] {
        self.cause.as_ref().map_or(&[], |cause| match cause {
            Cause::Trap { frames, .. }
            | Cause::OutOfFuel { frames, .. }
            | Cause::OutOfMemory { frames, .. } => frames,
            Cause::HandlerError { .. }
            | Cause::TimedOut { .. }
            | Cause::Exited { .. }
            | Cause::EffectsExceeded { .. }
            | Cause::ResponseTooLarge { .. }
            | Cause::BadAnswer { .. }
            | Cause::EffectsRefused { .. } => &[],
        })
    }

    /// Whether its records are kept, and whoever delivers them again delivers them once.
    pub(super) fn can_be_redriven(&self) -> bool {
        let kept = self.first_sequence_number.is_some() && self.withheld.is_none();
        kept && self.imported.is_none() && !self.parked
    }

    /// Why there are no records, for people.
    pub(super) fn why_no_records(&self) -> String {
        if self.records == 0 {
            return "it is the final invocation of a window".into();
        }
        let trimmed = "they were trimmed before they were delivered";
        self.withheld.clone().unwrap_or_else(|| trimmed.into())
    }
}

/// An id for an entry that is made at `now`: 48 bits of milliseconds, 12 bits that count within
/// one, and chance.
pub(super) fn new_id(last: &mut LastId, now: UnixMillis) -> String {
    /// What 12 bits hold.
    const MOST: u16 = 0x0fff;
    *last = match *last {
        LastId(millis, count) if millis == now.0 => LastId(millis, (count + 1).min(MOST)),
        _ => LastId(now.0, 0),
    };
    let LastId(_, count) = *last;
    let mut rest: [u8; 10] = rand::random();
    rest[..2].copy_from_slice(&count.to_be_bytes());
    Builder::from_unix_timestamp_millis(now.0, &rest)
        .into_uuid()
        .to_string()
}

/// The least id of an instant: those of entries that were made then or later are not below it.
pub(super) fn first_id_of(instant: UnixMillis) -> String {
    let millis = (instant.0 & 0xffff_ffff_ffff) as u128;
    Uuid::from_u128(millis << 80).to_string()
}

pub(super) fn parse(bytes: &[u8]) -> Result<FailureEntry, ReadError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ReadError::Damaged(format!("failure entry: {error}")))
}

pub(super) fn entry_key(scope: &Scope, id: &str) -> Key {
    Key::new(Table::Failure, scope).part(id)
}

pub(super) fn payload_key(scope: &Scope, id: &str) -> Key {
    Key::new(Table::FailurePayload, scope).part(id)
}

pub(super) fn inputs_key(scope: &Scope, id: &str) -> Key {
    payload_key(scope, id).part("inputs")
}

/// The prefix of the entries whose ids begin with `start`, at most [`ID_LEN`] characters.
pub(super) fn entries_beginning(scope: &Scope, start: &str) -> Key {
    let whole = entry_key(scope, &format!("{start:-<ID_LEN$}"));
    let cut = whole.as_bytes().len() - (ID_LEN - start.len());
    Key::from_bytes(whole.as_bytes()[..cut].to_vec())
}

/// The id in an entry's key.
pub(super) fn id_of(key: &Key) -> Option<String> {
    let (_, parts) = key.split()?;
    String::from_utf8(parts.last()?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_as_they_were_made() {
        let now = UnixMillis(4_102_444_800_000);
        let mut last = LastId::default();
        let ids: Vec<String> = (0..1000)
            .map(|n| new_id(&mut last, UnixMillis(now.0 + n / 400)))
            .collect();
        assert!(ids.is_sorted());
        let later = first_id_of(UnixMillis(now.0 + 1));
        assert_eq!(ids.iter().filter(|id| **id < later).count(), 400);
    }

    #[test]
    fn a_beginning_finds_the_keys_that_begin_so() {
        let scope = Scope::default();
        let id = new_id(&mut LastId::default(), UnixMillis(1_700_000_000_000));
        let key = entry_key(&scope, &id);
        for len in 1..=ID_LEN {
            let prefix = entries_beginning(&scope, &id[..len]);
            assert!(key.as_bytes().starts_with(prefix.as_bytes()), "{len}");
        }
        assert_eq!(id_of(&key), Some(id));
    }
}
