//! What an attempt ran on, as far as its function can tell: recorded while it runs, kept beside
//! the entry when it is given up. With the module, the limits, the seed and the clock (in the
//! entry) it is all that the outcome depends on.
//!
//! The whole batch belongs to it: the records before those that were given up have used fuel and
//! left their state, and those behind them lay in the guest's memory and counted for its fuel
//! limit. In record mode one batch may leave many entries, each for an attempt on the rest of
//! it: such an entry refers to the batch of the first one, which expires first.
//!
//! ```text
//! "SMFI" │ header length u32 │ header: JSON of Header │ values of keyed state │ batch or event
//! ```
//!
//! **Bounds.** [`MAX_INPUT_BYTES`] of batch and state, since the entry is committed in one
//! transaction with the effects of the records before it; an event is bounded by Lambda's 6 MB.
//! What is larger is left out, and the entry says that a replay is not exact.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shardmill_core::mapping::Position;
use shardmill_core::outcome::Outcome;
use shardmill_core::sandbox::{Input, Invocation, StateView};
use shardmill_core::{Batch, BatchContext, Scope};

/// Batch and keyed state that are kept of an attempt, bytes: with 32 MiB of effects and a record
/// of 10 MiB it fits the 48 MiB of a transaction.
pub(super) const MAX_INPUT_BYTES: usize = 4 << 20;

const MAGIC: &[u8; 4] = b"SMFI";

/// What an attempt was given, kept until it is known what becomes of it.
pub(in crate::mapping) struct Given {
    context: BatchContext,
    environment: Arc<BTreeMap<String, String>>,
    event: Option<Bytes>,
    state: Option<Arc<Recorder>>,
}

/// Records what an invocation is given. Only an attempt that may be the last one is `kept` with
/// the keyed state that it reads: the others pay nothing.
pub(in crate::mapping) fn recorded(mut invocation: Invocation, kept: bool) -> (Invocation, Given) {
    let state = kept.then(|| {
        let recorder = Arc::new(Recorder {
            view: Arc::clone(&invocation.state),
            seen: Mutex::default(),
        });
        invocation.state = Arc::clone(&recorder) as _;
        recorder
    });
    let given = Given {
        context: invocation.context.clone(),
        environment: Arc::clone(&invocation.environment),
        event: match &invocation.input {
            Input::Event { json, .. } => Some(json.clone()),
            Input::Records(_) => None,
        },
        state,
    };
    (invocation, given)
}

/// A value of keyed state with its revision, as a view gives it.
pub(in crate::mapping) type Found = Option<(Bytes, u64)>;

/// Passes reads on and remembers what they found. A value that was read before is given from
/// memory: an attempt sees one state throughout.
struct Recorder {
    view: Arc<dyn StateView>,
    seen: Mutex<Seen>,
}

/// Values of keyed state as an attempt found them, by partition key and name.
#[derive(Default)]
pub(in crate::mapping) struct Seen {
    pub(in crate::mapping) values: BTreeMap<(String, String), Found>,
    pub(in crate::mapping) bytes: usize,
    overflowed: bool,
}

impl Recorder {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateView for Recorder {
    fn get(&self, partition_key: &str, name: &str) -> Result<Found, String> {
        let key = (partition_key.to_owned(), name.to_owned());
        if let Some(found) = self.seen().values.get(&key) {
            return Ok(found.clone());
        }
        let found = self.view.get(partition_key, name)?;
        let mut seen = self.seen();
        let size = key.0.len() + key.1.len() + found.as_ref().map_or(0, |(value, _)| value.len());
        if seen.bytes + size > MAX_INPUT_BYTES {
            seen.overflowed = true;
        } else {
            seen.bytes += size;
            seen.values.insert(key, found.clone());
        }
        Ok(found)
    }
}

/// Where an attempt's batch is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BatchAt {
    /// It is what was given up: the entry's records.
    Payload,
    /// Here.
    Here,
    /// It is the end of another entry's batch, from this position on.
    EndOf {
        /// The other entry.
        id: String,
        /// Position of the first record.
        from: Position,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    context: BatchContext,
    environment: BTreeMap<String, String>,
    /// Account and region that the attempt ran for.
    scope: Scope,
    outcome: Outcome,
    batch: BatchAt,
    /// Whether the body is a JSON event.
    event: bool,
    state: Vec<StateEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StateEntry {
    key: String,
    name: String,
    /// Revision and length; absent where there was no value.
    value: Option<(u64, u32)>,
}

/// What an attempt ran on, read from where it is kept.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) context: BatchContext,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) scope: Scope,
    pub(super) outcome: Outcome,
    pub(super) batch: BatchAt,
    pub(super) state: BTreeMap<(String, String), Found>,
    event: bool,
    /// With [`BatchAt::Here`]: the batch, in its stored form; for a handler of events, the event.
    pub(super) body: Bytes,
}

/// What is written: the blob, and why it is not all there, if it is not.
pub(super) struct Packed {
    pub(super) blob: Bytes,
    pub(super) inexact: Option<String>,
}

/// An attempt that is given up, as its inputs are packed.
pub(super) struct Ended<'a> {
    pub(super) scope: &'a Scope,
    pub(super) outcome: &'a Outcome,
    /// The whole batch.
    pub(super) batch: &'a Batch,
    /// Where the batch is, if it need not be kept here.
    pub(super) elsewhere: Option<BatchAt>,
    /// Whether there is room for more than what was given up.
    pub(super) roomy: bool,
}

