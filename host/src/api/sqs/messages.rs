//! Operations on messages.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::Call;
use super::attributes::{Given, answered, digest, digest_of, of_message, size};
use super::error::Error;
use crate::queues::{MessageAttribute, NewMessage, QueueError, Receipt, Received};

/// Most entries of a batch.
const MAX_BATCH: usize = 10;
/// Largest batch, bytes of all its messages.
const MAX_BATCH_BYTES: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Send {
    queue_url: Option<String>,
    #[serde(flatten)]
    message: Entry,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendBatch {
    queue_url: Option<String>,
    #[serde(default)]
    entries: Vec<Entry>,
}

/// A message to be sent; in a batch with an id.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    id: Option<String>,
    message_body: Option<String>,
    delay_seconds: Option<i64>,
    #[serde(default)]
    message_attributes: Option<BTreeMap<String, Given>>,
    message_system_attributes: Option<Map<String, Json>>,
    message_group_id: Option<String>,
    message_deduplication_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Receive {
    queue_url: Option<String>,
    max_number_of_messages: Option<i64>,
    visibility_timeout: Option<i64>,
    wait_time_seconds: Option<i64>,
    #[serde(default)]
    attribute_names: Option<Vec<String>>,
    #[serde(default)]
    message_system_attribute_names: Option<Vec<String>>,
    #[serde(default)]
    message_attribute_names: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Handle {
    queue_url: Option<String>,
    receipt_handle: Option<String>,
    visibility_timeout: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteBatch {
    queue_url: Option<String>,
    #[serde(default)]
    entries: Vec<DeleteEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteEntry {
    id: Option<String>,
    receipt_handle: Option<String>,
}

pub(super) async fn send(call: &Call<'_>) -> Result<Json, Error> {
    let input: Send = call.input()?;
    let name = call.name(&input.queue_url)?;
    let message = message(call, name, input.message)?;
    let told = sent(&message);
    let ids = call.queues.send(&call.scope, name, vec![message]).await?;
    Ok(with_id(told, &ids[0]).into())
}

pub(super) async fn send_batch(call: &Call<'_>) -> Result<Json, Error> {
    let input: SendBatch = call.input()?;
    let name = call.name(&input.queue_url)?;
    let entry_ids = entry_ids("SendMessageBatchRequestEntry", &input.entries, |e| &e.id)?;
    let messages = input.entries.into_iter();
    let messages = messages
        .map(|entry| message(call, name, entry))
        .collect::<Result<Vec<_>, _>>()?;
    let size = messages.iter().map(|m| size(&m.body, &m.attributes)).sum();
    if size > MAX_BATCH_BYTES {
        let allowed = MAX_BATCH_BYTES;
        return Err(Error::LongBatch { size, allowed });
    }
    let told: Vec<_> = messages.iter().map(sent).collect();
    let ids = call.queues.send(&call.scope, name, messages).await?;
    let successful: Vec<Json> = told
        .into_iter()
        .zip(&ids)
        .zip(entry_ids)
        .map(|((told, id), entry_id)| {
            let mut told = with_id(told, id);
            told.insert("Id".into(), entry_id.into());
            told.into()
        })
        .collect();
    Ok(json!({ "Successful": successful, "Failed": [] }))
}

/// The ids of a batch's entries: 1 to 10, apart.
fn entry_ids<T>(
    kind: &'static str,
    entries: &[T],
    id: impl Fn(&T) -> &Option<String>,
) -> Result<Vec<String>, Error> {
    if entries.is_empty() {
        return Err(Error::EmptyBatch(kind));
    }
    if entries.len() > MAX_BATCH {
        return Err(Error::LargeBatch(entries.len()));
    }
    let mut seen = BTreeSet::new();
    let mut ids = Vec::new();
    for entry in entries {
        let id = id(entry).clone().ok_or(Error::Missing("Id"))?;
        if !seen.insert(id.clone()) {
            return Err(Error::RepeatedId(id));
        }
        ids.push(id);
    }
    Ok(ids)
}

fn message(call: &Call<'_>, queue: &str, entry: Entry) -> Result<NewMessage, Error> {
    for (given, what) in [
        (
            entry.message_system_attributes.is_some(),
            "MessageSystemAttributes",
        ),
        (entry.message_group_id.is_some(), "MessageGroupId"),
        (
            entry.message_deduplication_id.is_some(),
            "MessageDeduplicationId",
        ),
    ] {
        if given {
            return Err(Error::Unsupported(format!("{what} is not supported")));
        }
    }
    let body = entry.message_body.ok_or(Error::Missing("MessageBody"))?;
    if body.is_empty() {
        let text = "The request must contain the parameter MessageBody.";
        return Err(Error::InvalidParameter(text.into()));
    }
    let delay = checked("DelaySeconds", entry.delay_seconds, 0..=900)?;
    let attributes = of_message(entry.message_attributes.unwrap_or_default())?;
    let allowed = call.queues.get(&call.scope, queue)?;
    let allowed = allowed.attributes.maximum_message_bytes as usize;
    if size(&body, &attributes) > allowed {
        return Err(Error::InvalidParameter(format!(
            "One or more parameters are invalid. Reason: Message must be shorter than {allowed} \
             bytes."
        )));
    }
    Ok(NewMessage {
        body,
        attributes,
        delay,
    })
}

/// What the sender of a message is told, but for its id.
fn sent(message: &NewMessage) -> Map<String, Json> {
    let mut told = Map::new();
    told.insert("MD5OfMessageBody".into(), digest(&message.body).into());
    let attributes: Vec<&MessageAttribute> = message.attributes.iter().collect();
    if let Some(digest) = digest_of(&attributes) {
        told.insert("MD5OfMessageAttributes".into(), digest.into());
    }
    told
}

fn with_id(mut told: Map<String, Json>, id: &str) -> Map<String, Json> {
    told.insert("MessageId".into(), id.into());
    told
}

pub(super) async fn receive(call: &Call<'_>) -> Result<Json, Error> {
    let input: Receive = call.input()?;
    let name = call.name(&input.queue_url)?;
    let queue = call.queues.get(&call.scope, name)?;
    let most = checked("MaxNumberOfMessages", input.max_number_of_messages, 1..=10)?.unwrap_or(1);
    let hidden = checked("VisibilityTimeout", input.visibility_timeout, 0..=43_200)?;
    let wait = checked("WaitTimeSeconds", input.wait_time_seconds, 0..=20)?;
    let wait = wait.unwrap_or(queue.attributes.receive_wait_seconds);
    let wait = Duration::from_secs(wait.into());
    let received = call
        .queues
        .receive(&call.scope, name, most as usize, hidden, wait)
        .await?;
    if received.is_empty() {
        return Ok(json!({}));
    }
    let mut system = input.attribute_names.unwrap_or_default();
    system.extend(input.message_system_attribute_names.unwrap_or_default());
    let attributes = input.message_attribute_names.unwrap_or_default();
    let messages: Vec<Json> = received
        .iter()
        .map(|one| shown(call, one, &system, &attributes))
        .collect();
    Ok(json!({ "Messages": messages }))
}

/// A message that was received, with those attributes that were asked for.
fn shown(call: &Call<'_>, received: &Received, system: &[String], asked: &[String]) -> Json {
    let message = &received.message;
    let mut shown = json!({
        "MessageId": received.id,
        "ReceiptHandle": received.receipt.to_string(),
        "MD5OfBody": digest(&message.body),
        "Body": message.body,
    });
    let first = message.first_received.unwrap_or(message.sent);
    let known = [
        ("SenderId", call.scope.tenant.to_string()),
        ("SentTimestamp", message.sent.0.to_string()),
        ("ApproximateReceiveCount", message.receives.to_string()),
        ("ApproximateFirstReceiveTimestamp", first.0.to_string()),
    ];
    let wanted = |name: &str| system.iter().any(|s| s == "All" || s == name);
    let known: Map<String, Json> = known
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    if !known.is_empty() {
        shown["Attributes"] = known.into();
    }
    let wanted = |attribute: &&MessageAttribute| {
        asked
            .iter()
            .any(|pattern| match pattern.strip_suffix(".*") {
                Some(prefix) => attribute.name.starts_with(prefix),
                None => pattern == "All" || *pattern == attribute.name,
            })
    };
    let attributes: Vec<&MessageAttribute> = message.attributes.iter().filter(wanted).collect();
    if let Some(digest) = digest_of(&attributes) {
        shown["MD5OfMessageAttributes"] = digest.into();
        let all = attributes.iter().map(|a| (a.name.clone(), answered(a)));
        shown["MessageAttributes"] = all.collect::<Map<_, _>>().into();
    }
    shown
}

pub(super) async fn delete(call: &Call<'_>) -> Result<Json, Error> {
    let input: Handle = call.input()?;
    let name = call.name(&input.queue_url)?;
    let receipts = [receipt(input.receipt_handle)?];
    let deleted = call.queues.delete_messages(&call.scope, name, &receipts);
    if deleted.await?.contains(&false) {
        return Err(Error::BadReceipt);
    }
    Ok(json!({}))
}

pub(super) async fn delete_batch(call: &Call<'_>) -> Result<Json, Error> {
    let input: DeleteBatch = call.input()?;
    let name = call.name(&input.queue_url)?;
    let ids = entry_ids("DeleteMessageBatchRequestEntry", &input.entries, |e| &e.id)?;
    let (mut receipts, mut of) = (Vec::new(), Vec::new());
    let mut failed = Vec::new();
    for (entry, id) in input.entries.into_iter().zip(ids) {
        match receipt(entry.receipt_handle) {
            Ok(receipt) => {
                receipts.push(receipt);
                of.push(id);
            }
            Err(error) => failed.push(not_deleted(&id, &error)),
        }
    }
    let deleted = call.queues.delete_messages(&call.scope, name, &receipts);
    let mut successful = Vec::new();
    for (is_own, id) in deleted.await?.into_iter().zip(of) {
        match is_own {
            true => successful.push(json!({ "Id": id })),
            false => failed.push(not_deleted(&id, &Error::BadReceipt)),
        }
    }
    Ok(json!({ "Successful": successful, "Failed": failed }))
}

fn not_deleted(id: &str, error: &Error) -> Json {
    let told = error.told();
    json!({
        "Id": id,
        "Code": told.query_code,
        "Message": told.message,
        "SenderFault": told.status.is_client_error(),
    })
}

pub(super) async fn change_visibility(call: &Call<'_>) -> Result<Json, Error> {
    let input: Handle = call.input()?;
    let name = call.name(&input.queue_url)?;
    let hidden = checked("VisibilityTimeout", input.visibility_timeout, 0..=43_200)?;
    let hidden = hidden.ok_or(Error::Missing("VisibilityTimeout"))?;
    let receipt = receipt(input.receipt_handle)?;
    call.queues
        .change_visibility(&call.scope, name, &receipt, hidden)
        .await?;
    Ok(json!({}))
}

fn receipt(handle: Option<String>) -> Result<Receipt, Error> {
    let handle = handle.ok_or(Error::Missing("ReceiptHandle"))?;
    Ok(handle.parse().map_err(|error: QueueError| error)?)
}

/// A number in its range.
fn checked(
    name: &str,
    value: Option<i64>,
    range: RangeInclusive<i64>,
) -> Result<Option<u32>, Error> {
    match value {
        Some(n) if !range.contains(&n) => Err(Error::InvalidParameter(format!(
            "Value {n} for parameter {name} is invalid. Reason: Must be between {} and {}, if \
             provided.",
            range.start(),
            range.end()
        ))),
        value => Ok(value.map(|n| n as u32)),
    }
}
