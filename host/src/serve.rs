//! A host from start to end: open the store, bring it to the manifest, serve, and stop in an
//! order that loses nothing.
//!
//! Stopping: no new connections and no new batches; requests and running batches finish, at most
//! 10 s, then they are cut off, which is safe because they are repeated; last the store closes.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use shardmill_core::Sandbox;
use shardmill_store::io::DiskIo;
use shardmill_store::{Embedded, Memory, Options, Store};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, StoreKind};
use crate::manifest::{Manifest, Reconciler, WatchedFiles};
use crate::services::Services;
use crate::workloads::Workloads;
use crate::{janitor, server};

/// Makes the machine that guests run on. The library does not name it, so that its tests need
/// not link it.
pub type NewSandbox = fn() -> anyhow::Result<Arc<dyn Sandbox>>;

/// How long requests and batches may take to finish when the host stops.
const GRACE: Duration = Duration::from_secs(10);

/// Below the data folder: which batches are in flight, so that one that kills the process over
/// and over is given up.
const NOTES: &str = "in-flight";

/// Runs a host until `shutdown` resolves. Writes one line to standard output when it is ready.
///
/// # Errors
/// It cannot start, or the store failed and nothing can be acknowledged any more.
pub async fn run(
    config: Config,
    manifest: Option<Manifest>,
    new_sandbox: NewSandbox,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    // The port first: it is what fails when a host runs already.
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.with_context(|| format!("listen on {}", config.listen))?;
    let address = listener.local_addr().context("find out the port")?;
    let clock = Clock::system();
    let Opened { store, mut failure } = open(&config, clock)?;
    let sandbox = new_sandbox()?;
    let notes = (config.store == StoreKind::Embedded).then(|| config.data_dir.join(NOTES));
    let workloads = Workloads::new(Arc::clone(&store), sandbox, clock, notes);
    let services = Services::start(Arc::clone(&store), clock, config.settings).await?;
    let services = Arc::new(services.with_workloads(workloads.clone()));

    let reconciler = Reconciler {
        store: Arc::clone(&store),
        functions: Arc::clone(&workloads.functions),
        mappings: workloads.mappings.clone(),
        clock,
    };
    let watched = match (&config.manifest, &manifest) {
        (Some(path), Some(manifest)) => Some(first(path, manifest, &reconciler).await?),
        _ => None,
    };

    let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
    let mut tasks = JoinSet::new();
    let (token, kill_token) = (stop.clone(), kill.clone());
    tasks.spawn(async move { workloads.mappings.run(token, kill_token).await });
    let (token, host) = (stop.clone(), Arc::clone(&services));
    tasks.spawn(async move {
        tokio::select! { () = janitor::run(host) => {}, () = token.cancelled() => {} }
    });
    let (token, host) = (stop.clone(), services);
    tasks.spawn(async move { server::serve(listener, host, token.cancelled_owned()).await });
    if let (Some(path), Some(files)) = (config.manifest, watched) {
        let token = stop.clone();
        tasks.spawn(async move {
            let watch = reload(path, files, reconciler);
            tokio::select! { () = watch => {}, () = token.cancelled() => {} }
        });
    }
    ready(&format!("http://{address}"))?;

    let failed = tokio::select! {
        () = shutdown => None,
        ended = tasks.join_next() => Some(format!("a part of the host ended by itself: {ended:?}")),
        why = store_failure(&mut failure) => Some(format!(
            "the store failed, so nothing can be acknowledged any more: {why}; \
             what was acknowledged is safe: see to the disk, then start the host again"
        )),
    };
    tracing::info!("stopping: running batches finish, within {GRACE:?}");
    stop.cancel();
    let finish = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        tracing::warn!(
            "batches and requests still running after {GRACE:?} are cut off; they are repeated"
        );
        kill.cancel();
        let finish = async { while tasks.join_next().await.is_some() {} };
        // What does not end now is dropped with the set.
        let _ = tokio::time::timeout(Duration::from_secs(1), finish).await;
    }
    tasks.shutdown().await;
    store.close().await;
    match failed {
        None => Ok(()),
        Some(why) => bail!(why),
    }
}

/// A store, and how it says that it can go on no longer.
struct Opened {
    store: Arc<dyn Store>,
    failure: Option<watch::Receiver<Option<Arc<str>>>>,
}

fn open(config: &Config, clock: Clock) -> anyhow::Result<Opened> {
    let now: shardmill_store::Clock = Arc::new(move || clock.now());
    if config.store == StoreKind::Memory {
        return Ok(Opened {
            store: Arc::new(Memory::new(now)),
            failure: None,
        });
    }
    let folder = &config.data_dir;
    let io = DiskIo::new(folder).with_context(|| format!("use {}", folder.display()))?;
    let store = Embedded::open(Arc::new(io), Options::default(), now)
        .with_context(|| format!("open the store in {}", folder.display()))?;
    let failure = Some(store.failure());
    Ok(Opened { store, failure })
}

/// Waits until the store fails for good, which one in memory never does.
async fn store_failure(failure: &mut Option<watch::Receiver<Option<Arc<str>>>>) -> Arc<str> {
    let Some(failure) = failure else {
        return std::future::pending().await;
    };
    match failure
        .wait_for(Option::is_some)
        .await
        .map(|why| why.clone())
    {
        Ok(Some(why)) => why,
        Ok(None) | Err(_) => "its threads have ended".into(),
    }
}

/// The one line that says that the host is ready.
fn ready(url: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on {url}")
        .and_then(|()| out.flush())
        .context("say that it is ready")
}

/// Brings the store to the manifest for the first time.
///
/// # Errors
/// Something that the manifest names does not exist afterwards. What an earlier start has made
/// goes on, with a line in the log.
async fn first(
    path: &std::path::Path,
    manifest: &Manifest,
    reconciler: &Reconciler,
) -> anyhow::Result<WatchedFiles> {
    let mut files = WatchedFiles::default();
    files.set(manifest.modules().chain([path]));
    let summary = reconciler.reconcile(manifest).await;
    let absent = summary.problems.into_iter().find(|problem| !problem.kept);
    match absent {
        Some(problem) => bail!("{}: {}", problem.item, problem.why),
        None => Ok(files),
    }
}

/// Brings the store to the manifest again whenever it or a module changes. A manifest that is
/// not good changes nothing.
async fn reload(path: PathBuf, mut files: WatchedFiles, reconciler: Reconciler) {
    loop {
        files.changed().await;
        match Manifest::load(&path) {
            Ok(manifest) => {
                files.set(manifest.modules().chain([path.as_path()]));
                reconciler.reconcile(&manifest).await;
            }
            Err(error) => tracing::error!("{error}; what runs goes on"),
        }
    }
}
