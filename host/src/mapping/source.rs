//! Reads a shard into batches: waits for an append, never for a timer unless a window is open.

use std::sync::Arc;

use shardmill_core::event::EventSource;
use shardmill_core::mapping::{Policy, Position, Ready, Span, cut, ready};
use shardmill_core::{Batch, Block, RecordRef, ShardKey, Slice, UnixMillis};
use shardmill_store::{ReadError, ReadLimit, Seek, Store};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// Bytes that one read of the store brings at the most, so that a large batch comes in steps.
const READ_BYTES: usize = 4 << 20;

/// Bytes that a packed record takes beside its key and data.
const PACKED_OVERHEAD_BYTES: usize = shardmill_core::abi::INDEX_ENTRY_BYTES;

/// A shard as a source of batches.
pub(super) struct Source {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    pub(super) shard: ShardKey,
}

/// What a batch may hold.
pub(super) struct Bounds<'a> {
    pub(super) policy: &'a Policy,
    /// Bytes, counted by `size`.
    pub(super) budget: usize,
    /// How a record's bytes are counted: packed, or in a JSON event.
    pub(super) size: Option<&'a EventSource>,
    /// When the lane was last free.
    pub(super) free_since: UnixMillis,
}

/// What was read.
pub(super) enum Gathered {
    /// Records. `lost`: what was trimmed before the first of them.
    Records { batch: Batch, lost: Option<Span> },
    /// The shard is closed and read to its end.
    Finished,
    /// The caller was cancelled.
    Stopped,
}

impl Bounds<'_> {
    fn bytes_of(&self, record: &RecordRef<'_>) -> usize {
        match self.size {
            Some(source) => source.record_bytes(record),
            None => record.payload_bytes() + PACKED_OVERHEAD_BYTES,
        }
    }
}

impl Source {
    /// Gathers the next batch from `from` on, waiting until there is one.
    pub(super) async fn gather(
        &self,
        from: Position,
        bounds: &Bounds<'_>,
        cancel: &CancellationToken,
    ) -> Result<Gathered, ReadError> {
        let mut appended = self.store.subscribe(self.shard)?;
        let mut streams = self.store.watch_streams();
        let mut batch = Batch::default();
        let mut full = false;
        let mut left = bounds.budget;
        let mut at = from.record;
        loop {
            appended.borrow_and_update();
            streams.borrow_and_update();
            full |= self.fill(&mut batch, &mut at, &mut left, bounds).await?;
            let first = batch.get(0).map_or(UnixMillis(0), |r| r.arrival);
            let times = (first, bounds.free_since);
            let closed = self.is_closed();
            let wait = match ready(
                bounds.policy,
                batch.len(),
                full || closed,
                times,
                self.clock.now(),
            ) {
                Ready::Now => return Ok(gathered(batch, from)),
                Ready::At(instant) => instant,
                Ready::Empty if closed && self.is_at_end(at).await? => {
                    return Ok(Gathered::Finished);
                }
                Ready::Empty => match self.trimmed_from(from).await? {
                    Some(lost) => {
                        return Ok(Gathered::Records {
                            batch,
                            lost: Some(lost),
                        });
                    }
                    None => UnixMillis(u64::MAX),
                },
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(Gathered::Stopped),
                changed = appended.changed() => if changed.is_err() { return Ok(Gathered::Stopped) },
                changed = streams.changed() => if changed.is_err() { return Ok(Gathered::Stopped) },
                () = self.until(wait) => {}
            }
        }
    }

    /// Reads the records of a span that are still there.
    pub(super) async fn read_span(&self, span: Span) -> Result<Gathered, ReadError> {
        let mut batch = Batch::default();
        let mut at = span.from.record;
        while at < span.to.record {
            let records = (span.to.record - at) as usize;
            let blocks = self
                .store
                .read(
                    self.shard,
                    at,
                    ReadLimit {
                        records,
                        bytes: READ_BYTES,
                    },
                )
                .await?;
            if blocks.is_empty() {
                break;
            }
            for block in blocks {
                let end = block.end().min(span.to.record);
                push(&mut batch, block, at, end);
                at = at.max(end);
            }
        }
        let lost_to = batch.first_position().unwrap_or(span.to).min(span.to);
        let lost = Span {
            from: span.from,
            to: lost_to,
        };
        Ok(Gathered::Records {
            batch,
            lost: (lost.from < lost.to).then_some(lost),
        })
    }

    /// Adds what is there. Says whether the bytes are used up.
    async fn fill(
        &self,
        batch: &mut Batch,
        at: &mut u64,
        left: &mut usize,
        bounds: &Bounds<'_>,
    ) -> Result<bool, ReadError> {
        loop {
            let want = (bounds.policy.batch_size as usize).saturating_sub(batch.len());
            if want == 0 {
                return Ok(false);
            }
            let limit = ReadLimit {
                records: want,
                bytes: READ_BYTES.min(*left).max(1),
            };
            let blocks = self.store.read(self.shard, *at, limit).await?;
            if blocks.is_empty() {
                return Ok(false);
            }
            for block in blocks {
                let room = (bounds.policy.batch_size as usize).saturating_sub(batch.len());
                let start = (*at).max(block.first());
                let skip = (start - block.first()) as usize;
                let sizes = block.iter().skip(skip).map(|r| bounds.bytes_of(&r));
                let cut = cut(sizes, batch.is_empty(), room, *left);
                *left = left.saturating_sub(cut.bytes);
                *at = start + cut.records as u64;
                push(batch, block, start, *at);
                if cut.full {
                    return Ok(true);
                }
            }
        }
    }

    /// What was trimmed at the head of a shard that has no record behind it.
    async fn trimmed_from(&self, from: Position) -> Result<Option<Span>, ReadError> {
        let floor = self.store.seek(self.shard, Seek::TrimHorizon).await?;
        let to = Position::of(floor);
        Ok((from < to).then_some(Span { from, to }))
    }

    fn is_closed(&self) -> bool {
        let stream = self.store.stream_by_id(self.shard.stream);
        stream.is_none_or(|s| {
            s.shard(self.shard.shard)
                .is_none_or(|s| s.closed_seconds.is_some())
        })
    }

    async fn is_at_end(&self, at: u64) -> Result<bool, ReadError> {
        Ok(at >= self.store.seek(self.shard, Seek::Latest).await?)
    }

    async fn until(&self, instant: UnixMillis) {
        if instant.0 == u64::MAX {
            std::future::pending().await
        } else {
            self.clock.sleep_until(instant).await;
        }
    }
}

fn push(batch: &mut Batch, block: Block, from: u64, to: u64) {
    let (first, end) = (block.first(), block.end());
    let (from, to) = (from.clamp(first, end), to.clamp(first, end));
    batch.push(Slice {
        block,
        from: (from - first) as u32,
        to: (to - first) as u32,
    });
}

fn gathered(batch: Batch, from: Position) -> Gathered {
    let first = batch.first_position().unwrap_or(from);
    let lost = (first > from).then_some(Span { from, to: first });
    Gathered::Records { batch, lost }
}
