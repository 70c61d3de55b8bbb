//! The journal against plain append + fdatasync of the same bytes, alternating in one process.
//!
//! ```text
//! cargo run --release -p shardmill-store --example journal_bench -- \
//!     [--dir DIR] [--pairs 20] [--groups 50] [--records 500] [--record-bytes 1024] [--grow] [--json]
//! ```
//!
//! Every pair has three arms, in turning order: `raw` appends each group to one growing file and
//! syncs it; `serial` appends and syncs each group; `overlapped` writes a group while the one
//! before it syncs, as the store does. Used segments are released, and so used again; with `--grow`
//! they are kept. Device bytes are this process's `write_bytes` in `/proc/self/io`.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures real time, not the host's clock"
)]

use std::convert::Infallible;
use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use shardmill_core::{ShardId, ShardKey, StreamId};
use shardmill_store::io::sim::Random;
use shardmill_store::io::{DiskIo, Io};
use shardmill_store::journal::{
    FolderLock, Frame, Journal, JournalOptions, Piece, Position, Syncer, Writer,
};

/// Shards that a group's records go to: each has one piece of the payload.
const SHARDS: usize = 4;

/// Groups that may be written and not yet synced.
const IN_FLIGHT: usize = 2;

struct Options {
    dir: PathBuf,
    pairs: usize,
    groups: usize,
    records: usize,
    record_bytes: usize,
    grow: bool,
    json: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let folder = options
        .dir
        .join(format!("journal-bench-{}", std::process::id()));
    let result = run(&options, &folder);
    fs::remove_dir_all(&folder)?;
    result
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        dir: PathBuf::from("."),
        pairs: 20,
        groups: 50,
        records: 500,
        record_bytes: 1024,
        grow: false,
        json: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--dir" => options.dir = value()?.into(),
            "--pairs" => options.pairs = value()?.parse()?,
            "--groups" => options.groups = value()?.parse()?,
            "--records" => options.records = value()?.parse()?,
            "--record-bytes" => options.record_bytes = value()?.parse()?,
            "--grow" => options.grow = true,
            "--json" => options.json = true,
            _ => return Err(format!("unknown argument {arg}").into()),
        }
    }
    Ok(options)
}

/// The three arms.
struct Bench {
    raw: File,
    raw_end: u64,
    raw_bytes: Vec<u8>,
    journal: Journal,
    writer: Writer,
    syncer: Syncer,
    frame_bytes: u64,
}

fn run(options: &Options, folder: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let io: Arc<dyn Io> = Arc::new(DiskIo::new(folder)?);
    let lock = FolderLock::take(&*io)?;
    let each = |_| Ok::<_, Infallible>(());
    let (journal, writer, syncer) =
        Journal::open(io, lock, JournalOptions::default(), Position::START, each)?;
    let mut random = Random(1);
    let payload: Vec<u8> = std::iter::repeat_with(|| random.next_u64().to_le_bytes())
        .flatten()
        .take(options.records * options.record_bytes)
        .collect();
    let pieces: Vec<Piece<'_>> = payload
        .chunks(payload.len().div_ceil(SHARDS))
        .map(|bytes| Piece {
            bytes,
            crc: Some(crc32fast::hash(bytes)),
        })
        .collect();
    let mut bench = Bench {
        raw: File::create(folder.join("raw"))?,
        raw_end: 0,
        raw_bytes: Vec::new(),
        journal,
        writer,
        syncer,
        frame_bytes: 0,
    };
    // Warm-up; it also tells how long an encoded group is.
    bench.overlapped(&pieces, options.groups)?;
    bench.raw_bytes = payload.clone();
    bench
        .raw_bytes
        .resize((bench.frame_bytes / options.groups as u64) as usize, 0);
    bench.raw(options.groups)?;

    let mut rates = [const { Vec::new() }; 3];
    let (mut journal_device, mut journal_frames) = (0, 0);
    for pair in 0..options.pairs {
        for turn in 0..3 {
            let arm = (pair + turn) % 3;
            let (device, frames) = (device_bytes()?, bench.frame_bytes);
            let start = Instant::now();
            match arm {
                0 => bench.raw(options.groups)?,
                1 => bench.serial(&pieces, options.groups)?,
                _ => bench.overlapped(&pieces, options.groups)?,
            }
            let seconds = start.elapsed().as_secs_f64();
            let bytes = options.groups * bench.raw_bytes.len();
            rates[arm].push(bytes as f64 / 1e6 / seconds);
            if arm != 0 {
                journal_device += device_bytes()? - device;
                journal_frames += bench.frame_bytes - frames;
            }
        }
        if !options.grow {
            bench.release()?;
        }
    }
    let [raw, serial, overlapped] = rates;
    let ratios =
        |rates: &[f64]| -> Vec<f64> { rates.iter().zip(&raw).map(|(a, b)| a / b).collect() };
    let (serial_ratio, overlapped_ratio) = (ratios(&serial), ratios(&overlapped));
    let device = journal_device as f64 / journal_frames as f64;
    let overhead = bench.raw_bytes.len() as f64 / payload.len() as f64;
    if options.json {
        let json = serde_json::json!({
            "pairs": options.pairs, "groups_per_pair": options.groups,
            "records_per_group": options.records, "record_bytes": options.record_bytes,
            "segments": if options.grow { "new" } else { "recycled" },
            "raw_mb_s": Spread::of(&raw).json(),
            "serial_mb_s": Spread::of(&serial).json(),
            "overlapped_mb_s": Spread::of(&overlapped).json(),
            "serial_ratio": Spread::of(&serial_ratio).json(),
            "overlapped_ratio": Spread::of(&overlapped_ratio).json(),
            "device_bytes_per_frame_byte": device,
            "frame_bytes_per_payload_byte": overhead,
        });
        println!("{json}");
        return Ok(());
    }
    println!(
        "{} pairs of {} groups of {} x {} B",
        options.pairs, options.groups, options.records, options.record_bytes
    );
    println!("raw append + fdatasync    {} MB/s", Spread::of(&raw));
    println!(
        "journal, one by one       {} MB/s, ratio {}",
        Spread::of(&serial),
        Spread::of(&serial_ratio)
    );
    println!(
        "journal, two in flight    {} MB/s, ratio {}",
        Spread::of(&overlapped),
        Spread::of(&overlapped_ratio)
    );
    println!("device bytes per frame byte {device:.3}, frame bytes per payload byte {overhead:.4}");
    Ok(())
}

