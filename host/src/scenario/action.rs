//! What a scenario does, step by step.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::{HashKey, ShardId, StreamName};

use super::expect::Expectation;

/// A step, and what must hold after it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Its line in the file.
    pub(super) line: usize,
    /// For messages: `step 2`, or `step 2 (the host dies)`.
    pub(super) label: String,
    /// Not before this time since the start.
    pub(super) at: Option<Duration>,
    pub(super) action: Action,
    pub(super) expect: Vec<Expectation>,
}

/// What a step does.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Nothing but wait for its time, or check.
    None,
    /// Puts records, in order.
    Put {
        stream: StreamName,
        records: Vec<NewRecord>,
    },
    /// Lets this much time pass.
    Wait(Duration),
    /// Lets time pass until no record waits, but no more than this.
    Drain(Duration),
    /// Disables the mapping.
    Pause,
    /// Enables the mapping, and lets paused shards go on.
    Resume,
    /// Stops the host, which finishes running batches, and starts it.
    Restart,
    /// Kills the host, and starts it.
    Kill,
    /// Deploys another module.
    Deploy(PathBuf),
    /// Splits a shard of a stream in the middle.
    Split(StreamName, ShardId),
    /// Merges two neighbours, the lower one first.
    Merge(StreamName, ShardId, ShardId),
    /// Lets parked keys go on; all of them where none is named.
    Unpark(Vec<String>),
}

/// A record to be put.
#[derive(Clone, Debug)]
pub(super) struct NewRecord {
    pub(super) name: Option<String>,
    /// Not before this time since the start.
    pub(super) at: Option<Duration>,
    pub(super) key: String,
    pub(super) hash_key: Option<HashKey>,
    pub(super) data: Bytes,
}
