//! The journal on a simulated disk: a journal is written, its files are damaged as the input says
//! (also with checksums that are right again), and it is opened.
//!
//! ```text
//! steps: kind u8 │ what it needs
//!   0 append   length u16                a frame of so many bytes
//!   1 sync
//!   2 close and open again
//!   3 crash    seed u8                   loss of power, open again
//!   4 damage   file u8 │ offset u16 │ flip u8
//!   5 write    file u8 │ offset u16 │ length u8, bytes
//!   6 seal     file u8 │ offset u16      headers there get right checksums
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use shardmill_core::{ShardId, ShardKey, StreamId};
use shardmill_store::fuzzing::seal_headers;
use shardmill_store::io::{Io, SimIo};
use shardmill_store::journal::{
    FolderLock, Frame, Journal, JournalOptions, OpenError, Piece, Place, Position, Prepare,
    RecoveredFrame, Syncer, Writer, repair,
};

use crate::input::Input;

const STORE_ID: u64 = 0x1234_5678_9abc_def0;
const SEGMENT_BYTES: u32 = 64 << 10;
/// Steps of an input that count, and frames that it may append.
const MAX_STEPS: usize = 40;

struct Bed {
    io: SimIo,
    journal: Journal,
    writer: Writer,
    syncer: Syncer,
    frames: Vec<RecoveredFrame>,
}

/// Until the files are damaged: what was synced is there after any crash, in order, and what was
/// not is there as a beginning of what was written. After damage: opening succeeds or names what is
/// wrong; what it gives can be read at its place, twice alike; and what is damaged can be repaired.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let mut bed = open(&SimIo::new()).expect("a new journal");
    let (mut written, mut synced) = (Vec::new(), 0);
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        match input.u8() % 7 {
            0 => append(&mut bed, &mut written, usize::from(input.u16() % 20_000)),
            1 => {
                bed.syncer.sync().expect("a disk without faults");
                synced = written.len();
            }
            2 => {
                bed.syncer.close(bed.writer).expect("a disk without faults");
                drop(bed.journal);
                synced = written.len();
                bed = reopen(&bed.io, &mut written, synced);
            }
            3 => {
                let io = bed.io.crash(u64::from(input.u8()));
                drop((bed.journal, bed.writer, bed.syncer));
                bed = reopen(&io, &mut written, synced);
                synced = written.len();
            }
            kind => {
                let io = bed.io.kill();
                drop((bed.journal, bed.writer, bed.syncer));
                return damaged(&io, kind, &mut input);
            }
        }
    }
}

fn append(bed: &mut Bed, written: &mut Vec<Vec<u8>>, len: usize) {
    let number = written.len() as u64 + 1;
    let payload = vec![number as u8; len];
    let shards = [ShardKey {
        stream: StreamId(number),
        shard: ShardId(1),
    }];
    let frame = Frame {
        number,
        shards: &shards[..(number % 2) as usize],
        payload: &[Piece {
            bytes: &payload,
            crc: None,
        }],
    };
    bed.writer.append(&[frame]).expect("a disk without bounds");
    written.push(payload);
}

/// Opens a journal without damage.
fn reopen(io: &SimIo, written: &mut Vec<Vec<u8>>, synced: usize) -> Bed {
    let bed = open(io).expect("no crash makes a journal that does not open");
    let found = bed.frames.len();
    assert!(
        (synced..=written.len()).contains(&found),
        "{found} frames, {synced} were synced"
    );
    written.truncate(found);
    for (frame, (payload, number)) in bed.frames.iter().zip(written.iter().zip(1..)) {
        assert_eq!((&frame.payload[..], frame.number), (&payload[..], number));
    }
    bed
}

