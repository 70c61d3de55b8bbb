//! The journal on a simulated disk: what must be true after crashes, rot, full disks and failed
//! syncs. Everything random prints its seed.

mod crash;
mod disk;
mod full;
mod model;
mod rot;
mod start;

use std::convert::Infallible;
use std::sync::Arc;

use shardmill_core::{ShardId, ShardKey, StreamId};

use super::*;
use crate::io::SimIo;
use crate::io::sim::Random;

/// Small segments, so that a test sees many.
pub(super) const SEGMENT_BYTES: u32 = 64 << 10;

pub(super) fn options() -> JournalOptions {
    JournalOptions {
        segment_bytes: SEGMENT_BYTES,
        low_water_bytes: 0,
        new_store_id: 0x1234_5678_9abc_def0,
        prepare: Prepare::Writer,
        ..JournalOptions::default()
    }
}

/// An open journal on a simulated disk.
pub(super) struct Bed {
    pub(super) io: SimIo,
    pub(super) journal: Journal,
    pub(super) writer: Writer,
    pub(super) syncer: Syncer,
}

/// A frame of a test: its payload follows from its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) number: u64,
    pub(super) len: usize,
}

impl Sample {
    pub(super) fn payload(self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        let mut random = Random(self.number);
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&random.next_u64().to_le_bytes()[..chunk.len()]);
        }
        bytes
    }

    pub(super) fn shards(self) -> Vec<ShardKey> {
        let shard = |n| ShardKey {
            stream: StreamId(self.number),
            shard: ShardId(n),
        };
        (0..(self.number % 3) as u32).map(shard).collect()
    }

    /// What recovery hands over, compared as a whole.
    pub(super) fn check(self, frame: &RecoveredFrame) {
        assert_eq!(frame.number, self.number);
        assert_eq!(frame.payload, self.payload(), "payload of {self:?}");
        assert_eq!(frame.shards, self.shards());
        assert_eq!(frame.place.len as usize, self.len);
    }
}

/// Samples with these lengths, numbered from `first`.
pub(super) fn samples(first: u64, lens: &[usize]) -> Vec<Sample> {
    let numbered = (first..).zip(lens);
    numbered
        .map(|(number, len)| Sample { number, len: *len })
        .collect()
}

impl Bed {
    /// Opens, or tells why not, with what was recovered.
    pub(super) fn try_open(
        io: &SimIo,
        from: Position,
    ) -> Result<(Self, Vec<RecoveredFrame>), OpenError> {
        let shared: Arc<dyn Io> = Arc::new(io.clone());
        let lock = FolderLock::take(&*shared)?;
        let mut frames = Vec::new();
        let each = |frame| {
            frames.push(frame);
            Ok::<_, Infallible>(())
        };
        let (journal, writer, syncer) = Journal::open(shared, lock, options(), from, each)?;
        let bed = Self {
            io: io.clone(),
            journal,
            writer,
            syncer,
        };
        Ok((bed, frames))
    }

    /// Opens; what is recovered must be these frames.
    pub(super) fn open(io: &SimIo, from: Position, expected: &[Sample]) -> Self {
        let (bed, frames) = Self::try_open(io, from).expect("the journal opens");
        let found: Vec<u64> = frames.iter().map(|frame| frame.number).collect();
        let numbers: Vec<u64> = expected.iter().map(|sample| sample.number).collect();
        assert_eq!(found, numbers);
        for (frame, sample) in frames.iter().zip(expected) {
            sample.check(frame);
            assert_eq!(
                bed.read(frame.place, *sample).expect("a readable place"),
                frame.payload
            );
        }
        bed
    }

    pub(super) fn new() -> Self {
        Self::open(&SimIo::new(), Position::START, &[])
    }

    pub(super) fn append(&mut self, samples: &[Sample]) -> Result<Group, AppendError> {
        let payloads: Vec<Vec<u8>> = samples.iter().map(|sample| sample.payload()).collect();
        // Two pieces, one with its checksum known.
        let pieces: Vec<[Piece<'_>; 2]> = payloads.iter().map(|bytes| halves(bytes)).collect();
        let shards: Vec<Vec<ShardKey>> = samples.iter().map(|sample| sample.shards()).collect();
        let frames: Vec<Frame<'_>> = samples
            .iter()
            .zip(&pieces)
            .zip(&shards)
            .map(|((sample, payload), shards)| Frame {
                number: sample.number,
                shards,
                payload,
            })
            .collect();
        self.writer.append(&frames)
    }

    /// Appends and syncs.
    pub(super) fn commit(&mut self, samples: &[Sample]) -> Group {
        let group = self.append(samples).expect("an append");
        let durable = self.syncer.sync().expect("a sync");
        assert_eq!(durable, group.end);
        group
    }

    pub(super) fn read(&self, place: Place, sample: Sample) -> Result<Bytes, JournalReadError> {
        self.journal.read(place, crc32fast::hash(&sample.payload()))
    }

    pub(super) fn close(self) -> Position {
        let end = self.writer.end();
        self.syncer.close(self.writer).expect("an orderly close");
        end
    }
}

fn halves(bytes: &[u8]) -> [Piece<'_>; 2] {
    let (left, right) = bytes.split_at(bytes.len() / 3);
    let crc = Some(crc32fast::hash(right));
    [Piece::from(left), Piece { bytes: right, crc }]
}
