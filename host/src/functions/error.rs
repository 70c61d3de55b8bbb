//! What can go wrong with functions.

use shardmill_core::mapping::BadWeight;
use shardmill_core::sandbox::LoadError;
use shardmill_store::{CommitError, ReadError};

use super::reference::BadReference;

/// Why a function could not be deployed. The version that was running goes on.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] BadReference),
    /// A module that cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The dry run of an empty batch failed.
    #[error("the dry run of an empty batch failed: {0}")]
    DryRun(String),
    /// The host has no room for the dry run now.
    #[error("the host has no room for the dry run: {0}: try again")]
    Throttled(String),
    /// The store refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a stored function could not be made ready.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FunctionError {
    /// There is none.
    #[error("function {0:?} does not exist")]
    NotFound(String),
    /// A version that there is not.
    #[error("function {name:?} has no version {version}")]
    NoVersion {
        /// The function.
        name: String,
        /// The version.
        version: u64,
    },
    /// An alias that there is not.
    #[error("function {name:?} has no alias {alias:?}")]
    NoAlias {
        /// The function.
        name: String,
        /// The alias.
        alias: String,
    },
    /// A text that names no function.
    #[error(transparent)]
    Reference(#[from] BadReference),
    /// A module that is not kept.
    #[error(
        "the module {0} is not in this store: import the failure with its module, or replay it \
         --with the file"
    )]
    NoModule(String),
    /// Its module cannot be loaded any more.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What is stored makes no sense.
    #[error("function {0:?}: what is stored of it cannot be read")]
    Damaged(String),
}

/// Why a module could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// What runs it could not be read.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// The store refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why a function, a version or an alias could not be changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// It could not be found or read.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// An alias names the version.
    #[error(
        "version {version} of function {name:?} is named by alias {alias:?}: change the alias first"
    )]
    Named {
        /// The function.
        name: String,
        /// The version.
        version: u64,
        /// The alias.
        alias: String,
    },
    /// `$LATEST` is that version.
    #[error(
        "version {version} of function {name:?} is what $LATEST runs: deploy another one first"
    )]
    Latest {
        /// The function.
        name: String,
        /// The version.
        version: u64,
    },
    /// The store refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<ReadError> for DeleteError {
    fn from(error: ReadError) -> Self {
        Self::Function(error.into())
    }
}

/// Why an alias could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum AliasError {
    /// What it is to name could not be found or read.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// It is there already.
    #[error("function {name:?} has an alias {alias:?}: change or delete it")]
    Exists {
        /// The function.
        name: String,
        /// The alias.
        alias: String,
    },
    /// A share that is none.
    #[error(transparent)]
    Weight(#[from] BadWeight),
    /// The same version twice.
    #[error("version {0} is the alias's own: the second version must be another one")]
    SameVersion(u64),
    /// `$LATEST` cannot share.
    #[error("$LATEST cannot share an alias with another version: publish it first")]
    LatestShares,
    /// More than functions may have.
    #[error("function {name:?} has {allowed} aliases, which is the most")]
    TooMany {
        /// The function.
        name: String,
        /// How many it may have.
        allowed: usize,
    },
    /// A description that is too long.
    #[error("description of {size} characters: at most {allowed} expected")]
    Description {
        /// Its length.
        size: usize,
        /// The limit.
        allowed: usize,
    },
    /// The store refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<ReadError> for AliasError {
    fn from(error: ReadError) -> Self {
        Self::Function(error.into())
    }
}
