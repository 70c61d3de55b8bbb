//! The table that dispatches: every operation of the API, with what runs it, or that it is not
//! there. `docs/parity.md` is made from it.

use serde_json::Value as Json;
use shardmill_core::sandbox::BoxFuture;

use super::error::Error;
use super::{Call, messages, queues};

/// Runs an operation.
pub(crate) type Run = for<'a> fn(&'a Call<'a>) -> BoxFuture<'a, Result<Json, Error>>;

/// An operation of the API.
pub(crate) struct Operation {
    /// Its name in `X-Amz-Target`.
    pub(crate) name: &'static str,
    /// What runs it; `None`: it is not there.
    pub(crate) run: Option<Run>,
    /// What differs from AWS, for `docs/parity.md`.
    pub(crate) note: &'static str,
}

/// What runs the operation with this name.
pub(super) fn find(name: &str) -> Result<Run, Error> {
    let operation = OPERATIONS.iter().find(|operation| operation.name == name);
    let operation = operation.ok_or_else(|| Error::UnknownOperation(name.into()))?;
    operation.run.ok_or_else(|| {
        Error::Unsupported(format!(
            "{name} is not supported yet: docs/parity.md lists what is"
        ))
    })
}

const fn yes(name: &'static str, run: Run, note: &'static str) -> Operation {
    Operation {
        name,
        run: Some(run),
        note,
    }
}

const fn no(name: &'static str) -> Operation {
    Operation {
        name,
        run: None,
        note: "",
    }
}

/// Every operation of the API, in the order of the reference.
pub(crate) static OPERATIONS: &[Operation] = &[
    no("AddPermission"),
    no("CancelMessageMoveTask"),
    yes(
        "ChangeMessageVisibility",
        |call| Box::pin(messages::change_visibility(call)),
        "",
    ),
    no("ChangeMessageVisibilityBatch"),
    yes(
        "CreateQueue",
        |call| Box::pin(queues::create(call)),
        "Standard queues. Attributes: `VisibilityTimeout`, `MessageRetentionPeriod`, \
         `DelaySeconds`, `ReceiveMessageWaitTimeSeconds`, `MaximumMessageSize`; others, and tags, \
         are refused.",
    ),
    yes("DeleteMessage", |call| Box::pin(messages::delete(call)), ""),
    yes(
        "DeleteMessageBatch",
        |call| Box::pin(messages::delete_batch(call)),
        "",
    ),
    yes(
        "DeleteQueue",
        |call| Box::pin(queues::delete(call)),
        "At once; the name is free at once.",
    ),
    yes(
        "GetQueueAttributes",
        |call| Box::pin(queues::get_attributes(call)),
        "The numbers of messages are exact.",
    ),
    yes("GetQueueUrl", |call| Box::pin(queues::get_url(call)), ""),
    no("ListDeadLetterSourceQueues"),
    no("ListMessageMoveTasks"),
    no("ListQueueTags"),
    yes("ListQueues", |call| Box::pin(queues::list(call)), ""),
    yes(
        "PurgeQueue",
        |call| Box::pin(queues::purge(call)),
        "At once, and as often as you like.",
    ),
    yes(
        "ReceiveMessage",
        |call| Box::pin(messages::receive(call)),
        "Messages come in the order in which they were sent, as far as they are visible. No limit \
         on messages in flight.",
    ),
    no("RemovePermission"),
    yes(
        "SendMessage",
        |call| Box::pin(messages::send(call)),
        "Without `MessageSystemAttributes`, `MessageGroupId` and `MessageDeduplicationId`.",
    ),
    yes(
        "SendMessageBatch",
        |call| Box::pin(messages::send_batch(call)),
        "All or nothing: `Failed` is always empty. Otherwise as SendMessage.",
    ),
    yes(
        "SetQueueAttributes",
        |call| Box::pin(queues::set_attributes(call)),
        "The attributes of CreateQueue.",
    ),
    no("StartMessageMoveTask"),
    no("TagQueue"),
    no("UntagQueue"),
];
