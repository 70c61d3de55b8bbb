//! `shardmill serve`: flags and manifest become a configuration; signals end the host.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

use crate::config::{AccessKind, Config, DEFAULT_DATA_DIR, DEFAULT_LISTEN, Flags, StoreKind};
use crate::manifest::Manifest;
use crate::secrets::SecretKey;
use crate::serve::{self, NewSandbox};
use crate::server::Certificate;
use crate::services::{Access, Settings};

/// The manifest that is used when none is named, if it is there.
const MANIFEST: &str = "shardmill.toml";

/// Environment variable: signs what webhooks are sent, unless the manifest has a secret.
const WEBHOOK_SECRET: &str = "SHARDMILL_WEBHOOK_SECRET";

/// Environment variable: seals secrets at rest; wins over the manifest's file.
const SECRET_KEY: &str = "SHARDMILL_SECRET_KEY";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The manifest [default: shardmill.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(long, value_name = "ADDR:PORT", help = format!("Where to listen; port 0 takes a free one [default: {DEFAULT_LISTEN}]"))]
    listen: Option<SocketAddr>,
    #[arg(long, value_name = "DIR", help = format!("Where the data is [default: {DEFAULT_DATA_DIR}]"))]
    data_dir: Option<PathBuf>,
    /// Allow an open host at an address that other machines can reach: whoever reaches it may do everything
    #[arg(long)]
    insecure_bind: bool,
    /// Who may call [default: open]
    #[arg(long, value_enum, env = "SHARDMILL_ACCESS")]
    access: Option<AccessKind>,
    /// Which messages to log, as warn or shardmill=debug
    #[arg(
        long,
        value_name = "FILTER",
        env = "RUST_LOG",
        default_value = "warn,shardmill=info,shardmill_store=info,shardmill_sandbox=info"
    )]
    log: String,
    /// How to log
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// Which store
    #[arg(long, value_enum, default_value_t)]
    store: StoreKind,
    /// Open shards that an account may have in a region
    #[arg(long, value_name = "N", hide_short_help = true)]
    shard_limit: Option<u32>,
    /// How long a stream is CREATING and DELETING, ms, 0 to 10000
    #[arg(long, value_name = "MS", hide_short_help = true, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    stream_creation_time: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

impl Arguments {
    /// With this manifest, unless another one is named.
    pub(super) fn with_manifest(mut self, manifest: PathBuf) -> anyhow::Result<Self> {
        if let Some(other) = self.config.replace(manifest) {
            anyhow::bail!(
                "--config {}: the handler's own folder has the manifest",
                other.display()
            );
        }
        Ok(self)
    }
}

pub(super) async fn run(arguments: Arguments, sandbox: NewSandbox) -> anyhow::Result<()> {
    start_log(&arguments.log, arguments.log_format)?;
    let path = manifest_path(arguments.config)?;
    let manifest = path.as_deref().map(Manifest::load).transpose()?;
    let server = manifest
        .as_ref()
        .map(|m| m.server.clone())
        .unwrap_or_default();
    let mut delivery = manifest
        .as_ref()
        .map(|m| m.delivery.clone())
        .unwrap_or_default();
    // The environment fills in what the manifest, which others may read, leaves out.
    delivery.webhook_secret = delivery
        .webhook_secret
        .or_else(|| std::env::var(WEBHOOK_SECRET).ok().filter(|s| !s.is_empty()));
    let flags = Flags {
        listen: arguments.listen,
        data_dir: arguments.data_dir,
        insecure_bind: arguments.insecure_bind,
        access: arguments.access,
    };
    let closed = flags.is_closed(&server);
    let (listen, data_dir) = flags.address_and_data(&server)?;
    let secret_key = secret_key(server.secret_key_file.as_deref())?;
    let mut settings = Settings {
        account: server.scope.tenant,
        region: server.scope.region,
        failures: server.failures,
        connections: server.connections,
        ..Settings::default()
    };
    settings.clock_skew = server.clock_skew.unwrap_or(settings.clock_skew);
    settings.certificate = server.tls.map(Certificate::load).transpose()?;
    let beyond = !listen.ip().is_loopback();
    if closed {
        settings.access = Access::Closed;
        if beyond && settings.certificate.is_none() {
            tracing::warn!(
                %listen,
                "without TLS whoever is on the way can read what is sent, and send a request \
                 again for some minutes: name a certificate in [tls], or have a proxy speak TLS"
            );
        }
    } else if beyond {
        tracing::warn!(%listen, "everybody who can reach this address may do everything");
        settings.access = Access::Anyone;
    }
    settings.shard_limit = arguments.shard_limit.unwrap_or(settings.shard_limit);
    let creation = arguments.stream_creation_time.map(Duration::from_millis);
    settings.stream_creation_time = creation.unwrap_or(settings.stream_creation_time);
    let config = Config {
        listen,
        data_dir,
        manifest: path,
        store: arguments.store,
        settings,
        delivery,
        secret_key,
    };
    serve::run(config, manifest, sandbox, shutdown()?).await
}

/// The key that seals secrets: from the environment, or else from the manifest's file.
fn secret_key(file: Option<&Path>) -> anyhow::Result<Option<SecretKey>> {
    let variable = std::env::var(SECRET_KEY).ok().filter(|s| !s.is_empty());
    let text = match (variable.map(Zeroizing::new), file) {
        (Some(text), _) => text,
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path);
            let text = text.with_context(|| format!("read secret_key_file {}", path.display()))?;
            Zeroizing::new(text)
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(SecretKey::parse(&text)?))
}

/// The manifest that was named, or the one of the working folder; absolute.
fn manifest_path(named: Option<PathBuf>) -> anyhow::Result<Option<PathBuf>> {
    let path = named.or_else(|| Path::new(MANIFEST).is_file().then(|| MANIFEST.into()));
    path.map(std::path::absolute)
        .transpose()
        .context("find the working folder")
}

/// Resolves when the process is asked to end. A second request ends it at once.
fn shutdown() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for signals")?;
    Ok(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        tokio::spawn(async move {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            eprintln!("error: asked to stop twice: stopped at once; the next start recovers");
            std::process::exit(1);
        });
    })
}

fn start_log(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter: EnvFilter = filter
        .parse()
        .with_context(|| format!("--log {filter:?}"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
