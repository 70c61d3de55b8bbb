//! What follows from an attempt, and from records that no attempt can deliver: decided by the
//! rules of core, committed in one transaction.

use std::sync::Arc;

use shardmill_core::ShardId;
use shardmill_core::batch::Batch;
use shardmill_core::effects::Effects;
use shardmill_core::event::{EMPTY_EVENT_BYTES, EventSource};
use shardmill_core::limits::MAX_EVENT_BYTES;
use shardmill_core::mapping::{
    AfterFinal, Attempted, Cursor, Judgement, MAX_WINDOW_STATE_BYTES, Next, OnExhausted,
    OpenWindow, Part, Paused, Position, Reason, Span, Work, after, after_final, backoff,
    expired_len, judge, parts_of, state_in,
};
use shardmill_core::outcome::{Cause, Failure, Outcome};
use shardmill_store::CommitError;

use super::attempt::{Ended, Job};
use super::{End, Poller, Trouble};
use crate::functions::Loaded;
use crate::mapping::commit::{Attempt, Counts, GivenUp, Turn, refused_emit};
use crate::mapping::failures;
use crate::mapping::in_flight::{DEATHS_BEFORE_SPLIT, MAX_DEATHS};
use crate::mapping::parked::Parking;
#[cfg(test)]
use crate::mapping::sim::defect::Defect;

/// What a commit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Committed {
    Done,
    /// A value was changed under the batch: nothing is committed.
    Conflict,
}

/// What a turn changes, beside the cursor's marks.
struct Change<'a> {
    cursor: Cursor,
    given_up: Option<GivenUp>,
    parking: Parking,
    loaded: &'a Loaded,
    attempt: Option<&'a Attempt>,
    job: &'a Job,
    counts: Counts,
}

impl Poller {
    /// Decides what follows from an attempt and commits it.
    pub(super) async fn conclude(&mut self, ended: Ended) -> Result<(), Trouble> {
        let Ended {
            lane,
            mut job,
            attempt,
        } = ended;
        let Some(mut attempt) = attempt else {
            return Err(Trouble::Ended(End::Stopped));
        };
        self.notes.end(lane);
        let judgement = self.judge(&job, &attempt);
        self.note_breaker(&judgement);
        if let Judgement::Throttled(reason) = &judgement {
            self.throttled(&mut job, reason);
            self.held[lane] = Some(job);
            return Ok(());
        }
        self.count_sent(lane, &job, &attempt, &judgement);
        let result = match judgement {
            Judgement::Failed(_) => "PROBLEM: Function call failed",
            _ => "OK",
        };
        self.metrics.set_last_result(result);
        let mut committed = match job.is_final() {
            true => {
                self.commit_final(lane, &job, &mut attempt, &judgement)
                    .await
            }
            false => {
                self.commit_batch(lane, &job, &mut attempt, &judgement)
                    .await
            }
        };
        if let Err(Trouble::Commit(CommitError::TooLarge { size, allowed })) = committed {
            // More effects than one transaction takes: a function error, without any of them.
            let cause = Cause::EffectsExceeded {
                asked: size,
                allowed,
                unit: "bytes".into(),
            };
            let judgement = failed(cause);
            attempt.report.effects = Effects::default();
            committed = match job.is_final() {
                true => {
                    self.commit_final(lane, &job, &mut attempt, &judgement)
                        .await
                }
                false => {
                    self.commit_batch(lane, &job, &mut attempt, &judgement)
                        .await
                }
            };
        }
        match committed {
            Ok(Committed::Done) => Ok(()),
            Ok(Committed::Conflict) => {
                // Keyed state was changed by another batch, or a stream went: run it again.
                self.counts.add(&self.counts.conflicts, 1);
                job.conflicts += 1;
                self.held[lane] = Some(job);
                Ok(())
            }
            Err(trouble) => {
                // Nothing is committed: the batch is formed again from what is stored.
                self.lanes.give_back(lane, job.part.span.from);
                Err(trouble)
            }
        }
    }

