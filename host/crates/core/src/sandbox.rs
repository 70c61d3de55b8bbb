//! The seam to the machine that runs guests. The real one is the crate `shardmill-sandbox`; tests
//! script their own.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::admission::Standing;
use crate::batch::{Batch, BatchContext};
use crate::effects::Effects;
use crate::limits::FunctionLimits;
use crate::outcome::Outcome;
use crate::quotas::{FunctionQuotas, Quotas};
use crate::tenant::{Scope, TenantId};
use crate::time::UnixMillis;

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Compiles modules and runs them under limits.
pub trait Sandbox: Send + Sync {
    /// Compiles and checks a module: imports, exports, ABI. Takes CPU time in proportion to its
    /// size; runs nothing but `shardmill_abi_v1`.
    fn load(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>>;

    /// Runs one attempt on a fresh instance. Always answers: whatever the guest does ends in an
    /// [`Outcome`]. Dropping the future cancels the attempt.
    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Report>;

    /// Runs an attempt again that was recorded: same inputs, same outcome, same fuel to the
    /// unit. What differs is only how long the caller is willing to wait: the guest is told of
    /// the deadline of its own limits, and a sleep passes on its clock without being waited for.
    ///
    /// A sandbox that runs nothing for real answers as to [`Sandbox::invoke`].
    fn replay(&self, invocation: Invocation, again: Again) -> BoxFuture<'_, Report> {
        let Again { .. } = again;
        self.invoke(invocation)
    }

    /// What a tenant may use from now on; what it holds already it keeps until it ends. A tenant that
    /// was never named has [`Quotas::default`].
    ///
    /// A sandbox that runs nothing for real takes no notice.
    fn set_quotas(&self, tenant: TenantId, quotas: &Quotas) {
        let _ = (tenant, quotas);
    }

    /// What a function is due among its tenant's from now on. One that was never named has
    /// [`FunctionQuotas::default`].
    fn set_function_quotas(&self, owner: &Arc<Owner>, quotas: FunctionQuotas) {
        let _ = (owner, quotas);
    }

    /// What tenants hold and wait for at this moment.
    fn standings(&self) -> Vec<(TenantId, Standing)> {
        Vec::new()
    }

    /// The engine with its version: another one may count fuel differently.
    fn engine(&self) -> String {
        "unknown".into()
    }
}

/// How a recorded attempt is run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// Ends it as out of fuel at this many units: where the wall clock had cut the recorded
    /// attempt off. `None`: the limit is that of the invocation.
    pub stop_at_fuel: Option<u64>,
    /// Wall clock of the run, in place of the invocation's.
    pub timeout: Duration,
}

/// A loaded module.
pub trait Module: Any + Send + Sync {
    /// SHA-256 of the wasm bytes, in hexadecimal.
    fn digest(&self) -> &str;

    /// How it is called.
    fn carrier(&self) -> Carrier;
}

/// How a module is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A core module with the packed ABI.
    Packed {
        /// What it takes.
        mode: Mode,
        /// Whether it says that it uses keyed state.
        uses_state: bool,
    },
    /// A WASI command: JSON on standard input and output.
    Command,
}

impl Carrier {
    /// Whether the function takes Lambda's JSON event rather than packed records.
    pub fn takes_json(self) -> bool {
        matches!(
            self,
            Self::Command
                | Self::Packed {
                    mode: Mode::Event,
                    ..
                }
        )
    }

    /// Whether `progress` is the record's index in order, so that a prefix of a failed batch is done.
    pub fn is_record_mode(self) -> bool {
        matches!(
            self,
            Self::Packed {
                mode: Mode::Record,
                ..
            }
        )
    }
}

/// What a packed-ABI handler takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One record after the other.
    Record,
    /// The whole batch.
    Batch,
    /// Lambda's JSON event.
    Event,
}

