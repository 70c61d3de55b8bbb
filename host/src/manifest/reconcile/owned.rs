//! What a manifest has named so far, kept in the store: only that may be pruned, never what
//! somebody made through the API.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use shardmill_core::Scope;
use shardmill_store::{Key, Store, Table, Tx, Urgency, Value};

use crate::functions::to_json;
use crate::manifest::Manifest;

/// Names by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Owned {
    pub(super) streams: BTreeSet<(Scope, String)>,
    pub(super) functions: BTreeSet<(Scope, String)>,
    /// As `FUNCTION:ALIAS`.
    pub(super) aliases: BTreeSet<(Scope, String)>,
    pub(super) mappings: BTreeSet<(Scope, String)>,
}

impl Owned {
    /// What `manifest` names.
    pub(super) fn of(manifest: &Manifest) -> Self {
        let pair = |scope: &Scope, name: &str| (scope.clone(), name.to_owned());
        Self {
            streams: manifest
                .streams
                .iter()
                .map(|s| pair(&s.scope, s.name.as_str()))
                .collect(),
            functions: manifest
                .functions
                .iter()
                .map(|f| pair(&f.scope, &f.name))
                .collect(),
            aliases: manifest
                .aliases
                .iter()
                .map(|a| pair(&a.scope, &format!("{}:{}", a.function, a.name)))
                .collect(),
            mappings: manifest
                .mappings
                .iter()
                .map(|m| pair(&m.scope, &m.name))
                .collect(),
        }
    }

    /// What is kept of earlier manifests; nothing before the first one.
    pub(super) fn load(store: &dyn Store) -> Result<Self, String> {
        let stored = store.get(&key()).map_err(|e| e.to_string())?;
        let Some(stored) = stored else {
            return Ok(Self::default());
        };
        serde_json::from_slice(&stored.value).map_err(|e| format!("what it named so far: {e}"))
    }

    /// Keeps it for the next manifest.
    pub(super) async fn save(&self, store: &dyn Store) -> Result<(), String> {
        let tx = Tx {
            writes: vec![(key(), Value::Inline(to_json(self)))],
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        store.commit(tx).await.map(drop).map_err(|e| e.to_string())
    }
}

fn key() -> Key {
    Key::new(Table::Host, &Scope::default()).part("manifest")
}