/// Damages files, then opens.
fn damaged(io: &SimIo, first: u8, input: &mut Input<'_>) {
    let mut sealed: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    damage(io, first, input, &mut sealed);
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        let kind = 4 + input.u8() % 3;
        damage(io, kind, input, &mut sealed);
    }
    for (name, offsets) in &sealed {
        let file = io.open(name).expect("a file");
        let mut bytes = vec![0; file.len().expect("a length") as usize];
        file.read_at(0, &mut bytes).expect("bytes");
        seal_headers(&mut bytes, STORE_ID, offsets);
        file.write_at(0, &bytes).expect("bytes");
    }
    match open(&io.kill()) {
        Ok(bed) => {
            let again = bed.io.kill();
            let frames = bed.frames;
            drop((bed.journal, bed.writer, bed.syncer));
            let second = open(&again).expect("what opened once opens twice");
            assert_eq!(contents(&second.frames), contents(&frames));
        }
        Err(OpenError::Corrupt(damage)) => {
            assert!(!damage.reason.is_empty() && !damage.file.is_empty());
            let repaired = io.kill();
            let shared: Arc<dyn Io> = Arc::new(repaired.clone());
            let lock = FolderLock::take(&*shared).expect("nobody has it");
            let report = repair(&shared, &lock, options(), Position::START);
            drop(lock);
            match report {
                Ok(report) => {
                    assert_eq!(report.damage.map(|d| d.offset), Some(damage.offset));
                    let bed = open(&repaired).expect("what is repaired opens");
                    assert_eq!(bed.frames.len() as u64, report.kept_frames);
                }
                Err(error) => assert!(matches!(error, OpenError::Corrupt(_)), "{error}"),
            }
        }
        Err(OpenError::Version { found, known, .. }) => assert!(found > known),
        Err(error) => panic!("neither opened nor told what is damaged: {error}"),
    }
}

fn damage(io: &SimIo, kind: u8, input: &mut Input<'_>, sealed: &mut BTreeMap<String, Vec<usize>>) {
    let files = io.files();
    let files: Vec<_> = files.iter().filter(|f| f.starts_with("journal/")).collect();
    let Some(name) = files.get(usize::from(input.u8()) % files.len().max(1)) else {
        return;
    };
    let offset = usize::from(input.u16());
    let file = io.open(name).expect("a file");
    let len = file.len().expect("a length") as usize;
    let bytes = match kind {
        4 => &[input.u8()],
        5 => input.short(),
        _ => {
            sealed
                .entry((*name).clone())
                .or_default()
                .push(offset / 8 * 8);
            return;
        }
    };
    if offset >= len {
        return;
    }
    let bytes = &bytes[..bytes.len().min(len - offset)];
    if let ([flip], 4) = (bytes, kind) {
        io.flip(name, offset as u64, *flip);
    } else if !bytes.is_empty() {
        file.write_at(offset as u64, bytes).expect("bytes");
    }
}

fn options() -> JournalOptions {
    JournalOptions {
        segment_bytes: SEGMENT_BYTES,
        reserve_segments: 1,
        low_water_bytes: 0,
        new_store_id: STORE_ID,
        prepare: Prepare::Writer,
    }
}

/// Opens, and reads every frame at its place.
fn open(io: &SimIo) -> Result<Bed, OpenError> {
    let shared: Arc<dyn Io> = Arc::new(io.clone());
    let lock = FolderLock::take(&*shared)?;
    let mut frames: Vec<RecoveredFrame> = Vec::new();
    let each = |frame| {
        frames.push(frame);
        Ok::<_, Infallible>(())
    };
    let (journal, writer, syncer) = Journal::open(shared, lock, options(), Position::START, each)?;
    for frame in &frames {
        let Place { len, .. } = frame.place;
        assert_eq!(len as usize, frame.payload.len());
        let read = journal.read(frame.place, crc32fast::hash(&frame.payload));
        assert_eq!(read.expect("a recovered frame can be read"), frame.payload);
    }
    assert!(frames.is_sorted_by(|a, b| a.end < b.end));
    Ok(Bed {
        io: io.clone(),
        journal,
        writer,
        syncer,
        frames,
    })
}

fn contents(frames: &[RecoveredFrame]) -> Vec<(u64, &[ShardKey], &[u8])> {
    let of = frames.iter();
    of.map(|f| (f.number, &f.shards[..], &f.payload[..]))
        .collect()
}
