//! Replay: the attempt of an entry once more, in this host's sandbox, without any effect being
//! committed. On the module that ran it tells whether the outcome is the same; on another one it
//! tells what that makes of the same inputs.
//!
//! The same is: the same cause at the same record, the same fuel to the unit, the same standard
//! error. An attempt that was cut off by its wall clock is stopped at the fuel that it had used.
//! Fuel is compared only where engine and inputs are those of the attempt.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::event::EventSource;
use shardmill_core::outcome::Outcome;
use shardmill_core::sandbox::{Again, Input, Invocation, Module, Owner, Report};
use shardmill_core::{Batch, Scope};
use shardmill_store::ReadError;

use super::compare::{Difference, compare, was_cut_off};
use super::entry::{inputs_key, payload_key};
use super::inputs::{BatchAt, Inputs, Remembered};
use super::{FailureEntry, Failures, FailuresError, Replay, read_batch};
use crate::functions::FunctionError;

/// A replay may take this many times the wall clock of its function: the machine may be slower.
const PATIENCE: u32 = 10;
/// But no less than this.
const LEAST_PATIENCE: Duration = Duration::from_secs(30);

/// What a replay came to.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The entry.
    pub entry: FailureEntry,
    /// How the recorded attempt ended in the sandbox.
    pub recorded: Outcome,
    /// How the replay ended, with its effects, which are not committed.
    pub report: Report,
    /// SHA-256 of the module that was replayed.
    pub digest: String,
    /// Whether the outcome is the recorded one; `None` when another module was run.
    pub same: Option<bool>,
    /// What is not the same.
    pub differences: Vec<Difference>,
    /// What the comparison cannot claim, and why.
    pub warnings: Vec<String>,
}

/// What an attempt ran on, with its batch in hand.
pub(super) struct Whole {
    pub(super) inputs: Inputs,
    /// The batch that was attempted; only what was given up where the rest is not kept.
    pub(super) batch: Batch,
    /// Why this is not all of it, if it is not.
    pub(super) inexact: Option<String>,
}

impl Failures {
    /// Runs an entry's attempt again, on its own module or on `other`.
    ///
    /// # Errors
    /// See [`FailuresError`].
    pub async fn replay(
        &self,
        scope: &Scope,
        id: &str,
        other: Option<Bytes>,
    ) -> Result<Replayed, FailuresError> {
        let entry = self.get(scope, id)?;
        let Some(replay) = entry.replay.clone() else {
            return Err(FailuresError::NoAttempt(id.into()));
        };
        let Whole {
            inputs,
            batch,
            inexact,
        } = self.inputs(scope, &entry).await?;
        let own = other.is_none();
        let module = match other {
            Some(wasm) => self
                .inner
                .sandbox
                .load(wasm)
                .await
                .map_err(FunctionError::from),
            None => self.module(scope, &entry.digest).await,
        };
        let module = module?;
        let mut warnings = Vec::new();
        warnings.extend(inexact);
        let engine = self.inner.sandbox.engine();
        if own && engine != replay.engine {
            warnings.push(format!(
                "it ran on {}, this is {engine}: fuel is not compared",
                replay.engine
            ));
        }
        let exact = warnings.is_empty();
        let digest = module.digest().to_owned();
        let state = Arc::new(Remembered::new(inputs.state.clone()));
        let again = Again {
            stop_at_fuel: (own && exact && was_cut_off(&inputs.outcome)).then_some(replay.fuel),
            timeout: replay
                .limits
                .timeout
                .saturating_mul(PATIENCE)
                .max(LEAST_PATIENCE),
        };
        let invocation = invocation(module, &replay, &inputs, batch, &state)?;
        let report = self.inner.sandbox.replay(invocation, again).await;
        if let Outcome::Throttled { reason } = report.outcome {
            return Err(FailuresError::Throttled(reason));
        }
        let unknown = state.unknown();
        if !unknown.is_empty() {
            let names: Vec<String> = unknown
                .iter()
                .take(5)
                .map(|(k, n)| format!("{k}/{n}"))
                .collect();
            warnings.push(format!(
                "it read {} values of keyed state that the recorded attempt did not read, and found none: {}",
                unknown.len(),
                names.join(", ")
            ));
        }
        let differences = if own {
            compare(&inputs.outcome, &replay, &report, exact)
        } else {
            Vec::new()
        };
        Ok(Replayed {
            same: own.then_some(differences.is_empty()),
            recorded: inputs.outcome,
            entry,
            report,
            digest,
            differences,
            warnings,
        })
    }

