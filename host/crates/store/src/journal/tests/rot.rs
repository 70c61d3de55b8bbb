//! Bit rot in what was durable: reported, never cut off.

use super::*;

/// Groups of one frame each, over several segments, and where each ends.
fn rows() -> (Bed, Vec<Sample>, Vec<Group>) {
    let mut bed = Bed::new();
    let all = samples(1, &[5_000; 30]);
    let groups = all.iter().map(|sample| bed.commit(&[*sample])).collect();
    (bed, all, groups)
}

fn start_of(group: &Group, sample: Sample) -> u64 {
    let header = layout::FRAME_HEADER_BYTES + sample.shards().len() * layout::SHARD_BYTES;
    u64::from(group.places[0].offset) - header as u64
}

#[test]
fn rot_behind_the_tables_position_stops_the_start_and_names_the_place() {
    let (bed, all, groups) = rows();
    let before = Position::START;
    for n in [0, 5, 11, 12, 28] {
        let (group, sample) = (&groups[n], all[n]);
        let start = start_of(group, sample);
        let payload = u64::from(group.places[0].offset);
        let places = [
            start,           // magic
            start + 4,       // checksum of the header
            start + 16,      // position
            start + 20,      // length, too small
            start + 23,      // length, far too large
            start + 40,      // durable position
            payload - 1,     // the header's last byte
            payload,         // the payload
            payload + 4_999, // its last byte
        ];
        for (at, bits) in places
            .into_iter()
            .flat_map(|at| [(at, 1), (at, 0x80), (at, 0xff)])
        {
            let io = bed.io.crash(0);
            let file = segment::path(group.places[0].segment);
            io.flip(&file, at, bits);
            let error = Bed::try_open(&io, before).map(|_| ()).expect_err("damage");
            let OpenError::Corrupt(damage) = &error else {
                panic!("{error}");
            };
            assert_eq!((&damage.file, damage.offset), (&file, start), "{error}");
            assert!(
                error.to_string().contains("repair --accept-loss"),
                "{error}"
            );

            let shared: Arc<dyn Io> = Arc::new(io.clone());
            let lock = FolderLock::take(&*shared).expect("the lock");
            let report = repair(&shared, &lock, options(), before).expect("a repair");
            assert_eq!(report.damage.as_ref(), Some(damage));
            assert_eq!(report.kept_frames, n as u64);
            assert_eq!(
                report.lost_frames,
                (all.len() - n - 1) as u64,
                "without the bad one"
            );
            let shards = all[n + 1..].iter().flat_map(|sample| sample.shards());
            assert_eq!(report.lost_shards, shards.collect::<Vec<_>>());
            drop(lock);
            let bed = Bed::open(&io.crash(1), before, &all[..n]);
            let again = repair(
                &shared,
                &FolderLock::take(&*shared).expect("lock"),
                options(),
                before,
            );
            assert_eq!(again.expect("nothing to do"), RepairReport::default());
            drop(bed);
        }
    }
}

#[test]
fn rot_before_the_tables_position_fails_only_the_reads_of_it() {
    let (bed, all, groups) = rows();
    let io = bed.io.crash(0);
    io.flip(
        &segment::path(groups[3].places[0].segment),
        u64::from(groups[3].places[0].offset),
        4,
    );
    let bed = Bed::open(&io, groups[20].end, &all[21..]);
    for (n, (group, sample)) in groups.iter().zip(&all).enumerate().take(21) {
        let read = bed.read(group.places[0], *sample);
        if n == 3 {
            let error = read.expect_err("damaged");
            assert!(matches!(&error, JournalReadError::Damaged(_)), "{error}");
        } else {
            assert_eq!(read.expect("readable"), sample.payload());
        }
    }
}

#[test]
fn rot_in_a_segments_header_is_reported() {
    let (bed, _, groups) = rows();
    let segments = bed.journal.segments();
    assert!(segments.len() >= 3);
    for (from, number) in [
        (Position::START, 1),
        (Position::START, 2),
        (groups[2].end, 3),
    ] {
        let io = bed.io.crash(0);
        io.flip(&segment::path(number), 20, 1);
        let error = Bed::try_open(&io, from).map(|_| ()).expect_err("damage");
        let OpenError::Corrupt(damage) = &error else {
            panic!("{error}");
        };
        assert_eq!((&damage.file, damage.offset), (&segment::path(number), 0));
    }
}

