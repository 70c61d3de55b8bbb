//! Mappings without guests: the real supervisor and pollers over any store, with a sandbox whose
//! one handler answers at once, or waits, or stands at a gate until it is opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use ::bytes::Bytes;
use anyhow::Context as _;
use shardmill::clock::Clock;
use shardmill::functions::FunctionSettings;
use shardmill::mapping::{CreateMapping, Mappings, Origin};
use shardmill::workloads::Workloads;
use shardmill_core::effects::Effects;
use shardmill_core::mapping::{Policy, StartingPosition};
use shardmill_core::sandbox::{
    BoxFuture, Carrier, Input, Invocation, LoadError, Mode, Module, Report, Sandbox, Usage,
};
use shardmill_core::{Outcome, Records, Scope, ShardId, StreamId};
use shardmill_store::{Append, Route, Store, Tx};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bytes;

/// The stream and its mapping.
const NAME: &str = "bench";
/// The function that the stub stands for.
const FUNCTION: &str = "handler";
/// How long a run may take before it is given up.
const RUN_LIMIT: Duration = Duration::from_secs(120);
/// Enough for commits that follow the last answer; a loop that waits uses no CPU meanwhile.
const LAST_COMMITS: Duration = Duration::from_millis(30);

/// One stream and the mapping loop on it.
pub(crate) struct Pollers {
    pub(crate) runtime: Runtime,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) stream: StreamId,
    stub: Arc<Stub>,
    mappings: Mappings,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

/// A sandbox that runs nothing.
struct Stub {
    takes: Duration,
    /// Records seen, and how many are awaited.
    seen: AtomicU64,
    awaited: AtomicU64,
    reached: Notify,
    closed: AtomicBool,
    gate: watch::Sender<bool>,
}

struct Nothing;

impl Module for Nothing {
    fn digest(&self) -> &str {
        "00000000000000000000"
    }

    fn carrier(&self) -> Carrier {
        Carrier::Packed {
            mode: Mode::Record,
            uses_state: false,
        }
    }
}

impl Sandbox for Stub {
    fn load(&self, _: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        Box::pin(async { Ok(Arc::new(Nothing) as Arc<dyn Module>) })
    }

    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        Box::pin(async move {
            if self.closed.load(SeqCst) {
                // The sender lives as long as the stub.
                let _ = self.gate.subscribe().wait_for(|open| *open).await;
            }
            if !self.takes.is_zero() {
                tokio::time::sleep(self.takes).await;
            }
            let records = match &invocation.input {
                Input::Records(batch) => batch.len(),
                Input::Event { count, .. } => *count,
            };
            let seen = self.seen.fetch_add(records as u64, SeqCst) + records as u64;
            if seen >= self.awaited.load(SeqCst) {
                self.reached.notify_one();
            }
            Report {
                outcome: Outcome::Ok {
                    text: String::new(),
                },
                effects: Effects::default(),
                usage: Usage::default(),
                log: Vec::new(),
                record_fuel: Vec::new(),
                stderr_tail: String::new(),
                output_cut_bytes: 0,
            }
        })
    }
}

