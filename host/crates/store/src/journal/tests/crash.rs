//! Torn, lost and reordered pages of what was not synced; crashes in the middle of a start.

use super::*;
use crate::io::sim::Fate;

/// A disk with synced frames and two groups in flight, several frames each, and what was synced.
fn in_flight(synced: &[usize], groups: [&[usize]; 2]) -> (Bed, Vec<Sample>, usize) {
    let mut bed = Bed::new();
    let all = samples(1, &[synced, groups[0], groups[1]].concat());
    let (done, rest) = all.split_at(synced.len());
    bed.commit(done);
    let (first, second) = rest.split_at(groups[0].len());
    bed.append(first).expect("the first group");
    bed.append(second).expect("the second group");
    (bed, all, synced.len())
}

/// Opens after a crash: all synced frames are there, and of the others whole ones from the first
/// on. What was recovered stays, and the log goes on.
fn check(io: &SimIo, all: &[Sample], synced: usize) -> usize {
    let (mut bed, frames) = Bed::try_open(io, Position::START).expect("a crash is no damage");
    assert!(
        frames.len() >= synced,
        "{} of {synced} synced frames",
        frames.len()
    );
    for (frame, sample) in frames.iter().zip(all) {
        sample.check(frame);
    }
    assert!(frames.len() <= all.len());
    let kept = frames.len();
    let more = samples(100, &[40, 5_000]);
    bed.commit(&more);
    let expected = [&all[..kept], &more].concat();
    Bed::open(&bed.io.crash(kept as u64), Position::START, &expected);
    kept
}

const SHAPES: [(&[usize], [&[usize]; 2]); 4] = [
    (&[300, 5_000], [&[2_000, 100, 7_000, 3_900], &[50, 9_000]]),
    (&[], [&[100, 100, 100, 100], &[100, 12_000]]),
    // The first group fills a segment, the second crosses into the next one and one more.
    (&[40_000], [&[9_000, 9_000], &[8_000, 30_000, 40_000]]),
    // What is synced fills several segments.
    (&[40_000, 40_000, 40_000, 10], [&[5_000, 3_000], &[9_000]]),
];

#[test]
fn any_single_page_may_be_lost_or_torn() {
    for (shape, (synced, groups)) in SHAPES.into_iter().enumerate() {
        let (bed, all, synced) = in_flight(synced, groups);
        let pages = bed.io.unsynced_pages();
        assert!(pages.len() > 3);
        for bad in &pages {
            for fate in [
                Fate::Lost,
                Fate::Version(0),
                Fate::Torn(0x0f),
                Fate::Torn(0xa6),
            ] {
                let io = bed.io.crash_with(|name, page, _| {
                    let hit = (name, page) == (bad.0.as_str(), bad.1);
                    if hit { fate } else { Fate::Kept }
                });
                println!("shape {shape}, {bad:?} {fate:?}");
                check(&io, &all, synced);
            }
        }
    }
}

#[test]
fn any_subset_of_pages_may_reach_the_disk() {
    for (shape, (synced, groups)) in SHAPES.into_iter().enumerate() {
        let (bed, all, synced) = in_flight(synced, groups);
        let pages = bed.io.unsynced_pages();
        let mut kept = std::collections::BTreeSet::new();
        let subsets: Vec<u64> = if pages.len() <= 9 {
            (0..1 << pages.len()).collect()
        } else {
            let prefixes = (0..=pages.len()).map(|n| (1u64 << n) - 1);
            let mut random = Random(shape as u64);
            let some = std::iter::repeat_with(|| random.next_u64() | random.next_u64());
            prefixes.chain(some.take(300)).collect()
        };
        for subset in subsets {
            println!("shape {shape}, pages {subset:b}");
            let io = bed.io.crash_with(|name, page, _| {
                let n = pages
                    .iter()
                    .position(|p| (p.0.as_str(), p.1) == (name, page));
                let reached = n.is_some_and(|n| subset & (1 << n) != 0);
                if reached { Fate::Kept } else { Fate::Lost }
            });
            kept.insert(check(&io, &all, synced));
        }
        assert!(
            kept.contains(&synced) && kept.contains(&all.len()),
            "{kept:?}"
        );
        assert!(kept.len() > 2, "{kept:?}");
    }
}

