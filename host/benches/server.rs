//! A host's HTTP side in this process, on a loopback port of its own, over any store.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use shardmill::clock::Clock;
use shardmill::services::{Services, Settings};
use shardmill_store::io::DiskIo;
use shardmill_store::{Embedded, Memory, Options, Store};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::bodies;
use crate::client::Client;

/// The durable store, as the host opens it.
///
/// # Errors
/// The store's.
pub(crate) fn embedded(dir: &Path, clock: Clock) -> anyhow::Result<Arc<dyn Store>> {
    let io = Arc::new(DiskIo::new(dir)?);
    let clock: shardmill_store::Clock = Arc::new(move || clock.now());
    Ok(Embedded::open(io, Options::default(), clock).context("open a store")?)
}

/// The store that acknowledges at once.
pub(crate) fn memory(clock: Clock) -> Arc<dyn Store> {
    Arc::new(Memory::new(Arc::new(move || clock.now())))
}

/// A server that runs.
pub(crate) struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Server {
    /// Serves `store` on a free port.
    ///
    /// # Errors
    /// The store's, or no port is free.
    pub(crate) fn start(
        runtime: &Runtime,
        store: Arc<dyn Store>,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        runtime.block_on(async {
            let services = Services::start(store, clock, Settings::default()).await?;
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            let (stop, stopped) = oneshot::channel::<()>();
            let shutdown = async {
                let _ = stopped.await;
            };
            let services = Arc::new(services);
            let running = tokio::spawn(shardmill::server::serve(listener, services, shutdown));
            Ok(Self {
                address,
                stop,
                running,
            })
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it when its requests have ended.
    pub(crate) fn stop(self, runtime: &Runtime) -> anyhow::Result<()> {
        let _ = self.stop.send(());
        runtime.block_on(self.running).context("stop the server")
    }
}

/// Makes a stream and waits until it is active.
///
/// # Errors
/// The host's.
pub(crate) fn create_stream(address: SocketAddr, name: &str, shards: u32) -> anyhow::Result<()> {
    let mut client = Client::connect(address)?;
    client.call(&bodies::create_stream(name, shards))?;
    let describe = bodies::request(
        "DescribeStreamSummary",
        &format!(r#"{{"StreamName":"{name}"}}"#),
    );
    loop {
        let answer = client.call(&describe)?;
        if answer.windows(8).any(|word| word == br#""ACTIVE""#) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
