//! The listener: HTTP/1.1 and HTTP/2 with prior knowledge on one port, bounded in connections,
//! header time and request size, drained on shutdown.
//!
//! Every task belongs to a set that [`serve`] awaits; it returns when all of them have ended.

mod body;
mod tasks;

pub(crate) use body::{NoBody, read_body};

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::api;
use crate::services::Services;
use tasks::Tasks;

/// Connections at one time; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 1024;
/// Requests at one time on an HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// How long a connection may take to send a request's headers, idle time before it included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long running requests may take when the host stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` resolves, then lets running requests finish, at most 30 s.
pub async fn serve(listener: TcpListener, host: Arc<Services>, shutdown: impl Future<Output = ()>) {
    let tasks = Tasks::default();
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
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
    let stop = async { stopped.wait_for(|stop| *stop).await.map(drop) };
    let mut stop = pin!(stop);
    // The protocol is told by the first bytes, and hyper waits for them without a limit.
    tokio::select! {
        first = timeout(HEADER_TIMEOUT, stream.readable()) => match first {
            Ok(Ok(())) => {}
            _ => return,
        },
        _ = stop.as_mut() => return,
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot switch off Nagle's algorithm");
    }
    let mut builder = auto::Builder::new(tasks);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEADER_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS);
    let service = service_fn(move |request| api::handle(host.clone(), request));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
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
