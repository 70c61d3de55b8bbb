//! Makes what was appended durable.

use std::io;
use std::sync::Arc;

use super::layout::end_mark;
use super::segment::{DIR, Shared, locked};
use super::{Position, SyncError, Writer};

/// The file that says where the journal ended when it was closed in good order.
pub(super) const END_MARK: &str = "journal/end";

/// The same before it is durable.
const END_MARK_DRAFT: &str = "journal/end.new";

/// The one that syncs; may be another thread than the writer's.
#[derive(Debug)]
pub struct Syncer(pub(super) Arc<Shared>);

impl Syncer {
    /// Makes every group durable whose `append` returned before this call, and gives the position
    /// up to which everything is durable now. At once when there is nothing to do.
    ///
    /// # Errors
    /// The first failure is final; see [`SyncError`].
    pub fn sync(&mut self) -> Result<Position, SyncError> {
        let (target, segments) = {
            let progress = locked(&self.0.progress);
            if let Some(message) = &progress.failed {
                return Err(SyncError(Arc::clone(message)));
            }
            if progress.durable == progress.written {
                return Ok(progress.durable);
            }
            (progress.written, progress.unsynced.clone())
        };
        for segment in segments {
            let synced = segment.file.sync_data();
            synced.map_err(|error| SyncError(self.0.fail("sync", &error)))?;
        }
        let mut progress = locked(&self.0.progress);
        progress.durable = target;
        // The segment in use may have got more bytes meanwhile; those before it are complete.
        let open = |number: u64| number >= target.segment;
        progress.unsynced.retain(|segment| open(segment.number));
        Ok(target)
    }

    /// Syncs, and notes that the journal ends here: if the tables' durable position is then
    /// [`Writer::end`], the next start has nothing to look for.
    ///
    /// # Errors
    /// The journal failed, now or earlier. The next start recovers.
    pub fn close(mut self, writer: Writer) -> Result<(), SyncError> {
        let end = self.sync()?;
        drop(writer);
        self.write_end_mark(end)
            .map_err(|error| SyncError(self.0.fail("write the end mark", &error)))
    }

    fn write_end_mark(&self, end: Position) -> io::Result<()> {
        let io = &*self.0.io;
        let file = io.create(END_MARK_DRAFT)?;
        file.write_at(0, &end_mark(self.0.store_id, end))?;
        file.sync_data()?;
        io.rename(END_MARK_DRAFT, END_MARK)?;
        io.sync_dir(DIR)
    }
}
