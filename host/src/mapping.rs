//! Event source mappings: what is stored of one, and the loop that runs it.
//!
//! [`Mappings`] makes, changes and shows mappings; its supervisor keeps one poller per mapping
//! and shard. The rules are `shardmill_core::mapping`'s.

mod commit;
mod differences;
mod dry_run;
mod failures;
mod fates;
mod filters;
mod ids;
mod in_flight;
mod metrics;
mod operate;
mod parked;
mod poller;
mod release;
mod resource;
mod rollouts;
mod shadow;
#[cfg(test)]
mod sim;
mod source;
mod supervisor;
#[cfg(test)]
mod tests;
mod view;

pub use dry_run::{
    DEFAULT_DRY_RUN_RECORDS, DryRunError, DryRunPage, DryRunRequest, MAX_DRY_RUN_RECORDS,
};
pub use failures::{
    BadBundle, Difference, FIND_LINES, FailureBounds, FailureEntry, FailureFilter, Failures,
    FailuresError, Imported, Kept, Line, Page, RedriveOutcome, Redriven, Replay, Replayed, Room,
    find_lines,
};
pub use fates::{Fate, FatesError, Placed};
pub use ids::{Ids, Numbers};
pub use metrics::{LastError, MappingMetrics, MetricsSnapshot, ShardMetrics};
pub use operate::{RewindOptions, RewindTo};
pub use parked::{ParkedKey, Release};
pub use resource::{CreateMapping, Mapping, MappingError, Mappings, Origin, UpdateMapping};
pub use rollouts::{RollBackView, TrialView};
pub use shadow::{
    DroppedBatches, ShadowDifference, ShadowFigures, ShadowProblem, ShadowReport, ShadowSide,
    VersionPair,
};
pub use view::{LaneView, MappingState, MappingView, ShardState, ShardView, VersionView};
