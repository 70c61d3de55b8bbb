//! The lanes of a shard at work: which records are read next, which lane takes each of them, and
//! when a lane has a batch to run. What is durable of it is the [`Cursor`].
//!
//! Each lane gathers at most one batch ahead and reads on from where it stopped, so a lane that
//! is held up by a failing record neither holds up the others nor fills the memory: when it gets
//! on, it reads again what the others have long done, and takes only its own.
//!
//! Laws, tested by seeded runs: each record is taken by exactly one lane, in order; what is read
//! again is taken by no other lane; a mark never passes a record that is not done.

use std::time::Duration;

use crate::batch::{Batch, Slice};
use crate::block::{Block, RecordRef};
use crate::mapping::{Cursor, Policy, Position, Ready, Span, cut, lane_of, ready, window_start};
use crate::time::UnixMillis;

/// Bytes of records to be parked that are gathered before they are committed: a transaction takes
/// them beside whatever else it holds.
const MAX_PARKED_AHEAD_BYTES: usize = 8 << 20;

/// What becomes of a record that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sorted {
    /// It goes into a batch.
    Deliver,
    /// It is filtered out: done, without an invocation.
    Drop,
    /// It is filtered out because its payload is not JSON.
    NotJson,
    /// Its key is parked: it goes behind the others of its key.
    Park,
}

/// How records are taken.
pub struct Intake<'a> {
    /// The mapping's settings.
    pub policy: &'a Policy,
    /// Bytes of a batch, counted by `size`.
    pub budget: usize,
    /// Bytes of a record.
    pub size: &'a dyn Fn(&RecordRef<'_>) -> usize,
    /// Where lanes meet before their number changes: no record from here on is taken.
    pub until: Option<Position>,
    /// See [`Cursor::windows_closed_to`].
    pub windows_closed_to: UnixMillis,
    /// Where the window that is open ends, whatever the mapping's windows are now; 0 for none.
    pub window_open_to: UnixMillis,
    /// Says what becomes of a record; `None`: every one is delivered.
    pub sort: Option<&'a mut dyn FnMut(&RecordRef<'_>) -> Sorted>,
}

/// Records that were read for the first time: what is read again does not count again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirstRead {
    /// All of them.
    pub records: u64,
    /// Those that were filtered out.
    pub dropped: u64,
    /// Those of them whose payload is not JSON.
    pub not_json: u64,
}

/// What a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    Idle,
    /// Its first part.
    Part,
    /// A new batch, from the lane's mark on.
    New,
}

/// A lane at work.
#[derive(Clone, Debug)]
struct Run {
    /// Where the lane reads on. Everything of it before is done, at work, waiting or gathered.
    next: Position,
    /// How far it has ever read.
    seen: Position,
    gathered: Batch,
    count: usize,
    bytes: usize,
    /// Whether the gathered batch takes no more: it goes without waiting for its window.
    full: bool,
    /// When the first gathered record arrived.
    first: UnixMillis,
    parked: Batch,
    parked_count: usize,
    parked_bytes: usize,
    work: Work,
    /// Whether parts wait: nothing is read past them, so that a key that is parked with one of
    /// them keeps its order.
    blocked: bool,
    free_since: UnixMillis,
}

/// All lanes of a shard.
#[derive(Clone, Debug)]
pub struct Lanes {
    runs: Vec<Run>,
    first_read: FirstRead,
}

impl Lanes {
    /// The lanes of `cursor`, idle, with nothing gathered.
    pub fn new(cursor: &Cursor, now: UnixMillis) -> Self {
        let run = |lane: &crate::mapping::Lane| Run {
            next: lane.mark,
            seen: lane.mark,
            gathered: Batch::default(),
            count: 0,
            bytes: 0,
            full: false,
            first: UnixMillis(0),
            parked: Batch::default(),
            parked_count: 0,
            parked_bytes: 0,
            work: Work::Idle,
            blocked: !lane.parts.is_empty(),
            free_since: now,
        };
        Self {
            runs: cursor.lanes.iter().map(run).collect(),
            first_read: FirstRead::default(),
        }
    }

