//! Records that no attempt can deliver: trimmed, too old, too large, parked meanwhile, or in
//! flight when the process died.

use shardmill_core::event::{EMPTY_EVENT_BYTES, EventSource};
use shardmill_core::limits::MAX_EVENT_BYTES;
use shardmill_core::mapping::{
    Cursor, Judgement, Part, Paused, Position, Reason, Span, Work, expired_len,
};
use shardmill_core::{Batch, ShardId};

use super::attempt::Job;
use super::settle::{Change, Committed, close_window};
use super::{Poller, Trouble};
use crate::functions::Loaded;
use crate::mapping::commit::{Counts, GivenUp};
use crate::mapping::failures;
use crate::mapping::in_flight::{DEATHS_BEFORE_SPLIT, MAX_DEATHS};
use crate::mapping::parked::Parking;

impl Poller {
    /// Gives up what no attempt can deliver: records that were trimmed, that are too old, or
    /// whose event is too large; puts records whose key is parked behind the others of their
    /// key. Gives the job back if it is to be run.
    pub(super) async fn give_up_undeliverable(
        &mut self,
        lane: usize,
        job: Job,
        loaded: &Loaded,
    ) -> Result<Option<Job>, Trouble> {
        if let Some(more) = job.more {
            return self.split_at(lane, &job, more, loaded).await.map(|()| None);
        }
        if !job.parked.is_empty() {
            return self.park_inside(lane, &job, loaded).await.map(|()| None);
        }
        let now = self.inner.clock.now();
        let policy = &self.mapping.policy;
        if job.is_final() {
            let end = job.window.as_ref().map_or(now, |w| w.end);
            let too_old = policy
                .maximum_record_age
                .is_some_and(|age| now.since(end) > age);
            if !too_old {
                return Ok(Some(job));
            }
            let mut cursor = self.cursor.clone();
            close_window(&mut cursor, &job);
            let given_up = GivenUp {
                reason: Reason::RecordAgeExceeded,
                ..GivenUp::window(job.part.span, &Judgement::Success)
            };
            self.give_up(lane, &job, cursor, given_up, loaded).await?;
            return Ok(None);
        }
        let expired = expired_len(&job.batch, policy, now);
        #[cfg(test)]
        let expired = self.inner.expired_in(&job.batch, expired);
        let json = self.event_source(loaded.carrier().takes_json());
        let shard = self.source.shard.shard;
        let (span, batch, reason) = if let Some(lost) = job.lost {
            (lost, Batch::default(), Reason::Expired)
        } else if expired > 0 {
            let span = Span {
                from: job.part.span.from,
                to: job.boundary(expired),
            };
            (span, job.batch.cut(0..expired), Reason::RecordAgeExceeded)
        } else if json.is_some_and(|source| is_too_large(&job, &source, shard)) {
            (job.part.span, job.batch.clone(), Reason::RecordTooLarge)
        } else if job.batch.is_empty() {
            // All its records were filtered out, parked or trimmed since it was formed.
            return self.drop_empty(lane, &job, loaded).await.map(|()| None);
        } else {
            return Ok(Some(job));
        };
        let given_up = GivenUp {
            batch,
            reason,
            span,
            cause: None,
            parked: false,
        };
        let cursor = self.cursor.clone();
        self.give_up(lane, &job, cursor, given_up, loaded).await?;
        Ok(None)
    }

    /// Halves a batch that was in flight in several process deaths, so that its records are not
    /// lost with the one that is at fault, if one is; gives that one up at last.
    pub(super) async fn after_deaths(
        &mut self,
        lane: usize,
        job: Job,
        loaded: &Loaded,
    ) -> Result<Option<Job>, Trouble> {
        let deaths = self.notes.begin(lane, job.part.span.from);
        if deaths >= DEATHS_BEFORE_SPLIT && job.batch.len() > 1 {
            self.notes.split(lane);
            let middle = job.boundary(job.batch.len() / 2);
            return self
                .split_at(lane, &job, middle, loaded)
                .await
                .map(|()| None);
        }
        if deaths < MAX_DEATHS {
            return Ok(Some(job));
        }
        self.notes.end(lane);
        let mut cursor = self.cursor.clone();
        if job.is_final() {
            close_window(&mut cursor, &job);
        }
        let given_up = GivenUp {
            batch: job.batch.clone(),
            reason: Reason::ProcessDied,
            span: job.part.span,
            cause: None,
            parked: false,
        };
        self.give_up(lane, &job, cursor, given_up, loaded).await?;
        Ok(None)
    }

    /// Makes two new batches of one.
    pub(super) async fn split_at(
        &mut self,
        lane: usize,
        job: &Job,
        at: Position,
        loaded: &Loaded,
    ) -> Result<(), Trouble> {
        let Span { from, to } = job.part.span;
        let part = |from, to| {
            let span = Span { from, to };
            job.part
                .split_off(span, self.inner.request_id(&self.mapping.scope))
        };
        let parts = vec![part(from, at), part(at, to)];
        let mut cursor = self.cursor.clone();
        self.settle(&mut cursor, lane, job, parts);
        let change = self.without_attempt(job, cursor, loaded);
        self.commit_settled(lane, change).await
    }

