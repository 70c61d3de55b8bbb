//! Versions: what `$LATEST` was when it was published.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use shardmill_core::Scope;
use shardmill_store::{Expect, Key, ReadError, Table, Tx, Urgency, Value};

use super::aliases::check_description;
use super::error::{AliasError, DeleteError, FunctionError};
use super::keys::{aliases_of, version_key, versions_of};
use super::model::Function;
use super::{Functions, function_key, to_json};

impl Functions {
    /// The versions of a function, the oldest first. None for one that does not exist.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub fn versions(&self, scope: &Scope, name: &str) -> Result<Vec<Function>, FunctionError> {
        let all = self
            .store
            .scan(&versions_of(scope, name), None, usize::MAX)?;
        let parse = |bytes: &[u8]| serde_json::from_slice(bytes);
        all.iter()
            .map(|(_, stored)| parse(&stored.value))
            .collect::<Result<_, _>>()
            .map_err(|_| FunctionError::Damaged(name.into()))
    }

    /// One version.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub fn version(
        &self,
        scope: &Scope,
        name: &str,
        version: u64,
    ) -> Result<Function, FunctionError> {
        let Some(stored) = self.store.get(&version_key(scope, name, version))? else {
            self.describe(scope, name)?;
            let name = name.to_owned();
            return Err(FunctionError::NoVersion { name, version });
        };
        serde_json::from_slice(&stored.value).map_err(|_| FunctionError::Damaged(name.into()))
    }

    /// The highest number of a version that is stored.
    pub(super) fn newest_stored(&self, scope: &Scope, name: &str) -> Result<u64, ReadError> {
        let last = self.store.scan_back(&versions_of(scope, name), None, 1)?;
        let number = |key: &Key| {
            let (_, parts) = key.split()?;
            Some(u64::from_be_bytes((*parts.last()?).try_into().ok()?))
        };
        Ok(last.first().and_then(|(key, _)| number(key)).unwrap_or(0))
    }

    /// Publishes `$LATEST`. When nothing has changed since the last time, that version is given.
    ///
    /// # Errors
    /// It does not exist, the description is too long, or the store refuses.
    pub async fn publish(
        &self,
        scope: &Scope,
        name: &str,
        description: String,
    ) -> Result<Arc<Function>, AliasError> {
        check_description(&description)?;
        let _deploying = self.deploying.lock((scope.clone(), name.into())).await;
        let _changing = self.changing.lock().await;
        let (mut record, revision) = self
            .stored(scope, name)?
            .ok_or_else(|| FunctionError::NotFound(name.into()))?;
        if record.latest.version > 0 {
            return Ok(Arc::new(record.latest));
        }
        record.newest += 1;
        record.latest.version = record.newest;
        record.latest.description = description;
        record.latest.last_modified = self.clock.now();
        let (key, latest) = (function_key(scope, name), &record.latest);
        let version = version_key(scope, name, latest.version);
        let tx = Tx {
            expect: vec![Expect::Revision(key.clone(), Some(revision))],
            writes: vec![
                (version, Value::Inline(to_json(latest))),
                (key, Value::Inline(to_json(&record))),
            ],
            ..Tx::default()
        };
        self.store.commit(tx).await?;
        self.cache().changed(scope, name);
        self.tell();
        let version = record.latest.version;
        tracing::info!(function = name, version, "published");
        Ok(Arc::new(record.latest))
    }

    /// Removes a version that no alias names and that `$LATEST` is not. Gives it: its module
    /// stays until [`Functions::remove_module`].
    ///
    /// # Errors
    /// See [`DeleteError`].
    pub async fn delete_version(
        &self,
        scope: &Scope,
        name: &str,
        version: u64,
    ) -> Result<Function, DeleteError> {
        let _deploying = self.deploying.lock((scope.clone(), name.into())).await;
        let _changing = self.changing.lock().await;
        let gone = self.version(scope, name, version)?;
        let aliases = self.aliases(scope, name)?;
        if let Some(alias) = aliases.into_iter().find(|alias| alias.names(version)) {
            return Err(DeleteError::Named {
                name: name.into(),
                version,
                alias: alias.name,
            });
        }
        if self.describe(scope, name)?.version == version {
            let name = name.to_owned();
            return Err(DeleteError::Latest { name, version });
        }
        let tx = Tx {
            writes: vec![(version_key(scope, name, version), Value::Delete)],
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        self.store.commit(tx).await?;
        self.cache().gone(scope, name, Some(version));
        self.tell();
        Ok(gone)
    }

    /// Whether a version of any function of the scope runs this module.
    pub(super) fn is_of_version(&self, scope: &Scope, digest: &str) -> Result<bool, ReadError> {
        /// Versions that are read at a time.
        const PAGE: usize = 200;
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            digest: Cow<'a, str>,
        }
        let all = Key::new(Table::Version, scope);
        let mut after = None;
        loop {
            let page = self.store.scan(&all, after.as_ref(), PAGE)?;
            // What cannot be read may name it.
            let names = |value: &[u8]| {
                let named = serde_json::from_slice::<Named<'_>>(value);
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

    /// How many aliases a function has.
    pub(super) fn alias_count(&self, scope: &Scope, name: &str) -> Result<usize, ReadError> {
        let all = self
            .store
            .scan(&aliases_of(scope, name), None, usize::MAX)?;
        Ok(all.len())
    }
}
