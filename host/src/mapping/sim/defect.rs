//! Defects that can be planted in the shell, one at a time: what the simulator is tested with. The
//! hooks are single lines in the pollers and the supervisor, and are not there outside tests.

use std::sync::atomic::Ordering::SeqCst;

use shardmill_core::Batch;
use shardmill_core::effects::{CounterAdd, Effects, StateWrite, Tag};
use shardmill_core::mapping::{Cursor, Part, Policy};
use shardmill_store::{Expect, Key, Tx};

use crate::mapping::resource::Inner;

/// A defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mapping) enum Defect {
    ProgressBeforeEffects,
    DoneRangeForgotten,
    WrongHalfFirst,
    LostSuffix,
    LanesMeetTooEarly,
    ChildBeforeParent,
    RetryBudgetOffByOne,
    StateCommittedOnFailure,
    AgeOfTheBatch,
    WindowClosedTwice,
    ParkReorders,
    BisectNeverSplits,
    AttemptsForgotten,
}

impl Defect {
    pub(in crate::mapping) const ALL: [Self; 13] = [
        Self::ProgressBeforeEffects,
        Self::DoneRangeForgotten,
        Self::WrongHalfFirst,
        Self::LostSuffix,
        Self::LanesMeetTooEarly,
        Self::ChildBeforeParent,
        Self::RetryBudgetOffByOne,
        Self::StateCommittedOnFailure,
        Self::AgeOfTheBatch,
        Self::WindowClosedTwice,
        Self::ParkReorders,
        Self::BisectNeverSplits,
        Self::AttemptsForgotten,
    ];
}

/// State and counters.
type Leaked = (Vec<(Tag, StateWrite)>, Vec<(Tag, CounterAdd)>);

impl Inner {
    /// Whether a defect is planted.
    pub(in crate::mapping) fn has(&self, defect: Defect) -> bool {
        self.defect.get() == Some(&defect)
    }

    /// Commits the cursor of a transaction alone, and leaves the rest for later.
    pub(in crate::mapping) async fn progress_first(&self, tx: Tx, cursor: &Key) -> Tx {
        if !self.has(Defect::ProgressBeforeEffects) {
            return tx;
        }
        let early = Tx {
            writes: tx
                .writes
                .iter()
                .filter(|(key, _)| key == cursor)
                .cloned()
                .collect(),
            ..Tx::default()
        };
        self.store.commit(early).await.ok();
        let mut rest = tx;
        let is_cursor = |e: &Expect| matches!(e, Expect::Revision(key, _) if key == cursor);
        rest.expect.retain(|e| !is_cursor(e));
        rest
    }

    /// What a lane has done above the lowest mark is not remembered.
    pub(in crate::mapping) fn forget_marks(&self, cursor: &mut Cursor) {
        if self.has(Defect::DoneRangeForgotten) {
            let low = cursor.low();
            let done = cursor.lanes.iter_mut().filter(|lane| lane.parts.is_empty());
            done.for_each(|lane| lane.mark = low);
        }
    }

    /// Batches are retried whole.
    pub(in crate::mapping) fn without_bisect(&self, policy: &Policy) -> Policy {
        let mut policy = policy.clone();
        policy.bisect_batch_on_function_error &= !self.has(Defect::BisectNeverSplits);
        policy
    }

    /// Attempts of parts begin anew with each start.
    pub(in crate::mapping) fn forget_attempts(&self, cursor: &mut Cursor) {
        if self.has(Defect::AttemptsForgotten) {
            let parts = cursor.lanes.iter_mut().flat_map(|lane| &mut lane.parts);
            parts.for_each(|part| part.attempts = 0);
        }
    }

    /// The parts that a failed batch leaves: out of order, or without the last.
    pub(in crate::mapping) fn spoil_parts(&self, parts: &mut Vec<Part>) {
        if parts.len() > 1 && self.has(Defect::WrongHalfFirst) {
            parts.swap(0, 1);
        }
        if parts.len() > 1 && self.has(Defect::LostSuffix) {
            parts.pop();
        }
    }

    /// What a failed batch did and must not be kept. Emits are left out: one that the host
    /// refused would never be committed.
    pub(in crate::mapping) fn leak(&self, effects: &Effects) -> Option<Leaked> {
        let leaked = || (effects.state.clone(), effects.counters.clone());
        self.has(Defect::StateCommittedOnFailure).then(leaked)
    }

    /// Lanes change their number where they stand.
    pub(in crate::mapping) fn force_lanes(&self, cursor: &mut Cursor, count: u32) {
        let count = count as usize;
        if self.has(Defect::LanesMeetTooEarly) && cursor.lanes.len() != count {
            let lane = shardmill_core::mapping::Lane::at(cursor.high());
            cursor.lanes.resize(count, lane);
        }
    }

    /// How many records of a batch are too old when the first is taken for all.
    pub(in crate::mapping) fn expired_in(&self, batch: &Batch, expired: usize) -> usize {
        match expired > 0 && self.has(Defect::AgeOfTheBatch) {
            true => batch.len(),
            false => expired,
        }
    }

    /// A window that is closed stays open, once.
    pub(in crate::mapping) fn keep_window(&self, cursor: &mut Cursor, before: &Cursor) {
        let closes = cursor.window.is_none() && before.window.is_some();
        if closes && self.has(Defect::WindowClosedTwice) && !self.defect_fired.swap(true, SeqCst) {
            cursor.window.clone_from(&before.window);
        }
    }
}
