//! Random work, crashes and faults against a list of what must be there.

use super::*;

/// What is known of the journal from outside.
struct Model {
    random: Random,
    /// Frames behind the tables' position, with the place of each.
    frames: Vec<(Sample, Place, Position)>,
    /// How many of them are durable.
    synced: usize,
    tables: Position,
    next: u64,
}

#[test]
fn every_acknowledged_frame_survives_whatever_happens() {
    for seed in 0..300 {
        println!("seed {seed}");
        let log = run(seed);
        if seed % 50 == 0 {
            assert_eq!(log, run(seed), "the same seed does the same");
        }
    }
}

/// Where the frame with this payload ends.
fn end_of(place: Place) -> Position {
    Position {
        segment: place.segment,
        offset: (place.offset + place.len).next_multiple_of(layout::ALIGN as u32),
    }
}

fn run(seed: u64) -> Vec<String> {
    let mut model = Model {
        random: Random(seed),
        frames: Vec::new(),
        synced: 0,
        tables: Position::START,
        next: 1,
    };
    let mut bed = Bed::new();
    let mut log = Vec::new();
    for _ in 0..60 {
        let choice = model.random.below(20);
        log.push(format!("{choice} at {}", bed.writer.end()));
        bed = model.step(bed, choice);
    }
    bed = model.restart(bed.io.crash(seed));
    log.push(format!("{} at {}", model.frames.len(), bed.writer.end()));
    log
}

impl Model {
    fn step(&mut self, mut bed: Bed, choice: u64) -> Bed {
        match choice {
            0..8 => self.append(&mut bed),
            8..12 => self.sync(&mut bed),
            12 | 13 => {
                // The tables take in some of what is durable.
                let count = self.random.below(self.synced as u64 + 1) as usize;
                if let Some((_, _, end)) = self.frames[..count].last() {
                    self.tables = *end;
                    self.frames.drain(..count);
                    self.synced -= count;
                }
            }
            14 | 15 => {
                for segment in bed.journal.segments() {
                    let released = bed.journal.release(segment.number, self.tables);
                    assert_eq!(released.ok(), Some(segment.number < self.tables.segment));
                }
            }
            16 => {
                let seed = self.random.next_u64();
                bed = self.restart(bed.io.crash(seed));
            }
            17 => bed = self.restart(bed.io.kill()),
            18 => {
                // The disk is full somewhere in the middle of a write.
                let bytes = self.random.below(40_000);
                match self.random.below(2) {
                    0 => bed.io.fail_writes_after(Some(bytes)),
                    _ => bed.io.fail_one_write_after(bytes),
                }
                self.append(&mut bed);
                bed.io.fail_writes_after(None);
                if bed.syncer.sync().is_err() {
                    bed = self.restart(bed.io.kill());
                } else {
                    self.synced = self.frames.len();
                }
            }
            _ => {
                self.sync(&mut bed);
                let io = bed.io.clone();
                bed.close();
                bed = self.restart(io.kill());
            }
        }
        if let Some((sample, place, _)) = self.frames.last() {
            assert_eq!(
                bed.read(*place, *sample).expect("readable"),
                sample.payload()
            );
        }
        bed
    }

    fn append(&mut self, bed: &mut Bed) {
        let count = 1 + self.random.below(4);
        let lens: Vec<usize> = (0..count).map(|_| self.len()).collect();
        let group = samples(self.next, &lens);
        self.next += count;
        match bed.append(&group) {
            Ok(appended) => {
                let placed = group.into_iter().zip(appended.places);
                let placed = placed.map(|(sample, place)| (sample, place, end_of(place)));
                self.frames.extend(placed);
                let end = self.frames.last().map(|(_, _, end)| *end);
                assert_eq!(end, Some(appended.end));
            }
            // Unknown: a start may find some. Places come from there.
            Err(AppendError::Failed(_)) => {
                let place = Place {
                    segment: 0,
                    offset: 0,
                    len: 0,
                };
                let unknown = |sample| (sample, place, Position::START);
                self.frames.extend(group.into_iter().map(unknown));
            }
            Err(_) => {}
        }
    }

    fn len(&mut self) -> usize {
        let bound = [10, 300, 5_000, 30_000][self.random.below(4) as usize];
        self.random.below(bound) as usize
    }

    fn sync(&mut self, bed: &mut Bed) {
        let durable = bed.syncer.sync().expect("a sync");
        assert_eq!(durable, bed.writer.end());
        self.synced = self.frames.len();
    }

    fn restart(&mut self, io: SimIo) -> Bed {
        let (bed, found) = Bed::try_open(&io, self.tables).expect("a start after a crash");
        assert!(
            found.len() >= self.synced,
            "{} of {}",
            found.len(),
            self.synced
        );
        assert!(found.len() <= self.frames.len());
        self.frames.truncate(found.len());
        for (frame, found) in self.frames.iter_mut().zip(&found) {
            frame.0.check(found);
            *frame = (frame.0, found.place, found.end);
        }
        self.synced = found.len();
        bed
    }
}
