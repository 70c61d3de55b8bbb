//! Everything of Shardmill that talks to the world: HTTP, the mapping loop, the command line.

pub mod api;
pub(crate) mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod functions;
#[doc(hidden)]
pub mod fuzzing;
pub mod janitor;
pub mod manifest;
pub mod mapping;
pub mod queues;
pub mod scenario;
pub(crate) mod seal;
pub mod secrets;
pub mod serve;
pub mod server;
pub mod services;
pub mod tenancy;
pub(crate) use shardmill_core::timestamp;
pub mod usage;
pub mod workloads;