/// Why a module cannot be used. The message says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Not WebAssembly, or not valid, or a proposal that is switched off.
    #[error("not a usable WebAssembly module: {0}")]
    Invalid(String),
    /// A kind of file that is refused: a precompiled artifact.
    #[error("{0}")]
    Refused(String),
    /// An import that the host does not offer.
    #[error(
        "import {module:?} {name:?} is not offered: a core module may import wasi_snapshot_preview1 and shardmill, a \
         component shardmill:handler/host@1 and, as far as they are of version 0.2, wasi:cli, wasi:clocks, \
         wasi:filesystem, wasi:io, wasi:random and wasi:sockets"
    )]
    Import {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
    },
    /// Exports that are missing or have another type, or an ABI word that makes no sense.
    #[error("{0}")]
    Abi(String),
    /// Larger than the host takes.
    #[error("module of {size} bytes, {allowed} allowed")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        allowed: usize,
    },
}

/// What an invocation gets.
pub enum Input {
    /// Records, for a packed-ABI handler in record or batch mode.
    Records(Batch),
    /// A JSON event, for the others, with the number of records in it.
    Event {
        /// The event.
        json: Bytes,
        /// How many records it holds.
        count: usize,
    },
}

/// Who pays for an attempt: the tenant, and its function.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Account and region.
    pub scope: Scope,
    /// The function's name.
    pub function: Arc<str>,
}

/// One attempt.
pub struct Invocation {
    /// Who pays for it.
    pub owner: Arc<Owner>,
    /// The name of the mapping that it is for; none: a person, or a deploy's dry run.
    pub mapping: Option<Arc<str>>,
    /// The module, from the same sandbox.
    pub module: Arc<dyn Module>,
    /// What it gets.
    pub input: Input,
    /// The header of the packed batch. The sandbox fills in `deadline`.
    pub context: BatchContext,
    /// The limits.
    pub limits: FunctionLimits,
    /// The function's environment variables; nothing else is in the guest's environment.
    pub environment: Arc<BTreeMap<String, String>>,
    /// Reads keyed state.
    pub state: Arc<dyn StateView>,
    /// The guest's wall clock: stands still at this instant.
    pub now: UnixMillis,
    /// Seed of the guest's randomness.
    pub seed: [u8; 32],
}

/// Reads keyed state for one function. Called on an invoker's thread, so it may block shortly.
pub trait StateView: Send + Sync {
    /// The value and its revision; `None` where there is none.
    ///
    /// # Errors
    /// What the store says; the attempt ends as throttled.
    fn get(&self, partition_key: &str, name: &str) -> Result<Option<(Bytes, u64)>, String>;
}

/// No keyed state: for invocations by hand and dry runs.
pub struct NoState;

impl StateView for NoState {
    fn get(&self, _: &str, _: &str) -> Result<Option<(Bytes, u64)>, String> {
        Ok(None)
    }
}

/// What came of an attempt.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// What it did. In record mode, the effects of the records that are done and, on success, of
    /// all; effects of the record at fault are already left out.
    pub effects: Effects,
    /// What it used.
    pub usage: Usage,
    /// In record mode, the fuel that was burnt when each record became current; empty otherwise.
    pub record_fuel: Vec<u64>,
    /// Lines from `log` and standard output, in order, within the output limit.
    pub log: Vec<LogLine>,
    /// The end of standard error, lossily decoded, at most 4 KiB.
    pub stderr_tail: String,
    /// Bytes of output that were cut off.
    pub output_cut_bytes: u64,
}

/// What an attempt used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Fuel, units.
    pub fuel: u64,
    /// The fuel limit, units.
    pub fuel_allowed: u64,
    /// Highest size of linear memory, bytes.
    pub memory_bytes: u64,
    /// Its own running and sleeping.
    pub duration: Duration,
}

/// A line that a guest wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The level that the guest gave; output on standard output is info, on standard error warn.
    pub level: LogLevel,
    /// The text.
    pub text: String,
}

/// A log level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// 1
    Error,
    /// 2
    Warn,
    /// 3
    Info,
    /// 4
    Debug,
    /// 5
    Trace,
}