    /// The outcome as the rules see it, with the rules of windows and of what may be emitted.
    fn judge(&self, job: &Job, attempt: &Attempt) -> Judgement {
        let policy = &self.mapping.policy;
        let (outcome, effects) = (&attempt.report.outcome, &attempt.report.effects);
        let answered = !matches!(outcome, Outcome::Failed(_) | Outcome::Throttled { .. });
        if answered && job.window.is_some() && !job.is_final() && state_in(outcome).is_none() {
            let reason = "with a tumbling window every answer needs the window's `state`".into();
            return failed(Cause::BadAnswer { reason });
        }
        let judgement = judge(outcome.clone(), effects, &job.batch, policy);
        let done = match job.is_final() {
            true => usize::from(judgement == Judgement::Success),
            false => after(&judgement, self.attempted(job, attempt), policy).done,
        };
        let (store, scope) = (self.inner.store.as_ref(), &self.mapping.scope);
        match refused_emit(store, scope, effects, &job.batch, done) {
            Some(refused) => Judgement::Failed(refused),
            None => judgement,
        }
    }

    fn attempted(&self, job: &Job, attempt: &Attempt) -> Attempted {
        let attempts = job.part.attempts;
        #[cfg(test)]
        let attempts = attempts + u32::from(self.inner.has(Defect::RetryBudgetOffByOne));
        Attempted {
            len: job.batch.len(),
            attempts,
            // With a window the prefix of a failed batch has no state, so it is not kept.
            record_mode: attempt.loaded.carrier().is_record_mode() && job.window.is_none(),
            doubted: job.part.doubted,
        }
    }

    async fn commit_batch(
        &mut self,
        lane: usize,
        job: &Job,
        attempt: &mut Attempt,
        judgement: &Judgement,
    ) -> Result<Committed, Trouble> {
        let policy = &self.mapping.policy;
        #[cfg(test)]
        let policy = &self.inner.without_bisect(policy);
        let next = after(judgement, self.attempted(job, attempt), policy);
        let len = job.batch.len();
        let leaves_some = next.done < len;
        if leaves_some {
            let effects = std::mem::take(&mut attempt.report.effects);
            #[cfg(test)]
            let leaked = self.inner.leak(&effects);
            attempt.report.effects = effects.below(next.done as u32);
            #[cfg(test)]
            if let Some((state, counters)) = leaked {
                (
                    attempt.report.effects.state,
                    attempt.report.effects.counters,
                ) = (state, counters);
            }
        }
        let mut cursor = self.cursor.clone();
        let mut parts = parts_of(
            &next,
            &job.part,
            |index| job.boundary(index),
            self.inner.clock.now(),
            || self.inner.request_id(),
        );
        #[cfg(test)]
        self.inner.spoil_parts(&mut parts);
        let mut counts = Counts {
            processed: next.done,
            retried: usize::from(next.rest.first().is_some_and(|rest| rest.attempts > 0)),
            split: usize::from(next.rest.len() > 1),
            ..Counts::default()
        };
        let (mut given_up, mut parking) = (None, Parking::default());
        if !next.given_up.is_empty() {
            match self.exhausted(job, &next, judgement, &attempt.loaded) {
                Exhausted::GiveUp(gone, parked) => {
                    counts.given_up = gone.batch.len();
                    counts.parked = parked.count();
                    (given_up, parking) = (Some(gone), parked);
                }
                Exhausted::Pause(paused, part) => {
                    cursor.paused = Some(paused);
                    parts.insert(0, part);
                }
            }
        }
        if let Some(window) = job.window.as_ref().filter(|_| next.done > 0) {
            let state = state_in(&attempt.report.outcome).unwrap_or_default();
            cursor.window = Some(OpenWindow {
                start: window.start,
                end: window.end,
                ended_early: state.len() > MAX_WINDOW_STATE_BYTES,
                state,
            });
        }
        self.settle(&mut cursor, lane, job, parts);
        let attempt = &*attempt;
        let change = Change {
            cursor,
            given_up,
            parking,
            loaded: &attempt.loaded,
            attempt: Some(attempt),
            job,
            counts,
        };
        self.commit_lane(lane, change).await
    }

