//! Group commit at its plainest: groups of 500 records of 1 KB, each made durable before the next.
//!
//! - *append + sync*: the journal, one frame for a group of four shards, checksums included, in
//!   one thread. Limit: the same bytes appended to one file with `pwritev`, then `fdatasync`.
//! - *two groups in flight*: the journal as the store uses it, the next group being written
//!   while the last one syncs. A ratio above 1 says that one thread which waits for each sync is
//!   not the disk's limit.
//! - *CPU*: of the whole process meanwhile, the preparation of segments included.
//!
//! The sides take turns of 50 groups in one process, in an order that changes.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use anyhow::Context as _;
use shardmill_core::{ShardId, ShardKey, StreamId};
use shardmill_store::io::{DiskIo, File, Io};
use shardmill_store::journal::{
    FolderLock, Frame, Group, Journal, JournalOptions, Piece, Position, Syncer, Writer,
};

use crate::bench::Bench;
use crate::cpu::{Cost, cost_of};
use crate::figure::{Figure, Unit};
use crate::group_log;
use crate::input;
use crate::row::{Goal, Row};

/// Groups in a turn.
const GROUPS: usize = 50;
/// A group: 500 records of 1 KB in four shards, each an index and a blob.
const SHARDS: u32 = 4;
const BLOB_BYTES: usize = 125 * (1024 + 8);
const INDEX_BYTES: usize = 125 * 8;
const GROUP_BYTES: usize = SHARDS as usize * (BLOB_BYTES + INDEX_BYTES);

/// Who takes turns.
struct Sides {
    journal: (Writer, Syncer),
    raw: Arc<dyn File>,
    raw_end: u64,
    groups: Vec<Vec<u8>>,
}

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let folder = bench.folder()?;
    let io: Arc<dyn Io> = Arc::new(DiskIo::new(folder.path())?);
    let options = JournalOptions {
        new_store_id: 1,
        ..JournalOptions::default()
    };
    let lock = FolderLock::take(&*io)?;
    let opened = Journal::open(Arc::clone(&io), lock, options, Position::START, |_| {
        Ok::<(), Infallible>(())
    });
    let (_journal, writer, syncer) = opened.context("make a journal")?;
    let mut sides = Sides {
        journal: (writer, syncer),
        raw: io.create("raw")?,
        raw_end: 0,
        groups: (0..8).map(|seed| input::noise(seed, GROUP_BYTES)).collect(),
    };
    let turns = bench.choose(20, 3);
    let (mut raw, mut one, mut two) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..turns {
        bench.turn("journal and raw append", turn, turns);
        for side in 0..3 {
            match (turn + side) % 3 {
                0 => raw.push(sides.raw()?),
                1 => one.push(sides.one_at_a_time()?),
                _ => two.push(sides.two_in_flight()?),
            }
        }
    }
    let bytes = (GROUPS * GROUP_BYTES) as f64;
    let speeds = |costs: &[Cost]| -> Vec<f64> {
        let speed = |cost: &Cost| bytes / cost.wall.as_secs_f64();
        costs.iter().map(speed).collect()
    };
    let figure = |costs: &[Cost]| Figure::of(Unit::BytesPerSecond, speeds(costs));
    let cpu = |costs: &[Cost]| {
        let per_gb = |cost: &Cost| cost.cpu.as_secs_f64() / bytes * 1e9;
        Figure::of(Unit::CpuSecondsPerGb, costs.iter().map(per_gb))
    };
    let ratio = |costs: &[Cost]| Figure::of_ratios(speeds(costs), speeds(&raw));
    bench.add("append + sync, 500 × 1 KB", |group, name| {
        Row::new(group, name, figure(&one))
            .limit("raw append + fdatasync", figure(&raw))
            .ratio(ratio(&one))
            .goal(Goal::RatioAtLeast(0.9))
    });
    bench.add("append + sync, two groups in flight", |group, name| {
        Row::new(group, name, figure(&two))
            .limit("raw append + fdatasync", figure(&raw))
            .ratio(ratio(&two))
    });
    bench.add("CPU, append + sync", |group, name| {
        Row::new(group, name, cpu(&one))
            .limit("raw append + fdatasync", cpu(&raw))
            .goal(Goal::AtMost(0.8))
    });
    Ok(())
}

impl Sides {
    fn raw(&mut self) -> anyhow::Result<Cost> {
        let (file, groups, mut end) = (&*self.raw, &self.groups, self.raw_end);
        let (done, cost) = cost_of(|| -> std::io::Result<u64> {
            for number in 0..GROUPS {
                let group = &groups[number % groups.len()];
                let pieces: Vec<&[u8]> = pieces(group).collect();
                end += group_log::append(file, end, &pieces)?;
                file.sync_data()?;
            }
            Ok(end)
        });
        self.raw_end = done?;
        Ok(cost)
    }

    fn one_at_a_time(&mut self) -> anyhow::Result<Cost> {
        let ((writer, syncer), groups) = (&mut self.journal, &self.groups);
        let (done, cost) = cost_of(|| -> anyhow::Result<()> {
            for number in 0..GROUPS {
                append(writer, &groups[number % groups.len()])?;
                syncer.sync()?;
            }
            Ok(())
        });
        done?;
        Ok(cost)
    }

    fn two_in_flight(&mut self) -> anyhow::Result<Cost> {
        let ((writer, syncer), groups) = (&mut self.journal, &self.groups);
        let (done, cost) = cost_of(|| {
            std::thread::scope(|scope| -> anyhow::Result<()> {
                // As in the store: the syncer takes a group when it has none, so that one more
                // is written while one syncs.
                let (to_syncer, written) = sync_channel::<Group>(0);
                let syncing = scope.spawn(move || -> anyhow::Result<()> {
                    while written.recv().is_ok() {
                        syncer.sync()?;
                    }
                    Ok(())
                });
                for number in 0..GROUPS {
                    let group = append(writer, &groups[number % groups.len()])?;
                    to_syncer.send(group).ok().context("the syncer ended")?;
                }
                drop(to_syncer);
                syncing.join().ok().context("the syncer panicked")?
            })
        });
        done?;
        Ok(cost)
    }
}

/// One group as one frame.
fn append(writer: &mut Writer, group: &[u8]) -> anyhow::Result<Group> {
    let shards: Vec<ShardKey> = (0..SHARDS)
        .map(|shard| ShardKey {
            stream: StreamId(1),
            shard: ShardId(shard),
        })
        .collect();
    let payload: Vec<Piece<'_>> = pieces(group)
        .map(|bytes| Piece { bytes, crc: None })
        .collect();
    let frame = Frame {
        number: 0,
        shards: &shards,
        payload: &payload,
    };
    Ok(writer.append(&[frame])?)
}

/// A group's bytes as the store hands them over: an index and a blob for each shard.
fn pieces(group: &[u8]) -> impl Iterator<Item = &[u8]> {
    group
        .chunks(INDEX_BYTES + BLOB_BYTES)
        .flat_map(|block| <[&[u8]; 2]>::from(block.split_at(INDEX_BYTES)))
}