impl Pollers {
    /// Starts the loop on a new stream of `shards` shards, without a mapping. Every invocation
    /// takes so long.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        clock: Clock,
        shards: u32,
        takes: Duration,
    ) -> anyhow::Result<Self> {
        let runtime = Runtime::new()?;
        let stub = Arc::new(Stub {
            takes,
            seen: AtomicU64::new(0),
            awaited: AtomicU64::new(u64::MAX),
            reached: Notify::new(),
            closed: AtomicBool::new(false),
            gate: watch::Sender::new(true),
        });
        let sandbox: Arc<dyn Sandbox> = stub.clone();
        let workloads = Workloads::new(Arc::clone(&store), sandbox, clock, None);
        let (mappings, functions) = (workloads.mappings, workloads.functions);
        let stop = CancellationToken::new();
        let running = {
            let (mappings, stop) = (mappings.clone(), stop.clone());
            runtime.spawn(async move { mappings.run(stop, CancellationToken::new()).await })
        };
        let stream = runtime.block_on(async {
            let settings = FunctionSettings::default();
            let scope = Scope::default();
            functions
                .deploy(&scope, FUNCTION, Bytes::new(), settings)
                .await?;
            bytes::create_stream(&*store, NAME, shards).await
        })?;
        Ok(Self {
            runtime,
            store,
            stream,
            stub,
            mappings,
            stop,
            running,
        })
    }

    /// Appends records to a shard, as one block.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn put(&self, shard: u32, records: Records) -> anyhow::Result<()> {
        let tx = Tx {
            appends: vec![Append {
                stream: self.stream,
                route: Route::Shard(ShardId(shard)),
                records,
            }],
            ..Tx::default()
        };
        self.runtime.block_on(self.store.commit(tx))?;
        Ok(())
    }

    /// Makes the mapping, from the first record on.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn map(&self, policy: Policy) -> anyhow::Result<()> {
        let mapping = CreateMapping {
            name: Some(NAME.to_owned()),
            stream: NAME.parse().context("a stream's name")?,
            function: FUNCTION.to_owned(),
            starting_position: StartingPosition::TrimHorizon,
            policy,
            enabled: true,
            origin: Origin::Manifest,
            on_failure: None,
        };
        let scope = Scope::default();
        let create = self.mappings.create(&scope, mapping);
        self.runtime.block_on(create)?;
        Ok(())
    }

    /// Lets no invocation end from now on.
    pub(crate) fn close_gate(&self) {
        self.stub.gate.send_replace(false);
        self.stub.closed.store(true, SeqCst);
    }

    /// Lets them end again.
    pub(crate) fn open_gate(&self) {
        self.stub.closed.store(false, SeqCst);
        self.stub.gate.send_replace(true);
    }

    /// Expects so many records to reach the handler; to be called before they can.
    pub(crate) fn expect(&self, records: u64) {
        self.stub.seen.store(0, SeqCst);
        self.stub.awaited.store(records, SeqCst);
    }

    /// Waits until the expected records have reached the handler.
    ///
    /// # Errors
    /// They do not.
    pub(crate) fn wait(&self) -> anyhow::Result<()> {
        let reached = async {
            while self.stub.seen.load(SeqCst) < self.stub.awaited.load(SeqCst) {
                self.stub.reached.notified().await;
            }
        };
        let waited = self
            .runtime
            .block_on(async { tokio::time::timeout(RUN_LIMIT, reached).await });
        waited.with_context(|| {
            let (seen, awaited) = (&self.stub.seen, &self.stub.awaited);
            format!("{seen:?} of {awaited:?} records came within {RUN_LIMIT:?}")
        })
    }

    /// The same, and until what followed is committed.
    ///
    /// # Errors
    /// They do not come, or more than they came.
    pub(crate) fn wait_until_done(&self) -> anyhow::Result<()> {
        self.wait()?;
        self.pause(LAST_COMMITS);
        let (seen, awaited) = (&self.stub.seen, &self.stub.awaited);
        anyhow::ensure!(
            seen.load(SeqCst) == awaited.load(SeqCst),
            "{seen:?} records came instead of {awaited:?}"
        );
        Ok(())
    }

    /// Lets the loop run for so long.
    pub(crate) fn pause(&self, span: Duration) {
        self.runtime
            .block_on(async { tokio::time::sleep(span).await });
    }

    /// Records that the mapping has not done.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn behind(&self) -> anyhow::Result<u64> {
        let mapping = self.mappings.get(&Scope::default(), NAME)?;
        let view = self.runtime.block_on(self.mappings.view(mapping))?;
        Ok(view.shards.iter().map(|shard| shard.records_behind).sum())
    }

    /// Deletes the mapping and waits until nothing of it runs.
    ///
    /// # Errors
    /// Records are left that it has not done, or it does not go.
    pub(crate) fn unmap(&self) -> anyhow::Result<()> {
        let behind = self.behind()?;
        anyhow::ensure!(behind == 0, "{behind} records are left");
        let scope = Scope::default();
        self.runtime.block_on(async {
            self.mappings.delete(&scope, NAME).await?;
            let gone = async {
                while self.mappings.get(&scope, NAME).is_ok() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let gone = tokio::time::timeout(RUN_LIMIT, gone).await;
            gone.context("wait until the mapping is gone")
        })
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// A part of it panicked.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.runtime.block_on(self.running)?;
        self.runtime.block_on(self.store.close());
        Ok(())
    }
}
