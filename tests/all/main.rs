//! The host as a process, over HTTP: a module per topic.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where it stopped"
)]

mod access_log;
mod cli;
mod compile;
mod crash;
mod delivery;
mod door;
mod failures;
mod host;
mod hostile;
mod operate;
mod poison;
mod reload;
mod reshard;
mod scenarios;
mod shadow;
mod tenants;
mod usage;
