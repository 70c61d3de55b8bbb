//! Kinesis Data Streams over HTTP: a request goes through AWS's checks in AWS's order, then to
//! its operation.
//!
//! Body → target → signature → types → constraints → the operation. The checks before the
//! signature, and how answers look, are [`wire`]; which operations there are is [`operations`];
//! what each takes is a table of [`shape`]s. One operation, one file.

mod account;
mod change;
mod coerce;
mod constraints;
mod create_stream;
mod delete_stream;
mod describe_stream;
mod describe_stream_summary;
mod error;
mod get_records;
mod get_shard_iterator;
mod iterator;
mod list_shards;
mod list_streams;
mod merge_shards;
mod operations;
mod output;
mod page;
mod put;
mod put_record;
mod put_records;
mod reshard;
mod routes;
mod shape;
mod shards;
mod split_shard;
mod starting_number;
mod tags;
mod target;
mod update_shard_count;
mod wire;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use error::Error;
pub(crate) use operations::{OPERATIONS, Support, find};
pub(crate) use output::Output;
pub(crate) use routes::Routes;
pub(crate) use shape::{Input, Member, Shape};
pub(crate) use target::{Target, gone_from};
pub(crate) use wire::{careful, handle, refused, run};

use shardmill_core::UnixMillis;
use shardmill_store::ProducerMark;

use crate::auth::Caller;
use crate::services::Services;

/// One request, as an operation sees it.
pub(crate) struct Call<'a> {
    pub(crate) host: &'a Services,
    pub(crate) caller: Caller,
    /// The operation's name.
    pub(crate) operation: &'static str,
    /// When the request was taken up: what is decided from time is decided from this.
    pub(crate) now: UnixMillis,
    /// What the header `x-shardmill-producer` says.
    pub(crate) producer: Option<ProducerMark>,
}

impl Call<'_> {
    /// Ends a request that was only to be checked.
    ///
    /// # Errors
    /// `DryRunOperationException`, when `input` asks for a dry run.
    pub(crate) fn not_dry(&self, input: &Input) -> Result<(), Error> {
        if input.is_true("DryRun") {
            Err(Error::DryRun)
        } else {
            Ok(())
        }
    }
}
