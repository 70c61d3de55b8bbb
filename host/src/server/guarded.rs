//! A connection that is not waited for without end where hyper has no bound: for the first bytes,
//! which tell the protocol, and for a client that does not take its answer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes that tell HTTP/2 from HTTP/1.1: those that every HTTP/2 connection begins with (RFC 9113,
/// section 3.4).
const PREFACE_BYTES: usize = 24;

/// A stream with bounds in time. A read waits `patience` at most for the rest of the first bytes,
/// counted from the first read; a write until some bytes are taken.
pub(super) struct Guarded<S> {
    stream: S,
    patience: Duration,
    /// Bytes that were read, up to the preface's.
    seen: usize,
    first: Option<Pin<Box<Sleep>>>,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            seen: 0,
            first: None,
            stalled: None,
        }
    }

    /// Gives what a write came to, unless it has waited for too long.
    fn bounded<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(too_slow("takes no answer")))
    }
}

fn too_slow(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("the client {what}"))
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.seen >= PREFACE_BYTES {
            return read;
        }
        if read.is_ready() {
            self.seen += buffer.filled().len() - before;
            return read;
        }
        let patience = self.patience;
        let first = self.first.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(first.as_mut().poll(context));
        Poll::Ready(Err(too_slow("does not say which protocol it speaks")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.bounded(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.bounded(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.bounded(shut, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn first_bytes_that_do_not_come_end_the_connection() {
        for sent in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
            let (mut client, host) = duplex(100);
            client.write_all(sent).await.expect("room");
            let mut host = Guarded::new(host, PATIENCE);
            let mut buffer = vec![0; 100];
            let error = loop {
                if let Err(error) = host.read(&mut buffer).await {
                    break error;
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn later_reads_wait_as_long_as_it_takes() {
        let (mut client, host) = duplex(100);
        client.write_all(&[0; PREFACE_BYTES]).await.expect("room");
        let mut host = Guarded::new(host, PATIENCE);
        let mut buffer = [0; PREFACE_BYTES];
        host.read_exact(&mut buffer).await.expect("the preface");
        let write = async {
            tokio::time::sleep(PATIENCE * 10).await;
            client.write_all(b"x").await
        };
        let (read, written) = tokio::join!(host.read_u8(), write);
        assert_eq!((read.ok(), written.is_ok()), (Some(b'x'), true));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_ends_the_connection_and_a_slow_reader_does_not() {
        let (mut client, host) = duplex(10);
        let mut host = Guarded::new(host, PATIENCE);
        let read = async {
            let mut buffer = [0; 10];
            for _ in 0..10 {
                tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
                client.read_exact(&mut buffer).await?;
            }
            io::Result::Ok(())
        };
        let (written, read) = tokio::join!(host.write_all(&[1; 100]), read);
        assert!(written.is_ok() && read.is_ok());
        let error = host.write_all(&[1; 100]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
