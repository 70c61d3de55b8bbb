//! The front: what the host configures, loads and invokes.
//!
//! **Admission.** An attempt holds a slot and its whole memory limit against a budget of the
//! process while it runs, so that a guest's grow never fails for another guest's sake. Waiting
//! for that is not an attempt; waiting too long is a throttle. `shardmill_core::admission` says who
//! is next.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::admission::{Amount, Standing};
use shardmill_core::effects::Effects;
use shardmill_core::quotas::{FunctionQuotas, Quotas};
use shardmill_core::sandbox::{
    Again, BoxFuture, Carrier, Input, Invocation, LoadError, Module, Owner, Report, Usage,
};
use shardmill_core::{Outcome, Sandbox, Scope, TenantId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use wasmtime::{Engine, Linker};

use crate::admission::{Gate, NotAdmitted, Reservation};
use crate::artifacts::Artifacts;
use crate::compiler::CompilerConfig;
use crate::engine::{self, Engines};
use crate::guest::Guest;
use crate::instance;
use crate::invoker::Invokers;
use crate::machine;
use crate::meter::Signals;
use crate::module::{self, Code, Compiled, LoadedModule};

/// Modules that are compiled or checked at a time. Each may use every core while it compiles.
const LOADS: u32 = 2;

/// How much of the machine guests may have.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// Threads that run guests. Default: one per core.
    pub invoker_threads: usize,
    /// Memory of all running guests together, bytes. Default: half of what this process may have,
    /// or 1 GiB, but three quarters at the most: what counts is what they may use, not what they do.
    pub memory_budget_bytes: u64,
    /// Attempts that run at a time, 1 … 4,096. Default: 1,000, as of an account of Lambda's. Each
    /// takes 12 GiB of address space.
    pub concurrency: u32,
    /// How long an attempt waits for a slot and its memory before it is throttled. Default: 10 s.
    pub admission_timeout: Duration,
    /// Largest module, bytes. Default: 64 MiB.
    pub max_module_bytes: usize,
    /// The child process that compiles, and where artifacts are kept. Default: modules are compiled
    /// in this process, which is for modules that one trusts.
    pub compiler: Option<CompilerConfig>,
    /// Whether guests run on simulated time: their running takes none, and their sleeping is over
    /// at once, though it counts towards their timeout; [`Usage::duration`] is what they slept. What
    /// stops a guest that only runs is its fuel. Default: no.
    pub simulated_time: bool,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            invoker_threads: std::thread::available_parallelism().map_or(1, NonZero::get),
            memory_budget_bytes: guest_memory(machine::memory_bytes()),
            concurrency: 1_000,
            admission_timeout: Duration::from_secs(10),
            max_module_bytes: 64 << 20,
            compiler: None,
            simulated_time: false,
        }
    }
}

impl SandboxConfig {
    /// For guests that run one at a time, on simulated time.
    pub fn simulated() -> Self {
        Self {
            invoker_threads: 1,
            concurrency: 4,
            memory_budget_bytes: 4 << 30,
            simulated_time: true,
            ..Self::default()
        }
    }
}

/// What guests hold at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// Instances.
    pub instances: u64,
    /// Linear memories.
    pub memories: usize,
    /// Stacks.
    pub stacks: usize,
    /// Memory reserved by admission, bytes.
    pub reserved_bytes: u64,
}

/// Runs guests with wasmtime.
pub struct WasmSandbox {
    config: SandboxConfig,
    engines: Engines,
    fingerprint: String,
    artifacts: Option<Arc<Artifacts>>,
    /// By engine.
    linkers: [Arc<Linker<Guest>>; 2],
    invokers: Invokers,
    gate: Arc<Gate>,
    loads: Arc<Semaphore>,
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
#[error("start the sandbox: {0}")]
pub struct StartError(String);

impl WasmSandbox {
    /// Reserves the pool's address space and starts the invoker threads.
    ///
    /// # Errors
    /// When the system refuses address space or threads.
    pub fn new(config: SandboxConfig) -> Result<Self, StartError> {
        let concurrency = config.concurrency.clamp(1, 4096);
        let failed = |error: wasmtime::Error| StartError(format!("{error:#}"));
        let engines =
            Engines::build(concurrency + LOADS, config.invoker_threads).map_err(failed)?;
        let [inlining, plain] = engines.all();
        let linkers = [
            Arc::new(module::linker(inlining).map_err(failed)?),
            Arc::new(module::linker(plain).map_err(failed)?),
        ];
        let invokers = Invokers::start(config.invoker_threads)
            .map_err(|error| StartError(error.to_string()))?;
        let fingerprint = engines.fingerprint();
        let folder = config
            .compiler
            .as_ref()
            .and_then(|c| c.artifacts.as_deref());
        let artifacts = folder.and_then(|folder| {
            let opened = Artifacts::open(folder, &fingerprint);
            let opened = opened.inspect_err(|error| {
                tracing::warn!(%error, folder = %folder.display(), "compiled modules are not kept");
            });
            opened.ok().map(Arc::new)
        });
        Ok(Self {
            engines,
            fingerprint,
            artifacts,
            linkers,
            invokers,
            gate: Gate::new(Amount {
                slots: u64::from(concurrency),
                bytes: config.memory_budget_bytes,
            }),
            loads: Arc::new(Semaphore::new(LOADS as usize)),
            config,
        })
    }

