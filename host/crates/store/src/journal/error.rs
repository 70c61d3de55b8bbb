//! What goes wrong with a journal, by what can be done about it.

use std::io;
use std::sync::Arc;

/// Damage in bytes that were durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} is damaged at byte {offset}: {reason}")]
pub struct Corruption {
    /// The file.
    pub file: String,
    /// Where in it, bytes.
    pub offset: u64,
    /// What is wrong there.
    pub reason: String,
}

/// Why a journal was not opened. Nothing was changed, except after `Io` and `Rejected`, which
/// leave what the next attempt finds as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the data folder.
    #[error("data folder {folder} is in use by another process")]
    InUse {
        /// The folder.
        folder: String,
    },
    /// Frames that were acknowledged cannot be read.
    #[error(
        "{0}; it was durable, so this is not the trace of a crash: restore it from a copy, or run \
         `shardmill repair --accept-loss` to give up what follows"
    )]
    Corrupt(Corruption),
    /// Made by a newer Shardmill.
    #[error("{file} has format version {found}, this program reads up to {known}")]
    Version {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// No space to make the last frames durable once more.
    #[error("disk full: starting needs {needed_bytes} bytes in {folder}")]
    Full {
        /// The folder.
        folder: String,
        /// Bytes that are needed.
        needed_bytes: u64,
    },
    /// The options do not make sense.
    #[error("{0}")]
    Options(String),
    /// The disk failed.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// How it failed.
        source: io::Error,
    },
    /// The callback refused a frame.
    #[error("frame {number} was not applied: {source}")]
    Rejected {
        /// The frame's number.
        number: u64,
        /// The callback's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why frames were not appended. None of the group will be found after a restart, except after
/// `Failed`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No space. Groups that were appended before are not touched; a later append may succeed.
    #[error("disk full: {free_bytes} bytes free, a segment takes {needed_bytes}")]
    Full {
        /// Bytes that are free.
        free_bytes: u64,
        /// Bytes that were needed.
        needed_bytes: u64,
    },
    /// A frame larger than a segment takes.
    #[error("frame of {size} bytes, {allowed} allowed")]
    TooLarge {
        /// The frame's payload in bytes.
        size: u64,
        /// The limit in bytes.
        allowed: u64,
    },
    /// The journal failed, now or earlier: what is durable beyond the last sync is unknown, and
    /// nothing more is written. Only a restart helps.
    #[error("{0}")]
    Failed(Arc<str>),
}

/// A sync failed, now or earlier: what is durable beyond the last good one is unknown, and nothing
/// more is written. Only a restart helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SyncError(pub Arc<str>);

/// Why a place could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalReadError {
    /// The segment was released: whoever asks holds an old reference.
    #[error("segment {0} was released")]
    Released(u64),
    /// The bytes are not those that were written.
    #[error("{0}")]
    Damaged(Corruption),
    /// The disk failed.
    #[error("read {file}: {message}")]
    Io {
        /// The file.
        file: String,
        /// How it failed.
        message: String,
    },
}
