//! A deploy: load, dry run, store, and from then on batches run on it.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use shardmill_core::outcome::Outcome;
use shardmill_core::quotas::FunctionQuotas;
use shardmill_core::sandbox::Input;
use shardmill_core::{Batch, Scope};
use shardmill_store::{Expect, Tx, Value};

use super::error::{DeployError, FunctionError};
use super::keys::version_key;
use super::model::{FailedDeploy, Function, FunctionRecord, FunctionSettings, Loaded};
use super::reference::check_name;
use super::{Functions, function_key, module_key, to_json};

/// What is deployed.
#[derive(Clone, Debug)]
pub struct Deploy {
    /// The module.
    pub wasm: Bytes,
    /// What it runs with.
    pub settings: FunctionSettings,
    /// Whether it becomes a version; otherwise `$LATEST` alone changes.
    pub publish: bool,
}

impl Functions {
    /// Deploys a module under a name and publishes it: see [`Functions::update`].
    ///
    /// # Errors
    /// See [`DeployError`].
    pub async fn deploy(
        &self,
        scope: &Scope,
        name: &str,
        wasm: Bytes,
        settings: FunctionSettings,
    ) -> Result<Arc<Function>, DeployError> {
        let publish = true;
        let deploy = Deploy {
            wasm,
            settings,
            publish,
        };
        self.update(scope, name, deploy).await
    }

    /// Deploys a module under a name: load, dry run, store, swap. Batches that are running finish
    /// on the version that they began with. The same module with the same settings changes
    /// nothing, and loads nothing. A failure is kept with the function, if there is one.
    ///
    /// # Errors
    /// See [`DeployError`].
    pub async fn update(
        &self,
        scope: &Scope,
        name: &str,
        deploy: Deploy,
    ) -> Result<Arc<Function>, DeployError> {
        check_name(name)?;
        let _deploying = self.deploying.lock((scope.clone(), name.into())).await;
        let digest = digest_of(&deploy.wasm);
        let deployed = self.try_update(scope, name, deploy, &digest).await;
        if let Err(DeployError::Load(_) | DeployError::DryRun(_)) = &deployed {
            let reason = deployed.as_ref().err().map(ToString::to_string);
            let reason = reason.unwrap_or_default();
            let digest = Some(digest);
            self.keep_failed(
                scope,
                name,
                FailedDeploy {
                    at: self.clock.now(),
                    digest,
                    reason,
                },
            )
            .await;
        }
        deployed
    }

    async fn try_update(
        &self,
        scope: &Scope,
        name: &str,
        deploy: Deploy,
        digest: &str,
    ) -> Result<Arc<Function>, DeployError> {
        let before = self.before(scope, name)?;
        let old = before.as_ref().map(|(record, _)| record);
        let unchanged = |digest: &str| {
            let published = |f: &Function| f.version > 0 || !deploy.publish;
            old.filter(|old| {
                let latest = &old.latest;
                latest.digest == digest && latest.settings == deploy.settings && published(latest)
            })
        };
        if let Some(same) = unchanged(digest) {
            return self.keep_as_it_is(scope, name, same).await;
        }
        let module = self.sandbox.load(deploy.wasm.clone()).await?;
        // A sandbox of tests has digests of its own.
        if let Some(same) = unchanged(module.digest()) {
            return self.keep_as_it_is(scope, name, same).await;
        }
        let newest = old.map_or(0, |old| old.newest) + u64::from(deploy.publish);
        let function = Arc::new(Function {
            name: name.into(),
            version: if deploy.publish { newest } else { 0 },
            update: old.map_or(0, |old| old.latest.update) + 1,
            digest: module.digest().into(),
            code_size: deploy.wasm.len() as u64,
            last_modified: self.clock.now(),
            description: String::new(),
            settings: deploy.settings,
        });
        let loaded = Arc::new(Loaded::new(scope, Arc::clone(&function), module));
        self.dry_run(&loaded).await?;
        let record = FunctionRecord {
            latest: function.as_ref().clone(),
            newest,
            quotas: old.map_or_else(FunctionQuotas::default, |old| old.quotas),
            failed_deploy: None,
        };
        let revision = before.as_ref().map(|(_, revision)| *revision);
        self.store_deploy(scope, &record, revision, deploy.wasm)
            .await?;
        {
            let mut cache = self.cache();
            cache.changed(scope, name);
            cache.keep(scope, &loaded);
        }
        self.tell();
        let (version, digest) = (function.label(), &function.digest);
        let digest = digest.get(..12).unwrap_or(digest);
        tracing::info!(function = name, version, digest, "deployed");
        Ok(function)
    }