    /// What guests hold at this moment: all zero when none runs.
    pub fn in_use(&self) -> InUse {
        let reserved_bytes = self.config.memory_budget_bytes - self.gate.free().bytes;
        let mut in_use = InUse {
            reserved_bytes,
            ..InUse::default()
        };
        let engines = self.engines.all().into_iter();
        for pool in engines.filter_map(Engine::pooling_allocator_metrics) {
            in_use.instances += pool.core_instances();
            in_use.memories += pool.memories();
            in_use.stacks += pool.stacks();
        }
        in_use
    }

    async fn load(&self, wasm: Bytes) -> Result<Arc<dyn Module>, LoadError> {
        let refused = |why: &str| LoadError::Refused(format!("module could not be loaded: {why}"));
        let turn = Arc::clone(&self.loads).acquire_owned().await;
        let turn = turn.map_err(|_| refused("the sandbox is closed"))?;
        module::check_upload(&wasm, self.config.max_module_bytes)?;
        let digest = module::digest(&wasm);
        let artifact = match &self.config.compiler {
            Some(compiler) => Some(self.artifact(compiler, &wasm, &digest).await?),
            None => None,
        };
        let engine = self.engines.of(&wasm).clone();
        let linker = self
            .linkers
            .iter()
            .find(|linker| Engine::same(linker.engine(), &engine));
        let linker = Arc::clone(linker.ok_or_else(|| refused("its engine has no linker"))?);
        // A compiler in this process cannot be stopped, so it keeps the turn even when nobody waits
        // any more.
        let linked = tokio::task::spawn_blocking(move || {
            let module = match artifact {
                Some(module) => module,
                None => module::compile(&engine, &wasm)?,
            };
            Ok((module::link(&linker, &module)?, turn))
        });
        let (code, turn) = linked.await.map_err(|_| refused("the compiler failed"))??;
        let (code, carrier) = self
            .ask_abi(code, turn)
            .await
            .ok_or_else(|| refused("its check failed"))?;
        Ok(Arc::new(LoadedModule {
            digest,
            carrier: carrier?,
            code,
        }))
    }

    /// What the child process has made of a module: now, or before.
    async fn artifact(
        &self,
        compiler: &CompilerConfig,
        wasm: &[u8],
        digest: &str,
    ) -> Result<Compiled, LoadError> {
        let refused =
            |why: String| LoadError::Refused(format!("module could not be loaded: {why}"));
        let engine = self.engines.of(wasm);
        if let Some(artifacts) = self.artifacts.clone() {
            let (engine, digest) = (engine.clone(), digest.to_owned());
            let found = tokio::task::spawn_blocking(move || artifacts.load(&engine, &digest));
            if let Ok(Some(module)) = found.await {
                return Ok(module);
            }
        }
        let began = tokio::time::Instant::now();
        let artifact = compiler.compile(wasm, &self.fingerprint).await?;
        tracing::debug!(digest, bytes = artifact.len(), took = ?began.elapsed(), "compiled");
        let (artifacts, engine) = (self.artifacts.clone(), engine.clone());
        let digest = digest.to_owned();
        let loaded = tokio::task::spawn_blocking(move || {
            if let Some(artifacts) = artifacts {
                match artifacts.keep(&digest, &artifact) {
                    Ok(()) => {
                        if let Some(module) = artifacts.load(&engine, &digest) {
                            return Ok(module);
                        }
                    }
                    Err(error) => tracing::warn!(%error, "a compiled module is not kept"),
                }
            }
            Artifacts::just_made(&engine, &artifact)
        });
        let loaded = loaded.await.map_err(|error| refused(error.to_string()))?;
        loaded.map_err(|error| refused(format!("{error:#}")))
    }