    /// What happens to records whose attempts ended.
    fn exhausted(
        &self,
        job: &Job,
        next: &Next,
        judgement: &Judgement,
        loaded: &Loaded,
    ) -> Exhausted {
        let cause = match judgement {
            Judgement::Failed(failure) => Some(failure.cause.clone()),
            _ => None,
        };
        let why = match &cause {
            Some(cause) => cause.to_string(),
            None => "the handler keeps naming it as failed".into(),
        };
        let span = Span {
            from: job.boundary(next.given_up.start),
            to: job.boundary(next.given_up.end),
        };
        let batch = job.batch.cut(next.given_up.clone());
        let pause = |reason: String| {
            let mut part = Part {
                span,
                invocations: job.part.invocations + 1,
                ..job.part.clone()
            };
            if next.given_up.len() < job.batch.len() {
                // It is another batch now.
                part.request_id = self.inner.request_id();
            }
            let version = loaded.function.version;
            Exhausted::Pause(Paused { reason, version }, part)
        };
        if let Some(reason) = failures::full(&self.inner, &self.mapping, &batch, &why) {
            return pause(reason);
        }
        let mut parking = Parking::default();
        match self.mapping.policy.on_exhausted {
            OnExhausted::Discard => {}
            OnExhausted::Pause => return pause(format!("attempts ended: {why}")),
            OnExhausted::Park => {
                parking.add(&batch, Some(&why));
                if let Err(bound) = self.parked.room_for(&parking, &self.mapping.policy) {
                    return pause(format!("{bound}; attempts ended: {why}"));
                }
            }
        }
        let given_up = GivenUp {
            batch,
            reason: Reason::RetryAttemptsExhausted,
            span,
            cause,
            parked: !parking.is_empty(),
        };
        Exhausted::GiveUp(given_up, parking)
    }

    async fn commit_final(
        &mut self,
        lane: usize,
        job: &Job,
        attempt: &mut Attempt,
        judgement: &Judgement,
    ) -> Result<Committed, Trouble> {
        let mut cursor = self.cursor.clone();
        let mut given_up = None;
        let mut parts = Vec::new();
        let mut counts = Counts::default();
        let policy = &self.mapping.policy;
        let next = after_final(judgement, job.part.attempts, policy);
        if next != AfterFinal::Closed {
            // The sandbox leaves none of a failure of its own; the host may find more to refuse.
            attempt.report.effects = Effects::default();
        }
        let attempt = &*attempt;
        match next {
            AfterFinal::Closed => close_window(&mut cursor, job),
            AfterFinal::Again { attempts, delay } => {
                counts.retried = 1;
                parts.push(Part {
                    attempts,
                    invocations: job.part.invocations + 1,
                    not_before: self.inner.clock.now().plus(delay),
                    ..job.part.clone()
                });
            }
            AfterFinal::GivenUp if policy.on_exhausted == OnExhausted::Pause => {
                let version = attempt.loaded.function.version;
                let reason = "attempts at the final invocation of a window ended".into();
                cursor.paused = Some(Paused { reason, version });
                parts.push(job.part.clone());
            }
            AfterFinal::GivenUp => {
                close_window(&mut cursor, job);
                given_up = Some(GivenUp::window(job.part.span, judgement));
            }
        }
        #[cfg(test)]
        self.inner.keep_window(&mut cursor, &self.cursor);
        self.settle(&mut cursor, lane, job, parts);
        let change = Change {
            cursor,
            given_up,
            parking: Parking::default(),
            loaded: &attempt.loaded,
            attempt: Some(attempt),
            job,
            counts,
        };
        self.commit_lane(lane, change).await
    }

