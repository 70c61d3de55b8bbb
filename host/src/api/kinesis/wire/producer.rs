//! The header `x-shardmill-producer: ID;NUMBER`: a put with it is stored once, however often it
//! is sent. Ours, not AWS's.

use hyper::HeaderMap;
use shardmill_core::Scope;
use shardmill_store::ProducerMark;

use crate::api::kinesis::Error;

/// Longest producer id, bytes.
const MAX_ID_BYTES: usize = 128;

/// What the header says.
pub(super) struct Producer {
    id: Box<str>,
    number: u64,
}

impl Producer {
    pub(super) fn mark(&self, scope: &Scope) -> ProducerMark {
        ProducerMark {
            scope: scope.clone(),
            id: self.id.clone(),
            number: self.number,
        }
    }
}

/// Reads the header; `None` when there is none.
///
/// # Errors
/// `InvalidArgumentException` for a header that says something else.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<Producer>, Error> {
    let Some(header) = headers.get("x-shardmill-producer") else {
        return Ok(None);
    };
    let read = || {
        let (id, number) = header.to_str().ok()?.rsplit_once(';')?;
        let (id, number) = (id.trim(), number.trim().parse().ok()?);
        (1..=MAX_ID_BYTES).contains(&id.len()).then(|| Producer {
            id: id.into(),
            number,
        })
    };
    read().map(Some).ok_or_else(|| {
        Error::InvalidArgument(format!(
            "header x-shardmill-producer must be ID;NUMBER with an id of 1 to {MAX_ID_BYTES} bytes"
        ))
    })
}