    /// Asks for the carrier on an invoker's thread, in turn with the attempts.
    async fn ask_abi(
        &self,
        code: Code,
        turn: OwnedSemaphorePermit,
    ) -> Option<(Code, Result<Carrier, LoadError>)> {
        let signals = Arc::new(Signals::default());
        let (answer, answered) = oneshot::channel();
        let asked = Arc::clone(&signals);
        let work = async move {
            let carrier = instance::ask_abi(&code, asked).await;
            drop(turn);
            let _ = answer.send((code, carrier));
        };
        // No caller can be this one, so no caller pays for what others load.
        let owner = Arc::new(Owner {
            scope: Scope {
                tenant: TenantId::HOST,
                ..Scope::default()
            },
            function: "".into(),
        });
        let memory = instance::ABI_MEMORY_BYTES.min(self.config.memory_budget_bytes);
        let span = self.config.admission_timeout;
        let _reservation = self.gate.admit(&owner, memory, span).await.ok()?;
        let _ticket = self.invokers.submit(&owner, Box::pin(work), signals);
        answered.await.ok()
    }

    /// A tenant whose fuel is burnt holds no slot while it waits for more.
    async fn admit(
        &self,
        owner: &Arc<Owner>,
        bytes: u64,
        span: Duration,
    ) -> Result<Reservation, NotAdmitted> {
        let deadline = tokio::time::Instant::now() + span;
        while let Some(until) = self.invokers.dry_until(owner.scope.tenant) {
            if until > deadline {
                tokio::time::sleep_until(deadline).await;
                return Err(NotAdmitted::Dry { span });
            }
            tokio::time::sleep_until(until).await;
        }
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        self.gate.admit(owner, bytes, left).await
    }

    async fn invoke(&self, invocation: Invocation, again: Option<Again>) -> Report {
        let module: Arc<dyn std::any::Any + Send + Sync> = Arc::clone(&invocation.module) as _;
        let Ok(module) = module.downcast::<LoadedModule>() else {
            return throttled("the module was loaded by another sandbox".into());
        };
        let mut engines = self.engines.all().into_iter();
        if !engines.any(|engine| Engine::same(module.code.engine(), engine)) {
            return throttled("the module was loaded by another sandbox".into());
        }
        let takes_json = module.carrier.takes_json();
        if takes_json != matches!(invocation.input, Input::Event { .. }) {
            let takes = if takes_json {
                "a JSON event"
            } else {
                "records"
            };
            return throttled(format!("the module takes {takes}"));
        }
        let owner = Arc::clone(&invocation.owner);
        let (bytes, span) = (
            invocation.limits.memory_bytes,
            self.config.admission_timeout,
        );
        let reservation = match self.admit(&owner, bytes, span).await {
            Ok(reservation) => reservation,
            Err(reason) => return throttled(reason.to_string()),
        };
        let signals = Arc::new(if self.config.simulated_time {
            Signals::simulated()
        } else {
            Signals::default()
        });
        let (report, reported) = oneshot::channel();
        let running = Arc::clone(&signals);
        let work = async move {
            let signals = Arc::clone(&running);
            let done = instance::attempt(&module, (invocation, again), running, reservation).await;
            signals.finish();
            let _ = report.send(done);
        };
        let _ticket = self.invokers.submit(&owner, Box::pin(work), signals);
        reported
            .await
            .unwrap_or_else(|_| throttled("host fault: the attempt was lost".into()))
    }
}

impl Sandbox for WasmSandbox {
    fn load(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        Box::pin(self.load(wasm))
    }

    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        Box::pin(self.invoke(invocation, None))
    }

    fn replay(&self, invocation: Invocation, again: Again) -> BoxFuture<'_, Report> {
        Box::pin(self.invoke(invocation, Some(again)))
    }

    fn set_quotas(&self, tenant: TenantId, quotas: &Quotas) {
        self.invokers.set_quotas(tenant, quotas);
        self.gate.set_quotas(tenant, quotas);
    }

    fn set_function_quotas(&self, owner: &Arc<Owner>, quotas: FunctionQuotas) {
        self.invokers.set_weight(owner, quotas.weight);
        self.gate.set_reserved(owner, quotas.reserved_concurrency);
    }

    fn standings(&self) -> Vec<(TenantId, Standing)> {
        self.gate.standings()
    }

    fn engine(&self) -> String {
        format!("shardmill {} ({})", env!("CARGO_PKG_VERSION"), engine::NAME)
    }
}

/// What guests may have of a machine's memory, bytes.
fn guest_memory(machine: u64) -> u64 {
    (machine / 2).max(1 << 30).min(machine / 4 * 3)
}

fn throttled(reason: String) -> Report {
    Report {
        outcome: Outcome::Throttled { reason },
        effects: Effects::default(),
        usage: Usage::default(),
        log: Vec::new(),
        record_fuel: Vec::new(),
        stderr_tail: String::new(),
        output_cut_bytes: 0,
    }
}