    /// How many lanes there are.
    pub fn count(&self) -> usize {
        self.runs.len()
    }

    /// What a lane is doing.
    pub fn work(&self, lane: usize) -> Work {
        self.runs[lane].work
    }

    /// Whether any lane is at work.
    pub fn is_busy(&self) -> bool {
        self.runs.iter().any(|run| run.work != Work::Idle)
    }

    /// Where to read next and how many records are wanted; `None` when no idle lane takes any
    /// before `end`, the position behind the shard's last record. Lanes that are at work take
    /// along what is read for the others.
    pub fn wants(
        &self,
        policy: &Policy,
        until: Option<Position>,
        end: Position,
    ) -> Option<(Position, usize)> {
        let parked: usize = self.runs.iter().map(|run| run.parked_bytes).sum();
        if parked >= MAX_PARKED_AHEAD_BYTES {
            return None;
        }
        let end = until.map_or(end, |until| until.min(end));
        let size = policy.batch_size as usize;
        let idle = |run: &&Run| run.work == Work::Idle && run.takes(size) && run.next < end;
        let hungry = self.runs.iter().filter(idle);
        let from = hungry.clone().map(|run| run.next).min()?;
        let room = hungry.map(|run| size - run.count).max()?;
        // Of what is read, about every `count`th record falls to the lane with the most room.
        Some((from, room * self.runs.len()))
    }

    /// Where a lane reads on.
    pub fn next(&self, lane: usize) -> Position {
        self.runs[lane].next
    }

    /// The gap between what the lanes have read and `first`, the oldest record there is: records
    /// that were trimmed before they were read. The lanes go on behind it.
    pub fn skip_trimmed(&mut self, first: Position) -> Option<Span> {
        let from = self.runs.iter().map(|run| run.next).min()?;
        for run in &mut self.runs {
            run.next = run.next.max(first);
        }
        (from < first).then_some(Span { from, to: first })
    }

    /// Offers records that were read from `from` on, in order. Each lane takes its own.
    pub fn offer(&mut self, block: &Block, from: Position, intake: &mut Intake<'_>) {
        let first_read = &mut self.first_read;
        match self.runs.as_mut_slice() {
            [run] if intake.is_plain() => {
                first_read.records += run.take_run(block, from, intake);
            }
            runs => take_each(runs, block, from, intake, first_read),
        }
    }

    /// Records that were read for the first time since this was asked last.
    pub fn take_first_read(&mut self) -> FirstRead {
        std::mem::take(&mut self.first_read)
    }

    /// When a lane's gathered batch can go. `at_end`: no more records will come.
    pub fn ready(&self, lane: usize, policy: &Policy, at_end: bool, now: UnixMillis) -> Ready {
        let run = &self.runs[lane];
        let times = (run.first, run.free_since);
        ready(policy, run.count, run.full || at_end, times, now)
    }

    /// When the first record arrived that a lane has gathered.
    pub fn first_arrival(&self, lane: usize) -> Option<UnixMillis> {
        let run = &self.runs[lane];
        (run.count > 0).then_some(run.first)
    }

    /// Takes the gathered batch out of a lane, which is at work on it from now on.
    pub fn take(&mut self, lane: usize) -> (Span, Batch) {
        let run = &mut self.runs[lane];
        let batch = std::mem::take(&mut run.gathered);
        let span = Span {
            from: batch.first_position().unwrap_or(run.next),
            to: run.next,
        };
        (run.count, run.bytes, run.full) = (0, 0, false);
        run.work = Work::New;
        (span, batch)
    }

    /// Notes that a lane is at work on its first part.
    pub fn take_part(&mut self, lane: usize) {
        self.runs[lane].work = Work::Part;
    }

    /// Notes that a lane's batch has ended and is committed, and whether it left parts.
    pub fn free(&mut self, lane: usize, blocked: bool, now: UnixMillis) {
        let run = &mut self.runs[lane];
        (run.work, run.blocked, run.free_since) = (Work::Idle, blocked, now);
    }

