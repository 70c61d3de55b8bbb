//! Gives made-up headers their checksums, so that laws reach what lies behind these.

use super::layout::{
    FIRST_FRAME, FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES, checksum, seed,
};

/// Gives a segment's header, and whatever begins like the header of a frame at one of `offsets`,
/// the checksum that it should have. Headers that are cut off stay as they are.
pub fn seal_headers(segment: &mut [u8], store_id: u64, offsets: &[usize]) {
    if let Some(header) = segment.get_mut(..SEGMENT_HEADER_BYTES) {
        header[12..16].fill(0);
        let crc = checksum(&seed(store_id), header);
        header[12..16].copy_from_slice(&crc.to_le_bytes());
    }
    for offset in offsets {
        let Some(bytes) = segment
            .get_mut(*offset..)
            .filter(|_| *offset >= FIRST_FRAME as usize)
        else {
            continue;
        };
        let Some(header) = bytes
            .first_chunk::<FRAME_HEADER_BYTES>()
            .and_then(FrameHeader::peek)
        else {
            continue;
        };
        if let Some(header) = bytes.get_mut(..header.header_bytes()) {
            let crc = checksum(&seed(store_id), &header[8..]);
            header[4..8].copy_from_slice(&crc.to_le_bytes());
        }
    }
}
