//! A mapping's filter criteria at work: what becomes of a record.

use shardmill_core::RecordRef;
use shardmill_core::mapping::{FilterCriteria, Policy, Sorted, Verdict};

/// Compiled filter criteria; none when every record is delivered.
pub(super) struct Filters(FilterCriteria);

impl Filters {
    /// The mapping's. They were checked when they were set, so what does not compile is damage.
    pub(super) fn of(policy: &Policy) -> Result<Self, String> {
        let compiled = FilterCriteria::compile(&policy.filter_criteria);
        compiled
            .map(Self)
            .map_err(|bad| format!("its filters are damaged: {bad}"))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Deliver or drop.
    pub(super) fn sort(&self, record: &RecordRef<'_>) -> Sorted {
        match self.0.check(record) {
            Verdict::Match => Sorted::Deliver,
            Verdict::NoMatch => Sorted::Drop,
            Verdict::NotJson => Sorted::NotJson,
        }
    }
}
