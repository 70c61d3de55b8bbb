//! A host from start to end: open the store, bring it to the manifest, serve, and stop in an
//! order that loses nothing.
//!
//! Stopping: no new connections and no new batches; requests and running batches finish, at most
//! 10 s, then they are cut off, which is safe because they are repeated; what they used is written,
//! and last the store closes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use shardmill_core::Sandbox;
use shardmill_store::io::DiskIo;
use shardmill_store::{Embedded, Memory, Options, Store};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, StoreKind};
use crate::delivery::Delivery;
use crate::manifest::{Manifest, Reconciler, WatchedFiles};
use crate::secrets::{self, SealingStore, SecretsError};
use crate::server::Certificate;
use crate::services::{Access, Services};
use crate::tenancy::{MeteredStore, Tenancy};
use crate::workloads::Workloads;
use crate::{janitor, server, usage};

/// Makes the machine that guests run on, which keeps what it compiles in a folder, if there is one.
/// The library does not name it, so that its tests need not link it.
pub type NewSandbox = fn(Option<&Path>) -> anyhow::Result<Arc<dyn Sandbox>>;

/// Makes a sandbox whose guests run on simulated time. What they are compiled from is one's own, so
/// this process compiles it.
pub type NewSimulated = fn() -> anyhow::Result<Arc<dyn Sandbox>>;

/// How long requests and batches may take to finish when the host stops.
const GRACE: Duration = Duration::from_secs(10);

/// How long what was cut off may take to notice.
const CUT_OFF: Duration = Duration::from_secs(1);

/// Below the data folder: which batches are in flight, so that one that kills the process over
/// and over is given up.
const NOTES: &str = "in-flight";

/// Below the data folder: compiled modules. May be removed while no host runs.
const ARTIFACTS: &str = "artifacts";

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
    let listener = listener.with_context(|| {
        let address = config.listen;
        format!("listen on {address} (--listen names another address; does a host run already?)")
    })?;
    let address = listener.local_addr().context("find out the port")?;
    let clock = Clock::system();
    let Opened { store, failure } = open(&config, clock).await?;
    let store: Arc<dyn Store> = match config.secret_key.clone() {
        Some(key) => Arc::new(SealingStore::open(store, key).await?),
        None if secrets::is_sealed(store.as_ref())? => bail!(SecretsError::Missing),
        None => store,
    };
    let tenancy = Arc::new(Tenancy::default());
    let store: Arc<dyn Store> = Arc::new(MeteredStore::new(store, Arc::clone(&tenancy)));
    let below = |name| (config.store == StoreKind::Embedded).then(|| config.data_dir.join(name));
    let sandbox = new_sandbox(below(ARTIFACTS).as_deref())?;
    let tenants = Tenants {
        tenancy: Arc::clone(&tenancy),
        sandbox: Arc::clone(&sandbox),
        store: Arc::clone(&store),
    };
    if let Some(manifest) = &manifest {
        tenants.apply(manifest).await?;
    }
    let closed = config.settings.access == Access::Closed;
    if closed && !tenancy.has_keys() {
        bail!(
            "access is closed, and there is no access key: nobody could call: name one as \
             [[tenant.access_key]] or [[operator.access_key]] in the manifest"
        );
    }
    let certificate = config.settings.certificate.clone();
    let scheme = if certificate.is_some() {
        "https"
    } else {
        "http"
    };
    let notes = below(NOTES);
    let mut delivery = config.delivery;
    delivery.allowed.data_dir = Some(config.data_dir);
    delivery.allowed.strangers = closed || !config.listen.ip().is_loopback();
    let delivery = Delivery::new(Arc::clone(&store), clock, delivery);
    let mut workloads =
        Workloads::with_delivery(Arc::clone(&store), sandbox, clock, notes, delivery.clone());
    workloads.failures.contain_lines();
    let kept = workloads.failures.open(config.settings.failures);
    kept.context("count what the failure store holds")?;
    let applied = workloads.functions.apply_quotas();
    applied.context("read what functions are due")?;
    let services = Services::start(Arc::clone(&store), clock, config.settings).await?;
    let services = services.with_workloads(workloads.clone());
    let services = Arc::new(services.with_tenancy(tenancy));

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
    let (token, ledger) = (stop.clone(), Arc::clone(&workloads.usage));
    tasks.spawn(async move { usage::run(ledger, token).await });
    let ledger = Arc::clone(&workloads.usage);
    let (token, kill_token) = (stop.clone(), kill.clone());
    tasks.spawn(async move { workloads.mappings.run(token, kill_token).await });
    let token = stop.clone();
    tasks.spawn(async move { delivery.run(token).await });
    let (token, host) = (stop.clone(), Arc::clone(&services));
    tasks.spawn(async move {
        tokio::select! { () = janitor::run(host) => {}, () = token.cancelled() => {} }
    });
    let (token, host) = (stop.clone(), services);
    tasks.spawn(async move { server::serve(listener, host, token.cancelled_owned()).await });
    if let (Some(path), Some(files)) = (config.manifest, watched) {
        let token = stop.clone();
        tasks.spawn(async move {
            let watch = reload(path, files, tenants, reconciler);
            tokio::select! { () = watch => {}, () = token.cancelled() => {} }
        });
    }
    if let Some(certificate) = certificate {
        let token = stop.clone();
        tasks.spawn(async move {
            let watch = renew(certificate);
            tokio::select! { () = watch => {}, () = token.cancelled() => {} }
        });
    }
    ready(&format!("{scheme}://{address}"))?;

    let ended = tokio::select! {
        () = shutdown => Ok(()),
        why = failed(failure) => Err(anyhow!(
            "the store failed and can acknowledge nothing any more: {why}: \
             see to the disk, then start again: nothing that was acknowledged is lost"
        )),
        ended = tasks.join_next() => Err(anyhow!("a part of the host ended by itself: {ended:?}")),
    };
    stop.cancel();
    if ended.is_ok() {
        tracing::info!("stopping: running batches and requests finish, within {GRACE:?}");
        if timeout(GRACE, all(&mut tasks)).await.is_err() {
            tracing::warn!("what is still running after {GRACE:?} is cut off and repeated later");
        }
    }
    kill.cancel();
    // What does not end on being cut off is dropped with the set.
    let _ = timeout(CUT_OFF, all(&mut tasks)).await;
    tasks.shutdown().await;
    if ended.is_ok() {
        usage::write(&ledger).await;
        store.close().await;
    }
    ended
}

