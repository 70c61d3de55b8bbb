//! The commands of `poison`, in event mode: on Lambda's event for a batch of Kinesis records, or
//! on a JSON string that holds one command.
//!
//! `fail` puts the record's sequence number into `batchItemFailures`. There is no keyed state in
//! event mode.

#[path = "../../poison/src/command.rs"]
mod command;

use serde::{Deserialize, Serialize};
use shardmill_guest::{Context, Error};

use crate::command::Verdict;

shardmill_guest::handler!(event: on_event);

/// What this handler takes.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Event {
    /// One command, by hand.
    Command(String),
    /// A batch.
    Batch {
        /// In order.
        #[serde(rename = "Records")]
        records: Vec<EventRecord>,
    },
}

/// A record of Lambda's event.
#[derive(Deserialize)]
pub struct EventRecord {
    kinesis: Kinesis,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kinesis {
    partition_key: String,
    sequence_number: String,
    /// Base64.
    data: String,
}

/// Lambda's partial batch response.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    batch_item_failures: Vec<ItemFailure>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ItemFailure {
    item_identifier: String,
}

/// The handler.
pub fn on_event(event: Event, ctx: &mut Context) -> Result<Response, Error> {
    let records = match event {
        Event::Command(text) => {
            command::run(&text, "key", ctx)?;
            return Ok(Response::default());
        }
        Event::Batch { records } => records,
    };
    let mut response = Response::default();
    for EventRecord { kinesis } in records {
        let text = String::from_utf8(base64(&kinesis.data)?)?;
        match command::run(&text, &kinesis.partition_key, ctx)? {
            Verdict::Done => {}
            Verdict::Failed => response.batch_item_failures.push(ItemFailure {
                item_identifier: kinesis.sequence_number,
            }),
        }
    }
    Ok(response)
}

/// Reads the standard alphabet of RFC 4648, padding included.
fn base64(text: &str) -> Result<Vec<u8>, Error> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let sextet = ALPHABET.iter().position(|&letter| letter == byte);
        bits = bits << 6 | sextet.ok_or_else(|| Error::new("NotBase64", text))? as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shardmill_guest::testing::run_event;

    use super::*;

    #[test]
    fn a_batch_in_lambdas_form_is_answered_in_lambdas_form() {
        let record = |number: &str, data: &str| json!({"kinesis": {"partitionKey": "k", "sequenceNumber": number, "data": data}});
        let event = json!({"Records": [record("7", "b2s="), record("8", "ZmFpbA==")]});
        let outcome = run_event(on_event, &event);
        let expected = json!({"batchItemFailures": [{"itemIdentifier": "8"}]});
        assert_eq!(outcome.response, Some(expected));
        assert_eq!(outcome.counters["done"], 1);

        let outcome = run_event(on_event, &json!("error"));
        assert_eq!(outcome.error.expect("an error").error_type(), "Commanded");
    }
}
