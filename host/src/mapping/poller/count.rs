//! Counts records on their way through a poller, so that what was read balances with what became
//! of it: see [`ShardMetrics`](crate::mapping::metrics::ShardMetrics).

use shardmill_core::Batch;
use shardmill_core::mapping::Judgement;

use super::Poller;
use super::attempt::Job;
use crate::mapping::commit::Attempt;

impl Poller {
    /// Counts the records that an invocation was given.
    pub(super) fn count_sent(
        &mut self,
        lane: usize,
        job: &Job,
        attempt: &Attempt,
        judgement: &Judgement,
    ) {
        let len = job.batch.len();
        let first = self.count_begun(lane, &job.batch);
        let counts = &self.counts;
        counts.add(&counts.invoked, len);
        counts.add(&counts.first_invoked, first);
        if let Some(last) = job.batch.get(len.saturating_sub(1)) {
            let waited = attempt.now.since(last.arrival).as_millis() as usize;
            counts.add(&counts.waited_millis, waited.saturating_mul(first));
        }
        let (failed, message) = match judgement {
            Judgement::Success | Judgement::Throttled(_) => return,
            Judgement::Partial(lowest) => {
                let message = "the handler names records that failed".to_owned();
                (len - lowest.min(&len), message)
            }
            Judgement::Failed(failure) => {
                counts.add(&counts.failed_invocations, 1);
                (len, failure.cause.to_string())
            }
        };
        counts.add(&counts.failed_records, failed);
        counts.set_last_error(self.inner.clock.now(), &message);
    }

    /// How many records of a batch are begun with for the first time.
    pub(super) fn count_begun(&mut self, lane: usize, batch: &Batch) -> usize {
        let begun = self.begun[lane];
        self.begun[lane] = batch.end_position().map_or(begun, |end| end.max(begun));
        let fresh = batch.iter().filter(|record| record.beginning() >= begun);
        fresh.count()
    }
}
