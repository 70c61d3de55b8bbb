//! Everything of Shardmill that talks to the world: HTTP, the mapping loop, the command line.

pub mod clock;
pub mod functions;
pub mod mapping;
