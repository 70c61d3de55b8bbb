//! The failure store: every batch that is given up leaves an entry with its records, the reason
//! and what it takes to run it again. Entries are listed, shown and redriven.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shardmill_core::limits::FunctionLimits;
use shardmill_core::mapping::Reason;
use shardmill_core::outcome::{Cause, Outcome};
use shardmill_core::sandbox::{Input, Invocation};
use shardmill_core::{Batch, BatchContext, Sandbox, Scope, SequenceNumber, ShardId, UnixMillis};
use shardmill_store::{CommitError, Expect, Key, ReadError, Store, Table, Tx, Urgency, Value};
use uuid::{NoContext, Timestamp, Uuid};

use super::commit::{GivenUp, Owner, StoredState, Turn, add_effects, refused_emit};
use super::resource::Mapping;
use crate::clock::Clock;
use crate::functions::{FunctionError, Functions, to_json};

/// Conflicts after which a redrive gives up and says so.
const REDRIVE_TRIES: u32 = 10;

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
    /// How many records there are. Records that were trimmed are counted, but their data is gone.
    pub records: u64,
    /// Sequence number of the first record, if its data is kept.
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
    /// Records of the batch that was attempted, of which the entry keeps those given up.
    pub batch_len: usize,
    /// The end of standard error, at most 4 KiB.
    pub stderr_tail: String,
}

/// Which entries to list.
#[derive(Clone, Debug, Default)]
pub struct FailureFilter {
    /// Of this mapping, by name or UUID.
    pub mapping: Option<String>,
    /// Of this function.
    pub function: Option<String>,
    /// Also those that were redriven.
    pub redriven: bool,
    /// At most so many, newest first; 0: all.
    pub limit: usize,
}

/// Why an operation on the failure store was refused.
#[derive(Debug, thiserror::Error)]
pub enum FailuresError {
    /// There is no such entry.
    #[error("failure {0:?} does not exist: `shardmill failures list` shows the ids")]
    NotFound(String),
    /// It was redriven already.
    #[error("failure {0:?} was redriven already")]
    Redriven(String),
    /// Its records were trimmed before they could be delivered.
    #[error("failure {0:?} has no records: they were trimmed before they were delivered")]
    NoRecords(String),
    /// The function cannot be run.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What came of a redrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum RedriveOutcome {
    /// Every record is done; the effects are committed and the entry is marked.
    Done {
        /// How many records.
        records: usize,
    },
    /// The handler failed again; nothing was changed.
    Failed {
        /// How it failed.
        cause: String,
    },
}

/// Reads and redrives entries.
#[derive(Clone)]
pub struct Failures {
    store: Arc<dyn Store>,
    sandbox: Arc<dyn Sandbox>,
    functions: Arc<Functions>,
    clock: Clock,
}

