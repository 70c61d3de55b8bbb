//! A mapping's filter criteria at work: what becomes of a record.

use shardmill_core::RecordRef;
use shardmill_core::mapping::{Policy, Sorted};

/// Compiled filter criteria; none when every record is delivered.
pub(super) struct Filters;

impl Filters {
    pub(super) fn of(_: &Policy) -> Self {
        Self
    }

    pub(super) fn is_empty(&self) -> bool {
        true
    }

    /// Deliver or drop; counts records that were dropped because they are not JSON.
    pub(super) fn sort(&self, _: &RecordRef<'_>, _: &mut usize) -> Sorted {
        Sorted::Deliver
    }
}
