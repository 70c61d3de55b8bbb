//! Aliases: names that stay while the versions behind them change.

use shardmill_core::Scope;
use shardmill_core::mapping::Weight;
use shardmill_store::{Expect, Tx, Urgency, Value};

use super::error::{AliasError, DeleteError, FunctionError};
use super::keys::{alias_key, aliases_of, version_key};
use super::model::{Alias, Second};
use super::reference::{BadReference, Qualifier};
use super::{Functions, function_key, to_json};

/// Aliases of a function.
const MAX_ALIASES: usize = 1_000;
/// Characters of a description. Lambda API reference, "CreateAlias".
const MAX_DESCRIPTION: usize = 256;

/// What an alias should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasSpec {
    /// The version; 0 is `$LATEST`.
    pub version: u64,
    /// The second version and its share.
    pub second: Option<(u64, Weight)>,
    /// What its owner says of it.
    pub description: String,
}

impl AliasSpec {
    /// Whether an alias is this already.
    pub fn is(&self, alias: &Alias) -> bool {
        let second = alias.second.map(|s| (s.version, s.weight));
        alias.version == self.version
            && second == self.second
            && alias.description == self.description
    }
}

/// Checks the length of what somebody says of a version or an alias.
pub(super) fn check_description(text: &str) -> Result<(), AliasError> {
    let (size, allowed) = (text.chars().count(), MAX_DESCRIPTION);
    match size <= allowed {
        true => Ok(()),
        false => Err(AliasError::Description { size, allowed }),
    }
}

fn check_alias(name: &str) -> Result<(), FunctionError> {
    match name.parse() {
        Ok(Qualifier::Alias(_)) => Ok(()),
        Ok(_) => Err(BadReference::Qualifier(name.into()).into()),
        Err(error) => Err(error.into()),
    }
}

impl Functions {
    /// The aliases of a function, by name. None for one that does not exist.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub fn aliases(&self, scope: &Scope, name: &str) -> Result<Vec<Alias>, FunctionError> {
        let all = self
            .store
            .scan(&aliases_of(scope, name), None, usize::MAX)?;
        let parse = |bytes: &[u8]| serde_json::from_slice(bytes);
        all.iter()
            .map(|(_, stored)| parse(&stored.value))
            .collect::<Result<_, _>>()
            .map_err(|_| FunctionError::Damaged(name.into()))
    }

    /// One alias.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub fn alias(&self, scope: &Scope, name: &str, alias: &str) -> Result<Alias, FunctionError> {
        let Some(stored) = self.store.get(&alias_key(scope, name, alias))? else {
            self.describe(scope, name)?;
            let (name, alias) = (name.to_owned(), alias.to_owned());
            return Err(FunctionError::NoAlias { name, alias });
        };
        serde_json::from_slice(&stored.value).map_err(|_| FunctionError::Damaged(name.into()))
    }

    /// Makes an alias, or changes it; with `create`, only makes one. From the next batch on,
    /// those who name it get what it says.
    ///
    /// # Errors
    /// See [`AliasError`].
    pub async fn set_alias(
        &self,
        scope: &Scope,
        (name, alias): (&str, &str),
        spec: AliasSpec,
        create: bool,
    ) -> Result<Alias, AliasError> {
        check_alias(alias)?;
        check_description(&spec.description)?;
        let _changing = self.changing.lock().await;
        let before = match self.alias(scope, name, alias) {
            Ok(_) if create => {
                let (name, alias) = (name.to_owned(), alias.to_owned());
                return Err(AliasError::Exists { name, alias });
            }
            Ok(before) if spec.is(&before) => return Ok(before),
            Ok(before) => Some(before),
            Err(FunctionError::NoAlias { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if before.is_none() && self.alias_count(scope, name)? >= MAX_ALIASES {
            let (name, allowed) = (name.to_owned(), MAX_ALIASES);
            return Err(AliasError::TooMany { name, allowed });
        }
        let mut expect = vec![Expect::Present(function_key(scope, name))];
        self.version_or_latest(scope, name, spec.version)?;
        if let Some((second, _)) = spec.second {
            if spec.version == 0 {
                return Err(AliasError::LatestShares);
            }
            if second == spec.version {
                return Err(AliasError::SameVersion(second));
            }
            self.version(scope, name, second)?;
            expect.push(Expect::Present(version_key(scope, name, second)));
        }
        if spec.version > 0 {
            expect.push(Expect::Present(version_key(scope, name, spec.version)));
        }
        let made = Alias {
            name: alias.into(),
            version: spec.version,
            second: spec
                .second
                .map(|(version, weight)| Second { version, weight }),
            description: spec.description,
            revision: before.map_or(0, |before| before.revision) + 1,
            last_modified: self.clock.now(),
        };
        let key = alias_key(scope, name, alias);
        let tx = Tx {
            expect,
            writes: vec![(key, Value::Inline(to_json(&made)))],
            ..Tx::default()
        };
        self.store.commit(tx).await?;
        self.cache().changed(scope, name);
        self.tell();
        tracing::info!(function = name, alias, version = made.version, second = ?made.second, "alias set");
        Ok(made)
    }

    /// Removes an alias.
    ///
    /// # Errors
    /// See [`DeleteError`].
    pub async fn delete_alias(
        &self,
        scope: &Scope,
        name: &str,
        alias: &str,
    ) -> Result<(), DeleteError> {
        let _changing = self.changing.lock().await;
        self.alias(scope, name, alias)?;
        let tx = Tx {
            writes: vec![(alias_key(scope, name, alias), Value::Delete)],
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        self.store.commit(tx).await?;
        self.cache().changed(scope, name);
        self.tell();
        Ok(())
    }
}
