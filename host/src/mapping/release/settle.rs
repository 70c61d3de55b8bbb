//! What follows from an attempt at a parked key's records, and its one transaction: effects,
//! failure entry, and what is left of the key and of its side log.

use bytes::Bytes;
use shardmill_core::effects::Effects;
use shardmill_core::mapping::{Attempted, Cursor, Judgement, Next, Position, Reason, after, judge};
use shardmill_core::outcome::{Cause, Failure};
use shardmill_store::{CommitError, Tx, Urgency, Value};

use super::{Releaser, Trouble, Work};
use crate::mapping::commit::{self, Attempt, GivenUp, Owner, add_effects, refused_emit};
use crate::mapping::failures;
use crate::mapping::parked::{ParkedKey, Release};
use crate::mapping::poller::Job;

/// Conflicts with those who add to a key, after which the releaser commits alone.
const CONFLICTS_BEFORE_ALONE: u32 = 3;

/// What an attempt came to.
pub(super) enum Concluded {
    /// It is committed, or does not count any more.
    Done,
    /// A value was changed under it: run it again.
    Conflict,
    /// The host had no room for it.
    Throttled,
}

/// What is changed in a key.
pub(super) struct Settled {
    /// Records that are done.
    pub(super) done: usize,
    pub(super) release: Release,
    /// Why it stays parked.
    pub(super) why: Option<String>,
}

impl Releaser {
    /// Decides what follows and commits it.
    pub(super) async fn conclude(
        &self,
        work: &Work<'_>,
        attempt: &mut Attempt,
    ) -> Result<Concluded, Trouble> {
        let policy = &self.mapping.policy;
        let batch = &work.job.batch;
        let attempted = Attempted {
            len: batch.len(),
            attempts: work.job.part.attempts,
            record_mode: attempt.loaded.carrier().is_record_mode(),
            doubted: work.job.part.doubted,
        };
        let effects = &attempt.report.effects;
        let mut judgement = judge(attempt.report.outcome.clone(), effects, batch, policy);
        let done = after(&judgement, attempted, policy).done;
        let (store, scope) = (self.inner.store.as_ref(), &self.mapping.scope);
        if let Some(refused) = refused_emit(store, scope, effects, batch, done) {
            judgement = Judgement::Failed(refused);
        }
        let now = self.inner.clock.now();
        self.metrics.note_breaker(&self.mapping, &judgement, now);
        if let Judgement::Throttled(reason) = &judgement {
            let counts = self.metrics.shard(work.shard);
            counts.add(&counts.throttles, 1);
            counts.set_last_error(now, &format!("throttled: {reason}"));
            return Ok(Concluded::Throttled);
        }
        let committed = match self.commit(work, attempt, attempted, &judgement).await {
            Err(Trouble::Commit(CommitError::TooLarge { size, allowed })) => {
                // More effects than one transaction takes: a function error, without any of them.
                let cause = Cause::EffectsExceeded {
                    asked: size,
                    allowed,
                    unit: "bytes".into(),
                };
                let record = None;
                judgement = Judgement::Failed(Failure { cause, record });
                attempt.report.effects = Effects::default();
                self.commit(work, attempt, attempted, &judgement).await
            }
            committed => committed,
        }?;
        if matches!(committed, Concluded::Done) {
            let (inner, mapping) = (&self.inner, &self.mapping);
            let note = inner.note_attempt(mapping, work.shard, &work.loaded, &judgement);
            note.await;
        }
        Ok(committed)
    }

    /// Commits what follows.
    async fn commit(
        &self,
        work: &Work<'_>,
        attempt: &mut Attempt,
        attempted: Attempted,
        judgement: &Judgement,
    ) -> Result<Concluded, Trouble> {
        let next = after(judgement, attempted, &self.mapping.policy);
        if next.done < work.job.batch.len() {
            let effects = std::mem::take(&mut attempt.report.effects);
            attempt.report.effects = effects.below(next.done as u32);
        }
        let mut tx = housekeeping();
        let store = self.inner.store.as_ref();
        let owner = Owner {
            scope: &self.mapping.scope,
            function: &self.mapping.function,
        };
        let effects = &attempt.report.effects;
        add_effects(&mut tx, store, owner, effects, &work.job.batch);
        let settled = if next.given_up.is_empty() {
            Settled {
                done: next.done,
                release: self.release_after(&work.job, &next),
                why: None,
            }
        } else {
            let cause = match judgement {
                Judgement::Failed(failure) => Some(failure.cause.clone()),
                _ => None,
            };
            let why = match &cause {
                Some(cause) => cause.to_string(),
                None => "the handler keeps naming it as failed".into(),
            };
            let reason = Reason::RetryAttemptsExhausted;
            let given_up = self.given_up(work, next.given_up.clone(), reason, cause);
            Settled {
                done: next.done,
                ..self.stays_parked(&mut tx, work, Some(attempt), (given_up, why))
            }
        };
        self.settle(work, tx, &settled).await
    }

    pub(super) fn given_up(
        &self,
        work: &Work<'_>,
        records: std::ops::Range<usize>,
        reason: Reason,
        cause: Option<Cause>,
    ) -> GivenUp {
        GivenUp {
            batch: work.job.batch.cut(records),
            reason,
            span: work.job.part.span,
            cause,
            parked: true,
        }
    }

