//! Bytes to the host and back: what a client of no good will sends, and what it is answered.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long the host may take to answer or to hang up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The status of a connection that the host does not let go of.
const HELD: u16 = 1;

/// An answer, or none.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// 0: the host hung up without one; [`HELD`]: it did not even do that.
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// `200`, `404 not_found: why`, `400 ValidationException: why`, `431`, or `hung up`.
    pub(super) fn told(&self) -> String {
        let body = self.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (code, message) = match &body["error"] {
            Value::Null => (text(&body["__type"]), text(&body["message"])),
            error => (text(&error["code"]), text(&error["message"])),
        };
        match self.status {
            0 => "hung up".into(),
            HELD => format!("the connection is still held after {PATIENCE:?}"),
            status if code.is_empty() => status.to_string(),
            status => format!("{status} {code}: {message}"),
        }
    }
}

/// Sends bytes and reads until the host hangs up.
pub(super) async fn exchange(address: &str, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut answer = Vec::new();
    let both = async {
        // The host may hang up before it has taken all.
        let send = async { drop(write.write_all(bytes).await) };
        let receive = async { drop(read.read_to_end(&mut answer).await) };
        tokio::join!(send, receive);
    };
    let ended = tokio::time::timeout(PATIENCE, both).await;
    if ended.is_err() {
        return Answer {
            status: HELD,
            body: answer,
        };
    }
    parsed(&answer)
}

/// The first answer of what came over a connection.
pub(super) fn parsed(bytes: &[u8]) -> Answer {
    let nothing = Answer {
        status: 0,
        body: Vec::new(),
    };
    let text = String::from_utf8_lossy(bytes);
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|t| t.get(..3));
    let Some(status) = status.and_then(|s| s.parse().ok()) else {
        return nothing;
    };
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let body = end.map_or_else(Vec::new, |end| bytes[end + 4..].to_vec());
    Answer { status, body }
}
