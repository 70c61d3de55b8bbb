//! The payload of a journal's frame.

use shardmill_store::fuzzing::read_frame;

/// Bodies lie one behind the other to the end of the payload; what is read is written again, and
/// then says the same.
pub fn check(data: &[u8]) {
    let Some(frame) = read_frame(data) else {
        return;
    };
    for pair in frame.bodies.windows(2) {
        assert_eq!(pair[0].end, pair[1].start);
    }
    if let Some(last) = frame.bodies.last() {
        assert_eq!(last.end, data.len());
    }
    if let Some(again) = &frame.again {
        let second = read_frame(again).expect("what was written is read");
        assert_eq!(second.told, frame.told);
        let bytes = |payload: &[u8], frame: &shardmill_store::fuzzing::Frame| {
            let bodies = frame
                .bodies
                .iter()
                .map(|range| payload[range.clone()].to_vec());
            bodies.collect::<Vec<_>>()
        };
        assert_eq!(bytes(again, &second), bytes(data, &frame));
        assert_eq!(second.again.as_ref(), Some(again), "written twice, alike");
    }
}
