//! Scenarios: tests of a handler under the host's own mapping machinery, on simulated time.
//!
//! A file names a module, its settings, streams, what is put when, and what must have come of it.
//! It is run with the real pollers, the real rules and the real sandbox over a store in memory;
//! only the clock and the ids are not real, so that two runs are alike. `docs/scenarios.md`.

mod action;
mod cached;
mod check;
mod data;
mod error;
mod expect;
mod facts;
mod judge;
mod lines;
mod machine;
mod report;
mod run;
mod simulated;
mod span;
mod table;
mod tenants;
#[cfg(test)]
mod tests;
mod world;

pub use cached::Cached;
pub use check::Scenario;
pub use error::BadScenario;
pub use report::{Figures, Mismatch, Report};
pub use tenants::MAX_TENANTS;
