//! Redrive: an entry's records once more for good, either through the function as it is now, or
//! to their stream. The effects, or the records, and the entry's mark are one transaction.

use std::sync::Arc;

use serde::Serialize;
use shardmill_core::event::EventSource;
use shardmill_core::mapping::{Judgement, Policy, judge};
use shardmill_core::outcome::Outcome;
use shardmill_core::sandbox::{Input, Invocation, Report};
use shardmill_core::{Batch, BatchContext, Records, Scope, StreamName, UnixMillis};
use shardmill_store::{Append, CommitError, Expect, Key, Route, Table, Tx, Urgency, Value};
use uuid::Uuid;

use super::entry::entry_key;
use super::{FailureEntry, Failures, FailuresError};
use crate::functions::{Loaded, to_json};
use crate::mapping::commit::{FunctionGuard, Owner, StoredState, add_effects, refused_emit};
use crate::mapping::resource::Mapping;

/// Conflicts after which a redrive runs alone among the batches of its function, as a batch does.
const CONFLICTS_BEFORE_LOCK: u32 = 3;
/// Conflicts after which a redrive gives up and says so: alone, it can only meet writers that
/// are no batches.
const REDRIVE_TRIES: u32 = 10;

/// What came of a redrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum RedriveOutcome {
    /// Every record is done, or in its stream; the entry is marked.
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

