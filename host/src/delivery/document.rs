//! What a destination is told: AWS's invocation record, to the byte, and the object's form of it
//! with the records.
//!
//! Rules: Lambda developer guide, "Configure destinations for failed invocations" of Kinesis
//! sources; member order and values as recorded from AWS. Where our reasons are not AWS's, the
//! choice is here: see [`Condition`].

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use shardmill_core::event::{EventSource, EventWindow};
use shardmill_core::mapping::Reason;
use shardmill_core::{Batch, Scope, UnixMillis};

use crate::timestamp;

/// The version that an unqualified function runs as, in AWS's words.
const LATEST: &str = "$LATEST";

/// Records that were given up, and all that is told of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GivenUp<'a> {
    /// The failure entry's id: the stable id of the delivery.
    pub(crate) id: &'a str,
    /// Account and region.
    pub(crate) scope: &'a Scope,
    /// The mapping's name.
    pub(crate) mapping: &'a str,
    /// The mapping's UUID.
    pub(crate) mapping_id: &'a str,
    /// The function's name.
    pub(crate) function: &'a str,
    /// The stream's name.
    pub(crate) stream: &'a str,
    /// The shard.
    pub(crate) shard: &'a str,
    /// Why.
    pub(crate) reason: Reason,
    /// Whether the last attempt ended in a function error; a partial answer does not.
    pub(crate) function_error: bool,
    /// The request id of the last attempt.
    pub(crate) request_id: &'a str,
    /// How often a handler was run on them.
    pub(crate) invocations: u32,
    /// The records; empty for the final invocation of a window, which has none.
    pub(crate) batch: &'a Batch,
    /// Now.
    pub(crate) now: UnixMillis,
    /// The tumbling window that they belong to.
    pub(crate) window: Option<&'a EventWindow>,
}

/// AWS's word for a reason, and what it says of the last response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Condition {
    name: &'static str,
    /// `None`: no `responseContext`; otherwise `functionError`.
    response: Option<Option<&'static str>>,
}

impl Condition {
    /// `None`: AWS does not report it.
    fn of(reason: Reason, function_error: bool) -> Option<Self> {
        const EXHAUSTED: &str = "RetryAttemptsExhausted";
        let (name, response) = match reason {
            Reason::RetryAttemptsExhausted if function_error => {
                (EXHAUSTED, Some(Some("Unhandled")))
            }
            Reason::RetryAttemptsExhausted => (EXHAUSTED, Some(None)),
            Reason::RecordAgeExceeded => ("RecordAgeExceeded", None),
            // AWS retries it without ever running a handler, then says this.
            Reason::RecordTooLarge => (EXHAUSTED, None),
            // Ours alone: to a reader the handler failed, as by a runtime that exits.
            Reason::ProcessDied => (EXHAUSTED, Some(Some("Unhandled"))),
            // Retention's losses are no business of a destination on AWS; the failure store has them.
            Reason::Expired => return None,
        };
        Some(Self { name, response })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    request_context: RequestContext<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_context: Option<ResponseContext>,
    version: &'static str,
    timestamp: String,
    #[serde(rename = "KinesisBatchInfo")]
    batch: BatchInfo<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_window_info: Option<WindowInfo>,
}

/// AWS shows no example with a window; the members are those of its events.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WindowInfo {
    window: Window,
    is_final_invoke_for_window: bool,
    is_window_terminated_early: bool,
}

#[derive(Serialize)]
struct Window {
    start: String,
    end: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'a> {
    request_id: &'a str,
    function_arn: String,
    condition: &'static str,
    approximate_invoke_count: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseContext {
    status_code: u16,
    executed_version: &'static str,
    function_error: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchInfo<'a> {
    shard_id: &'a str,
    #[serde(flatten)]
    records: Option<RecordsInfo>,
    stream_arn: String,
}

/// Absent where no record was given up.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordsInfo {
    start_sequence_number: String,
    end_sequence_number: String,
    approximate_arrival_of_first_record: String,
    approximate_arrival_of_last_record: String,
    batch_size: usize,
}