/// Waits until all tasks have ended. Cancel-safe.
async fn all(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// An open store, and how it says that it has failed for good.
struct Opened {
    store: Arc<dyn Store>,
    failure: Option<watch::Receiver<Option<Arc<str>>>>,
}

async fn open(config: &Config, clock: Clock) -> anyhow::Result<Opened> {
    let now: shardmill_store::Clock = Arc::new(move || clock.now());
    if config.store == StoreKind::Memory {
        tracing::warn!("records are kept in memory only: they are gone with the process");
        let store = Arc::new(Memory::new(now));
        return Ok(Opened {
            store,
            failure: None,
        });
    }
    let folder = config.data_dir.clone();
    // Opening repeats what was not yet in the tables: disk work, not for this runtime's threads.
    let opened = tokio::task::spawn_blocking(move || {
        let io = DiskIo::new(&folder)?;
        anyhow::Ok(Embedded::open(Arc::new(io), Options::default(), now)?)
    });
    let store = opened.await.context("open the store")?;
    let store = store.with_context(|| format!("open the data in {}", config.data_dir.display()))?;
    Ok(Opened {
        failure: Some(store.failure()),
        store,
    })
}

/// Why the store failed for good, when it does; one in memory never does.
async fn failed(failure: Option<watch::Receiver<Option<Arc<str>>>>) -> Arc<str> {
    let Some(mut failure) = failure else {
        return std::future::pending().await;
    };
    match failure.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(why)) => Arc::clone(why),
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
    files.set(manifest.files().chain([path]));
    let summary = reconciler.reconcile(manifest).await;
    let absent = summary.problems.into_iter().find(|problem| !problem.kept);
    match absent {
        Some(problem) => bail!("{}: {}", problem.item, problem.why),
        None => Ok(files),
    }
}

/// Who takes over what a manifest says of tenants.
struct Tenants {
    tenancy: Arc<Tenancy>,
    sandbox: Arc<dyn Sandbox>,
    store: Arc<dyn Store>,
}

impl Tenants {
    /// Takes it over, and counts what tenants have stored.
    ///
    /// # Errors
    /// A secret that cannot be had, and then nothing changes; or a store that cannot be read.
    async fn apply(&self, manifest: &Manifest) -> anyhow::Result<()> {
        let (tenants, operators) = (&manifest.tenants, &manifest.operators);
        self.tenancy
            .apply(tenants, operators, self.sandbox.as_ref())?;
        let measured = self.tenancy.measure(self.store.as_ref()).await;
        measured.context("count what tenants have stored")
    }
}

/// Brings tenants and the store to the manifest again whenever it, a module or a secret changes. A
/// manifest that is not good changes nothing.
async fn reload(path: PathBuf, mut files: WatchedFiles, tenants: Tenants, reconciler: Reconciler) {
    loop {
        files.changed().await;
        match Manifest::load(&path) {
            Ok(manifest) => {
                files.set(manifest.files().chain([path.as_path()]));
                if let Err(error) = tenants.apply(&manifest).await {
                    tracing::error!("{error:#}; tenants and access keys stay as they are");
                }
                reconciler.reconcile(&manifest).await;
            }
            Err(error) => tracing::error!("{error}; what runs goes on"),
        }
    }
}

/// Reads the certificate again whenever its files change.
async fn renew(certificate: Certificate) {
    let mut files = WatchedFiles::default();
    files.set(certificate.files());
    loop {
        files.changed().await;
        match certificate.reload() {
            Ok(()) => tracing::info!("new connections get the certificate as it is now"),
            Err(error) => tracing::error!("{error}; the certificate before stays"),
        }
        files.set(certificate.files());
    }
}