impl Bench {
    fn raw(&mut self, groups: usize) -> Result<(), Box<dyn Error>> {
        for _ in 0..groups {
            self.raw.write_all_at(&self.raw_bytes, self.raw_end)?;
            self.raw.sync_data()?;
            self.raw_end += self.raw_bytes.len() as u64;
        }
        Ok(())
    }

    fn serial(&mut self, pieces: &[Piece<'_>], groups: usize) -> Result<(), Box<dyn Error>> {
        for _ in 0..groups {
            self.frame_bytes += append(&mut self.writer, pieces)?;
            self.syncer.sync()?;
        }
        Ok(())
    }

    fn overlapped(&mut self, pieces: &[Piece<'_>], groups: usize) -> Result<(), Box<dyn Error>> {
        let (written, to_sync) = channel();
        let (synced, acknowledged) = channel();
        let syncer = &mut self.syncer;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for () in to_sync {
                    if synced.send(syncer.sync()).is_err() {
                        return;
                    }
                }
            });
            for group in 0..groups {
                if group >= IN_FLIGHT {
                    acknowledged.recv()??;
                }
                self.frame_bytes += append(&mut self.writer, pieces)?;
                written.send(())?;
            }
            drop(written);
            for sync in acknowledged {
                sync?;
            }
            Ok(())
        })
    }

    /// Gives back every segment that the journal is done with.
    fn release(&self) -> Result<(), Box<dyn Error>> {
        for segment in self.journal.segments() {
            self.journal
                .release(segment.number, self.journal.durable())?;
        }
        Ok(())
    }
}

/// Appends one group: a frame with a piece for each shard. Gives the bytes of the frame.
fn append(writer: &mut Writer, pieces: &[Piece<'_>]) -> Result<u64, Box<dyn Error>> {
    let shards: [ShardKey; SHARDS] = std::array::from_fn(|n| ShardKey {
        stream: StreamId(1),
        shard: ShardId(n as u32),
    });
    let frame = Frame {
        number: 1,
        shards: &shards,
        payload: pieces,
    };
    Ok(writer.append(&[frame])?.bytes)
}

/// Bytes that this process has caused to be written to a disk.
fn device_bytes() -> Result<u64, Box<dyn Error>> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("no write_bytes in /proc/self/io")?.parse()?)
}

/// Median and range.
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let at = |n: usize| values.get(n).copied().unwrap_or(f64::NAN);
        Self {
            median: at(values.len() / 2),
            min: at(0),
            max: at(values.len().saturating_sub(1)),
        }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} [{:.2} .. {:.2}]", self.median, self.min, self.max)
    }
}