impl Given {
    /// The keyed state that it read, if it was kept.
    pub(in crate::mapping) fn into_seen(self) -> Seen {
        let state = self.state.as_ref();
        state.map_or_else(Seen::default, |state| std::mem::take(&mut state.seen()))
    }

    /// Packs what the attempt was given.
    pub(super) fn pack(&self, ended: Ended<'_>) -> Packed {
        let mut inexact = None;
        let (mut state, mut values) = (Vec::new(), Vec::new());
        match self.state.as_ref().map(|state| state.seen()) {
            Some(seen) => {
                if seen.overflowed {
                    inexact = Some(format!(
                        "it read more than {MAX_INPUT_BYTES} bytes of keyed state: only the first of them are kept"
                    ));
                }
                for ((key, name), found) in &seen.values {
                    let value = found.as_ref().map(|(value, revision)| {
                        values.extend_from_slice(value);
                        (*revision, value.len() as u32)
                    });
                    let (key, name) = (key.clone(), name.clone());
                    state.push(StateEntry { key, name, value });
                }
            }
            None => inexact = Some("the keyed state that it read was not recorded".into()),
        }
        let (mut batch, mut body) = match (&self.event, ended.elsewhere) {
            (Some(event), _) => (BatchAt::Here, event.clone()),
            (None, Some(at)) => (at, Bytes::new()),
            (None, None) => (BatchAt::Here, ended.batch.to_stored().into()),
        };
        let size = body.len() + values.len();
        let rest = self.event.is_none() && batch == BatchAt::Here;
        if rest && (size > MAX_INPUT_BYTES || !ended.roomy) {
            inexact = Some(if ended.roomy {
                format!(
                    "the batch that was attempted takes {size} bytes, {MAX_INPUT_BYTES} are kept: \
                     only what was given up is there"
                )
            } else {
                "the failure store is half full: of the batch only what was given up is kept".into()
            });
            (batch, body) = (BatchAt::Payload, Bytes::new());
        }
        let header = Header {
            context: self.context.clone(),
            environment: self.environment.as_ref().clone(),
            scope: ended.scope.clone(),
            outcome: ended.outcome.clone(),
            batch,
            event: self.event.is_some(),
            state,
        };
        Packed {
            blob: write(&header, &values, &body),
            inexact,
        }
    }
}

impl Inputs {
    /// Reads a blob; `None` when it is none.
    pub(super) fn read(blob: &Bytes) -> Option<Self> {
        let rest = blob.strip_prefix(MAGIC)?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (header, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        let header: Header = serde_json::from_slice(header).ok()?;
        let mut rest = blob.slice_ref(rest);
        let mut state = BTreeMap::new();
        for StateEntry { key, name, value } in header.state {
            let found = match value {
                Some((revision, len)) if rest.len() >= len as usize => {
                    Some((rest.split_to(len as usize), revision))
                }
                Some(_) => return None,
                None => None,
            };
            state.insert((key, name), found);
        }
        Some(Self {
            context: header.context,
            environment: header.environment,
            scope: header.scope,
            outcome: header.outcome,
            batch: header.batch,
            event: header.event,
            state,
            body: rest,
        })
    }

    /// Whether the body is a JSON event.
    pub(super) fn is_event(&self) -> bool {
        self.event
    }

    /// Puts as many asterisks in the place of each variable's value, so that a handler meets one of
    /// the same length. Gives whether there were any.
    pub(super) fn mask_environment(&mut self) -> bool {
        for value in self.environment.values_mut() {
            *value = "*".repeat(value.len());
        }
        !self.environment.is_empty()
    }

    /// The same with its batch in it, for a file.
    pub(super) fn with_batch(self, batch: &Batch) -> Bytes {
        let mut values = Vec::new();
        let state = self.state.into_iter().map(|((key, name), found)| {
            let value = found.map(|(value, revision)| {
                values.extend_from_slice(&value);
                (revision, value.len() as u32)
            });
            StateEntry { key, name, value }
        });
        let header = Header {
            state: state.collect(),
            context: self.context,
            environment: self.environment,
            scope: self.scope,
            outcome: self.outcome,
            batch: BatchAt::Here,
            event: self.event,
        };
        let body = match self.event {
            true => self.body,
            false => batch.to_stored().into(),
        };
        write(&header, &values, &body)
    }
}

fn write(header: &Header, values: &[u8], body: &[u8]) -> Bytes {
    let header = crate::functions::to_json(header);
    let mut blob = Vec::with_capacity(8 + header.len() + values.len() + body.len());
    blob.extend_from_slice(MAGIC);
    blob.extend_from_slice(&(header.len() as u32).to_le_bytes());
    blob.extend_from_slice(&header);
    blob.extend_from_slice(values);
    blob.extend_from_slice(body);
    blob.into()
}

/// Keyed state as an attempt found it; what it did not read is absent, and counted.
#[derive(Debug)]
pub(super) struct Remembered {
    values: BTreeMap<(String, String), Found>,
    unknown: Mutex<BTreeMap<(String, String), ()>>,
}

impl Remembered {
    pub(super) fn new(values: BTreeMap<(String, String), Found>) -> Self {
        let unknown = Mutex::default();
        Self { values, unknown }
    }

    /// Values that were asked for and are not known: key and name.
    pub(super) fn unknown(&self) -> Vec<(String, String)> {
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown.keys().cloned().collect()
    }
}

impl StateView for Remembered {
    fn get(&self, partition_key: &str, name: &str) -> Result<Found, String> {
        let key = (partition_key.to_owned(), name.to_owned());
        if let Some(found) = self.values.get(&key) {
            return Ok(found.clone());
        }
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown.insert(key, ());
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