impl Failures {
    /// Runs the entry's records through the function as it is now. A batch that fails again
    /// changes nothing. One of a tumbling window is refused: there is no window to give its
    /// state to.
    ///
    /// # Errors
    /// See [`FailuresError`].
    pub async fn redrive(&self, scope: &Scope, id: &str) -> Result<RedriveOutcome, FailuresError> {
        let batch = self.records(scope, id).await?;
        if self.is_of_window(scope, id).await? {
            return Err(FailuresError::Window(id.into()));
        }
        let mut tries = 0;
        loop {
            let (mut entry, revision) = self.to_redrive(scope, id)?;
            let lock = self.inner.function_lock(scope, &entry.function);
            let _guard = if tries < CONFLICTS_BEFORE_LOCK {
                FunctionGuard::Shared {
                    _guard: lock.read_owned().await,
                }
            } else {
                FunctionGuard::Alone {
                    _guard: lock.write_owned().await,
                }
            };
            let report = self.attempt(scope, &entry, &batch).await?;
            if let Outcome::Throttled { reason } = report.outcome {
                return Err(FailuresError::Throttled(reason));
            }
            let effects = &report.effects;
            let store = self.inner.store.as_ref();
            let policy = self.policy_of(scope, &entry)?;
            let failed =
                failure_of(judge(report.outcome, effects, &batch, &policy)).or_else(|| {
                    refused_emit(store, scope, effects, &batch, batch.len())
                        .map(|refused| refused.cause.to_string())
                });
            if let Some(cause) = failed {
                return Ok(RedriveOutcome::Failed { cause });
            }
            entry.redriven = Some(self.inner.clock.now());
            let mut tx = mark(&entry, scope, revision);
            let owner = Owner {
                scope,
                function: &entry.function,
            };
            add_effects(&mut tx, store, owner, effects, &batch);
            match store.commit(tx).await {
                Ok(_) => {
                    let records = batch.len();
                    return Ok(RedriveOutcome::Done { records });
                }
                Err(CommitError::Conflict(_)) if tries < REDRIVE_TRIES => tries += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Puts the entry's records to their stream again, behind what is there, with their keys.
    /// Every mapping of the stream sees them once more.
    ///
    /// # Errors
    /// See [`FailuresError`].
    pub async fn to_stream(
        &self,
        scope: &Scope,
        id: &str,
    ) -> Result<RedriveOutcome, FailuresError> {
        let batch = self.records(scope, id).await?;
        let (mut entry, revision) = self.to_redrive(scope, id)?;
        let name: Result<StreamName, _> = entry.stream.parse();
        let found = name
            .ok()
            .and_then(|name| self.inner.store.stream(scope, &name));
        let stream = found.filter(|stream| stream.deleted.is_none());
        let stream = stream.ok_or_else(|| FailuresError::NoStream(entry.stream.clone()))?;
        let mut records = Records::default();
        for record in batch.iter() {
            records.push_parts(record.parts);
        }
        entry.redriven = Some(self.inner.clock.now());
        entry.redriven_to = Some(entry.stream.clone());
        let tx = Tx {
            appends: vec![Append {
                stream: stream.id,
                route: Route::HashKey,
                records,
            }],
            urgency: Urgency::Growth,
            ..mark(&entry, scope, revision)
        };
        match self.inner.store.commit(tx).await {
            Ok(_) => Ok(RedriveOutcome::Done {
                records: batch.len(),
            }),
            // Somebody else was faster.
            Err(CommitError::Conflict(_)) => Err(FailuresError::Redriven(id.into())),
            Err(error) => Err(error.into()),
        }
    }

    /// The records, of which there must be some.
    async fn records(&self, scope: &Scope, id: &str) -> Result<Batch, FailuresError> {
        let (entry, _) = self.to_redrive(scope, id)?;
        let batch = self.payload(scope, id).await?;
        if batch.is_empty() {
            return Err(FailuresError::NoRecords {
                id: id.into(),
                why: entry.why_no_records(),
            });
        }
        Ok(batch)
    }

    fn to_redrive(&self, scope: &Scope, id: &str) -> Result<(FailureEntry, u64), FailuresError> {
        let (entry, revision) = self.find(scope, id)?;
        if entry.imported.is_some() {
            return Err(FailuresError::Imported(id.into()));
        }
        if entry.parked {
            return Err(FailuresError::Parked(id.into()));
        }
        if entry.redriven.is_some() {
            return Err(FailuresError::Redriven(id.into()));
        }
        Ok((entry, revision))
    }

    /// Whether the attempt had a tumbling window, or one with these records would have.
    async fn is_of_window(&self, scope: &Scope, id: &str) -> Result<bool, FailuresError> {
        let (entry, _) = self.find(scope, id)?;
        if self.policy_of(scope, &entry)?.window().is_some() {
            return Ok(true);
        }
        let inputs = self.read_inputs(scope, id).await?;
        Ok(inputs.is_some_and(|inputs| inputs.context.window.1 > UnixMillis(0)))
    }

    /// How the entry's mapping reads answers; AWS's way where it is gone.
    fn policy_of(&self, scope: &Scope, entry: &FailureEntry) -> Result<Policy, FailuresError> {
        let mapping = self.mapping_of(scope, entry)?;
        Ok(mapping.map_or_else(Policy::aws, |mapping| mapping.policy))
    }

    fn mapping_of(
        &self,
        scope: &Scope,
        entry: &FailureEntry,
    ) -> Result<Option<Mapping>, FailuresError> {
        let all = self.inner.stored(&Key::new(Table::Mapping, scope))?;
        Ok(all
            .into_iter()
            .find(|mapping| mapping.id == entry.mapping_id))
    }

    /// What the entry's mapping runs now; `$LATEST` where the mapping is gone, or runs something
    /// else.
    async fn version_for(
        &self,
        scope: &Scope,
        entry: &FailureEntry,
        request_id: &str,
    ) -> Result<Arc<Loaded>, FailuresError> {
        let functions = &self.inner.functions;
        let mapping = self.mapping_of(scope, entry)?;
        let Some(mapping) = mapping.filter(|mapping| mapping.function == entry.function) else {
            return Ok(functions.get(scope, &entry.function).await?);
        };
        let running = self.inner.running(&mapping)?;
        let ready = functions.ready(scope, &running.route).await?;
        Ok(Arc::clone(ready.choose(request_id)))
    }

    async fn attempt(
        &self,
        scope: &Scope,
        entry: &FailureEntry,
        batch: &Batch,
    ) -> Result<Report, FailuresError> {
        let request_id = Uuid::new_v4().to_string();
        let loaded = self.version_for(scope, entry, &request_id).await?;
        let input = if loaded.carrier().takes_json() {
            Input::Event {
                json: EventSource::new(scope, &entry.stream).event(batch),
                count: batch.len(),
            }
        } else {
            Input::Records(batch.clone())
        };
        let invocation = Invocation {
            owner: Arc::clone(&loaded.owner),
            mapping: Some(entry.mapping.as_str().into()),
            module: Arc::clone(&loaded.module),
            input,
            context: BatchContext {
                stream: entry.stream.clone(),
                shard: entry.shard.clone(),
                request_id,
                function: loaded.function.name.clone(),
                version: loaded.function.label(),
                tenant: scope.tenant.to_string(),
                attempt: entry.invocations + 1,
                ..BatchContext::default()
            },
            limits: loaded.function.settings.limits.clone(),
            environment: Arc::clone(&loaded.environment),
            state: Arc::new(StoredState {
                store: Arc::clone(&self.inner.store),
                scope: scope.clone(),
                function: entry.function.clone(),
            }),
            now: self.inner.clock.now(),
            seed: rand::random(),
        };
        Ok(self.inner.sandbox.invoke(invocation).await)
    }
}

/// Why an attempt is no success, if it is none.
fn failure_of(judgement: Judgement) -> Option<String> {
    match judgement {
        Judgement::Success => None,
        Judgement::Failed(failure) => Some(failure.cause.to_string()),
        Judgement::Throttled(reason) => Some(reason),
        Judgement::Partial(lowest) => Some(format!(
            "the handler named records as failed, the first at index {lowest}"
        )),
    }
}

/// The transaction that marks an entry, if it is still as it was read.
fn mark(entry: &FailureEntry, scope: &Scope, revision: u64) -> Tx {
    let key = entry_key(scope, &entry.id);
    Tx {
        expect: vec![Expect::Revision(key.clone(), Some(revision))],
        writes: vec![(key, Value::Inline(to_json(entry)))],
        urgency: Urgency::Housekeeping,
        ..Tx::default()
    }
}
