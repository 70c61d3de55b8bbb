//! What is stored of a message, and the receipts that stand for one receive of it.

use std::time::Duration;

use base64_simd::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use shardmill_core::UnixMillis;

use super::Queue;

/// A message as it is stored, under its queue's id and its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its text.
    pub body: String,
    /// What its sender said of it, by name.
    pub attributes: Vec<MessageAttribute>,
    /// When it was sent.
    pub sent: UnixMillis,
    /// From when on it can be received.
    pub visible_at: UnixMillis,
    /// How often it was received.
    pub receives: u32,
    /// When it was first received.
    pub first_received: Option<UnixMillis>,
}

/// A named value of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageAttribute {
    /// Its name.
    pub name: String,
    /// `String`, `Number` or `Binary`, with a label behind a dot if wanted.
    pub data_type: String,
    /// The value; of `Binary` in Base64.
    pub value: String,
}

/// A message to be sent.
#[derive(Clone, Debug, Default)]
pub struct NewMessage {
    /// Its text.
    pub body: String,
    /// Its attributes.
    pub attributes: Vec<MessageAttribute>,
    /// How long it stays hidden, s; `None`: as long as the queue says.
    pub delay: Option<u32>,
}

/// A message that was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its id.
    pub id: String,
    /// Stands for this receive.
    pub receipt: Receipt,
    /// The message as it is now stored.
    pub message: Message,
}

/// Stands for one receive of a message: queue, message, and the count of receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub(super) queue: String,
    pub(super) message: String,
    pub(super) receives: u32,
}

impl MessageAttribute {
    /// A text.
    pub fn text(name: &str, value: &str) -> Self {
        Self {
            name: name.into(),
            data_type: "String".into(),
            value: value.into(),
        }
    }
}

/// What has to be known of a message to pass it by: it is read without its text.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Head {
    pub(super) sent: UnixMillis,
    pub(super) visible_at: UnixMillis,
    pub(super) receives: u32,
}

impl Head {
    /// Whether its retention is over.
    pub(super) fn is_over(&self, queue: &Queue, now: UnixMillis) -> bool {
        let kept = Duration::from_secs(queue.attributes.message_retention_seconds.into());
        self.sent.plus(kept) <= now
    }
}

impl std::fmt::Display for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{} {} {}", self.queue, self.message, self.receives);
        f.write_str(&URL_SAFE_NO_PAD.encode_to_string(text))
    }
}

impl std::str::FromStr for Receipt {
    type Err = super::QueueError;

    fn from_str(text: &str) -> Result<Self, super::QueueError> {
        let parts = || {
            let bytes = URL_SAFE_NO_PAD.decode_to_vec(text).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let mut parts = text.split(' ');
            let (queue, message) = (parts.next()?.into(), parts.next()?.into());
            let receives = parts.next()?.parse().ok()?;
            Some(Self {
                queue,
                message,
                receives,
            })
        };
        parts().ok_or(super::QueueError::BadReceipt)
    }
}
