//! Notes which batch a poller has in flight, so that one that takes the whole process down is
//! noticed: a batch that was in flight in two process deaths is halved, a single record that was in
//! flight in three is given up.
//!
//! A file per mapping and shard, 16 bytes, rewritten in place and never synced: it must outlive
//! the process, not the machine.
//!
//! ```text
//! position of the batch's first record u64 │ process deaths so far u32 │ 1 while in flight u32
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use shardmill_core::ShardKey;
use shardmill_core::mapping::Position;

/// Process deaths after which a batch of one record is not run again.
pub(super) const MAX_DEATHS: u32 = 3;

/// Process deaths after which a larger batch is halved, and halved again with each further one.
pub(super) const DEATHS_BEFORE_SPLIT: u32 = 2;

/// The note of one poller. Without a folder nothing is noted.
pub(super) struct InFlight {
    file: Option<File>,
    found: Note,
}

#[derive(Clone, Copy, Default)]
struct Note {
    first: u64,
    deaths: u32,
    running: bool,
}

impl InFlight {
    /// Reads what the process before this one left. A folder that cannot be used is reported and
    /// done without: the note guards against a rare fault, and is not worth a shard.
    pub(super) fn open(folder: Option<&Path>, mapping: &str, shard: ShardKey) -> Self {
        let file = folder.and_then(|folder| {
            let name = format!("{mapping}-{}-{}", shard.stream.0, shard.shard.0);
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
        let mut bytes = [0; 16];
        let read = file
            .as_ref()
            .is_some_and(|f| f.read_exact_at(&mut bytes, 0).is_ok());
        let found = if read {
            Note::read(bytes)
        } else {
            Note::default()
        };
        Self { file, found }
    }

    /// Notes that the batch that begins at `first` is about to run. Returns in how many process
    /// deaths it was in flight.
    pub(super) fn begin(&mut self, first: Position) -> u32 {
        let same = self.found.first == first.record;
        let deaths = match (same, self.found.running) {
            (true, true) => self.found.deaths + 1,
            (true, false) => self.found.deaths,
            (false, _) => 0,
        };
        self.write(Note {
            first: first.record,
            deaths,
            running: true,
        });
        deaths
    }

    /// Notes that the batch was halved: its first half begins where it began, and is halved
    /// again when the process dies once more.
    pub(super) fn split(&mut self) {
        let deaths = DEATHS_BEFORE_SPLIT - 1;
        self.write(Note {
            deaths,
            running: false,
            ..self.found
        });
    }

    /// Notes that the batch has ended, however.
    pub(super) fn end(&mut self) {
        self.write(Note {
            running: false,
            ..self.found
        });
    }

    fn write(&mut self, note: Note) {
        self.found = note;
        if let Some(file) = &self.file
            && let Err(error) = file.write_all_at(&note.bytes(), 0)
        {
            tracing::warn!(%error, "cannot note batches in flight");
            self.file = None;
        }
    }
}

impl Note {
    fn read(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, ..] = bytes;
        Self {
            first: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            deaths: u32::from_le_bytes([i, j, k, l]),
            running: m == 1,
        }
    }

    fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.first.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.deaths.to_le_bytes());
        bytes[12] = u8::from(self.running);
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
        let deaths: Vec<u32> = (0..4).map(|_| open().begin(Position::of(7))).collect();
        assert_eq!(deaths, [0, 1, 2, 3]);
        let mut next = open();
        assert_eq!(
            next.begin(Position::of(8)),
            0,
            "another batch has nothing to answer for"
        );
        next.end();
        assert_eq!(
            open().begin(Position::of(8)),
            0,
            "it ended before the process did"
        );
    }
}
