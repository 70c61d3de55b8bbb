//! Makes the store agree with a manifest: makes and changes what it names. What an earlier
//! manifest named and this one does not is kept and reported, or removed with `prune`.
//!
//! Every item stands alone: one that fails leaves what was there, and the others go on.

mod owned;
mod summary;

pub use summary::{Problem, Summary};

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use shardmill_core::stream::StreamMode;
use shardmill_core::{Stream, StreamId};
use shardmill_store::{Store, StreamChange, Tx, Urgency};

use super::{FunctionSpec, Manifest, MappingSpec, StreamSpec};
use crate::clock::Clock;
use crate::functions::{FunctionError, Functions};
use crate::mapping::{CreateMapping, Mapping, MappingError, Mappings, Origin, UpdateMapping};
use owned::Owned;
use summary::Change;

/// Brings manifests and the store together.
#[derive(Clone)]
pub struct Reconciler {
    /// Where streams are.
    pub store: Arc<dyn Store>,
    /// Deploys functions.
    pub functions: Arc<Functions>,
    /// Makes mappings.
    pub mappings: Mappings,
    /// The time that new streams carry.
    pub clock: Clock,
}

impl Reconciler {
    /// Reconciles. Says in the log what it did and what went wrong.
    pub async fn reconcile(&self, manifest: &Manifest) -> Summary {
        let mut summary = Summary::default();
        for spec in &manifest.streams {
            let kept = self.store.stream(&spec.scope, &spec.name).is_some();
            summary.note(
                format!("stream \"{}\"", spec.name),
                kept,
                self.stream(spec).await,
            );
        }
        for spec in &manifest.functions {
            let kept = self.functions.describe(&spec.scope, &spec.name).is_ok();
            summary.note(
                format!("function {:?}", spec.name),
                kept,
                self.function(spec).await,
            );
        }
        for spec in &manifest.mappings {
            let kept = self.mappings.get(&spec.scope, &spec.name).is_ok();
            summary.note(
                format!("mapping {:?}", spec.name),
                kept,
                self.mapping(spec).await,
            );
        }
        if let Err(why) = self.leave(manifest, &mut summary).await {
            summary.problems.push(Problem {
                item: "manifest".into(),
                why,
                kept: true,
            });
        }
        summary.log();
        summary
    }

    async fn stream(&self, spec: &StreamSpec) -> Result<Change, String> {
        let stream = match self.store.stream(&spec.scope, &spec.name) {
            Some(stream) if stream.deleted.is_none() => stream,
            // What is left of a namesake that was deleted goes in the same transaction.
            old => {
                let mut changes: Vec<_> = old.iter().map(|s| StreamChange::Remove(s.id)).collect();
                changes.push(StreamChange::Create(Box::new(self.new_stream(spec))));
                return self.change(changes).await.map(|()| Change::Created);
            }
        };
        let open = |s: &&shardmill_core::Shard| s.closed_seconds.is_none();
        let open = stream.shards.iter().filter(open).count();
        if open != spec.shards as usize {
            tracing::warn!(
                stream = %spec.name, has = open, manifest = spec.shards,
                "a stream's shards are counted when it is made: they stay as they are",
            );
        }
        if stream.retention_hours == spec.retention_hours {
            return Ok(Change::None);
        }
        let changed = Stream {
            retention_hours: spec.retention_hours,
            ..Stream::clone(&stream)
        };
        let change = StreamChange::Update(Box::new(changed));
        self.change(vec![change]).await.map(|()| Change::Updated)
    }

    /// Active at once: there is nobody who would have to wait for it.
    fn new_stream(&self, spec: &StreamSpec) -> Stream {
        let now = self.clock.now();
        Stream {
            id: StreamId(0),
            scope: spec.scope.clone(),
            name: spec.name.clone(),
            created: now,
            active_from: now,
            deleted: None,
            mode: StreamMode::Provisioned,
            retention_hours: spec.retention_hours,
            max_record_size_kib: Stream::DEFAULT_MAX_RECORD_SIZE_KIB,
            tags: BTreeMap::new(),
            revision: 0,
            updating_until: None,
            count_updates: Vec::new(),
            shards: Stream::initial_shards(spec.shards, now),
        }
    }