#[test]
fn a_missing_segment_is_reported() {
    let (bed, _, groups) = rows();
    let from = groups[2].end;
    for number in [from.segment, from.segment + 1] {
        let io = bed.io.crash(0);
        io.remove(&segment::path(number)).expect("removed");
        let error = Bed::try_open(&io, from).map(|_| ()).expect_err("damage");
        assert!(matches!(error, OpenError::Corrupt(_)), "{error}");
    }
    let io = bed.io.crash(0);
    for segment in bed.journal.segments() {
        io.remove(&segment::path(segment.number)).expect("removed");
    }
    let error = Bed::try_open(&io, from).map(|_| ()).expect_err("damage");
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn tables_that_were_lost_do_not_make_a_start_that_forgets_everything() {
    let (bed, _, groups) = rows();
    assert_eq!(bed.journal.release(1, groups[20].end).ok(), Some(true));
    bed.io.sync_dir(segment::DIR).expect("a sync");
    let io = bed.io.crash(0);
    if let Ok((_, frames)) = Bed::try_open(&io, Position::START) {
        panic!("{} frames after segment 1 was released", frames.len());
    }
}

#[test]
fn after_an_orderly_close_rot_in_the_last_frame_is_no_torn_tail() {
    let (bed, _, groups) = rows();
    let io = bed.io.clone();
    bed.close();
    let last = groups[29].places[0];
    io.flip(&segment::path(last.segment), u64::from(last.offset), 1);
    let error = Bed::try_open(&io.kill(), groups[10].end)
        .map(|_| ())
        .expect_err("damage");
    assert!(
        error.to_string().contains("the journal was closed at"),
        "{error}"
    );
}

#[test]
fn rot_in_what_a_start_wrote_again_is_no_torn_tail() {
    let (bed, all, groups) = rows();
    let bed = Bed::open(&bed.io.crash(0), groups[24].end, &all[25..]);
    let io = bed.io.crash(0);
    let last = io
        .files()
        .into_iter()
        .filter(|file| file.ends_with(".log"))
        .nth_back(2);
    io.flip(
        &last.expect("the segment in use"),
        4096 + 4 * 5_072 + 100,
        1,
    );
    let error = Bed::try_open(&io, groups[24].end)
        .map(|_| ())
        .expect_err("damage");
    assert!(
        error.to_string().contains("the segment was durable up to"),
        "{error}"
    );
}

#[test]
fn a_failing_read_is_an_error_and_not_the_end_of_the_log() {
    let (bed, _, groups) = rows();
    let io = bed.io.crash(0);
    let place = groups[15].places[0];
    let at = u64::from(place.offset);
    io.fail_reads(Some((&segment::path(place.segment), at..at + 10)));
    let error = Bed::try_open(&io, Position::START)
        .map(|_| ())
        .expect_err("unreadable");
    assert!(
        error.to_string().contains("simulated read failure"),
        "{error}"
    );
}

#[test]
fn after_an_orderly_close_only_damage_that_matters_stops_a_start() {
    let (bed, _, _) = rows();
    let io = bed.io.clone();
    let end = bed.close();
    // A reserve segment has nothing to lose.
    let reserve = io.kill();
    reserve.flip(&segment::path(end.segment + 1), 20, 1);
    Bed::open(&reserve, end, &[]);
    for break_it in [
        |io: &SimIo, file: &str| io.remove(file),
        |io: &SimIo, file: &str| io.open(file)?.set_len(5_000),
        |io: &SimIo, file: &str| {
            io.flip(file, 20, 1);
            Ok(())
        },
    ] {
        let io = io.kill();
        break_it(&io, &segment::path(end.segment)).expect("broken");
        let error = Bed::try_open(&io, end).map(|_| ()).expect_err("damage");
        assert!(matches!(error, OpenError::Corrupt(_)), "{error}");
    }
}
