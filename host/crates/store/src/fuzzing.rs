//! Doors for the laws of `fuzz/laws` into what is private. No part of the API.

use std::ops::Range;

use bytes::Bytes;
use shardmill_core::block::INDEX_ENTRY_BYTES;

use crate::frame::{Contents, Group, PutValue};
use crate::journal::fuzzing;
use crate::resolved::{NewBlock, Resolved, Sums};
use crate::tx::Value;

pub use fuzzing::seal_headers;

/// What the payload of a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Everything but the bodies, as text.
    pub told: String,
    /// Where the bodies are, in order.
    pub bodies: Vec<Range<usize>>,
    /// The same contents, written by this version; `None` where nothing would be written like
    /// this: a key twice, blocks that are none.
    pub again: Option<Vec<u8>>,
}

/// Reads the payload of a frame.
pub fn read_frame(payload: &[u8]) -> Option<Frame> {
    let contents = Contents::decode(payload).ok()?;
    let blocks = contents.blocks.iter();
    let blocks = blocks.map(|b| (b.at, b.index_len + b.blob_len));
    let blobs = contents.puts.iter().filter_map(|put| match put.value {
        PutValue::Blob { at, len, .. } => Some((at, len)),
        PutValue::Deleted | PutValue::Inline(_) => None,
    });
    let bodies = blocks.chain(blobs);
    Some(Frame {
        bodies: bodies
            .map(|(at, len)| at as usize..at as usize + len as usize)
            .collect(),
        again: again(&contents, payload),
        told: told(contents),
    })
}

/// Places and checksums follow from the bodies, and are left out.
fn told(mut contents: Contents) -> String {
    for block in &mut contents.blocks {
        (block.at, block.crc) = (0, 0);
    }
    for put in &mut contents.puts {
        if let PutValue::Blob { at, crc, .. } = &mut put.value {
            (*at, *crc) = (0, 0);
        }
    }
    format!("{contents:?}")
}

fn again(contents: &Contents, payload: &[u8]) -> Option<Vec<u8>> {
    let body = |at: u32, len: u32| {
        let at = at as usize;
        Bytes::copy_from_slice(&payload[at..at + len as usize])
    };
    let mut group = Group::default();
    let one = |revision| Resolved {
        revision,
        ..Resolved::default()
    };
    // A group has as many transactions as were added, and each value the revision of its own.
    let spare = contents
        .transactions
        .checked_sub(1 + contents.puts.len() as u64)?;
    if spare > 64 || !contents.puts.is_sorted_by(|a, b| a.key < b.key) {
        return None;
    }
    (0..spare).for_each(|_| group.add(one(0)));
    for put in &contents.puts {
        let value = match &put.value {
            PutValue::Deleted => Value::Delete,
            PutValue::Inline(bytes) => Value::Inline(bytes.clone()),
            PutValue::Blob { at, len, .. } => Value::Blob(body(*at, *len)),
        };
        group.add(Resolved {
            puts: vec![(put.key.clone(), value)],
            ..one(put.revision)
        });
    }
    if !contents.blocks.is_sorted_by(|a, b| a.shard < b.shard)
        || !contents.trims.is_sorted_by(|a, b| a.shard < b.shard)
    {
        return None;
    }
    let mut blocks = Vec::new();
    for entry in &contents.blocks {
        let index = body(entry.at, entry.index_len);
        let blob = body(entry.at + entry.index_len, entry.blob_len);
        let block = NewBlock {
            shard: entry.shard,
            created_seconds: 0,
            first: entry.first,
            arrival: entry.arrival,
            sums: Sums::of(&index, &blob),
            index,
            blob,
        };
        // Whether the bytes are a block or not is said, and nothing worse happens.
        let whole = block.to_block().ok()?;
        if whole.count() as usize != entry.index_len as usize / INDEX_ENTRY_BYTES {
            return None;
        }
        blocks.push(block);
    }
    group.add(Resolved {
        streams: contents.streams.clone(),
        blocks,
        trims: contents.trims.clone(),
        ..one(contents.revision)
    });
    let encoded = group.encode();
    let mut out = encoded.head.clone();
    for (bytes, _) in &encoded.bodies {
        out.extend_from_slice(bytes);
    }
    Some(out)
}
