//! One producer: batches of lines in order, one request under way at a time, numbered, so that
//! sending one again stores it once.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use hyper::header::HeaderValue;
use serde_json::Value;
use shardmill_core::limits::MAX_PUT_RECORDS;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Progress;
use super::lines::Line;
use crate::cli::client::{CallError, Client};

/// Keys and data of one request: half of what PutRecords takes, so that a request is answered
/// soon.
const REQUEST_BYTES: usize = 5 << 20;
/// The first pause before a request is sent again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a request is sent again: a host that restarts is back long before.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) struct Producer {
    client: Client,
    stream: String,
    id: String,
    /// Number of the next request.
    number: u64,
    progress: Arc<Progress>,
}

impl Producer {
    pub(super) fn new(client: Client, stream: &str, id: String, progress: Arc<Progress>) -> Self {
        Self {
            client,
            stream: stream.into(),
            id,
            number: 1,
            progress,
        }
    }

    /// Puts lines until their queue ends. A request takes what is waiting: little when lines
    /// come slowly, much when they come fast.
    pub(super) async fn run(mut self, mut lines: mpsc::Receiver<Line>) -> anyhow::Result<()> {
        let mut next = lines.recv().await;
        while let Some(line) = next.take() {
            let mut bytes = size(&line);
            let mut batch = vec![line];
            while batch.len() < MAX_PUT_RECORDS {
                let Ok(line) = lines.try_recv() else { break };
                bytes += size(&line);
                if bytes > REQUEST_BYTES {
                    next = Some(line);
                    break;
                }
                batch.push(line);
            }
            self.put(batch).await?;
            if next.is_none() {
                next = lines.recv().await;
            }
        }
        Ok(())
    }

    /// Puts a batch, whatever it takes. Records that are refused one by one go again, in order,
    /// under a new number.
    async fn put(&mut self, mut batch: Vec<Line>) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        loop {
            let body = self.body(&batch);
            let answer = self.request(body, deadline).await?;
            self.number += 1;
            let refused = refused(&answer, batch.len())?;
            let mut left = Vec::new();
            let (mut records, mut bytes) = (0, 0);
            for (line, error) in batch.into_iter().zip(refused) {
                match error {
                    None => (records, bytes) = (records + 1, bytes + line.data.len() as u64),
                    Some(error) => left.push((line, error)),
                }
            }
            self.progress.done(records, bytes);
            let Some((_, error)) = left.first() else {
                return Ok(());
            };
            if Instant::now() + pause > deadline {
                bail!(
                    "{} records were refused again and again: {error}",
                    left.len()
                );
            }
            self.progress.retrying(error);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            batch = left.into_iter().map(|(line, _)| line).collect();
        }
    }

    /// Sends one request until it is answered for good.
    async fn request(&self, body: Bytes, deadline: Instant) -> anyhow::Result<Value> {
        let producer = HeaderValue::from_str(&format!("{};{}", self.id, self.number))?;
        let mut pause = FIRST_PAUSE;
        loop {
            let call = self
                .client
                .kinesis_as("PutRecords", body.clone(), Some(producer.clone()));
            let error: CallError = match call.await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !error.may_pass() {
                return Err(error.into());
            }
            if Instant::now() + pause > deadline {
                return Err(error).context(format!("gave up after {} s", PATIENCE.as_secs()));
            }
            self.progress.retrying(&error.to_string());
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn body(&self, batch: &[Line]) -> Bytes {
        let bytes: usize = batch.iter().map(size).sum();
        let mut body = String::with_capacity(bytes * 4 / 3 + batch.len() * 64 + 256);
        let text = |text: &str| serde_json::Value::from(text).to_string();
        // Writing to a `String` cannot fail.
        let _ = write!(body, r#"{{"StreamName":{},"Records":["#, text(&self.stream));
        for (at, line) in batch.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(
                body,
                r#"{comma}{{"PartitionKey":{},"Data":""#,
                text(&line.key)
            );
            base64_simd::STANDARD.encode_append(&line.data, &mut body);
            body.push_str(r#""}"#);
        }
        body.push_str("]}");
        body.into()
    }
}

fn size(line: &Line) -> usize {
    line.data.len() + line.key.len()
}

/// What the host said to each record: `None` if it is stored.
fn refused(answer: &Value, count: usize) -> anyhow::Result<Vec<Option<String>>> {
    let records = answer["Records"]
        .as_array()
        .filter(|records| records.len() == count);
    let records = records.context("the host's answer does not fit the request")?;
    let error = |record: &Value| {
        let code = record["ErrorCode"].as_str()?;
        Some(format!(
            "{code}: {}",
            record["ErrorMessage"].as_str().unwrap_or_default()
        ))
    };
    Ok(records.iter().map(error).collect())
}
