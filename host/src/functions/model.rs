//! What is stored of functions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shardmill_core::limits::FunctionLimits;
use shardmill_core::mapping::Weight;
use shardmill_core::quotas::FunctionQuotas;
use shardmill_core::sandbox::{Carrier, Module, Owner};
use shardmill_core::{Scope, UnixMillis};

/// Numbers of states of `$LATEST` that were not published, above all versions.
const UNPUBLISHED: u64 = 1 << 52;

/// The name of what a function was last given, published or not.
pub const LATEST: &str = "$LATEST";

/// A function at one time, which a batch can run on: `$LATEST`, or a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its name: 1 to 64 of `a-z A-Z 0-9 - _`.
    pub name: String,
    /// The number under which this is published, from 1; 0 when it is not.
    pub version: u64,
    /// Counts the changes of `$LATEST`'s code and settings up to this one.
    #[serde(default)]
    pub update: u64,
    /// SHA-256 of the module, in hexadecimal.
    pub digest: String,
    /// Size of the module in bytes.
    pub code_size: u64,
    /// When it was deployed, or published.
    pub last_modified: UnixMillis,
    /// What its publisher says of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it runs with.
    pub settings: FunctionSettings,
}

impl Function {
    /// A number that is this version's alone among those of the function, published or not.
    pub fn number(&self) -> u64 {
        match self.version {
            0 => UNPUBLISHED | self.update,
            version => version,
        }
    }

    /// The version in words: its number, or `$LATEST`.
    pub fn label(&self) -> String {
        label(self.number())
    }
}

/// What stands for a [`Function::number`] where people look.
pub fn label(number: u64) -> String {
    match number {
        0 | UNPUBLISHED.. => LATEST.into(),
        version => version.to_string(),
    }
}

/// What a function runs with, beside its module. Its `Debug` names the variables only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FunctionSettings {
    /// Its limits.
    pub limits: FunctionLimits,
    /// Its environment variables: all that its environment holds.
    pub environment: BTreeMap<String, String>,
    /// The form in which it keeps its state: versions with another one cannot read it.
    #[serde(skip_serializing_if = "is_zero")]
    pub state_format: u32,
}

impl fmt::Debug for FunctionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.keys().collect();
        f.debug_struct("FunctionSettings")
            .field("limits", &self.limits)
            .field("environment", &names)
            .field("state_format", &self.state_format)
            .finish()
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What is stored under a function's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionRecord {
    /// `$LATEST`.
    #[serde(flatten)]
    pub latest: Function,
    /// The highest number that was ever given to a version.
    #[serde(default)]
    pub newest: u64,
    /// What it is due among its tenant's functions.
    #[serde(default)]
    pub quotas: FunctionQuotas,
    /// The last deploy, if it failed. What ran before goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_deploy: Option<FailedDeploy>,
}

/// A deploy that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedDeploy {
    /// When it was first tried.
    pub at: UnixMillis,
    /// SHA-256 of the module, in hexadecimal; nothing where there was none to be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Why.
    pub reason: String,
}

/// A name for a version, or for two that share the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// Its name: 1 to 128 of `a-z A-Z 0-9 - _`, not a number.
    pub name: String,
    /// The version; 0 is `$LATEST`.
    pub version: u64,
    /// The second version and its share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<Second>,
    /// What its owner says of it.
    #[serde(default)]
    pub description: String,
    /// Counts its changes, from 1.
    pub revision: u64,
    /// When it was last changed.
    pub last_modified: UnixMillis,
}

/// The second version of an alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Second {
    /// Its number.
    pub version: u64,
    /// Its share of the requests.
    pub weight: Weight,
}

impl Alias {
    /// Whether it names this version.
    pub fn names(&self, version: u64) -> bool {
        self.version == version || self.second.is_some_and(|s| s.version == version)
    }
}

/// A function that is ready to run.
pub struct Loaded {
    /// The function.
    pub function: Arc<Function>,
    /// Its module.
    pub module: Arc<dyn Module>,
    /// Its environment, shared by its invocations.
    pub environment: Arc<BTreeMap<String, String>>,
    /// Who pays for its invocations.
    pub owner: Arc<Owner>,
}

impl Loaded {
    pub(super) fn new(scope: &Scope, function: Arc<Function>, module: Arc<dyn Module>) -> Self {
        Self {
            environment: Arc::new(function.settings.environment.clone()),
            owner: Arc::new(Owner {
                scope: scope.clone(),
                function: function.name.as_str().into(),
            }),
            function,
            module,
        }
    }

    /// How the module is called.
    pub fn carrier(&self) -> Carrier {
        self.module.carrier()
    }
}
