//! A stream's shards as the API shows them: which are still there, which were open at an
//! instant, and how one is written.
//!
//! Rules: the type `Shard`, and ListShards, "ShardFilter". A shard is gone when it was closed
//! longer ago than the stream's retention. Instants are seconds here, as in sequence numbers: a
//! child is created in the second after its parent's last.

use shardmill_core::{HashKeyRange, Scope, Shard, ShardId, Stream, UnixMillis};

use super::{Error, Output};

/// The shards that are not expired, by id.
pub(crate) fn unexpired(stream: &Stream, now: UnixMillis) -> impl Iterator<Item = &Shard> {
    let shards = stream.shards.iter();
    shards.filter(move |shard| !stream.is_expired(shard, now))
}

/// The shard with this id, if it is there and not expired.
pub(crate) fn find(stream: &Stream, id: ShardId, now: UnixMillis) -> Option<&Shard> {
    unexpired(stream, now).find(|shard| shard.id == id)
}

/// Whether a shard was open at an instant.
pub(crate) fn open_at(shard: &Shard, seconds: u64) -> bool {
    shard.created_seconds <= seconds && open_since(shard, seconds)
}

/// Whether a shard was open at an instant or later.
pub(crate) fn open_since(shard: &Shard, seconds: u64) -> bool {
    shard.closed_seconds.is_none_or(|closed| closed >= seconds)
}

/// The oldest instant of which records may be left, in seconds.
pub(crate) fn horizon(stream: &Stream, now: UnixMillis) -> u64 {
    let first = stream
        .shards
        .iter()
        .map(|shard| shard.created_seconds)
        .min();
    let retained = now.minus(stream.retention()).seconds();
    retained.max(first.unwrap_or_default())
}

/// Reads a shard's id from a request.
///
/// # Errors
/// `ResourceNotFoundException`: AWS has no other for a text that is no id.
pub(crate) fn parse_id(text: &str, stream: &str, scope: &Scope) -> Result<ShardId, Error> {
    ShardId::parse_lenient(text).ok_or_else(|| Error::no_shard_id(text, stream, scope))
}

/// Writes the type `Shard`.
pub(crate) fn write(out: &mut Output, shard: &Shard) {
    out.structure(|out| {
        out.member("ShardId").plain(shard.id);
        for (name, parent) in ["ParentShardId", "AdjacentParentShardId"]
            .iter()
            .zip(&shard.parents)
        {
            out.member(name).plain(parent);
        }
        write_range(out, shard.range);
        out.member("SequenceNumberRange").structure(|out| {
            let start = shard.starting_sequence_number();
            out.member("StartingSequenceNumber").sequence_number(start);
            if let Some(end) = shard.ending_sequence_number() {
                out.member("EndingSequenceNumber").sequence_number(end);
            }
        });
    });
}

/// Writes the member `HashKeyRange`.
pub(crate) fn write_range(out: &mut Output, range: HashKeyRange) {
    out.member("HashKeyRange").structure(|out| {
        out.member("StartingHashKey").plain(range.start);
        out.member("EndingHashKey").plain(range.end);
    });
}
