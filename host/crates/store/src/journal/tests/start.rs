//! Starts after an orderly close, and what a start costs.

use super::*;

#[test]
fn appended_frames_and_parts_of_them_can_be_read() {
    let mut bed = Bed::new();
    let all = samples(1, &[0, 1, 9_000, 30_000, 30_000, 17]);
    let group = bed.commit(&all);
    assert!(
        group.places[4].segment > group.places[0].segment,
        "a group may cross segments"
    );
    for (place, sample) in group.places.iter().zip(&all) {
        let payload = sample.payload();
        assert_eq!(bed.read(*place, *sample).expect("readable"), payload);
    }
    let part = group.places[2].part(100, 50).expect("a part");
    let bytes = &all[2].payload()[100..150];
    let read = bed.journal.read(part, crc32fast::hash(bytes));
    assert_eq!(read.expect("readable"), bytes);
    assert_eq!(group.places[2].part(8_999, 2), None);
}

#[test]
fn a_frame_larger_than_a_segment_is_refused_and_the_largest_is_not() {
    let mut bed = Bed::new();
    let allowed = options().max_payload_bytes(1);
    let too_large = Sample {
        number: 1,
        len: allowed + 1,
    };
    let error = bed.append(&[too_large]).expect_err("too large");
    let (size, allowed) = (too_large.len as u64, allowed as u64);
    assert_eq!(error, AppendError::TooLarge { size, allowed });
    let largest = Sample {
        number: 4,
        len: allowed as usize,
    };
    bed.commit(&samples(2, &[5]));
    bed.commit(&[largest]);
    let io = bed.io.crash(0);
    let expected = [samples(2, &[5]), vec![largest]].concat();
    Bed::open(&io, Position::START, &expected);
}

#[test]
fn after_an_orderly_close_nothing_is_searched_and_nothing_wasted() {
    let mut bed = Bed::new();
    let first = bed.commit(&samples(1, &[3_000; 30]));
    let io = bed.io.clone();
    let end = bed.close();
    assert_eq!(end, first.end);
    let files = io.files();
    let mut now = io.kill();
    for round in 0..5 {
        let before = now.counts().read_bytes;
        let (bed, frames) = Bed::try_open(&now, end).expect("opens");
        assert_eq!(frames, []);
        assert_eq!(bed.writer.end(), end, "goes on in the same segment");
        let read = now.counts().read_bytes - before;
        assert!(read < 9 << 10, "round {round}: {read} bytes read");
        bed.close();
        assert_eq!(now.files(), files);
        now = now.kill();
    }
    let mut bed = Bed::open(&now, end, &[]);
    let more = samples(31, &[3_000; 30]);
    bed.commit(&more);
    Bed::open(&bed.io.crash(1), end, &more);
}

#[test]
fn the_tables_may_lag_behind_an_orderly_close() {
    let mut bed = Bed::new();
    let all = samples(1, &[7_000; 30]);
    let early = bed.commit(&all[..3]);
    bed.commit(&all[3..]);
    let io = bed.io.clone();
    let end = bed.close();
    let bed = Bed::open(&io.kill(), early.end, &all[3..]);
    assert_eq!(bed.writer.end(), end);
}

#[test]
fn a_start_reads_nothing_before_the_tables_position() {
    let mut bed = Bed::new();
    let mut from = Position::START;
    for n in 0..40 {
        from = bed.commit(&samples(n * 10, &[9_000; 10])).end;
    }
    let last = samples(1_000, &[500; 4]);
    bed.commit(&last);
    let io = bed.io.crash(3);
    let before = io.counts().read_bytes;
    Bed::open(&io, from, &last);
    let read = io.counts().read_bytes - before;
    let journal = 40 * 10 * 9_000;
    // The rest of one segment and the reserve are searched for frames that would tell of damage.
    assert!(
        read < u64::from(SEGMENT_BYTES) * 6,
        "{read} of {journal} bytes read"
    );
}

#[test]
fn repeated_unclean_starts_do_not_pile_up_space() {
    let mut bed = Bed::new();
    let group = bed.commit(&samples(1, &[100]));
    let mut io = bed.io.crash(0);
    let mut bytes = Vec::new();
    for seed in 0..10 {
        let bed = Bed::open(&io, group.end, &[]);
        bytes.push(bed.journal.disk_bytes());
        io = bed.io.crash(seed);
    }
    assert!(bytes.iter().all(|b| *b <= bytes[0] + 4096), "{bytes:?}");
}

#[test]
fn a_second_process_is_refused_while_the_first_has_the_folder() {
    let bed = Bed::new();
    let error = Bed::try_open(&bed.io, Position::START)
        .map(|_| ())
        .expect_err("refused");
    assert!(matches!(error, OpenError::InUse { .. }));
    let io = bed.io.clone();
    drop(bed);
    Bed::open(&io.kill(), Position::START, &[]);
    Bed::open(&io, Position::START, &[]);
}

#[test]
fn a_refused_frame_stops_the_start_and_is_there_the_next_time() {
    let mut bed = Bed::new();
    let all = samples(1, &[10, 20]);
    bed.commit(&all);
    let io: Arc<dyn Io> = Arc::new(bed.io.kill());
    let lock = FolderLock::take(&*io).expect("the lock");
    let refuse = |_| Err("no");
    let opened = Journal::open(Arc::clone(&io), lock, options(), Position::START, refuse);
    let error = opened.map(|_| ()).expect_err("refused");
    assert_eq!(error.to_string(), "frame 1 was not applied: no");
    let lock = FolderLock::take(&*io).expect("the lock is free again");
    let mut count = 0;
    let each = |_| {
        count += 1;
        Ok::<_, Infallible>(())
    };
    Journal::open(io, lock, options(), Position::START, each).expect("opens");
    assert_eq!(count, 2);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for (segment_bytes, reserve_segments) in [(4096, 2), (65_537, 2), (65_536, 0), (65_536, 9)] {
        let io: Arc<dyn Io> = Arc::new(SimIo::new());
        let lock = FolderLock::take(&*io).expect("the lock");
        let options = JournalOptions {
            segment_bytes,
            reserve_segments,
            ..options()
        };
        let each = |_| Ok::<_, Infallible>(());
        let opened = Journal::open(io, lock, options, Position::START, each);
        assert!(matches!(opened, Err(OpenError::Options(_))));
    }
}

#[test]
fn segments_of_another_size_are_read_and_their_reserve_is_replaced() {
    let mut bed = Bed::new();
    let all = samples(1, &[9_000; 20]);
    let early = bed.commit(&all[..2]).end;
    bed.commit(&all[2..]);
    let io = bed.io.clone();
    bed.close();
    for io in [io.kill(), io.crash(5)] {
        let io: Arc<dyn Io> = Arc::new(io);
        let lock = FolderLock::take(&*io).expect("the lock");
        let options = JournalOptions {
            segment_bytes: 256 << 10,
            ..options()
        };
        let mut count = 0;
        let each = |_| {
            count += 1;
            Ok::<_, Infallible>(())
        };
        let (journal, mut writer, mut syncer) =
            Journal::open(io, lock, options, early, each).expect("opens");
        assert_eq!(count, 18);
        let payload = vec![7; 200 << 10];
        let frame = Frame {
            number: 21,
            shards: &[],
            payload: &[Piece::from(payload.as_slice())],
        };
        let group = writer.append(&[frame, frame]).expect("an append");
        syncer.sync().expect("a sync");
        for place in group.places {
            journal
                .read(place, crc32fast::hash(&payload))
                .expect("readable");
        }
    }
}
