//! Lambda's partial batch response: which records a JSON response names as failed.
//!
//! Rules: Lambda developer guide, "Configuring partial batch response with Kinesis Data Streams
//! and Lambda"; the lenient cases as recorded from AWS.

use std::collections::HashMap;

use serde_json::Value;

use crate::batch::Batch;
use crate::sequence::SequenceNumber;

/// What a response says about its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemFailures {
    /// Nothing failed.
    None,
    /// These records failed, as indices in the batch; at least one.
    Records(Vec<u32>),
    /// An item that names no record of the batch: the whole batch failed. The text says which.
    Malformed(String),
}

/// Reads `batchItemFailures` of a response to `batch`.
///
/// Inner records of an aggregate share a sequence number: it names the first of them in the
/// batch, so that none of those it could mean is taken for done.
///
/// A response without that member, or one that is no object, is success, as AWS has it.
pub fn read_item_failures(response: &str, batch: &Batch) -> ItemFailures {
    let Ok(Value::Object(mut members)) = serde_json::from_str::<Value>(response) else {
        return ItemFailures::None;
    };
    let items = match members.remove("batchItemFailures") {
        None | Some(Value::Null) => return ItemFailures::None,
        Some(Value::Array(items)) if items.is_empty() => return ItemFailures::None,
        Some(Value::Array(items)) => items,
        Some(other) => {
            return ItemFailures::Malformed(format!("batchItemFailures is no list: {other}"));
        }
    };
    let mut indices: HashMap<SequenceNumber, u32> = HashMap::with_capacity(batch.len());
    for (record, index) in batch.iter().zip(0..) {
        indices.entry(record.sequence_number()).or_insert(index);
    }
    let mut failed = Vec::with_capacity(items.len());
    for item in items {
        let number = item.get("itemIdentifier").and_then(Value::as_str);
        match number
            .and_then(|text| text.parse().ok())
            .and_then(|n| indices.get(&n))
        {
            Some(index) => failed.push(*index),
            None => {
                return ItemFailures::Malformed(format!(
                    "batchItemFailures names no record of the batch: {item}"
                ));
            }
        }
    }
    ItemFailures::Records(failed)
}
