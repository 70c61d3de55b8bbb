//! The least that durable group commit can be: one thread appends everything that waits to one
//! file, syncs, and answers. No checksums, no index, no order of shards. The limit of the store.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

use anyhow::Context as _;
use bytes::Bytes;
use shardmill_store::io::{DiskIo, File, Io as _, MAX_SLICES};
use tokio::sync::{mpsc, oneshot};

type Waiting = (Bytes, oneshot::Sender<()>);

/// A log; its thread ends when it is dropped.
pub(crate) struct GroupLog {
    queue: Option<mpsc::Sender<Waiting>>,
    syncs: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl GroupLog {
    /// Makes one in a folder.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn create(disk: &DiskIo, name: &str) -> anyhow::Result<Self> {
        let file = disk.create(name).context("make a raw log")?;
        let syncs = Arc::new(AtomicU64::new(0));
        let (queue, waiting) = mpsc::channel(1024);
        let counted = Arc::clone(&syncs);
        let writer = std::thread::spawn(move || write(&*file, waiting, &counted));
        Ok(Self {
            queue: Some(queue),
            syncs,
            writer: Some(writer),
        })
    }

    /// Returns when `bytes` are durable.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) async fn append(&self, bytes: Bytes) -> anyhow::Result<()> {
        let (done, synced) = oneshot::channel();
        let queue = self.queue.as_ref().context("the raw log is closed")?;
        queue
            .send((bytes, done))
            .await
            .ok()
            .context("the raw log ended")?;
        synced.await.context("the raw log failed")
    }

    /// How often it has synced.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Relaxed)
    }
}

impl Drop for GroupLog {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Ends at the first error: whoever waits is told by the dropped channel.
fn write(file: &dyn File, mut waiting: mpsc::Receiver<Waiting>, syncs: &AtomicU64) {
    let (mut group, mut end) = (Vec::new(), 0u64);
    while waiting.blocking_recv_many(&mut group, MAX_SLICES) > 0 {
        let pieces: Vec<&[u8]> = group
            .iter()
            .map(|(bytes, _): &Waiting| &bytes[..])
            .collect();
        let Ok(written) = append(file, end, &pieces) else {
            return;
        };
        end += written;
        if file.sync_data().is_err() {
            return;
        }
        syncs.fetch_add(1, Relaxed);
        for (_, done) in group.drain(..) {
            let _ = done.send(());
        }
    }
}

/// Writes pieces one behind the other, whole, and gives their length.
///
/// # Errors
/// The disk's.
pub(crate) fn append(file: &dyn File, at: u64, pieces: &[&[u8]]) -> std::io::Result<u64> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut left = &mut slices[..];
    let mut done = 0;
    while !left.is_empty() {
        let n = file.write_slices_at(at + done, left)?;
        done += n as u64;
        IoSlice::advance_slices(&mut left, n);
    }
    Ok(done)
}
