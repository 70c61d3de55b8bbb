//! What a function is due among its tenant's: kept with the function, not with its versions, as
//! Lambda keeps reserved concurrency.

use std::sync::Arc;

use shardmill_core::Scope;
use shardmill_core::quotas::FunctionQuotas;
use shardmill_core::sandbox::Owner;
use shardmill_store::{CommitError, Expect, Key, Table, Tx, Value};

use super::error::FunctionError;
use super::{Functions, function_key, parse_record, to_json};

/// Functions that are read at a time.
const PAGE: usize = 256;

/// Why quotas could not be set.
#[derive(Debug, thiserror::Error)]
pub enum QuotasError {
    /// The function could not be found or read.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// The store refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Functions {
    /// Sets a function's quotas; they hold for the next attempt. Those that are set already change
    /// nothing.
    ///
    /// # Errors
    /// It does not exist, or the store refuses.
    pub async fn set_quotas(
        &self,
        scope: &Scope,
        name: &str,
        quotas: FunctionQuotas,
    ) -> Result<(), QuotasError> {
        let _changing = self.changing.lock().await;
        let (mut record, revision) = self
            .stored(scope, name)?
            .ok_or_else(|| FunctionError::NotFound(name.into()))?;
        if record.quotas != quotas {
            record.quotas = quotas;
            let key = function_key(scope, name);
            let tx = Tx {
                expect: vec![Expect::Revision(key.clone(), Some(revision))],
                writes: vec![(key, Value::Inline(to_json(&record)))],
                ..Tx::default()
            };
            self.store.commit(tx).await?;
        }
        self.apply(scope, name, quotas);
        Ok(())
    }

    /// Tells the sandbox the quotas of all functions: for a host that starts.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn apply_quotas(&self) -> Result<(), FunctionError> {
        let (all, mut after) = (Key::table_prefix(Table::Function), None);
        loop {
            let page = self.store.scan(&all, after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            for (key, stored) in page {
                // One that is damaged is told of when it is used.
                if let Some((scope, _)) = key.split()
                    && let Ok(record) = parse_record(&stored.value, "?")
                    && record.quotas != FunctionQuotas::default()
                {
                    self.apply(&scope, &record.latest.name, record.quotas);
                }
            }
        }
    }

    pub(super) fn apply(&self, scope: &Scope, name: &str, quotas: FunctionQuotas) {
        let owner = Owner {
            scope: scope.clone(),
            function: name.into(),
        };
        self.sandbox.set_function_quotas(&Arc::new(owner), quotas);
    }
}
