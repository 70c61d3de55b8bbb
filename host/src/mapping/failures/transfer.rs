//! Export and import: an entry as a file for a bug report, to be shown and replayed elsewhere.
//! What was imported says so and is never redriven: its records belong to another place.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use shardmill_core::limits::FunctionLimits;
use shardmill_core::{Batch, Scope};
use shardmill_store::{Key, ReadError, Table, Tx, Urgency, Value};

use super::bundle::{BadBundle, Bundle};
use super::entry::{entry_key, inputs_key, parse, payload_key};
use super::inputs::Inputs;
use super::replay::Whole;
use super::{FailureEntry, Failures, FailuresError, Imported, Room};
use crate::functions::{module_key, to_json};

impl Failures {
    /// An entry with its records and what its attempt ran on, as one file.
    ///
    /// The values of the function's environment, which may be secrets, are left out of it unless
    /// `with_environment`; then a replay elsewhere claims no exactness.
    ///
    /// # Errors
    /// See [`FailuresError`]; with `with_module`, the module that ran must be kept.
    pub async fn export(
        &self,
        scope: &Scope,
        id: &str,
        with_module: bool,
        with_environment: bool,
    ) -> Result<Vec<u8>, FailuresError> {
        let mut entry = self.get(scope, id)?;
        let payload = self.inner.store.blob(&payload_key(scope, id)).await?;
        let inputs = match self.inputs(scope, &entry).await {
            Ok(Whole {
                mut inputs,
                batch,
                mut inexact,
            }) => {
                if !with_environment && inputs.mask_environment() {
                    inexact.get_or_insert_with(|| {
                        "the values of its environment were left out of the exported file".into()
                    });
                }
                if let Some(replay) = &mut entry.replay {
                    replay.inexact = inexact;
                }
                inputs.with_batch(&batch)
            }
            Err(FailuresError::NoAttempt(_) | FailuresError::NoRecords { .. }) => Bytes::new(),
            Err(error) => return Err(error),
        };
        let module = match with_module {
            true => self.inner.functions.wasm(scope, &entry.digest).await?,
            false => None,
        };
        if with_module && module.is_none() {
            let missing = crate::functions::FunctionError::NoModule(entry.digest);
            return Err(missing.into());
        }
        let bundle = Bundle {
            entry: to_json(&entry),
            records: payload.unwrap_or_default(),
            inputs,
            module: module.unwrap_or_default(),
        };
        Ok(bundle.write())
    }

    /// Adds an exported entry under a new id, marked as imported. A module in the file counts
    /// for the entry, and goes with it.
    ///
    /// # Errors
    /// See [`FailuresError`].
    pub async fn import(&self, scope: &Scope, file: &Bytes) -> Result<FailureEntry, FailuresError> {
        let bundle = Bundle::read(file)?;
        let mut entry = check(&bundle)?;
        let asked = file.len() as u64;
        if self.room(scope, asked) < Room::Records {
            let (used, allowed) = self.used(scope);
            return Err(FailuresError::Full {
                used,
                allowed,
                asked,
            });
        }
        let now = self.inner.clock.now();
        entry.imported = Some(entry.imported.unwrap_or(Imported {
            id: entry.id,
            scope: entry.scope,
            created: entry.created,
        }));
        entry.id = self.inner.ledger.new_id(now);
        entry.scope = scope.clone();
        entry.created = now;
        (entry.redriven, entry.redriven_to) = (None, None);
        entry.bytes = (bundle.records.len() + bundle.inputs.len() + bundle.module.len()) as u64;
        entry.bytes += to_json(&entry).len() as u64;
        let store = self.inner.store.as_ref();
        let module = module_key(scope, &entry.digest);
        // Whoever removes an entry sees either both or none of module and entry.
        let _modules = self.inner.ledger.modules.lock().await;
        if !bundle.module.is_empty() && store.get(&module)?.is_none() {
            // On its own: it may fill most of a transaction. Nothing but a replay looks for it.
            let writes = vec![(module, Value::Blob(bundle.module))];
            store
                .commit(Tx {
                    writes,
                    ..Tx::default()
                })
                .await?;
        }
        let id = entry.id.as_str();
        let mut tx = Tx {
            writes: vec![(entry_key(scope, id), Value::Inline(to_json(&entry)))],
            urgency: Urgency::Growth,
            ..Tx::default()
        };
        for (key, part) in [
            (payload_key(scope, id), bundle.records),
            (inputs_key(scope, id), bundle.inputs),
        ] {
            if !part.is_empty() {
                tx.writes.push((key, Value::Blob(part)));
            }
        }
        self.inner.ledger.take(scope, id, entry.bytes, now);
        store.commit(tx).await?;
        Ok(entry)
    }

    /// Removes a module, if no function and no version runs it and no entry names it.
    ///
    /// # Errors
    /// See [`FailuresError`].
    pub async fn remove_module(&self, scope: &Scope, digest: &str) -> Result<(), FailuresError> {
        let _modules = self.inner.ledger.modules.lock().await;
        if !self.inner.functions.is_used(scope, digest)? && !self.is_named(scope, digest)? {
            self.inner.functions.remove_module(scope, digest).await?;
        }
        Ok(())
    }

    /// Whether an entry is of an attempt on this module.
    fn is_named(&self, scope: &Scope, digest: &str) -> Result<bool, ReadError> {
        /// Entries that are read at a time.
        const PAGE: usize = 200;
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            digest: Cow<'a, str>,
        }
        let all = Key::new(Table::Failure, scope);
        let mut after = None;
        loop {
            let page = self.inner.store.scan(&all, after.as_ref(), PAGE)?;
            let names = |value: &Bytes| {
                let named = serde_json::from_slice::<Named<'_>>(value);
                // What cannot be read may name it.
                named.map_or(true, |named| named.digest == digest)
            };
            if page.iter().any(|(_, stored)| names(&stored.value)) {
                return Ok(true);
            }
            let Some((last, _)) = page.last() else {
                return Ok(false);
            };
            after = Some(last.clone());
        }
    }
}

/// Checks the parts of a file against each other.
fn check(bundle: &Bundle) -> Result<FailureEntry, BadBundle> {
    let bad = |what: String| BadBundle::Part(what);
    let entry = parse(&bundle.entry).map_err(|error| bad(format!("its entry: {error}")))?;
    let limits = entry.replay.as_ref().map(|replay| &replay.limits);
    if let Some(limit) = limits.and_then(FunctionLimits::out_of_range) {
        return Err(bad(format!(
            "the limits of its function are no host's: {limit}"
        )));
    }
    if Batch::from_stored(bundle.records.clone()).is_err() {
        return Err(bad("its records are no batch".into()));
    }
    if !bundle.inputs.is_empty() && Inputs::read(&bundle.inputs).is_none() {
        return Err(bad("the inputs of its attempt cannot be read".into()));
    }
    if !bundle.module.is_empty() {
        let digest = Sha256::digest(&bundle.module);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        if digest != entry.digest {
            return Err(bad(format!(
                "its module has SHA-256 {digest}, its entry names {}",
                entry.digest
            )));
        }
    }
    Ok(entry)
}
