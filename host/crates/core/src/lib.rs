//! The rules of Shardmill, as pure functions of values: what a record, a shard and a sequence
//! number are, how a batch is cut and encoded, and what follows from an invocation's outcome.
//!
//! Nothing here reads a clock, does I/O, sleeps or knows a runtime. Callers hand in `now`.
#![warn(missing_docs)]

pub mod abi;
pub mod admission;
pub mod aggregate;
pub mod batch;
pub mod block;
pub mod effects;
pub mod event;
pub mod fair;
pub mod hash_key;
pub mod limits;
pub mod mapping;
pub mod outcome;
pub mod quotas;
pub mod reshard;
pub mod sandbox;
pub mod sequence;
pub mod shard;
pub mod stream;
pub mod tenant;
pub mod time;
pub mod timestamp;

pub use batch::{Batch, BatchContext, Slice};
pub use block::{Block, RecordRef, Records};
pub use hash_key::{HashKey, HashKeyRange};
pub use outcome::Outcome;
pub use sandbox::Sandbox;
pub use sequence::SequenceNumber;
pub use shard::{Shard, ShardId, ShardKey};
pub use stream::{Stream, StreamId, StreamName};
pub use tenant::{Region, Scope, TenantId};
pub use time::UnixMillis;