    /// Gives up records at the head of a batch without an attempt. What is left is a new batch:
    /// those before it may have been at fault.
    pub(super) async fn give_up(
        &mut self,
        lane: usize,
        job: &Job,
        mut cursor: Cursor,
        given_up: GivenUp,
        loaded: &Loaded,
    ) -> Result<(), Trouble> {
        let why = format!("{:?}", given_up.reason);
        let full = failures::full(&self.inner, &self.mapping, &given_up.batch, &why);
        if let Some(reason) = full {
            return self.pause_before(lane, job, reason, loaded).await;
        }
        let rest = Span {
            from: given_up.span.to,
            ..job.part.span
        };
        let counts = Counts {
            given_up: given_up.batch.len(),
            unsent: self.count_begun(lane, &given_up.batch),
            expired: match given_up.reason {
                Reason::Expired => (given_up.span.to.record - given_up.span.from.record) as usize,
                _ => 0,
            },
            ..Counts::default()
        };
        let is_new = self.lanes.work(lane) == Work::New;
        let mut parts = Vec::new();
        if is_new {
            cursor.lanes[lane].mark = rest.from;
        } else {
            if !rest.is_empty() {
                parts.push(
                    job.part
                        .split_off(rest, self.inner.request_id(&self.mapping.scope)),
                );
            }
            self.settle(&mut cursor, lane, job, parts);
        }
        let change = Change {
            given_up: Some(given_up),
            counts,
            ..self.without_attempt(job, cursor, loaded)
        };
        if !is_new {
            return self.commit_settled(lane, change).await;
        }
        let done = self.commit(change, None).await? == Committed::Done;
        let from = if done { rest.from } else { job.part.span.from };
        self.lanes.give_back(lane, from);
        Ok(())
    }

    /// Pauses the shard; a batch is formed again when it goes on.
    pub(super) async fn pause_before(
        &mut self,
        lane: usize,
        job: &Job,
        reason: String,
        loaded: &Loaded,
    ) -> Result<(), Trouble> {
        let version = loaded.function.number();
        let mut cursor = self.cursor.clone();
        cursor.paused = Some(Paused { reason, version });
        let change = self.without_attempt(job, cursor, loaded);
        self.commit(change, None).await?;
        self.lanes.give_back(lane, job.part.span.from);
        Ok(())
    }

    /// One entry for records that were trimmed before every lane has read them; the lanes go on
    /// at `first`, the oldest record there is. Says whether they do: not after a conflict.
    pub(super) async fn skip_trimmed(
        &mut self,
        first: Position,
        loaded: &Loaded,
    ) -> Result<bool, Trouble> {
        let before = self.lanes.clone();
        let Some(lost) = self.lanes.skip_trimmed(first) else {
            return Ok(true);
        };
        let job = Job::new(
            Part::fresh(lost, self.inner.request_id(&self.mapping.scope)),
            Batch::default(),
        );
        let given_up = GivenUp {
            batch: Batch::default(),
            reason: Reason::Expired,
            span: lost,
            cause: None,
            parked: false,
        };
        let counts = Counts {
            expired: (lost.to.record - lost.from.record) as usize,
            ..Counts::default()
        };
        let change = Change {
            given_up: Some(given_up),
            counts,
            ..self.without_attempt(&job, self.cursor.clone(), loaded)
        };
        let committed = self.commit(change, None).await;
        match &committed {
            Ok(Committed::Done) => {}
            Ok(Committed::Conflict) => {
                self.lanes = before;
                // What was gathered may be what the conflict was about.
                self.lanes.forget();
            }
            Err(_) => self.lanes = before,
        }
        committed.map(|committed| committed == Committed::Done)
    }

    /// Puts records of a part whose keys are parked into the side log; they are the part's no
    /// more.
    pub(super) async fn park_inside(
        &mut self,
        lane: usize,
        job: &Job,
        loaded: &Loaded,
    ) -> Result<(), Trouble> {
        let mut cursor = self.cursor.clone();
        let mut parking = Parking::default();
        parking.add(&job.parked, None);
        if let Err(reason) = self.parked.room_for(&parking, &self.mapping.policy) {
            let version = loaded.function.number();
            cursor.paused = Some(Paused { reason, version });
            parking = Parking::default();
        } else if let Some(part) = cursor.lanes[lane].parts.first_mut() {
            part.without
                .extend(job.parked.iter().map(|r| r.beginning()));
            part.without.sort_unstable();
        }
        let begun = self.begun[lane];
        let unsent = job.parked.iter().filter(|r| r.beginning() >= begun);
        let counts = Counts {
            parked: parking.count(),
            unsent: unsent.count(),
            ..Counts::default()
        };
        let change = Change {
            parking,
            counts,
            ..self.without_attempt(job, cursor, loaded)
        };
        self.commit_settled(lane, change).await
    }

    pub(super) async fn drop_empty(
        &mut self,
        lane: usize,
        job: &Job,
        loaded: &Loaded,
    ) -> Result<(), Trouble> {
        let mut cursor = self.cursor.clone();
        self.settle(&mut cursor, lane, job, Vec::new());
        let change = self.without_attempt(job, cursor, loaded);
        self.commit_settled(lane, change).await
    }
}

fn is_too_large(job: &Job, source: &EventSource, shard: ShardId) -> bool {
    if job.batch.len() != 1 {
        return false;
    }
    // A record's bytes have a comma behind it, which the only one has not.
    let bytes = job.batch.get(0).map_or(0, |r| source.record_bytes(&r));
    let window = job.window.as_ref();
    let window = window.map_or(0, |window| source.window_bytes(shard, window));
    bytes + window + EMPTY_EVENT_BYTES > MAX_EVENT_BYTES + 1
}
