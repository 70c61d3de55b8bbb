//! Event source mappings: what is stored of one, and the loop that runs it.
//!
//! [`Mappings`] makes, changes and shows mappings; its supervisor keeps one poller per mapping
//! and shard. The rules are `shardmill_core::mapping`'s.

mod commit;
mod failures;
mod filters;
mod in_flight;
mod metrics;
mod parked;
mod poller;
mod resource;
mod source;
mod supervisor;
#[cfg(test)]
mod tests;

pub use failures::{FailureEntry, FailureFilter, Failures, FailuresError, RedriveOutcome};
pub use metrics::{MappingMetrics, MetricsSnapshot};
pub use parked::ParkedKey;
pub use resource::{
    CreateMapping, Mapping, MappingError, MappingState, MappingView, Mappings, Origin, ShardView,
    UpdateMapping,
};
