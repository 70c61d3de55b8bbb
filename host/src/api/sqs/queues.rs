//! Operations on queues.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::Call;
use super::attributes::{set, shown};
use super::error::Error;
use crate::delivery::is_queue_name;
use crate::queues::{Attributes, Counts};

/// Most queues of one answer: ListQueues, "MaxResults".
const MAX_LISTED: usize = 1000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Create {
    queue_name: Option<String>,
    #[serde(default)]
    attributes: Option<BTreeMap<String, String>>,
    /// The one member that AWS writes small.
    #[serde(default, rename = "tags")]
    tags: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    queue_name: Option<String>,
    #[serde(rename = "QueueOwnerAWSAccountId")]
    owner: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct At {
    queue_url: Option<String>,
    #[serde(default)]
    attribute_names: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Set {
    queue_url: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct List {
    queue_name_prefix: Option<String>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

pub(super) async fn create(call: &Call<'_>) -> Result<Json, Error> {
    let input: Create = call.input()?;
    let name = input.queue_name.ok_or(Error::Missing("QueueName"))?;
    let given = input.attributes.unwrap_or_default();
    if name.ends_with(".fifo") || given.contains_key("FifoQueue") {
        return Err(Error::Unsupported("FIFO queues are not supported".into()));
    }
    if !is_queue_name(&name) {
        return Err(Error::InvalidParameter(
            "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
                .into(),
        ));
    }
    if input.tags.is_some_and(|tags| !tags.is_empty()) {
        return Err(Error::Unsupported("tags are not supported".into()));
    }
    let mut attributes = Attributes::default();
    set(&mut attributes, &given)?;
    // AWS compares only what is given with a queue that is there.
    if let Ok(found) = call.queues.get(&call.scope, &name) {
        let mut wanted = found.attributes.clone();
        set(&mut wanted, &given)?;
        attributes = wanted;
    }
    let queue = call.queues.create(&call.scope, &name, attributes).await?;
    Ok(json!({ "QueueUrl": call.url(&queue) }))
}

pub(super) async fn get_url(call: &Call<'_>) -> Result<Json, Error> {
    let input: Named = call.input()?;
    let name = input.queue_name.ok_or(Error::Missing("QueueName"))?;
    let own = call.scope.tenant.to_string();
    if input.owner.is_some_and(|owner| owner != own) {
        return Err(Error::NoQueue);
    }
    let queue = call.queues.get(&call.scope, &name)?;
    Ok(json!({ "QueueUrl": call.url(&queue) }))
}

pub(super) async fn list(call: &Call<'_>) -> Result<Json, Error> {
    let input: List = call.input()?;
    let prefix = input.queue_name_prefix.unwrap_or_default();
    let most = input.max_results.unwrap_or(MAX_LISTED);
    if !(1..=MAX_LISTED).contains(&most) {
        return Err(Error::InvalidParameter(format!(
            "Value {most} for parameter MaxResults is invalid. Reason: must be between 1 and \
             {MAX_LISTED}."
        )));
    }
    let mut queues = call.queues.list(&call.scope, &prefix)?;
    // The token is the last name of the page before.
    if let Some(after) = input.next_token {
        queues.retain(|queue| queue.name > after);
    }
    let more = queues.len() > most;
    queues.truncate(most);
    let mut output = Map::new();
    if let Some(last) = queues.last() {
        let urls: Vec<String> = queues.iter().map(|queue| call.url(queue)).collect();
        output.insert("QueueUrls".into(), urls.into());
        // AWS gives a token only to who asked for pages; without it nobody would come for more.
        if more {
            output.insert("NextToken".into(), last.name.clone().into());
        }
    }
    Ok(output.into())
}

pub(super) async fn get_attributes(call: &Call<'_>) -> Result<Json, Error> {
    let input: At = call.input()?;
    let name = call.name(&input.queue_url)?;
    let queue = call.queues.get(&call.scope, name)?;
    let wanted = input.attribute_names.unwrap_or_default();
    if wanted.is_empty() {
        return Ok(json!({}));
    }
    let all_wanted = wanted.iter().any(|name| name == "All");
    // They cost a look at every message.
    let counted = all_wanted || wanted.iter().any(|name| name.starts_with("Approximate"));
    let counts = match counted {
        true => call.queues.counts(&queue)?,
        false => Counts::default(),
    };
    let mut all = shown(&queue.attributes);
    for (name, value) in [
        ("QueueArn", queue.arn()),
        ("ApproximateNumberOfMessages", counts.visible.to_string()),
        (
            "ApproximateNumberOfMessagesNotVisible",
            counts.in_flight.to_string(),
        ),
        (
            "ApproximateNumberOfMessagesDelayed",
            counts.delayed.to_string(),
        ),
        ("CreatedTimestamp", queue.created.seconds().to_string()),
        (
            "LastModifiedTimestamp",
            queue.modified.seconds().to_string(),
        ),
    ] {
        all.insert(name.into(), value.into());
    }
    if !all_wanted {
        if let Some(unknown) = wanted.iter().find(|name| !all.contains_key(*name)) {
            return Err(Error::InvalidAttributeName(unknown.clone()));
        }
        all.retain(|name, _| wanted.contains(name));
    }
    Ok(json!({ "Attributes": all }))
}

pub(super) async fn set_attributes(call: &Call<'_>) -> Result<Json, Error> {
    let input: Set = call.input()?;
    let name = call.name(&input.queue_url)?;
    // All of them are good, or none is taken.
    set(&mut Attributes::default(), &input.attributes)?;
    let change = |attributes: &mut Attributes| {
        // It was good a line above.
        let _ = set(attributes, &input.attributes);
    };
    call.queues
        .set_attributes(&call.scope, name, change)
        .await?;
    Ok(json!({}))
}

pub(super) async fn delete(call: &Call<'_>) -> Result<Json, Error> {
    let input: At = call.input()?;
    let name = call.name(&input.queue_url)?;
    call.queues.delete(&call.scope, name).await?;
    Ok(json!({}))
}

pub(super) async fn purge(call: &Call<'_>) -> Result<Json, Error> {
    let input: At = call.input()?;
    let name = call.name(&input.queue_url)?;
    call.queues.purge(&call.scope, name).await?;
    Ok(json!({}))
}
