//! Reading a request's body once, into one buffer, with a bound.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout, timeout_at};

/// What a body must bring in a second, on the average, once its grace is over. A phone's slow
/// link brings more; who brings less holds a connection and memory for nothing.
const LEAST_BYTES_PER_SECOND: u64 = 16 << 10;
/// What an announced length reserves at most, before it has come: a whole PutRecords.
const RESERVED_BYTES: usize = 16 << 20;
/// What is read and thrown away of a body that is too large, so that its sender gets to read
/// the answer; the connection is closed behind it.
const DISCARD_BYTES: u64 = 64 << 20;
/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoBody {
    /// It has more bytes than allowed.
    #[error("body above {0} bytes")]
    TooLarge(usize),
    /// It did not arrive in time, or its sender went away.
    #[error("body incomplete")]
    Incomplete,
}

/// Reads a whole body of at most `limit` bytes. One frame is handed on without a copy; for more
/// the announced length is reserved at once, up to [`RESERVED_BYTES`].
///
/// For `grace` it may come as slowly as it likes, then it must have brought 16 KiB for each second
/// that has passed since.
///
/// # Errors
/// See [`NoBody`]; the connection should be closed after either.
pub(crate) async fn read_body(
    body: Incoming,
    limit: usize,
    grace: Duration,
) -> Result<Bytes, NoBody> {
    collect(body, limit, Instant::now() + grace).await
}

/// Throws a body away, as much of it as the sender of a refused request is likely to have sent, so
/// that it gets to read the answer. The connection should be closed.
pub(crate) async fn discard_body(body: Incoming) {
    discard(body).await;
}

async fn collect(mut body: Incoming, limit: usize, until: Instant) -> Result<Bytes, NoBody> {
    let announced = body.size_hint().exact();
    if announced.is_some_and(|length| length > limit as u64) {
        discard(body).await;
        return Err(NoBody::TooLarge(limit));
    }
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    loop {
        let seen = (first.len() + whole.len()) as u64;
        let earned = Duration::from_millis(seen * 1000 / LEAST_BYTES_PER_SECOND);
        let frame = timeout_at(until + earned, body.frame()).await;
        let Some(frame) = frame.map_err(|_| NoBody::Incomplete)? else {
            break;
        };
        let Ok(data) = frame.map_err(|_| NoBody::Incomplete)?.into_data() else {
            continue;
        };
        if first.len() + whole.len() + data.len() > limit {
            discard(body).await;
            return Err(NoBody::TooLarge(limit));
        }
        if first.is_empty() && whole.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            let length = announced
                .map_or(0, |length| length as usize)
                .min(RESERVED_BYTES);
            whole.reserve(length.max(first.len() + data.len()));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() {
        first
    } else {
        whole.freeze()
    })
}

async fn discard(mut body: Incoming) {
    let drain = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, |data| data.len() as u64);
            if seen > DISCARD_BYTES {
                break;
            }
        }
    };
    // Whether the rest came in time makes no difference to the answer.
    let _ = timeout(DISCARD_TIMEOUT, drain).await;
}
