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
use shardmill_core::reshard;
use shardmill_core::stream::StreamMode;
use shardmill_core::{Scope, Stream, StreamId};
use shardmill_store::{CommitError, Store, StreamChange, Tx, Urgency};

use super::{AliasSpec, FunctionSpec, Manifest, MappingSpec, QueueSpec, StreamSpec};
use crate::clock::Clock;
use crate::functions::{FunctionError, FunctionRecord, Functions};
use crate::mapping::{
    CreateMapping, Failures, Mapping, MappingError, Mappings, Origin, UpdateMapping,
};
use crate::queues::{Attributes, QueueError};
use owned::Owned;
use summary::Change;

/// How often a stream is decided again that others change at the same time.
const TRIES: usize = 16;

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
        for spec in &manifest.aliases {
            let (scope, function, name) = (&spec.scope, &spec.function, &spec.name);
            let kept = self.functions.alias(scope, function, name).is_ok();
            let done = self.alias(spec).await;
            summary.note(format!("alias \"{function}:{name}\""), kept, done);
        }
        for spec in &manifest.queues {
            let queues = self.mappings.delivery().queues();
            let kept = queues.get(&spec.scope, &spec.name).is_ok();
            let done = self.queue(spec).await;
            summary.note(format!("queue {:?}", spec.name), kept, done);
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
        for _ in 0..TRIES {
            let stream = match self.store.stream(&spec.scope, &spec.name) {
                Some(stream) if stream.deleted.is_none() => stream,
                // What is left of a namesake that was deleted goes in the same transaction.
                old => {
                    let old = old.iter().map(|s| StreamChange::Remove(s.id));
                    let mut changes: Vec<_> = old.collect();
                    changes.push(StreamChange::Create(Box::new(self.new_stream(spec))));
                    let made = self.change(changes).await;
                    return made.map(|()| Change::Created).map_err(|e| e.to_string());
                }
            };
            let changed = self.wanted(spec, &stream)?;
            if changed == *stream {
                return Ok(Change::None);
            }
            let change = StreamChange::Update(Box::new(changed));
            match self.change(vec![change]).await {
                Ok(()) => return Ok(Change::Updated),
                Err(CommitError::StreamChanged(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("others keep changing it: save the manifest again when they are done".into())
    }

    /// The stream as the manifest wants it. Its shards get even ranges when there are more or
    /// fewer of them; in one step and without UpdateShardCount's bounds, which are AWS's.
    fn wanted(&self, spec: &StreamSpec, stream: &Stream) -> Result<Stream, String> {
        let open = reshard::open_count(stream);
        let mut wanted = if open == spec.shards {
            stream.clone()
        } else if stream.mode == StreamMode::OnDemand {
            tracing::warn!(
                stream = %spec.name, has = open, manifest = spec.shards,
                "an on-demand stream chooses its own shards: the manifest's are not applied",
            );
            stream.clone()
        } else {
            let scaled = reshard::scale(stream, spec.shards, self.clock.now());
            scaled.map_err(|e| format!("{} shards: {e}", spec.shards))?
        };
        wanted.retention_hours = spec.retention_hours;
        Ok(wanted)
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

    async fn change(&self, streams: Vec<StreamChange>) -> Result<(), CommitError> {
        let tx = Tx {
            streams,
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        self.store.commit(tx).await.map(drop)
    }

    async fn function(&self, spec: &FunctionSpec) -> Result<Change, String> {
        let before = match self.functions.record(&spec.scope, &spec.name) {
            Ok(record) => Some(record),
            Err(FunctionError::NotFound(_)) => None,
            Err(error) => return Err(error.to_string()),
        };
        let file = spec.wasm.display();
        let wasm = match tokio::fs::read(&spec.wasm).await {
            Ok(wasm) => wasm,
            Err(error) => {
                let why = format!("read {file}: {error}");
                let noted = self
                    .functions
                    .note_failed(&spec.scope, &spec.name, why.clone());
                noted.await;
                return Err(why);
            }
        };
        let digest: String = Sha256::digest(&wasm)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        // Equal files are not loaded: a start with a thousand functions loads none of them.
        if let Some(FunctionRecord {
            latest,
            failed_deploy,
            ..
        }) = &before
            && latest.digest == digest
            && latest.settings == spec.settings
            && latest.version > 0
        {
            if failed_deploy.is_some() {
                let forgotten = self.functions.forget_failed(&spec.scope, &spec.name);
                forgotten.await.map_err(|e| e.to_string())?;
            }
            return self.quotas(spec, before.as_ref()).await;
        }
        let (scope, settings) = (&spec.scope, spec.settings.clone());
        let deployed = self
            .functions
            .deploy(scope, &spec.name, wasm.into(), settings)
            .await;
        deployed.map_err(|e| format!("{file}: {e}"))?;
        self.quotas(spec, None).await?;
        Ok(if before.is_some() {
            Change::Updated
        } else {
            Change::Created
        })
    }

    /// Sets what a function is due, where the manifest says it and it is not so `before`.
    async fn quotas(
        &self,
        spec: &FunctionSpec,
        before: Option<&FunctionRecord>,
    ) -> Result<Change, String> {
        let Some(quotas) = spec.quotas else {
            return Ok(Change::None);
        };
        if before.is_some_and(|before| before.quotas == quotas) {
            return Ok(Change::None);
        }
        let set = self.functions.set_quotas(&spec.scope, &spec.name, quotas);
        set.await.map_err(|e| e.to_string())?;
        Ok(Change::Updated)
    }

    async fn alias(&self, spec: &AliasSpec) -> Result<Change, String> {
        let (scope, function, name) = (&spec.scope, &spec.function, &spec.name);
        let before = match self.functions.alias(scope, function, name) {
            Ok(alias) if spec.spec.is(&alias) => return Ok(Change::None),
            Ok(_) => Change::Updated,
            Err(FunctionError::NoAlias { .. }) => Change::Created,
            Err(error) => return Err(error.to_string()),
        };
        let set = self
            .functions
            .set_alias(scope, (function, name), spec.spec.clone(), false);
        set.await.map(|_| before).map_err(|e| e.to_string())
    }

    /// Makes a queue, or sets what the manifest says of it. Queues are never pruned: what is in
    /// them is what somebody has to see to.
    async fn queue(&self, spec: &QueueSpec) -> Result<Change, String> {
        let queues = self.mappings.delivery().queues();
        let (scope, name) = (&spec.scope, &spec.name);
        let set = |attributes: &mut Attributes| {
            let Attributes {
                visibility_timeout_seconds: visibility,
                message_retention_seconds: retention,
                ..
            } = attributes;
            *visibility = spec.visibility_timeout_seconds.unwrap_or(*visibility);
            *retention = spec.message_retention_seconds.unwrap_or(*retention);
        };
        let before = match queues.get(scope, name) {
            Ok(queue) => queue,
            Err(QueueError::NotFound { .. }) => {
                let mut attributes = Attributes::default();
                set(&mut attributes);
                let made = queues.create(scope, name, attributes).await;
                return made.map(|_| Change::Created).map_err(|e| e.to_string());
            }
            Err(error) => return Err(error.to_string()),
        };
        let after = queues.set_attributes(scope, name, set).await;
        let after = after.map_err(|e| e.to_string())?;
        Ok(if after.attributes == before.attributes {
            Change::None
        } else {
            Change::Updated
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
                    on_failure: spec.on_failure.clone(),
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
        let same = change.function.is_none() && change.policy.is_none();
        if same && change.enabled.is_none() && change.on_failure.is_none() {
            return Ok(Change::None);
        }
        let changed = self.mappings.update(&spec.scope, &spec.name, change).await;
        changed.map(|_| Change::Updated).map_err(|e| e.to_string())
    }

    /// Removes a function, and the modules that nothing else names.
    async fn remove_function(&self, scope: &Scope, name: &str) -> Result<(), String> {
        let digests = self.functions.delete(scope, name).await;
        let failures = Failures::of(&self.mappings);
        for digest in digests.map_err(|e| e.to_string())? {
            let removed = failures.remove_module(scope, &digest).await;
            removed.map_err(|e| e.to_string())?;
        }
        Ok(())
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
        for (scope, name) in before.aliases.difference(&after.aliases.clone()) {
            let Some((function, alias)) = name.split_once(':') else {
                continue;
            };
            if self.functions.alias(scope, function, alias).is_err() {
                continue;
            }
            let item = format!("alias {name:?}");
            if !manifest.prune {
                after.aliases.insert((scope.clone(), name.clone()));
                summary.unnamed.push(item);
            } else if let Err(error) = self.functions.delete_alias(scope, function, alias).await {
                after.aliases.insert((scope.clone(), name.clone()));
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
            } else if let Err(error) = self.remove_function(scope, name).await {
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
        function: (before.named().to_string() != spec.function).then(|| spec.function.clone()),
        policy: (before.policy != spec.policy).then(|| spec.policy.clone()),
        enabled: spec.enabled.filter(|enabled| *enabled != before.enabled),
        on_failure: (before.on_failure != spec.on_failure).then(|| spec.on_failure.clone()),
    }
}

#[cfg(test)]
mod tests;
