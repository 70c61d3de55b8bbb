//! Everything of Shardmill that talks to the world: HTTP, the mapping loop, the command line.

pub mod api;
pub(crate) mod auth;
pub mod clock;
pub mod functions;
pub mod janitor;
pub mod manifest;
pub mod mapping;
pub(crate) mod seal;
pub mod server;
pub mod services;
pub(crate) mod timestamp;
pub mod workloads;