    /// Puts the parts that a batch left into its lane.
    fn settle(&self, cursor: &mut Cursor, lane: usize, job: &Job, parts: Vec<Part>) {
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

    /// Gives up what no attempt can deliver: records that were trimmed, that are too old, or
    /// whose event is too large; puts records whose key is parked behind the others of their
    /// key. Gives the job back if it is to be run.
    pub(super) async fn give_up_undeliverable(
        &mut self,
        lane: usize,
        job: Job,
        loaded: &Loaded,
    ) -> Result<Option<Job>, Trouble> {
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
        if let Some(more) = job.more {
            return self.split_at(lane, &job, more, loaded).await.map(|()| None);
        }
        let json = self.event_source(loaded);
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
    async fn split_at(
        &mut self,
        lane: usize,
        job: &Job,
        at: Position,
        loaded: &Loaded,
    ) -> Result<(), Trouble> {
        let Span { from, to } = job.part.span;
        let part = |from, to| {
            let span = Span { from, to };
            job.part.split_off(span, self.inner.request_id())
        };
        let parts = vec![part(from, at), part(at, to)];
        let mut cursor = self.cursor.clone();
        self.settle(&mut cursor, lane, job, parts);
        let change = self.without_attempt(job, cursor, loaded);
        self.commit_settled(lane, change).await
    }

    /// Gives up records at the head of a batch without an attempt. What is left is a new batch:
    /// those before it may have been at fault.
    async fn give_up(
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
                parts.push(job.part.split_off(rest, self.inner.request_id()));
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
    async fn pause_before(
        &mut self,
        lane: usize,
        job: &Job,
        reason: String,
        loaded: &Loaded,
    ) -> Result<(), Trouble> {
        let version = loaded.function.version;
        let mut cursor = self.cursor.clone();
        cursor.paused = Some(Paused { reason, version });
        let change = self.without_attempt(job, cursor, loaded);
        self.commit(change, None).await?;
        self.lanes.give_back(lane, job.part.span.from);
        Ok(())
    }

    /// One entry for records that were trimmed before every lane has read them; the lanes go on
    /// at `first`, the oldest record there is.
    pub(super) async fn skip_trimmed(
        &mut self,
        first: Position,
        loaded: &Loaded,
    ) -> Result<(), Trouble> {
        let before = self.lanes.clone();
        let Some(lost) = self.lanes.skip_trimmed(first) else {
            return Ok(());
        };
        let job = Job::new(Part::fresh(lost, self.inner.request_id()), Batch::default());
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
        if !matches!(committed, Ok(Committed::Done)) {
            // Nobody knows of them yet.
            self.lanes = before;
        }
        committed.map(|_| ())
    }

    /// Puts records of a part whose keys are parked into the side log; they are the part's no
    /// more.
    async fn park_inside(
        &mut self,
        lane: usize,
        job: &Job,
        loaded: &Loaded,
    ) -> Result<(), Trouble> {
        let mut cursor = self.cursor.clone();
        let mut parking = Parking::default();
        parking.add(&job.parked, None);
        if let Err(reason) = self.parked.room_for(&parking, &self.mapping.policy) {
            let version = loaded.function.version;
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

    async fn drop_empty(&mut self, lane: usize, job: &Job, loaded: &Loaded) -> Result<(), Trouble> {
        let mut cursor = self.cursor.clone();
        self.settle(&mut cursor, lane, job, Vec::new());
        let change = self.without_attempt(job, cursor, loaded);
        self.commit_settled(lane, change).await
    }

    fn without_attempt<'a>(&self, job: &'a Job, cursor: Cursor, loaded: &'a Loaded) -> Change<'a> {
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
        let Some(loaded) = self.measured.clone() else {
            return Ok(());
        };
        let at = self.cursor.low();
        let part = Part::fresh(Span { from: at, to: at }, String::new());
        let job = Job::new(part, Batch::default());
        let change = self.without_attempt(&job, self.cursor.clone(), &loaded);
        self.commit(change, None).await.map(|_| ())
    }

    /// Commits a change that ends a lane's batch without an attempt. After a conflict the batch
    /// is formed again.
    async fn commit_settled(&mut self, lane: usize, change: Change<'_>) -> Result<(), Trouble> {
        let from = change.job.part.span.from;
        if self.commit_lane(lane, change).await? == Committed::Conflict {
            self.lanes.give_back(lane, from);
        }
        Ok(())
    }

    /// Commits a change that ends a lane's batch.
    async fn commit_lane(&mut self, lane: usize, change: Change<'_>) -> Result<Committed, Trouble> {
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
    async fn commit(
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
            let version = loaded.function.version;
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

    fn throttled(&mut self, job: &mut Job, reason: &str) {
        job.throttles += 1;
        job.not_before = self.inner.clock.now().plus(backoff(job.throttles));
        self.counts.add(&self.counts.throttles, 1);
        let (mapping, shard) = (&self.mapping.name, self.source.shard.shard);
        self.counts
            .set_last_error(self.inner.clock.now(), &format!("throttled: {reason}"));
        tracing::warn!(mapping, %shard, reason, "throttled");
    }

    fn note_breaker(&self, judgement: &Judgement) {
        let now = self.inner.clock.now();
        self.metrics.note_breaker(&self.mapping, judgement, now);
    }
}

/// What happens to records whose attempts ended.
enum Exhausted {
    GiveUp(GivenUp, Parking),
    Pause(Paused, Part),
}

fn failed(cause: Cause) -> Judgement {
    Judgement::Failed(Failure {
        cause,
        record: None,
    })
}

/// Closes the window of a final invocation. One that ended before its time may open again.
fn close_window(cursor: &mut Cursor, job: &Job) {
    cursor.window = None;
    if let Some(window) = job.window.as_ref().filter(|w| !w.ended_early) {
        cursor.windows_closed_to = cursor.windows_closed_to.max(window.end);
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
