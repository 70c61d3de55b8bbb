//! The whole host in this process, put together as `shardmill serve` does it: the durable store,
//! the sandbox, functions, the mapping loop, and HTTP on a loopback port.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use shardmill::clock::Clock;
use shardmill::functions::FunctionSettings;
use shardmill::mapping::{CreateMapping, Mappings, Origin, UpdateMapping};
use shardmill::workloads::Workloads;
use shardmill_core::mapping::{Policy, StartingPosition};
use shardmill_core::{Sandbox, Scope};
use shardmill_store::Store;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::server::{self, Server};

/// The stream that every host here has.
pub(crate) const STREAM: &str = "bench";
/// The mapping of that stream.
const MAPPING: &str = "bench";
/// How long a host may stand still before its run is given up.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// A host that runs.
pub(crate) struct Host {
    runtime: Runtime,
    store: Arc<dyn Store>,
    server: Server,
    mappings: Mappings,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

/// What a host runs.
pub(crate) struct Setup {
    pub(crate) shards: u32,
    pub(crate) wasm: Bytes,
    pub(crate) batch_size: u32,
    /// Whether the mapping runs from the start.
    pub(crate) enabled: bool,
}

impl Host {
    /// Starts one in an empty folder, with one stream, one function and the mapping between them.
    ///
    /// # Errors
    /// Any part's.
    pub(crate) fn start(
        dir: &Path,
        sandbox: Arc<dyn Sandbox>,
        setup: Setup,
    ) -> anyhow::Result<Self> {
        let runtime = Runtime::new()?;
        let clock = Clock::system();
        let store = server::embedded(&dir.join("data"), clock)?;
        let server = Server::start(&runtime, Arc::clone(&store), clock)?;
        server::create_stream(server.address(), STREAM, setup.shards)?;
        let notes = Some(dir.join("in-flight"));
        let Workloads {
            functions,
            mappings,
            ..
        } = Workloads::new(Arc::clone(&store), sandbox, clock, notes);
        let stop = CancellationToken::new();
        let running = {
            let (mappings, stop) = (mappings.clone(), stop.clone());
            runtime.spawn(async move { mappings.run(stop, CancellationToken::new()).await })
        };
        runtime.block_on(async {
            let scope = Scope::default();
            let settings = FunctionSettings::default();
            functions
                .deploy(&scope, "handler", setup.wasm, settings)
                .await?;
            let mapping = CreateMapping {
                name: Some(MAPPING.to_owned()),
                stream: STREAM.parse().context("a stream's name")?,
                function: "handler".to_owned(),
                starting_position: StartingPosition::TrimHorizon,
                policy: Policy {
                    batch_size: setup.batch_size,
                    ..Policy::manifest()
                },
                enabled: setup.enabled,
                origin: Origin::Manifest,
                on_failure: None,
            };
            mappings.create(&scope, mapping).await?;
            anyhow::Ok(())
        })?;
        Ok(Self {
            runtime,
            store,
            server,
            mappings,
            stop,
            running,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Lets the mapping run.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn enable_mapping(&self) -> anyhow::Result<()> {
        let update = UpdateMapping {
            enabled: Some(true),
            ..UpdateMapping::default()
        };
        let scope = Scope::default();
        self.runtime
            .block_on(self.mappings.update(&scope, MAPPING, update))?;
        Ok(())
    }

    /// Waits until the mapping has dealt with every record.
    ///
    /// # Errors
    /// Records were given up, or nothing moves any more.
    pub(crate) fn wait_until_done(&self) -> anyhow::Result<()> {
        let scope = Scope::default();
        self.runtime.block_on(async {
            let mut last = (u64::MAX, std::time::Instant::now());
            loop {
                let mapping = self.mappings.get(&scope, MAPPING)?;
                let view = self.mappings.view(mapping).await?;
                anyhow::ensure!(
                    view.metrics.given_up + view.metrics.expired == 0,
                    "records were given up: {}",
                    view.last_processing_result
                );
                let behind: u64 = view.shards.iter().map(|shard| shard.records_behind).sum();
                if behind == 0 {
                    return Ok(());
                }
                if behind != last.0 {
                    last = (behind, std::time::Instant::now());
                }
                anyhow::ensure!(
                    last.1.elapsed() < STALL_LIMIT,
                    "{behind} records are left and nothing moves: {}",
                    view.last_processing_result
                );
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// A part of it panicked.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.runtime.block_on(self.running)?;
        self.server.stop(&self.runtime)?;
        self.runtime.block_on(self.store.close());
        Ok(())
    }
}