    async fn change(&self, streams: Vec<StreamChange>) -> Result<(), String> {
        let tx = Tx {
            streams,
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        let committed = self.store.commit(tx).await;
        committed.map(drop).map_err(|e| e.to_string())
    }

    async fn function(&self, spec: &FunctionSpec) -> Result<Change, String> {
        let before = match self.functions.describe(&spec.scope, &spec.name) {
            Ok(function) => Some(function),
            Err(FunctionError::NotFound(_)) => None,
            Err(error) => return Err(error.to_string()),
        };
        let file = spec.wasm.display();
        let wasm = tokio::fs::read(&spec.wasm)
            .await
            .map_err(|e| format!("read {file}: {e}"))?;
        let digest: String = Sha256::digest(&wasm)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let same =
            |f: &crate::functions::Function| f.digest == digest && f.settings == spec.settings;
        if before.as_ref().is_some_and(same) {
            return Ok(Change::None);
        }
        let (scope, settings) = (&spec.scope, spec.settings.clone());
        let deployed = self
            .functions
            .deploy(scope, &spec.name, wasm.into(), settings)
            .await;
        deployed.map_err(|e| format!("{file}: {e}"))?;
        Ok(if before.is_some() {
            Change::Updated
        } else {
            Change::Created
        })
    }

    async fn mapping(&self, spec: &MappingSpec) -> Result<Change, String> {
        let before = match self.mappings.get(&spec.scope, &spec.name) {
            Ok(mapping) => mapping,
            Err(MappingError::NotFound(_)) => {
                let request = CreateMapping {
                    name: Some(spec.name.clone()),
                    stream: spec.stream.clone(),
                    function: spec.function.clone(),
                    starting_position: spec.starting_position,
                    policy: spec.policy.clone(),
                    enabled: spec.enabled.unwrap_or(true),
                    origin: Origin::Manifest,
                };
                let made = self.mappings.create(&spec.scope, request).await;
                return made.map(|_| Change::Created).map_err(|e| e.to_string());
            }
            Err(error) => return Err(error.to_string()),
        };
        if before.stream != spec.stream {
            return Err(format!(
                "it reads stream {}, and a mapping's stream stays: give the mapping another \
                 name, or delete it first",
                before.stream
            ));
        }
        let change = difference(&before, spec);
        if change.function.is_none() && change.policy.is_none() && change.enabled.is_none() {
            return Ok(Change::None);
        }
        let changed = self.mappings.update(&spec.scope, &spec.name, change).await;
        changed.map(|_| Change::Updated).map_err(|e| e.to_string())
    }

    /// Reports or removes what an earlier manifest named and this one does not.
    async fn leave(&self, manifest: &Manifest, summary: &mut Summary) -> Result<(), String> {
        let before = Owned::load(self.store.as_ref())?;
        let mut after = Owned::of(manifest);
        for (scope, name) in before.mappings.difference(&after.mappings.clone()) {
            if self.mappings.get(scope, name).is_err() {
                continue;
            }
            let item = format!("mapping {name:?}");
            if !manifest.prune {
                after.mappings.insert((scope.clone(), name.clone()));
                summary.unnamed.push(item);
            } else if let Err(error) = self.mappings.delete(scope, name).await {
                after.mappings.insert((scope.clone(), name.clone()));
                summary.not_removed(item, error);
            } else {
                summary.removed.push(item);
            }
        }
        for (scope, name) in before.functions.difference(&after.functions.clone()) {
            if matches!(
                self.functions.describe(scope, name),
                Err(FunctionError::NotFound(_))
            ) {
                continue;
            }
            let item = format!("function {name:?}");
            if !manifest.prune {
                after.functions.insert((scope.clone(), name.clone()));
                summary.unnamed.push(item);
            } else if let Err(error) = self.functions.delete(scope, name).await {
                after.functions.insert((scope.clone(), name.clone()));
                summary.not_removed(item, error);
            } else {
                summary.removed.push(item);
            }
        }
        for (scope, name) in before.streams.difference(&after.streams.clone()) {
            let parsed = name
                .parse()
                .ok()
                .and_then(|name| self.store.stream(scope, &name));
            let Some(stream) = parsed else { continue };
            let item = format!("stream {name:?}");
            if !manifest.prune {
                after.streams.insert((scope.clone(), name.clone()));
                summary.unnamed.push(item);
            } else if let Err(error) = self.change(vec![StreamChange::Remove(stream.id)]).await {
                after.streams.insert((scope.clone(), name.clone()));
                summary.not_removed(item, error);
            } else {
                summary.removed.push(item);
            }
        }
        if after == before {
            Ok(())
        } else {
            after.save(self.store.as_ref()).await
        }
    }
}

fn difference(before: &Mapping, spec: &MappingSpec) -> UpdateMapping {
    UpdateMapping {
        function: (before.function != spec.function).then(|| spec.function.clone()),
        policy: (before.policy != spec.policy).then(|| spec.policy.clone()),
        enabled: spec.enabled.filter(|enabled| *enabled != before.enabled),
    }
}

#[cfg(test)]
mod tests;