    /// Gives a lane's batch back: a new one is read again from `from` on.
    pub fn give_back(&mut self, lane: usize, from: Position) {
        let run = &mut self.runs[lane];
        if run.work == Work::New {
            run.forget();
            run.next = from;
        }
        run.work = Work::Idle;
    }

    /// Forgets what was gathered and parked and not committed: it is read again. For a change of
    /// what records weigh or where they go.
    pub fn forget(&mut self) {
        self.runs.iter_mut().for_each(Run::forget);
    }

    /// Records whose keys are parked, in order, to be put behind the others of their keys.
    pub fn parked(&self) -> impl Iterator<Item = &Batch> {
        self.runs
            .iter()
            .map(|run| &run.parked)
            .filter(|batch| !batch.is_empty())
    }

    /// Notes that the parked records are committed.
    pub fn clear_parked(&mut self) {
        for run in &mut self.runs {
            run.parked = Batch::default();
            (run.parked_count, run.parked_bytes) = (0, 0);
        }
    }

    /// Whether records wait to be parked.
    pub fn has_parked(&self) -> bool {
        self.runs.iter().any(|run| run.parked_count > 0)
    }

    /// Whether [`Lanes::advance`] would move a mark of `cursor`.
    pub fn is_ahead(&self, cursor: &Cursor) -> bool {
        let lanes = self.runs.iter().zip(&cursor.lanes);
        lanes
            .into_iter()
            .any(|(run, lane)| run.work != Work::New && run.reached() > lane.mark)
    }

    /// Moves the marks of `cursor` over what is done: dropped and, with this commit, parked.
    /// `ended`: the lane whose new batch ends with this commit.
    pub fn advance(&self, cursor: &mut Cursor, ended: Option<usize>) {
        for (index, (run, lane)) in self.runs.iter().zip(&mut cursor.lanes).enumerate() {
            if run.work != Work::New || ended == Some(index) {
                lane.mark = lane.mark.max(run.reached());
            }
        }
    }

    /// Whether everything before `end` is read by every lane and nothing is gathered.
    pub fn has_read(&self, end: Position) -> bool {
        let read = |run: &Run| run.count == 0 && run.next >= end;
        self.runs.iter().all(read)
    }
}

impl Intake<'_> {
    /// Whether every record is delivered, so that whole runs can be taken at once.
    fn is_plain(&self) -> bool {
        self.sort.is_none() && self.until.is_none() && self.policy.tumbling_window == Duration::ZERO
    }
}

impl Run {
    fn takes(&self, batch_size: usize) -> bool {
        let room = self.count < batch_size && self.parked_count < batch_size;
        room && !self.full && !self.blocked
    }

    fn forget(&mut self) {
        self.next = self.first_unsettled().unwrap_or(self.next);
        (self.gathered, self.parked) = (Batch::default(), Batch::default());
        (self.count, self.bytes, self.full) = (0, 0, false);
        (self.parked_count, self.parked_bytes) = (0, 0);
    }

    /// Nothing before it is gathered; what the lane works on aside, all of it is done.
    fn reached(&self) -> Position {
        self.gathered.first_position().unwrap_or(self.next)
    }

    fn first_unsettled(&self) -> Option<Position> {
        let gathered = self.gathered.first_position();
        let parked = self.parked.first_position();
        gathered.into_iter().chain(parked).min()
    }

    /// Takes a run of neighbours at once: there is one lane and every record is delivered. Gives
    /// how many were never read before.
    fn take_run(&mut self, block: &Block, from: Position, intake: &Intake<'_>) -> u64 {
        let size = intake.policy.batch_size as usize;
        let skip = block.index_at(from.max(self.next));
        if !self.takes(size) || skip == block.count() {
            return 0;
        }
        let records = block.iter_from(skip);
        let sizes = records.map(|record| (intake.size)(&record));
        let left = intake.budget.saturating_sub(self.bytes);
        let cut = cut(sizes, self.count == 0, size - self.count, left);
        if cut.records > 0 && self.count == 0 {
            self.first = block.arrival();
        }
        let to = skip + cut.records as u32;
        self.gathered.push(Slice {
            block: block.clone(),
            from: skip,
            to,
        });
        self.count += cut.records;
        self.bytes = self.bytes.saturating_add(cut.bytes);
        self.full |= cut.full;
        self.next = block.position(to);
        let fresh = block.index_at(self.seen).max(skip);
        self.seen = self.seen.max(self.next);
        u64::from(to.saturating_sub(fresh))
    }

