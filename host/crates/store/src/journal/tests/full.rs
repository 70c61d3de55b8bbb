//! Full disks and freed space.

use super::*;

/// Appends groups until the disk is full; gives what was durable before and the error.
fn fill(bed: &mut Bed, first: u64) -> (Vec<Sample>, AppendError) {
    let mut done = Vec::new();
    for number in first.. {
        let group = samples(number, &[9_000]);
        match bed.append(&group) {
            Ok(_) => {
                bed.syncer.sync().expect("a sync");
                done.extend(group);
            }
            Err(error) => return (done, error),
        }
    }
    unreachable!("the disk has an end")
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_space_is_free() {
    let mut bed = Bed::new();
    bed.io.set_capacity(Some(6 * u64::from(SEGMENT_BYTES)));
    let (done, error) = fill(&mut bed, 1);
    let AppendError::Full { needed_bytes, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(needed_bytes, u64::from(SEGMENT_BYTES));
    assert!(done.len() > 20);
    assert!(matches!(
        bed.append(&samples(900, &[9_000])),
        Err(AppendError::Full { .. })
    ));
    bed.commit(&samples(1_000, &[100]));
    let all = [done, samples(1_000, &[100])].concat();

    // A restart needs space for what it makes durable again, and says how much.
    let crashed = bed.io.crash(1);
    let error = Bed::try_open(&crashed, Position::START)
        .map(|_| ())
        .expect_err("full");
    assert!(matches!(error, OpenError::Full { .. }), "{error}");
    crashed.set_capacity(None);
    Bed::open(&crashed, Position::START, &all);

    // Where the tables have come far enough, a trim makes space.
    let tables = bed.journal.durable();
    for segment in bed.journal.segments() {
        let freed = bed
            .journal
            .release(segment.number, tables)
            .expect("released");
        assert_eq!(freed, segment.number < tables.segment);
    }
    let (more, _) = fill(&mut bed, 2_000);
    assert!(more.len() > 20);
    let crashed = bed.io.crash(1);
    crashed.set_capacity(None);
    Bed::open(&crashed, tables, &more);
}

#[test]
fn a_start_on_a_full_disk_uses_the_reserve() {
    let mut bed = Bed::new();
    bed.commit(&samples(1, &[100]));
    let tables = bed.journal.durable();
    let more = samples(2, &[50_000, 100]);
    bed.commit(&more);
    // Nothing is free but the segments in reserve.
    let io = bed.io.crash(2);
    io.set_capacity(Some(0));
    let bed = Bed::open(&io, tables, &more);
    assert_eq!(bed.journal.space().expect("space").free_bytes, 0);
}

#[test]
fn a_short_write_takes_the_group_back_and_the_log_goes_on() {
    // Not every file system keeps its word about space that was allocated.
    let lens = [3_000, 20_000, 30_000, 40_000];
    for bytes in (0..93_000).step_by(977) {
        println!("after {bytes} bytes");
        let mut bed = Bed::new();
        let first = samples(1, &[500, 600]);
        bed.commit(&first);
        let in_flight = samples(3, &[700]);
        bed.append(&in_flight).expect("in flight before");
        let end = bed.writer.end();
        // The group crosses into a second segment; the header of the next reserve goes first.
        bed.io
            .fail_one_write_after(u64::from(layout::FIRST_FRAME) + bytes);
        let error = bed.append(&samples(10, &lens)).expect_err("a short write");
        assert!(matches!(error, AppendError::Full { .. }), "{error}");
        assert_eq!(bed.writer.end(), end);
        // Refused is refused, whatever happens next.
        for seed in bytes * 4..bytes * 4 + 8 {
            let (_, found) = Bed::try_open(&bed.io.crash(seed), Position::START).expect("opens");
            assert!(found.iter().all(|frame| frame.number < 10));
        }
        let after = samples(20, &[800, 45_000, 20_000]);
        bed.commit(&after);
        let all = [first, in_flight, after].concat();
        for seed in 0..3 {
            Bed::open(&bed.io.crash(seed), Position::START, &all);
        }
    }
}

#[test]
fn a_group_that_cannot_be_taken_back_ends_the_journal() {
    let mut bed = Bed::new();
    let first = samples(1, &[500]);
    bed.commit(&first);
    bed.io.fail_writes_after(Some(5_000));
    let error = bed
        .append(&samples(2, &[1_000, 9_000]))
        .expect_err("a short write");
    let AppendError::Failed(message) = error else {
        panic!("{error}");
    };
    assert!(message.contains("take back a group"), "{message}");
    assert_eq!(bed.syncer.sync(), Err(SyncError(message)));
    // Whether the group is there is unknown; what was durable before is.
    for seed in 0..20 {
        let (_, found) = Bed::try_open(&bed.io.crash(seed), Position::START).expect("opens");
        assert!((1..=2).contains(&found.len()));
        first[0].check(&found[0]);
    }
}

#[test]
fn a_group_that_was_refused_is_never_found() {
    // The group's frames are whole on disk but for the last one; the process dies right after
    // the refusal.
    let mut bed = Bed::new();
    let first = samples(1, &[500]);
    bed.commit(&first);
    let counts = bed.io.counts();
    bed.io.set_capacity(Some(0));
    let lens = [9_000, 30_000, 40_000, 40_000, 50_000, 50_000];
    assert!(matches!(
        bed.append(&samples(2, &lens)),
        Err(AppendError::Full { .. })
    ));
    assert_eq!(
        bed.io.counts().written_bytes,
        counts.written_bytes,
        "refused before the write"
    );
    for seed in 0..20 {
        let io = bed.io.crash(seed);
        io.set_capacity(None);
        Bed::open(&io, Position::START, &first);
    }
}

#[test]
fn stale_frames_in_a_recycled_segment_are_not_found() {
    let mut bed = Bed::new();
    let mut tables = Position::START;
    let mut numbers = std::collections::BTreeSet::new();
    for round in 0..20u64 {
        // Frames of one size, so that stale ones lie exactly where new ones would.
        tables = bed.commit(&samples(round * 5 + 1, &[11_000; 5])).end;
        for segment in bed.journal.segments() {
            numbers.insert(segment.number);
            bed.journal
                .release(segment.number, tables)
                .expect("released");
        }
    }
    assert!(numbers.len() > 15);
    let files = bed.io.files().len();
    assert!(files <= 8, "{files} files: segments are used again");
    let last = samples(500, &[11_000, 11_000]);
    bed.commit(&last);
    Bed::open(&bed.io.crash(9), tables, &last);
    bed.append(&samples(600, &[11_000; 4])).expect("in flight");
    let lost = bed.io.crash_with(|_, _, _| crate::io::sim::Fate::Lost);
    Bed::open(&lost, tables, &last);
}

#[test]
fn reading_goes_on_while_a_segment_is_released() {
    let mut bed = Bed::new();
    let all = samples(1, &[20_000; 10]);
    let group = bed.commit(&all);
    let tables = group.end;
    let shared = &bed.journal.0;
    let held = segment::locked(&shared.used)
        .get(&*shared.io, 1)
        .expect("an open file");
    bed.journal.release(1, tables).expect("released");
    let read = bed.read(group.places[0], all[0]);
    assert_eq!(read, Err(JournalReadError::Released(1)));
    // The reader that was under way still finds the bytes, because the file was not used again.
    bed.commit(&samples(100, &[20_000; 10]));
    let mut bytes = vec![0; 20_000];
    let offset = u64::from(group.places[0].offset);
    held.file.read_at(offset, &mut bytes).expect("readable");
    assert_eq!(bytes, all[0].payload());
}