    /// The key is not let go on any more. An entry of the failure store says why, if there is
    /// room for one.
    pub(super) fn stays_parked(
        &self,
        tx: &mut Tx,
        work: &Work<'_>,
        attempt: Option<&Attempt>,
        (given_up, why): (GivenUp, String),
    ) -> Settled {
        let full = failures::full(&self.inner, &self.mapping, &given_up.batch, &why);
        if full.is_none() {
            let turn = commit::Turn {
                cursor: Cursor::starting_at(Position::of(1)),
                given_up: None,
                loaded: &work.loaded,
                attempt,
                part: &work.job.part,
                batch: &work.job.batch,
                window: None,
            };
            let place = (self.inner.as_ref(), self.mapping.as_ref(), work.shard);
            failures::keep(tx, &turn, &given_up, place);
        }
        Settled {
            done: 0,
            release: Release::default(),
            why: Some(full.unwrap_or(why)),
        }
    }

    /// Commits a transaction with what it changes in the key.
    pub(super) async fn settle(
        &self,
        work: &Work<'_>,
        tx: Tx,
        settled: &Settled,
    ) -> Result<Concluded, Trouble> {
        let name = &work.turn.key.key;
        let mut conflicts = 0;
        loop {
            let (_shared, _alone) = match conflicts < CONFLICTS_BEFORE_ALONE {
                true => (Some(self.parked.shared().await), None),
                false => (None, Some(self.parked.alone().await)),
            };
            let mut tx = tx.clone();
            let Some(changed) = self.take_off(&mut tx, work, settled) else {
                return Ok(Concluded::Done);
            };
            match self.inner.store.commit(tx).await {
                Ok(receipt) => {
                    let revision = receipt.revision;
                    self.parked.settled(&self.inner, name, changed, revision);
                    let counts = self.metrics.shard(work.shard);
                    counts.add(&counts.processed, settled.done);
                    return Ok(Concluded::Done);
                }
                // Records came in for the key meanwhile: what was run stays right.
                Err(CommitError::Conflict(changed)) if self.parked.owns(&changed) => {
                    conflicts += 1;
                    self.parked.refresh(&self.inner, &changed)?;
                }
                Err(CommitError::Conflict(_) | CommitError::NoSuchStream(_)) => {
                    return Ok(Concluded::Conflict);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How a key goes on after an attempt that did not give up.
    fn release_after(&self, job: &Job, next: &Next) -> Release {
        let now = self.inner.clock.now();
        let Some(rest) = next.rest.first() else {
            return Release {
                releasing: true,
                ..Release::default()
            };
        };
        Release {
            releasing: true,
            attempts: rest.attempts,
            invocations: match rest.records.start {
                0 => job.part.invocations + 1,
                _ => u32::from(rest.attempts > 0),
            },
            not_before: now.plus(rest.delay),
            request_id: match rest.unchanged {
                true => job.part.request_id.clone(),
                false => String::new(),
            },
            // A batch that is tried unchanged, or in parts, stays as it was cut.
            limit: match rest.unchanged || next.rest.len() > 1 {
                true => rest.records.len() as u32,
                false => 0,
            },
            doubted: rest.doubted,
        }
    }

    /// Takes what is done off the head of the side log. `None`: the key is gone, or what stands
    /// under its name now is not what was read.
    fn take_off(
        &self,
        tx: &mut Tx,
        work: &Work<'_>,
        settled: &Settled,
    ) -> Option<Option<ParkedKey>> {
        if self.parked.drops() != work.turn.drops {
            return None;
        }
        let (head, name) = (&work.head, &work.turn.key.key);
        let (mut now, revision) = self.parked.get(name)?;
        self.parked.expect(tx, name, revision);
        let done_bytes: usize = head
            .batch
            .iter()
            .take(settled.done)
            .map(|r| r.payload_bytes())
            .sum();
        now.records -= (settled.done as u64).min(now.records);
        now.bytes -= (done_bytes as u64).min(now.bytes);
        if settled.done > 0 {
            // The runs that the batch was made of go; what is left of them is one run.
            let touched = head.runs + u64::from(!head.left.is_empty());
            let mut rest = head.batch.cut(settled.done..head.batch.len());
            rest.append(&head.left);
            let last = now.first_run + touched - 1;
            for run in now.first_run..=last {
                let run_key = self.parked.run_key(name, run);
                let value = match rest.is_empty() || run < last {
                    true => Value::Delete,
                    false => Value::Blob(Bytes::from(rest.to_stored())),
                };
                tx.writes.push((run_key, value));
            }
            now.first_run = if rest.is_empty() { last + 1 } else { last };
        }
        now.release = settled.release.clone();
        if let Some(why) = &settled.why {
            now.reason.clone_from(why);
        }
        let left = (now.records > 0).then_some(now);
        self.parked.write(tx, name, left.as_ref());
        Some(left)
    }
}

pub(super) fn housekeeping() -> Tx {
    Tx {
        urgency: Urgency::Housekeeping,
        ..Tx::default()
    }
}
