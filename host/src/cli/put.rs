//! `shardmill put`: every line of a file becomes a record.
//!
//! Lines are spread over producers by their partition key, so that the lines of a key stay in
//! order while several requests are under way. Each producer numbers its requests: one that is
//! sent again after a broken connection is stored once.

mod lines;
mod producer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::client::Client;
use super::{Connection, print};
use lines::{KeyRule, Line, Reader};
use producer::Producer;

/// Requests under way at one time.
const PRODUCERS: usize = 4;
/// Lines that wait for one producer.
const QUEUE_LINES: usize = 1000;
/// Bytes of lines that wait for all producers.
const QUEUE_BYTES: usize = 32 << 20;
/// How long a new stream may take to become ACTIVE.
const ACTIVE_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The stream
    stream: String,
    /// The file whose lines are put; `-` is standard input. Empty lines are left out
    #[arg(default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    key: KeyArguments,
    #[command(flatten)]
    connection: Connection,
}

/// Where a line's partition key comes from. Without any of these every line gets a random key:
/// lines are spread evenly, in no order.
#[derive(Debug, clap::Args)]
struct KeyArguments {
    /// One partition key for all lines: they stay in order, in one shard
    #[arg(long, conflicts_with_all = ["key_regex", "key_pointer"])]
    key: Option<String>,
    /// What the first group of this regular expression matches in the line, or all of its match
    #[arg(long, value_name = "REGEX", conflicts_with = "key_pointer")]
    key_regex: Option<regex::bytes::Regex>,
    /// The value at this JSON pointer, as /user/id
    #[arg(long, value_name = "POINTER")]
    key_pointer: Option<String>,
    /// The partition key of lines in which none is found, which are an error otherwise
    #[arg(long, value_name = "KEY")]
    key_default: Option<String>,
}

/// What has been done so far, shared by the reader and the producers.
#[derive(Default)]
struct Progress {
    bar: Option<ProgressBar>,
    /// Records and bytes that the host has acknowledged.
    records: AtomicU64,
    bytes: AtomicU64,
    /// Requests that were sent again.
    retries: AtomicU64,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        stream,
        file,
        key,
        connection,
    } = arguments;
    let client = connection.client()?;
    let rule = KeyRule::new(key)?;
    wait_until_active(&client, &stream).await?;
    let (reader, size) = Reader::open(&file)?;
    let progress = Arc::new(Progress {
        bar: bar(size),
        ..Progress::default()
    });
    let started = Instant::now();

    let mut producers = JoinSet::new();
    let mut queues = Vec::new();
    let run_id = Uuid::new_v4().simple();
    for number in 0..PRODUCERS {
        let (queue, lines) = mpsc::channel::<Line>(QUEUE_LINES);
        queues.push(queue);
        let id = format!("put-{run_id}-{number}");
        let producer = Producer::new(client.clone(), &stream, id, Arc::clone(&progress));
        producers.spawn(producer.run(lines));
    }
    let room = Arc::new(Semaphore::new(QUEUE_BYTES));
    let read = tokio::task::spawn_blocking(move || reader.read(&rule, &queues, &room));
    while let Some(ended) = producers.join_next().await {
        // Dropping the others is safe: what they sent is stored or not, as after a crash.
        ended.context("a producer stopped")??;
    }
    let read = read.await.context("the reader stopped")?;
    if let Some(bar) = &progress.bar {
        bar.finish_and_clear();
    }
    let (records, bytes) = (progress.records.load(Relaxed), progress.bytes.load(Relaxed));
    let count = print::count(records, "record");
    let read = read.with_context(|| format!("{count} put into {stream}, but not all"))?;
    let seconds = started.elapsed().as_secs_f64();
    if connection.json {
        let retries = progress.retries.load(Relaxed);
        return print::line(json!({
            "stream": stream, "records": records, "bytes": bytes, "empty_lines": read.empty,
            "retries": retries, "seconds": seconds,
        }));
    }
    let rate = records as f64 / seconds.max(0.001);
    let size = print::size(bytes);
    print::line(format!(
        "{count} ({size}) put into {stream} in {seconds:.1} s, {rate:.0} a second"
    ))
}

async fn wait_until_active(client: &Client, stream: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + ACTIVE_LIMIT;
    loop {
        let answer = client
            .kinesis("DescribeStreamSummary", &json!({"StreamName": stream}))
            .await;
        let answer = match answer {
            Err(error) if error.is_not_found() => {
                bail!(
                    "stream {stream:?} does not exist: `shardmill streams create {stream}` makes it"
                )
            }
            answer => answer?,
        };
        match answer["StreamDescriptionSummary"]["StreamStatus"].as_str() {
            Some("ACTIVE" | "UPDATING") => return Ok(()),
            Some("CREATING") if Instant::now() < deadline => {}
            status => bail!(
                "stream {stream:?} is {}",
                status.unwrap_or("in no known state")
            ),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A bar over the bytes of a file, a spinner for standard input, nothing without a terminal.
fn bar(size: Option<u64>) -> Option<ProgressBar> {
    use std::io::IsTerminal;
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {msg}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {bytes}  {bytes_per_sec}  {msg}",
        ),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    Some(bar)
}

impl Progress {
    fn done(&self, records: u64, bytes: u64) {
        let all = self.records.fetch_add(records, Relaxed) + records;
        self.bytes.fetch_add(bytes, Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc(bytes + records);
            bar.set_message(format!("{all} records"));
        }
    }

    fn retrying(&self, why: &str) {
        self.retries.fetch_add(1, Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_message(format!("trying again: {why}"));
        }
    }
}