    /// What is stored; what cannot be read is replaced.
    fn before(
        &self,
        scope: &Scope,
        name: &str,
    ) -> Result<Option<(FunctionRecord, u64)>, DeployError> {
        match self.stored(scope, name) {
            Ok(stored) => Ok(stored),
            Err(FunctionError::Read(error)) => Err(error.into()),
            Err(_) => {
                let found = self.store.get(&function_key(scope, name))?;
                let newest = self.newest_stored(scope, name)?;
                let lost = |revision| {
                    let latest = Function {
                        name: name.into(),
                        version: newest,
                        update: newest,
                        digest: String::new(),
                        code_size: 0,
                        last_modified: self.clock.now(),
                        description: String::new(),
                        settings: FunctionSettings::default(),
                    };
                    let failed_deploy = None;
                    let record = FunctionRecord {
                        latest,
                        newest,
                        quotas: FunctionQuotas::default(),
                        failed_deploy,
                    };
                    (record, revision)
                };
                Ok(found.map(|stored| lost(stored.revision)))
            }
        }
    }

    /// Commits `$LATEST`, its version if it has one, and its module if it is not kept yet.
    async fn store_deploy(
        &self,
        scope: &Scope,
        record: &FunctionRecord,
        revision: Option<u64>,
        wasm: Bytes,
    ) -> Result<(), DeployError> {
        let _changing = self.changing.lock().await;
        let latest = &record.latest;
        let mut writes = Vec::new();
        let module = module_key(scope, &latest.digest);
        if self.store.get(&module)?.is_none() {
            writes.push((module, Value::Blob(wasm)));
        }
        if latest.version > 0 {
            let key = version_key(scope, &latest.name, latest.version);
            writes.push((key, Value::Inline(to_json(latest))));
        }
        let key = function_key(scope, &latest.name);
        writes.push((key.clone(), Value::Inline(to_json(record))));
        let tx = Tx {
            expect: vec![Expect::Revision(key, revision)],
            writes,
            ..Tx::default()
        };
        self.store.commit(tx).await?;
        Ok(())
    }

    /// Nothing is new; an earlier failure is no longer the last word.
    async fn keep_as_it_is(
        &self,
        scope: &Scope,
        name: &str,
        same: &FunctionRecord,
    ) -> Result<Arc<Function>, DeployError> {
        if same.failed_deploy.is_some() {
            self.set_failed(scope, name, None).await?;
        }
        Ok(Arc::new(same.latest.clone()))
    }

    /// Keeps with a function that its last deploy failed, or could not even begin; what runs goes
    /// on. A function that does not exist keeps nothing.
    pub async fn note_failed(&self, scope: &Scope, name: &str, reason: String) {
        let _deploying = self.deploying.lock((scope.clone(), name.into())).await;
        let (at, digest) = (self.clock.now(), None);
        let failed = FailedDeploy { at, digest, reason };
        self.keep_failed(scope, name, failed).await;
    }

    /// Forgets a failed deploy: what runs is what is wanted.
    ///
    /// # Errors
    /// See [`DeployError`].
    pub async fn forget_failed(&self, scope: &Scope, name: &str) -> Result<(), DeployError> {
        let _deploying = self.deploying.lock((scope.clone(), name.into())).await;
        self.set_failed(scope, name, None).await
    }

    async fn keep_failed(&self, scope: &Scope, name: &str, failed: FailedDeploy) {
        if let Err(error) = self.set_failed(scope, name, Some(failed)).await {
            tracing::warn!(function = name, %error, "that a deploy failed is not kept");
        }
    }

    /// Whoever calls holds the function's lock.
    async fn set_failed(
        &self,
        scope: &Scope,
        name: &str,
        failed: Option<FailedDeploy>,
    ) -> Result<(), DeployError> {
        let _changing = self.changing.lock().await;
        let Ok(Some((mut record, revision))) = self.stored(scope, name) else {
            return Ok(());
        };
        let told = |failed: &Option<FailedDeploy>| {
            failed
                .as_ref()
                .map(|f| (f.digest.clone(), f.reason.clone()))
        };
        if told(&record.failed_deploy) == told(&failed) {
            return Ok(());
        }
        record.failed_deploy = failed;
        let key = function_key(scope, name);
        let tx = Tx {
            expect: vec![Expect::Revision(key.clone(), Some(revision))],
            writes: vec![(key, Value::Inline(to_json(&record)))],
            ..Tx::default()
        };
        self.store.commit(tx).await?;
        Ok(())
    }

    /// Packed handlers must get through an empty batch. The others would be run on an event that
    /// they were not made for, so they are not.
    async fn dry_run(&self, loaded: &Loaded) -> Result<(), DeployError> {
        if loaded.carrier().takes_json() {
            return Ok(());
        }
        let empty = Input::Records(Batch::default());
        let report = self.invoke(loaded, empty, "dry-run".into()).await;
        match report.outcome {
            Outcome::Ok { .. } => Ok(()),
            Outcome::Failed(failure) => Err(DeployError::DryRun(failure.cause.to_string())),
            Outcome::Throttled { reason } => Err(DeployError::Throttled(reason)),
            Outcome::Partial { .. } | Outcome::Json { .. } => Err(DeployError::DryRun(
                "it names failed records of an empty batch".into(),
            )),
        }
    }
}

/// SHA-256 in hexadecimal.
pub(super) fn digest_of(wasm: &[u8]) -> String {
    Sha256::digest(wasm)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
