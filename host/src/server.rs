//! The listener: HTTP/1.1 and HTTP/2 with prior knowledge on one port, in the clear or over TLS,
//! drained on shutdown.
//!
//! Bounded in everything that a client can make it hold: connections, time for the first bytes, for
//! headers, for a body and for taking an answer, size and number of headers, requests at a time and
//! requests that are taken back. `docs/serve.md` lists the bounds.
//!
//! Every task belongs to a set that [`serve`] awaits; it returns when all of them have ended.

mod body;
mod guarded;
mod tasks;
mod tls;

pub(crate) use body::{NoBody, discard_body, read_body};
pub use tls::{Certificate, TlsError, TlsFiles};

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::api;
use crate::services::Services;
use guarded::Guarded;
use tasks::Tasks;

/// What connections may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// At one time; more wait in the listener's queue. Default 1,024.
    pub most: usize,
    /// How long a connection may take to send a request's headers, idle time before it included;
    /// and to take the next bytes of an answer. Default 30 s.
    pub patience: Duration,
    /// How long a body may come as slowly as it likes. Default 30 s.
    pub body_grace: Duration,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            most: 1024,
            patience: Duration::from_secs(30),
            body_grace: Duration::from_secs(30),
        }
    }
}

/// Headers of a request, bytes, its first line included; more is answered with 431.
const MAX_HEADER_BYTES: usize = 128 << 10;
/// Headers of a request; more is answered with 431.
const MAX_HEADERS: usize = 100;
/// The same for HTTP/2, uncompressed.
const MAX_HEADER_LIST_BYTES: u32 = 64 << 10;
/// Requests at one time on an HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// Requests that a client has taken back and the host not seen yet; one more ends the connection
/// ("rapid reset").
const MAX_PENDING_RESETS: usize = 20;
/// Errors of a client's making that one HTTP/2 connection outlives.
const MAX_ERROR_RESETS: usize = 256;
/// Answers of one HTTP/2 stream that are handed to the connection ahead of its window, bytes.
const MAX_SEND_BYTES: usize = 1 << 20;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long running requests may take when the host stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` resolves, then lets running requests finish, at most 30 s.
pub async fn serve(listener: TcpListener, host: Arc<Services>, shutdown: impl Future<Output = ()>) {
    let tasks = Tasks::default();
    let permits = Arc::new(Semaphore::new(host.settings.connections.most));
    let (stop, stopped) = watch::channel(false);
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, permit)) => {
                let (host, stopped, tasks_of_h2) = (host.clone(), stopped.clone(), tasks.clone());
                tasks.spawn(async move {
                    connection(stream, host, stopped, tasks_of_h2).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    stop.send_replace(true);
    if timeout(DRAIN_TIMEOUT, tasks.join()).await.is_err() {
        tracing::warn!("requests still running after {DRAIN_TIMEOUT:?} are cut off");
        tasks.abort().await;
    }
}

/// The next connection, with its permit. Cancel-safe.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await;
    let permit = permit.map_err(|_| io::Error::other("the server is stopping"))?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn connection(
    stream: TcpStream,
    host: Arc<Services>,
    mut stopped: watch::Receiver<bool>,
    tasks: Tasks,
) {
    let patience = host.settings.connections.patience;
    let stop = async { stopped.wait_for(|stop| *stop).await.map(drop) };
    let mut stop = pin!(stop);
    // An idle connection is not waited for when the host stops.
    tokio::select! {
        first = timeout(patience, stream.readable()) => match first {
            Ok(Ok(())) => {}
            _ => return,
        },
        _ = stop.as_mut() => return,
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot switch off Nagle's algorithm");
    }
    let Some(certificate) = &host.settings.certificate else {
        return speak(stream, host, stop, tasks).await;
    };
    match timeout(HANDSHAKE_TIMEOUT, certificate.accept(stream)).await {
        Ok(Ok(stream)) => speak(stream, Arc::clone(&host), stop, tasks).await,
        Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
        Err(_) => tracing::debug!("no TLS handshake within {HANDSHAKE_TIMEOUT:?}"),
    }
}

/// Speaks HTTP on a connection until it ends.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: Arc<Services>,
    stop: impl Future,
    tasks: Tasks,
) {
    let patience = host.settings.connections.patience;
    let mut builder = auto::Builder::new(tasks);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(patience)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .max_send_buf_size(MAX_SEND_BYTES);
    let service = service_fn(move |request| api::handle(host.clone(), request));
    let stream = TokioIo::new(Guarded::new(stream, patience));
    let mut connection = pin!(builder.serve_connection(stream, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}
