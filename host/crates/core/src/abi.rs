//! The bytes of "packed batch v1" and of the answer. `docs/abi.md` draws them.

use crate::batch::BatchContext;
use crate::sequence::SequenceNumber;
use crate::time::UnixMillis;

/// `"SMB1"`.
pub const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"SMB1");
/// `"SMA1"`.
pub const ANSWER_MAGIC: u32 = u32::from_le_bytes(*b"SMA1");
/// The version of both buffers.
pub const VERSION: u16 = 1;
/// A batch of records.
pub const KIND_RECORDS: u16 = 1;
/// A JSON event.
pub const KIND_EVENT: u16 = 2;
/// Size of a batch's header in bytes.
pub const HEADER_BYTES: usize = 64;
/// Size of an index entry in bytes.
pub const INDEX_ENTRY_BYTES: usize = 64;
/// Size of an answer without indices and text.
pub const ANSWER_MIN_BYTES: usize = 16;

/// Where things are in a batch buffer.
pub(crate) struct Layout {
    pub(crate) kind: u16,
    pub(crate) total: usize,
    pub(crate) count: usize,
    pub(crate) index_off: usize,
    pub(crate) blob_off: usize,
}

fn strings(context: &BatchContext) -> [&str; 7] {
    [
        &context.stream,
        &context.shard,
        &context.request_id,
        &context.function,
        &context.version,
        &context.tenant,
        &context.window_state,
    ]
}

pub(crate) fn strings_len(context: &BatchContext) -> usize {
    strings(context).iter().map(|s| 4 + s.len()).sum()
}

/// Writes header and strings; `out` ends where the index or the event begins.
pub(crate) fn write_header(context: &BatchContext, layout: &Layout, out: &mut [u8]) {
    let index_off = if layout.kind == KIND_RECORDS {
        layout.index_off
    } else {
        0
    };
    out.fill(0);
    put(out, 0, &BATCH_MAGIC.to_le_bytes());
    put(out, 4, &VERSION.to_le_bytes());
    put(out, 6, &layout.kind.to_le_bytes());
    put(out, 8, &(layout.total as u32).to_le_bytes());
    put(out, 12, &(layout.count as u32).to_le_bytes());
    put(out, 16, &(index_off as u32).to_le_bytes());
    put(out, 20, &(layout.blob_off as u32).to_le_bytes());
    put(
        out,
        24,
        &((layout.total - layout.blob_off) as u32).to_le_bytes(),
    );
    put(out, 28, &(HEADER_BYTES as u32).to_le_bytes());
    put(out, 32, &context.window.0.0.to_le_bytes());
    put(out, 40, &context.window.1.0.to_le_bytes());
    put(out, 48, &context.deadline.0.to_le_bytes());
    put(out, 56, &context.attempt.to_le_bytes());
    put(out, 60, &context.flags.to_le_bytes());
    let mut at = HEADER_BYTES;
    for text in strings(context) {
        put(out, at, &(text.len() as u32).to_le_bytes());
        put(out, at + 4, text.as_bytes());
        at += 4 + text.len();
    }
}

/// An index entry; offsets and lengths count in the batch buffer.
pub(crate) struct Entry {
    pub(crate) key: (u32, u32),
    pub(crate) data: (u32, u32),
    pub(crate) sequence_number: SequenceNumber,
    pub(crate) arrival: UnixMillis,
    pub(crate) sub_sequence: u32,
    pub(crate) explicit_hash_off: u32,
}

pub(crate) fn write_entry(entry: &Entry, out: &mut [u8]) {
    put(out, 0, &entry.key.0.to_le_bytes());
    put(out, 4, &entry.key.1.to_le_bytes());
    put(out, 8, &entry.data.0.to_le_bytes());
    put(out, 12, &entry.data.1.to_le_bytes());
    put(out, 16, &entry.sequence_number.to_le_bytes());
    put(out, 40, &entry.arrival.0.to_le_bytes());
    put(out, 48, &[0; 4]);
    put(out, 52, &entry.sub_sequence.to_le_bytes());
    put(out, 56, &entry.explicit_hash_off.to_le_bytes());
    put(out, 60, &[0; 4]);
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Length in bytes of the buffer that carries a JSON event (kind 2).
pub fn event_len(context: &BatchContext, event: &[u8]) -> usize {
    HEADER_BYTES + strings_len(context) + event.len()
}

/// Writes a JSON event of `count` records into `out`, whose length is `event_len`.
pub fn write_event(context: &BatchContext, count: usize, event: &[u8], out: &mut [u8]) {
    let blob_off = HEADER_BYTES + strings_len(context);
    let layout = Layout {
        kind: KIND_EVENT,
        total: out.len(),
        count,
        index_off: 0,
        blob_off,
    };
    let (header, blob) = out.split_at_mut(blob_off);
    write_header(context, &layout, header);
    blob.copy_from_slice(event);
}

/// What a guest answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All records are done. New window state, or empty.
    Ok(String),
    /// These records failed; at least one. New window state, or empty.
    Partial(Vec<u32>, String),
    /// A function error, and the record that caused it if the guest knows.
    Error {
        /// The error's type.
        kind: String,
        /// The error's message.
        message: String,
        /// The record at fault.
        record: Option<u32>,
    },
    /// The response JSON of an event-mode handler.
    Json(String),
}

