//! What is stored of a queue.

use serde::{Deserialize, Serialize};
use shardmill_core::{Scope, UnixMillis};

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Its id: a queue that is made again under the same name is another one.
    pub id: String,
    /// Account and region.
    pub scope: Scope,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: UnixMillis,
    /// When its attributes were last changed.
    pub modified: UnixMillis,
    /// Its settings.
    pub attributes: Attributes,
}

impl Queue {
    /// Its ARN.
    pub fn arn(&self) -> String {
        let Scope { tenant, region } = &self.scope;
        format!("arn:aws:sqs:{region}:{tenant}:{}", self.name)
    }
}

/// A queue's settings. Defaults and ranges: CreateQueue, "Attributes".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attributes {
    /// How long a received message stays hidden, 0 … 43,200 s.
    pub visibility_timeout_seconds: u32,
    /// How long a message is kept, 60 … 1,209,600 s.
    pub message_retention_seconds: u32,
    /// How long a new message stays hidden, 0 … 900 s.
    pub delay_seconds: u32,
    /// How long a receive waits for a message, 0 … 20 s.
    pub receive_wait_seconds: u32,
    /// Longest message, 1,024 … 1,048,576 bytes.
    pub maximum_message_bytes: u32,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            visibility_timeout_seconds: 30,
            message_retention_seconds: 345_600,
            delay_seconds: 0,
            receive_wait_seconds: 0,
            maximum_message_bytes: 1 << 20,
        }
    }
}
