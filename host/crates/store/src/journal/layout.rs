//! Bytes of headers.

/// Bytes of payload that a frame may have.
pub(super) fn max_payload_bytes(segment_bytes: u32, shard_count: usize) -> usize {
    let _ = (segment_bytes, shard_count);
    unimplemented!("follows")
}
