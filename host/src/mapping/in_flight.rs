//! Notes which batch a poller has in flight, so that one that takes the whole process down is
//! noticed: a batch that was in flight in two process deaths is halved, a single record that was in
//! flight in three is given up.
//!
//! A file per mapping and shard, and one per mapping for its parked keys; 24 bytes per lane,
//! rewritten in place and never synced: it must outlive the process, not the machine.
//!
//! ```text
//! position of the batch's first record u64 │ sub-sequence number u32 │ process deaths so far u32
//! 1 while in flight u32 │ 0 u32
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Buf;
use shardmill_core::ShardKey;
use shardmill_core::limits::MAX_PARALLELIZATION_FACTOR;
use shardmill_core::mapping::Position;

/// Process deaths after which a batch of one record is not run again.
pub(super) const MAX_DEATHS: u32 = 3;

/// Process deaths after which a larger batch is halved, and halved again with each further one.
pub(super) const DEATHS_BEFORE_SPLIT: u32 = 2;

/// The notes of one poller. Without a folder nothing is noted.
pub(super) struct InFlight {
    file: Option<File>,
    /// By lane.
    found: [Note; LANES],
}

const LANES: usize = MAX_PARALLELIZATION_FACTOR as usize;

/// Bytes of a note.
const NOTE_BYTES: usize = 24;

#[derive(Clone, Copy, Default)]
struct Note {
    first: (u64, u32),
    deaths: u32,
    running: bool,
}

impl InFlight {
    /// Reads what the process before this one left. A folder that cannot be used is reported and
    /// done without: the note guards against a rare fault, and is not worth a shard.
    pub(super) fn open(folder: Option<&Path>, mapping: &str, shard: ShardKey) -> Self {
        let name = format!("{mapping}-{}-{}", shard.stream.0, shard.shard.0);
        Self::named(folder, &name)
    }

    /// The same for the releaser of a mapping, which has one batch at a time, of any shard.
    pub(super) fn of_releaser(folder: Option<&Path>, mapping: &str) -> Self {
        Self::named(folder, &format!("{mapping}-parked"))
    }

    fn named(folder: Option<&Path>, name: &str) -> Self {
        let file = folder.and_then(|folder| {
            let open = || {
                std::fs::create_dir_all(folder)?;
                File::options()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(folder.join(name))
            };
            open()
                .inspect_err(
                    |error| tracing::warn!(%error, ?folder, "cannot note batches in flight"),
                )
                .ok()
        });
        let mut found = [Note::default(); LANES];
        for (lane, note) in found.iter_mut().enumerate() {
            let mut bytes = [0; NOTE_BYTES];
            let at = (lane * NOTE_BYTES) as u64;
            let read = file.as_ref().map(|f| f.read_exact_at(&mut bytes, at));
            if matches!(read, Some(Ok(()))) {
                *note = Note::read(bytes);
            }
        }
        Self { file, found }
    }

    /// Notes that the batch that begins at `first` is about to run. Returns in how many process
    /// deaths it was in flight.
    pub(super) fn begin(&mut self, lane: usize, first: Position) -> u32 {
        let found = self.found[lane];
        let first = (first.record, first.sub);
        let deaths = match (found.first == first, found.running) {
            (true, true) => found.deaths + 1,
            (true, false) => found.deaths,
            (false, _) => 0,
        };
        let running = true;
        self.write(
            lane,
            Note {
                first,
                deaths,
                running,
            },
        );
        deaths
    }

    /// Notes that the batch was halved: its first half begins where it began, and is halved
    /// again when the process dies once more.
    pub(super) fn split(&mut self, lane: usize) {
        let note = Note {
            deaths: DEATHS_BEFORE_SPLIT - 1,
            running: false,
            ..self.found[lane]
        };
        self.write(lane, note);
    }

    /// Notes that the batch has ended, however.
    pub(super) fn end(&mut self, lane: usize) {
        let note = Note {
            running: false,
            ..self.found[lane]
        };
        self.write(lane, note);
    }

    fn write(&mut self, lane: usize, note: Note) {
        self.found[lane] = note;
        let at = (lane * NOTE_BYTES) as u64;
        if let Some(file) = &self.file
            && let Err(error) = file.write_all_at(&note.bytes(), at)
        {
            tracing::warn!(%error, "cannot note batches in flight");
            self.file = None;
        }
    }
}

impl Drop for InFlight {
    /// Whoever lives to drop it has not died: an orderly stop in the middle of a batch, or a
    /// poller that begins anew, is nothing to answer for.
    fn drop(&mut self) {
        for lane in 0..LANES {
            if self.found[lane].running {
                self.end(lane);
            }
        }
    }
}

impl Note {
    fn read(bytes: [u8; NOTE_BYTES]) -> Self {
        let mut bytes = bytes.as_slice();
        Self {
            first: (bytes.get_u64_le(), bytes.get_u32_le()),
            deaths: bytes.get_u32_le(),
            running: bytes.get_u32_le() == 1,
        }
    }

    fn bytes(self) -> [u8; NOTE_BYTES] {
        let mut bytes = [0; NOTE_BYTES];
        bytes[..8].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.first.1.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.deaths.to_le_bytes());
        bytes[16] = u8::from(self.running);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use shardmill_core::{ShardId, StreamId};

    use super::*;

    #[test]
    fn deaths_of_the_process_are_counted_for_the_batch_that_was_in_flight() {
        let folder = tempfile::tempdir().unwrap();
        let shard = ShardKey {
            stream: StreamId(1),
            shard: ShardId(0),
        };
        let open = || InFlight::open(Some(folder.path()), "m", shard);
        // Each process begins the batch and dies.
        let begin_and_die = |_| {
            let mut notes = std::mem::ManuallyDrop::new(open());
            notes.begin(1, Position::of(7))
        };
        let deaths: Vec<u32> = (0..4).map(begin_and_die).collect();
        assert_eq!(deaths, [0, 1, 2, 3]);
        let mut next = open();
        assert_eq!(
            next.begin(1, Position::of(8)),
            0,
            "another batch has nothing to answer for"
        );
        next.end(1);
        assert_eq!(
            open().begin(1, Position::of(8)),
            0,
            "it ended before the process did"
        );
        let stopped: Vec<u32> = (0..4).map(|_| open().begin(1, Position::of(9))).collect();
        assert_eq!(stopped, [0; 4], "the process stopped in good order");
    }
}
