//! KPL aggregates. `kind u8 │ the record's data`, or with an odd kind the message alone, around
//! which magic and digest are put.

use md5::{Digest, Md5};
use shardmill_core::aggregate::{Aggregator, take_apart};
use shardmill_core::block::Placement;
use shardmill_core::limits::{MAX_PARTITION_KEY_CHARS, MAX_TAKEN_APART_BYTES};
use shardmill_core::{Block, HashKey, Records, ShardId, UnixMillis};

use crate::input::Input;

/// What is taken apart is bounded, in order, and comes out of an aggregate made of it again.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let sealed = match input.u8() % 2 {
        0 => input.0.to_vec(),
        _ => {
            let magic = [0xf3, 0x89, 0x9a, 0xc2];
            [&magic[..], input.0, &Md5::digest(input.0)].concat()
        }
    };
    let Some(inner) = apart(&sealed) else {
        return;
    };
    let entries = entries(&inner);
    assert!(!entries.is_empty());
    assert!(inner.blob_bytes() <= MAX_TAKEN_APART_BYTES);
    for (sub, record) in (0..).zip(inner.iter()) {
        assert!(record.is_inner());
        assert_eq!(record.beginning().sub, sub);
    }
    let mut aggregator = Aggregator::new(usize::MAX);
    for (key, explicit, data) in &entries {
        let chars = key.chars().count();
        assert!((1..=MAX_PARTITION_KEY_CHARS).contains(&chars), "{chars}");
        let pushed = aggregator.push(key, *explicit, data);
        pushed.expect("what was taken apart fits into an aggregate");
    }
    let aggregate = aggregator.take().expect("there are records");
    let again = apart(&aggregate.data).expect("an aggregate of ours is one");
    assert_eq!(self::entries(&again), entries);
}

fn apart(data: &[u8]) -> Option<Block> {
    let mut records = Records::default();
    records.push("a", None, data);
    let (index, blob) = records.into_parts();
    let placement = Placement {
        shard: ShardId(3),
        created_seconds: 1_700_000_000,
        first: 7,
        arrival: UnixMillis(1_700_000_050_123),
    };
    let outer = Block::new(placement, index.into(), blob.into()).expect("a block");
    outer.iter().next().and_then(|record| take_apart(&record))
}

fn entries(block: &Block) -> Vec<(String, Option<HashKey>, Vec<u8>)> {
    let parts = block.iter().map(|record| record.parts);
    parts
        .map(|p| (p.key.to_owned(), p.explicit, p.data.to_vec()))
        .collect()
}