impl RecordsInfo {
    fn of(batch: &Batch) -> Option<Self> {
        let first = batch.get(0)?;
        let last = batch.get(batch.len() - 1)?;
        Some(Self {
            start_sequence_number: first.sequence_number().to_string(),
            end_sequence_number: last.sequence_number().to_string(),
            approximate_arrival_of_first_record: timestamp::format(first.arrival),
            approximate_arrival_of_last_record: timestamp::format(last.arrival),
            batch_size: batch.len(),
        })
    }
}

impl WindowInfo {
    fn of(window: &EventWindow) -> Self {
        // Windows begin and end at whole seconds.
        let instant = |at| timestamp::format(at).replace(".000Z", "Z");
        Self {
            window: Window {
                start: instant(window.start),
                end: instant(window.end),
            },
            is_final_invoke_for_window: window.is_final,
            is_window_terminated_early: window.ended_early,
        }
    }
}

/// The record, as JSON. `None` where AWS reports nothing: records that retention has trimmed.
pub(crate) fn document(given_up: &GivenUp<'_>) -> Option<Box<RawValue>> {
    let condition = Condition::of(given_up.reason, given_up.function_error)?;
    let Scope { tenant, region } = given_up.scope;
    let (function, stream) = (given_up.function, given_up.stream);
    let document = Document {
        request_context: RequestContext {
            request_id: given_up.request_id,
            function_arn: format!("arn:aws:lambda:{region}:{tenant}:function:{function}"),
            condition: condition.name,
            // AWS says 1 of records that were never run, too.
            approximate_invoke_count: given_up.invocations.max(1),
        },
        response_context: condition.response.map(|function_error| ResponseContext {
            status_code: 200,
            executed_version: LATEST,
            function_error,
        }),
        version: "1.0",
        timestamp: timestamp::format(given_up.now),
        batch: BatchInfo {
            shard_id: given_up.shard,
            records: RecordsInfo::of(given_up.batch),
            stream_arn: format!("arn:aws:kinesis:{region}:{tenant}:stream/{stream}"),
        },
        time_window_info: given_up.window.map(WindowInfo::of),
    };
    serde_json::value::to_raw_value(&document).ok()
}

/// The object's form: the same members, and behind them `payload`: the whole event as a text.
/// Without it where the records are gone.
pub(crate) fn with_payload(
    document: &RawValue,
    scope: &Scope,
    stream: &str,
    batch: Option<&Batch>,
) -> Bytes {
    let text = document.get();
    let (Some(batch), Some(open)) = (batch, text.strip_suffix('}')) else {
        return Bytes::from(text.to_owned());
    };
    let event = EventSource::new(scope, stream).event(batch);
    let quotes = event.iter().filter(|c| matches!(c, b'"' | b'\\')).count();
    let around = open.len() + ",\"payload\":\"\"}".len();
    let mut object = Vec::with_capacity(around + event.len() + quotes);
    object.extend_from_slice(open.as_bytes());
    object.extend_from_slice(b",\"payload\":");
    // Escaped where it lands: an event may have many megabytes. Writing to memory cannot fail.
    let event = String::from_utf8_lossy(&event);
    let _ = serde_json::to_writer(&mut object, &event);
    object.push(b'}');
    object.into()
}

/// The object's key: mapping, shard, day, second, and the delivery's id.
pub(crate) fn object_key(mapping_id: &str, shard: &str, at: UnixMillis, id: &str) -> String {
    let text = timestamp::format(at);
    let (date, time) = text.split_at_checked(10).unwrap_or((&text, ""));
    let days = date.replace('-', "/");
    let time = time.get(1..9).unwrap_or_default().replace(':', ".");
    format!("aws/lambda/{mapping_id}/{shard}/{days}/{date}T{time}-{id}")
}

#[cfg(test)]
mod tests;