/// Why bytes are not an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// Too few bytes for what they claim.
    #[error("answer of {0} bytes is cut short")]
    Short(usize),
    /// Bytes behind the text.
    #[error("answer has {0} bytes behind its text")]
    Trailing(usize),
    /// A wrong magic number.
    #[error("answer begins with {0:#010x} instead of the magic number")]
    Magic(u32),
    /// Another version.
    #[error("answer has version {0}, this host reads version 1")]
    Version(u16),
    /// An unknown status.
    #[error("answer has the unknown status {0}")]
    Status(u16),
    /// Failed indices where the status has none, or none where it needs some.
    #[error("answer with status {status} names {count} failed records")]
    Count {
        /// The status.
        status: u16,
        /// How many indices there are.
        count: u32,
    },
    /// An index outside the batch.
    #[error("answer names record {index} of a batch of {len}")]
    Index {
        /// The index.
        index: u32,
        /// The batch's length.
        len: usize,
    },
    /// A text that is not UTF-8.
    #[error("answer's text is not UTF-8")]
    Text,
}

/// Reads an answer to a batch of `batch_len` records. Trusts nothing.
///
/// # Errors
/// What is wrong with it.
pub fn read_answer(bytes: &[u8], batch_len: usize) -> Result<Answer, BadAnswer> {
    let short = || BadAnswer::Short(bytes.len());
    let u32_at = |at: usize| -> Result<u32, BadAnswer> {
        let field = at
            .checked_add(4)
            .and_then(|end| bytes.get(at..end))
            .ok_or_else(short)?;
        Ok(u32::from_le_bytes([field[0], field[1], field[2], field[3]]))
    };
    let magic = u32_at(0)?;
    if magic != ANSWER_MAGIC {
        return Err(BadAnswer::Magic(magic));
    }
    let version_and_status = u32_at(4)?;
    let (version, status) = (version_and_status as u16, (version_and_status >> 16) as u16);
    if version != VERSION {
        return Err(BadAnswer::Version(version));
    }
    let count = u32_at(8)?;
    let allowed = match status {
        0 | 3 => 0..=0,
        1 => 1..=u32::MAX,
        2 => 0..=1,
        other => return Err(BadAnswer::Status(other)),
    };
    if !allowed.contains(&count) {
        return Err(BadAnswer::Count { status, count });
    }
    let text_at = 12 + 4 * u64::from(count);
    let text_at = usize::try_from(text_at).map_err(|_| short())?;
    let text_len = u32_at(text_at)? as usize;
    let text = &bytes[text_at + 4..];
    if text.len() < text_len {
        return Err(short());
    }
    if text.len() > text_len {
        return Err(BadAnswer::Trailing(text.len() - text_len));
    }
    let text = std::str::from_utf8(text).map_err(|_| BadAnswer::Text)?;
    let mut failed = Vec::with_capacity(count as usize);
    for i in 0..count as usize {
        let index = u32_at(12 + 4 * i)?;
        if index as usize >= batch_len {
            return Err(BadAnswer::Index {
                index,
                len: batch_len,
            });
        }
        failed.push(index);
    }
    Ok(match status {
        0 => Answer::Ok(text.into()),
        1 => Answer::Partial(failed, text.into()),
        2 => {
            let (kind, message) = text.split_once('\n').unwrap_or((text, ""));
            Answer::Error {
                kind: kind.into(),
                message: message.into(),
                record: failed.first().copied(),
            }
        }
        _ => Answer::Json(text.into()),
    })
}
