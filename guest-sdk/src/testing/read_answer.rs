//! Reads answer buffers as strictly as the host does: nothing missing, nothing left over.

use serde_json::Value;

use crate::Error;
use crate::abi::{ANSWER_MAGIC, VERSION};

/// An answer buffer, read.
pub(super) enum Answer {
    Ok {
        window_state: Option<Value>,
    },
    /// Never empty.
    Partial {
        failed: Vec<u32>,
        window_state: Option<Value>,
    },
    Error(Error),
    Json(Value),
}

/// Panics on a malformed answer: only this crate writes them.
pub(super) fn read(bytes: &[u8]) -> Answer {
    let mut rest = bytes;
    assert_eq!(u32::from_le_bytes(take(&mut rest)), ANSWER_MAGIC, "magic");
    assert_eq!(u16::from_le_bytes(take(&mut rest)), VERSION, "version");
    let status = u16::from_le_bytes(take(&mut rest));
    let count = u32::from_le_bytes(take(&mut rest));
    let failed: Vec<_> = (0..count)
        .map(|_| u32::from_le_bytes(take(&mut rest)))
        .collect();
    let text_len = u32::from_le_bytes(take(&mut rest));
    assert_eq!(
        rest.len(),
        text_len as usize,
        "the answer ends with the text"
    );
    let text = str::from_utf8(rest).expect("the text is UTF-8");
    let json = || serde_json::from_str(text).expect("the text is JSON");
    let window_state = || (!text.is_empty()).then(json);
    match (status, failed.len()) {
        (0, 0) => Answer::Ok {
            window_state: window_state(),
        },
        (1, 1..) => Answer::Partial {
            failed,
            window_state: window_state(),
        },
        (2, 0 | 1) => {
            let (error_type, message) = text.split_once('\n').expect("a type and a message");
            Answer::Error(Error::new(error_type, message))
        }
        (3, 0) => Answer::Json(json()),
        (status, failed) => panic!("status {status} with {failed} failed indices"),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (head, tail) = rest.split_first_chunk().expect("the answer is long enough");
    *rest = tail;
    *head
}
