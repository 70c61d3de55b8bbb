//! DeleteStream: a stream that is DELETING for a moment, then gone with its records.
//!
//! Deleting takes as long as creating; the [janitor](crate::janitor) ends it. Deleting again in
//! between succeeds and changes nothing.

use shardmill_core::Stream;
use shardmill_store::Urgency;

use super::change::change;
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
    change(call, &target, Urgency::Housekeeping, |stream, now| {
        let begun = stream.deleted.is_some();
        Ok((!begun).then(|| Stream {
            deleted: Some(now),
            ..stream.clone()
        }))
    })
    .await?;
    Ok(Output::default())
}