    /// Takes one record, or finds that it has to wait for the next batch: then `next` stays.
    fn take_one(
        &mut self,
        block: &Block,
        index: u32,
        record: &RecordRef<'_>,
        intake: &Intake<'_>,
    ) -> bool {
        let bytes = (intake.size)(record);
        let fits = self.count == 0 || self.bytes.saturating_add(bytes) <= intake.budget;
        if !fits || !self.same_window(record, intake) {
            self.full = true;
            return false;
        }
        if self.count == 0 {
            self.first = record.arrival;
        }
        self.gathered.push_record(block, index);
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        true
    }

    fn same_window(&self, record: &RecordRef<'_>, intake: &Intake<'_>) -> bool {
        let length = intake.policy.tumbling_window;
        let start = |arrival| match arrival < intake.window_open_to {
            true => UnixMillis(0),
            false => window_start(arrival, length, intake.windows_closed_to),
        };
        length == Duration::ZERO || self.count == 0 || start(self.first) == start(record.arrival)
    }
}

/// Gives each record to its lane.
fn take_each(
    runs: &mut [Run],
    block: &Block,
    from: Position,
    intake: &mut Intake<'_>,
    first_read: &mut FirstRead,
) {
    let size = intake.policy.batch_size as usize;
    // A lane that is behind what is read, or stopped in a block before, would miss the records
    // between.
    let from = from.max(block.position(0));
    let takes = |run: &Run| run.next >= from && run.takes(size);
    let mut open: Vec<bool> = runs.iter().map(takes).collect();
    let mut left = open.iter().filter(|open| **open).count();
    let opened = runs.iter().zip(&open).filter(|(_, open)| **open);
    let Some(first) = opened.map(|(run, _)| run.next).min() else {
        return;
    };
    let skip = block.index_at(first);
    for (index, record) in (skip..).zip(block.iter_from(skip)) {
        if left == 0
            || intake
                .until
                .is_some_and(|until| record.beginning() >= until)
        {
            break;
        }
        let lane = lane_of(record.parts.key, runs.len());
        let run = &mut runs[lane];
        if !open[lane] || record.beginning() < run.next {
            continue;
        }
        let sorted = match &mut intake.sort {
            Some(sort) => sort(&record),
            None => Sorted::Deliver,
        };
        let taken = match sorted {
            Sorted::Drop | Sorted::NotJson => true,
            // The mark has to pass it in the transaction that parks it, or it is read and parked
            // again: nothing before it may be at work or gathered.
            Sorted::Park if run.count > 0 || run.work != Work::Idle => {
                run.full = run.count > 0;
                false
            }
            Sorted::Park => {
                run.parked.push_record(block, index);
                run.parked_count += 1;
                run.parked_bytes += record.payload_bytes();
                true
            }
            Sorted::Deliver => run.take_one(block, index, &record, intake),
        };
        if taken {
            run.next = record.behind();
            if record.beginning() >= run.seen {
                run.seen = run.next;
                first_read.records += 1;
                let dropped = matches!(sorted, Sorted::Drop | Sorted::NotJson);
                first_read.dropped += u64::from(dropped);
                first_read.not_json += u64::from(sorted == Sorted::NotJson);
            }
        }
        open[lane] = taken && run.takes(size);
        left -= usize::from(!open[lane]);
    }
    let end = block.position(block.count());
    let end = intake.until.map_or(end, |until| until.min(end));
    for (run, open) in runs.iter_mut().zip(open) {
        // What follows the last record of a lane that is still open belongs to others.
        if open {
            run.next = run.next.max(end);
        }
    }
}
