//! Where mappings and their cursors are stored, and what stands there of shards.

use shardmill_core::mapping::StartingPosition;
use shardmill_core::{ShardId, Stream};
use shardmill_store::{Key, Seek, Table};

use super::Mapping;

/// Where a mapping is stored.
pub(in crate::mapping) fn mapping_key(mapping: &Mapping) -> Key {
    Key::new(Table::Mapping, &mapping.scope).part(&mapping.id)
}

/// Where a mapping's cursors are stored.
pub(in crate::mapping) fn cursor_prefix(mapping: &Mapping) -> Key {
    Key::new(Table::Cursor, &mapping.scope)
        .part(&mapping.id)
        .number(mapping.stream_id.0)
}

/// Where the cursor of a shard is stored.
pub(in crate::mapping) fn cursor_key(mapping: &Mapping, shard: ShardId) -> Key {
    cursor_prefix(mapping).number(u64::from(shard.0))
}

pub(in crate::mapping) fn shard_of(key: &Key) -> Option<ShardId> {
    let (_, parts) = key.split()?;
    let number = u64::from_be_bytes((*parts.last()?).try_into().ok()?);
    u32::try_from(number).ok().map(ShardId)
}

pub(in crate::mapping) fn seek_of(position: StartingPosition) -> Seek {
    match position {
        StartingPosition::TrimHorizon => Seek::TrimHorizon,
        StartingPosition::Latest => Seek::Latest,
        StartingPosition::AtTimestamp(time) => Seek::AtTime(time),
    }
}

/// A stream's shards that a mapping has to read, in an order that has parents before children.
pub(in crate::mapping) fn shards_in_order(stream: &Stream) -> impl Iterator<Item = ShardId> {
    stream.shards.iter().map(|s| s.id)
}
