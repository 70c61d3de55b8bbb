//! Makes what was appended durable.

use super::{Position, SyncError, Writer};

/// The one that syncs; may be another thread than the writer's.
#[derive(Debug)]
pub struct Syncer {}

impl Syncer {
    /// Makes every group durable whose `append` returned before this call, and gives the position
    /// up to which everything is durable now. At once when there is nothing to do.
    ///
    /// # Errors
    /// The first failure is final; see [`SyncError`].
    pub fn sync(&mut self) -> Result<Position, SyncError> {
        unimplemented!("follows")
    }

    /// Syncs, and notes that the journal ends here: if the tables' durable position is then
    /// [`Writer::end`], the next start has nothing to look for.
    ///
    /// # Errors
    /// The journal failed, now or earlier. The next start recovers.
    pub fn close(self, writer: Writer) -> Result<(), SyncError> {
        drop(writer);
        unimplemented!("follows")
    }
}
