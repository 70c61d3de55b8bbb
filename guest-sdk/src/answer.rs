//! Writes the answer buffer: status, failed indices, text. `docs/abi.md`, "Answer buffer".

use crate::Error;
use crate::abi::{ANSWER_MAGIC, VERSION};

const STATUS_OK: u16 = 0;
const STATUS_PARTIAL: u16 = 1;
const STATUS_ERROR: u16 = 2;
const STATUS_JSON: u16 = 3;

/// A longer error text is cut: an answer over the host's limit would say "malformed answer" and
/// nothing of the cause.
const ERROR_TEXT_BYTES: usize = 32 * 1024;

/// The batch is done; `window_state` is JSON, or empty without a window.
pub(crate) fn ok(window_state: &str) -> Vec<u8> {
    encode(STATUS_OK, &[], window_state)
}

/// The batch is done up to the lowest of `failed`.
pub(crate) fn partial(failed: &[u32], window_state: &str) -> Vec<u8> {
    encode(STATUS_PARTIAL, failed, window_state)
}

/// The invocation failed, at record `index` if that is known.
pub(crate) fn error(index: Option<u32>, error: &Error) -> Vec<u8> {
    let mut text = format!("{}\n{}", error.error_type(), error.message());
    if text.len() > ERROR_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(ERROR_TEXT_BYTES));
    }
    encode(STATUS_ERROR, index.as_slice(), &text)
}

/// The response of an event-mode handler.
pub(crate) fn json(text: &str) -> Vec<u8> {
    encode(STATUS_JSON, &[], text)
}

fn encode(status: u16, failed: &[u32], text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + 4 * failed.len() + 4 + text.len());
    out.extend_from_slice(&ANSWER_MAGIC.to_le_bytes());
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&status.to_le_bytes());
    out.extend_from_slice(&length(failed.len()));
    for index in failed {
        out.extend_from_slice(&index.to_le_bytes());
    }
    out.extend_from_slice(&length(text.len()));
    out.extend_from_slice(text.as_bytes());
    out
}

fn length(len: usize) -> [u8; 4] {
    u32::try_from(len)
        .expect("an answer is below 4 GiB")
        .to_le_bytes()
}
