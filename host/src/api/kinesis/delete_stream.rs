//! DeleteStream: a stream that is DELETING for a moment, then gone with its records.
//!
//! Deleting takes as long as creating; the [janitor](crate::janitor) ends it. Deleting again in
//! between succeeds and changes nothing.

use shardmill_core::Stream;
use shardmill_store::{CommitError, StreamChange, Tx, Urgency};

use super::shape::{NAME, STREAM_ARN};
use super::{Call, Error, Input, Member, Output, Shape, Target};

pub(crate) const MEMBERS: &[Member] = &[
    Member::optional("StreamName", &NAME),
    Member::optional("EnforceConsumerDeletion", &Shape::Boolean),
    Member::optional("StreamARN", &STREAM_ARN),
];

/// Begins a stream's deletion.
///
/// # Errors
/// See the operation's reference.
pub(crate) async fn run(call: &Call<'_>, input: Input) -> Result<Output, Error> {
    let target = Target::of(call, &input)?;
    let _control = call.host.control.lock().await;
    let stream = target.stream(call)?;
    if stream.deleted.is_some() {
        return Ok(Output::default());
    }
    let deleted = Stream {
        deleted: Some(call.now),
        ..Stream::clone(&stream)
    };
    let tx = Tx {
        streams: vec![StreamChange::Update(Box::new(deleted))],
        urgency: Urgency::Housekeeping,
        ..Tx::default()
    };
    match call.host.store.commit(tx).await {
        Ok(_) => Ok(Output::default()),
        Err(CommitError::NoSuchStream(_)) => Err(target.not_found()),
        Err(error) => Err(error.into()),
    }
}