impl Failures {
    /// Over this store.
    pub fn new(
        store: Arc<dyn Store>,
        sandbox: Arc<dyn Sandbox>,
        functions: Arc<Functions>,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            sandbox,
            functions,
            clock,
        }
    }

    /// The entries of a scope, newest first.
    ///
    /// # Errors
    /// See [`FailuresError`].
    pub fn list(
        &self,
        scope: &Scope,
        filter: &FailureFilter,
    ) -> Result<Vec<FailureEntry>, FailuresError> {
        let stored = self
            .store
            .scan(&Key::new(Table::Failure, scope), None, usize::MAX)?;
        let mut entries = Vec::new();
        for (_, value) in stored.iter().rev() {
            let Ok(entry) = parse(&value.value) else {
                tracing::error!("an entry of the failure store is damaged and left out");
                continue;
            };
            let wanted = |filter: &Option<String>, values: &[&String]| {
                filter.as_ref().is_none_or(|f| values.contains(&f))
            };
            if wanted(&filter.mapping, &[&entry.mapping, &entry.mapping_id])
                && wanted(&filter.function, &[&entry.function])
                && (filter.redriven || entry.redriven.is_none())
            {
                entries.push(entry);
            }
            if filter.limit > 0 && entries.len() == filter.limit {
                break;
            }
        }
        Ok(entries)
    }

    /// One entry.
    ///
    /// # Errors
    /// See [`FailuresError`].
    pub fn get(&self, scope: &Scope, id: &str) -> Result<FailureEntry, FailuresError> {
        Ok(self.find(scope, id)?.0)
    }

    /// The records of an entry; empty when they were trimmed.
    ///
    /// # Errors
    /// See [`FailuresError`].
    pub async fn payload(&self, scope: &Scope, id: &str) -> Result<Batch, FailuresError> {
        self.find(scope, id)?;
        let Some(stored) = self.store.blob(&payload_key(scope, id)).await? else {
            return Ok(Batch::default());
        };
        let damaged = || ReadError::Damaged(format!("payload of failure {id}"));
        Ok(Batch::from_stored(stored).map_err(|_| damaged())?)
    }

    /// Runs the entry's records through the function as it is now. The effects and the entry's
    /// mark are one transaction; a batch that fails again changes nothing.
    ///
    /// # Errors
    /// See [`FailuresError`].
    pub async fn redrive(&self, scope: &Scope, id: &str) -> Result<RedriveOutcome, FailuresError> {
        let batch = self.payload(scope, id).await?;
        if batch.is_empty() {
            return Err(FailuresError::NoRecords(id.into()));
        }
        let mut tries = 0;
        loop {
            let (mut entry, revision) = self.find(scope, id)?;
            if entry.redriven.is_some() {
                return Err(FailuresError::Redriven(id.into()));
            }
            let report = self.attempt(scope, &entry, &batch).await?;
            let failed = |cause: String| Ok(RedriveOutcome::Failed { cause });
            match report.outcome {
                Outcome::Ok { .. } | Outcome::Json { .. } => {}
                Outcome::Failed(failure) => return failed(failure.cause.to_string()),
                Outcome::Throttled { reason } => return failed(format!("throttled: {reason}")),
                Outcome::Partial {
                    failed: records, ..
                } => {
                    return failed(format!(
                        "the handler named {} records as failed",
                        records.len()
                    ));
                }
            }
            let effects = &report.effects;
            if let Some(refused) =
                refused_emit(self.store.as_ref(), scope, effects, &batch, batch.len())
            {
                return failed(refused.cause.to_string());
            }
            let key = entry_key(scope, id);
            entry.redriven = Some(self.clock.now());
            let mut tx = Tx {
                expect: vec![Expect::Revision(key.clone(), Some(revision))],
                writes: vec![(key, Value::Inline(to_json(&entry)))],
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            let owner = Owner {
                scope,
                function: &entry.function,
            };
            add_effects(&mut tx, self.store.as_ref(), owner, effects, &batch);
            match self.store.commit(tx).await {
                Ok(_) => {
                    return Ok(RedriveOutcome::Done {
                        records: batch.len(),
                    });
                }
                Err(CommitError::Conflict(_)) if tries < REDRIVE_TRIES => tries += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn attempt(
        &self,
        scope: &Scope,
        entry: &FailureEntry,
        batch: &Batch,
    ) -> Result<shardmill_core::sandbox::Report, FailuresError> {
        let loaded = self.functions.get(scope, &entry.function).await?;
        let input = if loaded.carrier().takes_json() {
            let source = entry.event_source();
            Input::Event {
                json: source.event(batch),
                count: batch.len(),
            }
        } else {
            Input::Records(batch.clone())
        };
        let invocation = Invocation {
            module: Arc::clone(&loaded.module),
            input,
            context: BatchContext {
                stream: entry.stream.clone(),
                shard: entry.shard.clone(),
                request_id: Uuid::new_v4().to_string(),
                function: loaded.function.name.clone(),
                version: loaded.function.version.to_string(),
                tenant: scope.tenant.to_string(),
                attempt: entry.invocations + 1,
                ..BatchContext::default()
            },
            limits: loaded.function.settings.limits.clone(),
            environment: Arc::clone(&loaded.environment),
            state: Arc::new(StoredState {
                store: Arc::clone(&self.store),
                scope: scope.clone(),
                function: entry.function.clone(),
            }),
            now: self.clock.now(),
            seed: *Uuid::new_v4()
                .as_bytes()
                .repeat(2)
                .first_chunk()
                .unwrap_or(&[0; 32]),
        };
        Ok(self.sandbox.invoke(invocation).await)
    }

    fn find(&self, scope: &Scope, id: &str) -> Result<(FailureEntry, u64), FailuresError> {
        let stored = self.store.get(&entry_key(scope, id))?;
        let stored = stored.ok_or_else(|| FailuresError::NotFound(id.into()))?;
        Ok((parse(&stored.value)?, stored.revision))
    }
}

impl FailureEntry {
    /// The entry for what a turn gives up.
    pub(super) fn of(
        turn: &Turn<'_>,
        given_up: &GivenUp,
        mapping: &Mapping,
        shard: ShardId,
        now: UnixMillis,
    ) -> Self {
        let time =
            Timestamp::from_unix(NoContext, now.seconds(), (now.0 % 1000) as u32 * 1_000_000);
        let first = given_up.batch.get(0);
        let last = given_up.batch.get(given_up.batch.len().saturating_sub(1));
        Self {
            id: Uuid::new_v7(time).to_string(),
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
            records: match given_up.batch.len() {
                0 => given_up.span.to.record - given_up.span.from.record,
                len => len as u64,
            },
            first_sequence_number: first.map(|r| r.sequence_number()),
            last_sequence_number: last.map(|r| r.sequence_number()),
            first_arrival: first.map(|r| r.arrival),
            last_arrival: last.map(|r| r.arrival),
            replay: turn.attempt.map(|attempt| {
                let usage = attempt.report.usage;
                Replay {
                    seed: attempt.seed.iter().map(|b| format!("{b:02x}")).collect(),
                    now: attempt.now,
                    fuel: usage.fuel,
                    fuel_allowed: usage.fuel_allowed,
                    memory_bytes: usage.memory_bytes,
                    duration_micros: usage.duration.as_micros() as u64,
                    limits: turn.loaded.function.settings.limits.clone(),
                    batch_len: turn.batch.len(),
                    stderr_tail: attempt.report.stderr_tail.clone(),
                }
            }),
            parked: given_up.parked,
            redriven: None,
        }
    }

    /// Writes the entry and its records.
    pub(super) fn add_to(&self, tx: &mut Tx, batch: &Batch) {
        tx.writes.push((
            entry_key(&self.scope, &self.id),
            Value::Inline(to_json(self)),
        ));
        if !batch.is_empty() {
            let payload = Bytes::from(batch.to_stored());
            tx.writes
                .push((payload_key(&self.scope, &self.id), Value::Blob(payload)));
        }
    }

    fn event_source(&self) -> shardmill_core::event::EventSource {
        shardmill_core::event::EventSource::new(&self.scope, &self.stream)
    }
}

fn parse(bytes: &[u8]) -> Result<FailureEntry, FailuresError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ReadError::Damaged(format!("failure entry: {error}")).into())
}

fn entry_key(scope: &Scope, id: &str) -> Key {
    Key::new(Table::Failure, scope).part(id)
}

fn payload_key(scope: &Scope, id: &str) -> Key {
    Key::new(Table::FailurePayload, scope).part(id)
}