    /// What the attempt of an entry ran on.
    pub(super) async fn inputs(
        &self,
        scope: &Scope,
        entry: &FailureEntry,
    ) -> Result<Whole, FailuresError> {
        let id = entry.id.as_str();
        let Some(inputs) = self.read_inputs(scope, id).await? else {
            return Err(match &entry.withheld {
                Some(why) => FailuresError::NoRecords {
                    id: id.into(),
                    why: why.clone(),
                },
                None => FailuresError::NoAttempt(id.into()),
            });
        };
        let payload = self.inner.store.blob(&payload_key(scope, id)).await?;
        let payload = read_batch(payload.unwrap_or_default(), id)?;
        let replay = entry.replay.as_ref();
        let mut inexact = replay.and_then(|replay| replay.inexact.clone());
        let batch = match &inputs.batch {
            BatchAt::Payload => payload,
            BatchAt::Here if inputs.is_event() => payload,
            BatchAt::Here => read_batch(inputs.body.clone(), id)?,
            BatchAt::EndOf { id: other, from } => {
                let other = self.read_inputs(scope, other).await?;
                let whole = other.map_or(Bytes::new(), |other| other.body);
                let whole = read_batch(whole, id)?;
                let skipped = whole.iter().take_while(|r| r.beginning() < *from).count();
                let batch = whole.cut(skipped..whole.len());
                if replay.is_some_and(|replay| batch.len() == replay.batch_len) {
                    batch
                } else {
                    inexact = Some(
                        "the batch was kept by an earlier entry, which is gone: only what was \
                         given up is there"
                            .into(),
                    );
                    payload
                }
            }
        };
        Ok(Whole {
            inputs,
            batch,
            inexact,
        })
    }

    /// What is kept of an attempt, if anything is.
    pub(super) async fn read_inputs(
        &self,
        scope: &Scope,
        id: &str,
    ) -> Result<Option<Inputs>, FailuresError> {
        let Some(blob) = self.inner.store.blob(&inputs_key(scope, id)).await? else {
            return Ok(None);
        };
        let damaged = || ReadError::Damaged(format!("inputs of failure {id}"));
        Ok(Some(Inputs::read(&blob).ok_or_else(damaged)?))
    }

    /// The module with this digest, whatever the function runs now.
    async fn module(&self, scope: &Scope, digest: &str) -> Result<Arc<dyn Module>, FunctionError> {
        self.inner.functions.module(scope, digest).await
    }
}

fn invocation(
    module: Arc<dyn Module>,
    replay: &Replay,
    inputs: &Inputs,
    batch: Batch,
    state: &Arc<Remembered>,
) -> Result<Invocation, ReadError> {
    let input = if module.carrier().takes_json() {
        let count = batch.len();
        let json = if inputs.is_event() {
            inputs.body.clone()
        } else {
            EventSource::new(&inputs.scope, &inputs.context.stream).event(&batch)
        };
        Input::Event { json, count }
    } else {
        Input::Records(batch)
    };
    let seed = seed(&replay.seed)
        .ok_or_else(|| ReadError::Damaged("the seed of a failure entry".into()))?;
    let owner = Owner {
        scope: inputs.scope.clone(),
        function: inputs.context.function.as_str().into(),
    };
    Ok(Invocation {
        owner: Arc::new(owner),
        mapping: None,
        module,
        input,
        context: inputs.context.clone(),
        limits: replay.limits.clone(),
        environment: Arc::new(inputs.environment.clone()),
        state: Arc::clone(state) as _,
        now: replay.now,
        seed,
    })
}

/// Reads 64 hexadecimal digits.
fn seed(text: &str) -> Option<[u8; 32]> {
    let mut seed = [0; 32];
    if text.len() != 2 * seed.len() {
        return None;
    }
    for (at, byte) in seed.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(seed)
}