#[test]
fn any_mix_of_versions_and_sectors_may_be_found() {
    for (synced, groups) in SHAPES {
        let (bed, all, synced) = in_flight(synced, groups);
        for seed in 0..150 {
            println!("seed {seed}");
            check(&bed.io.crash(seed), &all, synced);
        }
    }
}

#[test]
fn a_start_may_be_interrupted_at_every_step() {
    for (shape, (synced, groups)) in SHAPES.into_iter().enumerate() {
        let (bed, all, synced) = in_flight(synced, groups);
        for seed in 0..6 {
            let crashed = bed.io.crash(seed);
            let mut whole = None;
            for step in 0.. {
                let io = crashed.kill();
                io.stop_after(Some(step));
                let done = match Bed::try_open(&io, Position::START) {
                    Ok((_, frames)) => *whole.insert(frames.len()),
                    Err(_) => synced,
                };
                println!("shape {shape}, seed {seed}, step {step}: {done}");
                let at_least = done.max(synced);
                assert!(check(&io.crash(seed + step), &all, at_least) >= at_least);
                if io.counts().changes < crashed.counts().changes + step {
                    break;
                }
            }
            assert!(whole.is_some());
        }
    }
}

#[test]
fn an_append_may_be_interrupted_at_every_step() {
    // Small groups across many segments: preparing segments is part of it.
    for step in 0..160 {
        let mut bed = Bed::new();
        bed.io.stop_after(Some(step));
        let (mut all, mut synced) = (Vec::new(), 0);
        for n in 0..12 {
            let group = samples(n * 2 + 1, &[20_000, 300]);
            if bed.append(&group).is_err() {
                break;
            }
            all.extend(group);
            if bed.syncer.sync().is_err() {
                break;
            }
            synced = all.len();
        }
        println!("step {step}: {synced} synced");
        check(&bed.io.crash(step), &all, synced);
    }
}

#[test]
fn a_frame_whose_payload_looks_like_a_frame_is_not_one() {
    // Somebody puts records that hold the bytes of frames, with the right place and a claim that
    // everything was durable, but cannot know the store's id.
    let mut bed = Bed::new();
    bed.commit(&samples(1, &[100]));
    let end = bed.writer.end();
    let payload_at = end.offset + 56;
    let mut forged = Vec::new();
    while forged.len() < 6_000 {
        let header = layout::FrameHeader {
            at: Position {
                offset: payload_at + forged.len() as u32,
                ..end
            },
            number: 9,
            payload_len: 0,
            payload_crc: 0,
            shard_count: 0,
            durable: Position {
                segment: 99,
                offset: 0,
            },
            previous_end: None,
        };
        header.write(&layout::seed(0), &[], &mut forged);
    }
    let frame = Frame {
        number: 2,
        shards: &[],
        payload: &[Piece::from(forged.as_slice())],
    };
    bed.writer.append(&[frame]).expect("an append");
    let io = bed
        .io
        .crash_with(|_, page, _| if page == 1 { Fate::Lost } else { Fate::Kept });
    Bed::open(&io, Position::START, &samples(1, &[100]));
}

#[test]
fn a_failed_sync_is_final_and_its_frames_are_made_durable_by_the_next_start() {
    // After a failed fsync Linux marks pages clean that never reached the disk: the next process
    // finds the frames in the cache, shows them, and a loss of power would take them back.
    let mut bed = Bed::new();
    let all = samples(1, &[3_000; 12]);
    bed.commit(&all[..4]);
    bed.append(&all[4..]).expect("an append");
    bed.io.fail_syncs(1);
    let error = bed.syncer.sync().expect_err("the sync fails");
    assert!(
        error.to_string().contains("simulated sync failure"),
        "{error}"
    );
    assert_eq!(bed.syncer.sync(), Err(error.clone()), "it stays failed");
    let append = bed.append(&all[..1]).expect_err("nothing more is written");
    assert_eq!(append, AppendError::Failed(error.0));
    let io = bed.io.kill();
    assert!(bed.syncer.close(bed.writer).is_err(), "no end mark");
    let bed = Bed::open(&io, Position::START, &all);
    for seed in 0..20 {
        Bed::open(&bed.io.crash(seed), Position::START, &all);
    }
}
