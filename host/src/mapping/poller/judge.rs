//! What an attempt came to, by the rules of core, of windows, and of what may be emitted.

use shardmill_core::effects::Effects;
use shardmill_core::mapping::{Attempted, Judgement, after, judge, state_in};
use shardmill_core::outcome::{Cause, Failure, Outcome};
use shardmill_core::sandbox::Report;

use super::attempt::Job;
use crate::functions::Loaded;
use crate::mapping::commit::refused_emit;
use crate::mapping::resource::{Inner, Mapping};
#[cfg(test)]
use crate::mapping::sim::defect::Defect;

/// An attempt to be judged.
pub(in crate::mapping) struct Judging<'a> {
    pub(in crate::mapping) inner: &'a Inner,
    pub(in crate::mapping) mapping: &'a Mapping,
    pub(in crate::mapping) job: &'a Job,
    /// What ran.
    pub(in crate::mapping) loaded: &'a Loaded,
}

impl Judging<'_> {
    pub(in crate::mapping) fn judge(&self, report: &Report) -> Judgement {
        let Self {
            inner,
            mapping,
            job,
            ..
        } = self;
        let (outcome, effects) = (&report.outcome, &report.effects);
        let answered = !matches!(outcome, Outcome::Failed(_) | Outcome::Throttled { .. });
        if answered && job.window.is_some() && !job.is_final() && state_in(outcome).is_none() {
            let reason = "with a tumbling window every answer needs the window's `state`".into();
            return failed(Cause::BadAnswer { reason });
        }
        let judgement = judge(outcome.clone(), effects, &job.batch, &mapping.policy);
        let (store, done) = (inner.store.as_ref(), self.done(&judgement));
        match refused_emit(store, &mapping.scope, effects, &job.batch, done) {
            Some(refused) => Judgement::Failed(refused),
            None => judgement,
        }
    }

    /// How many records are done then; with the final invocation of a window, whether it is.
    fn done(&self, judgement: &Judgement) -> usize {
        match self.job.is_final() {
            true => usize::from(*judgement == Judgement::Success),
            false => after(judgement, self.attempted(), &self.mapping.policy).done,
        }
    }

    /// The effects that count then.
    pub(in crate::mapping) fn kept(&self, judgement: &Judgement, effects: Effects) -> Effects {
        let (job, done) = (self.job, self.done(judgement));
        match job.is_final() {
            true if done == 0 => Effects::default(),
            false if done < job.batch.len() => effects.below(done as u32),
            true | false => effects,
        }
    }

    pub(super) fn attempted(&self) -> Attempted {
        let job = self.job;
        let attempts = job.part.attempts;
        #[cfg(test)]
        let attempts = attempts + u32::from(self.inner.has(Defect::RetryBudgetOffByOne));
        Attempted {
            len: job.batch.len(),
            attempts,
            // With a window the prefix of a failed batch has no state, so it is not kept.
            record_mode: self.loaded.carrier().is_record_mode() && job.window.is_none(),
            doubted: job.part.doubted,
        }
    }
}

pub(super) fn failed(cause: Cause) -> Judgement {
    Judgement::Failed(Failure {
        cause,
        record: None,
    })
}
