//! The commit that ends a turn: progress, and with it all that the turn changes, in one
//! transaction.

use std::sync::Arc;

use shardmill_core::Batch;
use shardmill_core::mapping::{Cursor, Part, Paused, Span};
use shardmill_store::CommitError;

use super::attempt::Job;
use super::{End, Poller, Trouble};
use crate::functions::Loaded;
use crate::mapping::commit::{Attempt, Counts, GivenUp, Turn};
use crate::mapping::parked::Parking;
#[cfg(test)]
use crate::mapping::sim::defect::Defect;

/// What a commit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Committed {
    Done,
    /// A value was changed under the batch: nothing is committed.
    Conflict,
}

/// What a turn changes, beside the cursor's marks.
pub(super) struct Change<'a> {
    pub(super) cursor: Cursor,
    pub(super) given_up: Option<GivenUp>,
    pub(super) parking: Parking,
    pub(super) loaded: &'a Loaded,
    pub(super) attempt: Option<&'a Attempt>,
    pub(super) job: &'a Job,
    pub(super) counts: Counts,
}

impl Poller {
    /// Puts the parts that a batch left into its lane.
    pub(super) fn settle(&self, cursor: &mut Cursor, lane: usize, job: &Job, parts: Vec<Part>) {
        let stored = &mut cursor.lanes[lane];
        let first = stored.parts.first();
        let was_part = first.is_some_and(|p| p.span == job.part.span);
        if was_part {
            stored.parts.remove(0);
        } else {
            stored.mark = stored.mark.max(job.part.span.to);
        }
        stored.parts.splice(0..0, parts);
    }

    pub(super) fn without_attempt<'a>(
        &self,
        job: &'a Job,
        cursor: Cursor,
        loaded: &'a Loaded,
    ) -> Change<'a> {
        Change {
            cursor,
            given_up: None,
            parking: Parking::default(),
            loaded,
            attempt: None,
            job,
            counts: Counts::default(),
        }
    }

    /// Commits progress that no batch carries.
    pub(super) async fn save_progress(&mut self) -> Result<(), Trouble> {
        if self.lanes.is_ahead(&self.cursor) || self.lanes.has_parked() {
            self.save_cursor().await?;
        }
        Ok(())
    }

    /// Commits the cursor as it is, with the marks of the lanes.
    pub(super) async fn save_cursor(&mut self) -> Result<(), Trouble> {
        let Some(ready) = self.measured.clone() else {
            return Ok(());
        };
        let at = self.cursor.low();
        let part = Part::fresh(Span { from: at, to: at }, String::new());
        let job = Job::new(part, Batch::default());
        let change = self.without_attempt(&job, self.cursor.clone(), &ready.first);
        self.commit(change, None).await.map(|_| ())
    }

    /// Commits a change that ends a lane's batch without an attempt. After a conflict the batch
    /// is formed again.
    pub(super) async fn commit_settled(
        &mut self,
        lane: usize,
        change: Change<'_>,
    ) -> Result<(), Trouble> {
        let from = change.job.part.span.from;
        if self.commit_lane(lane, change).await? == Committed::Conflict {
            self.lanes.give_back(lane, from);
        }
        Ok(())
    }

    /// Commits a change that ends a lane's batch.
    pub(super) async fn commit_lane(
        &mut self,
        lane: usize,
        change: Change<'_>,
    ) -> Result<Committed, Trouble> {
        let parked_now = !change.parking.is_empty();
        let committed = self.commit(change, Some(lane)).await?;
        if committed == Committed::Done {
            let blocked = !self.cursor.lanes[lane].parts.is_empty();
            self.lanes.free(lane, blocked, self.inner.clock.now());
            self.expiry[lane] = None;
            #[cfg(test)]
            let parked_now = parked_now && !self.inner.has(Defect::ParkReorders);
            if parked_now {
                // What was gathered may belong to a key that is parked now.
                self.lanes.forget();
            }
        }
        Ok(committed)
    }

    /// Commits a change with the marks of all lanes and what they have parked, and takes its
    /// cursor over.
    pub(super) async fn commit(
        &mut self,
        change: Change<'_>,
        ended: Option<usize>,
    ) -> Result<Committed, Trouble> {
        let Change {
            mut cursor,
            given_up,
            mut parking,
            loaded,
            attempt,
            job,
            mut counts,
        } = change;
        let mut read_ahead = Parking::default();
        self.lanes
            .parked()
            .for_each(|batch| read_ahead.add(batch, None));
        if let Err(reason) = self.parked.room_for(&read_ahead, &self.mapping.policy) {
            let version = loaded.function.number();
            cursor.paused.get_or_insert(Paused { reason, version });
            self.lanes.forget();
        } else {
            counts.parked += read_ahead.count();
            counts.unsent += read_ahead.count();
            parking.append(read_ahead);
        }
        self.lanes.advance(&mut cursor, ended);
        let turn = Turn {
            cursor,
            given_up,
            loaded,
            attempt,
            part: &job.part,
            batch: &job.batch,
            window: job.window.as_ref(),
        };
        let shard = self.source.shard.shard;
        let (mut tx, key) = turn.transaction(&self.inner, &self.mapping, shard, self.revision);
        let keys = Arc::clone(&self.parked);
        let _shared = match parking.is_empty() {
            true => None,
            false => Some(keys.shared().await),
        };
        let now = self.inner.clock.now();
        let Some(parked) = keys.add_to(&mut tx, &parking, now) else {
            // A key was freed since records were sorted as later ones of it: sort again.
            self.lanes.forget();
            return Ok(Committed::Conflict);
        };
        #[cfg(test)]
        let tx = self.inner.progress_first(tx, &key).await;
        match self.inner.store.commit(tx).await {
            Ok(receipt) => {
                self.revision = receipt.revision;
                self.cursor = turn.into_cursor();
                self.lanes.clear_parked();
                self.unsaved = None;
                counts.add_to(&self.counts);
                keys.committed(&self.inner, parked, receipt.revision);
                Ok(Committed::Done)
            }
            Err(CommitError::Conflict(changed)) if changed == key => {
                Err(Trouble::Ended(End::Fenced))
            }
            Err(CommitError::Conflict(changed)) if self.parked.owns(&changed) => {
                // Somebody has let a parked key go on, or parked it: sort again.
                self.parked.refresh(&self.inner, &changed)?;
                self.lanes.forget();
                Ok(Committed::Conflict)
            }
            Err(CommitError::Conflict(_) | CommitError::NoSuchStream(_)) => Ok(Committed::Conflict),
            Err(error) => Err(Trouble::Commit(error)),
        }
    }
}

/// Closes the window of a final invocation. One that ended before its time may open again.
pub(super) fn close_window(cursor: &mut Cursor, job: &Job) {
    cursor.window = None;
    if let Some(window) = job.window.as_ref().filter(|w| !w.ended_early) {
        cursor.windows_closed_to = cursor.windows_closed_to.max(window.end);
    }
}
