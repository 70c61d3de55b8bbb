//! What follows from an attempt, and from records that no attempt can deliver: decided by the
//! rules of core, committed in one transaction.

use shardmill_core::effects::Effects;
use shardmill_core::mapping::{
    AfterFinal, Judgement, MAX_WINDOW_STATE_BYTES, Next, OnExhausted, OpenWindow, Part, Paused,
    Reason, Span, after, after_final, backoff, parts_of, state_in,
};
use shardmill_core::outcome::Cause;
use shardmill_store::CommitError;

use super::attempt::{Ended, Job};
use super::judge::{Judging, failed};
use super::settle::{Change, Committed, close_window};
use super::{End, Poller, Trouble};
use crate::functions::Loaded;
use crate::mapping::commit::{Attempt, Counts, GivenUp};
use crate::mapping::failures;
use crate::mapping::parked::Parking;
use crate::mapping::shadow::{Shown, Side};

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
        let mut judgement = self.judging(&job, &attempt).judge(&attempt.report);
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
            if !matches!(judgement, Judgement::Failed(_)) {
                self.counts.add(&self.counts.failed_invocations, 1);
            }
            judgement = failed(cause);
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
            Ok(Committed::Done) => {
                let (inner, shard) = (&self.inner, self.source.shard.shard);
                inner
                    .note_attempt(&self.mapping, shard, &attempt.loaded, &judgement)
                    .await;
                self.show(job, attempt, judgement);
                Ok(())
            }
            Ok(Committed::Conflict) => {
                // Keyed state was changed by another batch, or a stream went: run it again.
                self.counts.add(&self.counts.conflicts, 1);
                job.conflicts += 1;
                self.held[lane] = Some(job);
                Ok(())
            }
            Err(trouble) => {
                if let Trouble::Commit(CommitError::Quota { bytes, .. }) = trouble {
                    self.short = Some(bytes);
                }
                // Nothing is committed: the batch is formed again from what is stored.
                self.lanes.give_back(lane, job.part.span.from);
                Err(trouble)
            }
        }
    }

    fn judging<'a>(&'a self, job: &'a Job, attempt: &'a Attempt) -> Judging<'a> {
        Judging {
            inner: &self.inner,
            mapping: &self.mapping,
            job,
            loaded: &attempt.loaded,
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
        let next = after(judgement, self.judging(job, attempt).attempted(), policy);
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
            || self.inner.request_id(&self.mapping.scope),
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
                part.request_id = self.inner.request_id(&self.mapping.scope);
            }
            let version = loaded.function.number();
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
            AfterFinal::Closed => {
                counts.windows_closed = 1;
                close_window(&mut cursor, job);
            }
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
                let version = attempt.loaded.function.number();
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

    /// Shows the shadow, if it is to see it, what has just been committed. Waits for nothing.
    fn show(&self, job: Job, attempt: Attempt, judgement: Judgement) {
        let (Some(shadow), true) = (&self.shadow, attempt.is_shown) else {
            return;
        };
        shadow.offer(Shown {
            seen: attempt.given.into_seen(),
            seed: attempt.seed,
            now: attempt.now,
            loaded: attempt.loaded,
            shard: self.source.shard.shard,
            revision: self.revision,
            primary: Side::new(judgement, attempt.report),
            job,
        });
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

    pub(super) fn note_breaker(&self, judgement: &Judgement) {
        let now = self.inner.clock.now();
        self.metrics.note_breaker(&self.mapping, judgement, now);
    }
}

/// What happens to records whose attempts ended.
enum Exhausted {
    GiveUp(GivenUp, Parking),
    Pause(Paused, Part),
}
