//! Lambda's JSON event for a batch of Kinesis records: its exact text, and how long it will be.
//!
//! Rules: Lambda developer guide, "Process Amazon Kinesis Data Streams records with Lambda";
//! member order as recorded from AWS.

use std::fmt::Write;

use bytes::Bytes;

use crate::batch::Batch;
use crate::block::RecordRef;
use crate::shard::ShardId;
use crate::tenant::Scope;
use crate::time::UnixMillis;
use crate::timestamp;

/// Bytes of an event without its records: `{"Records":[]}`.
pub const EMPTY_EVENT_BYTES: usize = 14;

/// The tumbling window of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventWindow {
    /// Its beginning.
    pub start: UnixMillis,
    /// Its end, exclusive.
    pub end: UnixMillis,
    /// The state that its last invocation returned, JSON; empty at its beginning.
    pub state: String,
    /// Whether this is its last invocation.
    pub is_final: bool,
    /// Whether it ends before its time, because its state is too large.
    pub ended_early: bool,
}

/// What every record of a mapping's events says the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSource {
    region: String,
    arn: String,
    role: String,
}

impl EventSource {
    /// The source for a stream; the role is the one that functions have until roles exist.
    pub fn new(scope: &Scope, stream: &str) -> Self {
        let Scope { tenant, region } = scope;
        Self {
            region: region.to_string(),
            arn: format!("arn:aws:kinesis:{region}:{tenant}:stream/{stream}"),
            role: format!("arn:aws:iam::{tenant}:role/shardmill"),
        }
    }

    /// Bytes that a record takes in an event, with the comma behind it.
    pub fn record_bytes(&self, record: &RecordRef<'_>) -> usize {
        let mut text = String::new();
        self.write_around(record, &mut text, |_| ());
        text.len() + 1 + record.parts.data.len().div_ceil(3) * 4
    }

    /// The event for a batch.
    pub fn event(&self, batch: &Batch) -> Bytes {
        let mut text = self.records(batch);
        text.push('}');
        Bytes::from(text)
    }

    /// The event for a batch of a tumbling window.
    pub fn event_in_window(&self, batch: &Batch, shard: ShardId, window: &EventWindow) -> Bytes {
        let mut text = self.records(batch);
        self.write_window(shard, window, &mut text);
        Bytes::from(text)
    }

    /// Bytes that a window adds to an event.
    pub fn window_bytes(&self, shard: ShardId, window: &EventWindow) -> usize {
        let mut text = String::new();
        self.write_window(shard, window, &mut text);
        text.len()
    }

    fn write_window(&self, shard: ShardId, window: &EventWindow, text: &mut String) {
        let instant = |at| {
            let mut text = timestamp::format(at);
            // Windows begin at whole seconds.
            text.replace_range(text.len() - ".000Z".len().., "Z");
            text
        };
        let state = match window.state.as_str() {
            "" => "{}",
            state => state,
        };
        let _ = write!(
            text,
            r#","window":{{"start":"{}","end":"{}"}},"state":{state},"shardId":"{shard}","eventSourceARN":"{}","isFinalInvokeForWindow":{},"isWindowTerminatedEarly":{}}}"#,
            instant(window.start),
            instant(window.end),
            self.arn,
            window.is_final,
            window.ended_early,
        );
    }

    /// `{"Records":[…]`, without the end.
    fn records(&self, batch: &Batch) -> String {
        let mut text = String::from("{\"Records\":[");
        for (index, record) in batch.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            self.write_around(&record, &mut text, |text| {
                push_base64(record.parts.data, text)
            });
        }
        text.push(']');
        text
    }

    fn write_around(
        &self,
        record: &RecordRef<'_>,
        text: &mut String,
        data: impl FnOnce(&mut String),
    ) {
        let number = record.sequence_number();
        let mut digits = [0; 58];
        let number = number.write_decimal(&mut digits);
        text.push_str("{\"kinesis\":{\"kinesisSchemaVersion\":\"1.0\",\"partitionKey\":");
        push_json_string(record.parts.key, text);
        text.push_str(",\"sequenceNumber\":\"");
        text.push_str(number);
        text.push_str("\",\"data\":\"");
        data(text);
        text.push_str("\",\"approximateArrivalTimestamp\":");
        push_seconds(record.arrival.0, text);
        text.push_str("},\"eventSource\":\"aws:kinesis\",\"eventVersion\":\"1.0\",\"eventID\":\"");
        // Writing to a String cannot fail.
        let _ = write!(text, "{}:{number}", record.shard());
        text.push_str("\",\"eventName\":\"aws:kinesis:record\",\"invokeIdentityArn\":\"");
        text.push_str(&self.role);
        text.push_str("\",\"awsRegion\":\"");
        text.push_str(&self.region);
        text.push_str("\",\"eventSourceARN\":\"");
        text.push_str(&self.arn);
        text.push_str("\"}");
    }
}

/// Milliseconds as seconds with up to three decimals: a JSON number.
fn push_seconds(millis: u64, text: &mut String) {
    let _ = write!(text, "{}", millis / 1000);
    let rest = millis % 1000;
    if rest > 0 {
        let decimals = format!("{rest:03}");
        text.push('.');
        text.push_str(decimals.trim_end_matches('0'));
    }
}

fn push_json_string(value: &str, text: &mut String) {
    text.push_str(&serde_json::Value::from(value).to_string());
}

fn push_base64(data: &[u8], text: &mut String) {
    text.push_str(&base64_simd::STANDARD.encode_to_string(data));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Slice;
    use crate::block::{Block, Placement, Records};

    #[test]
    fn a_window_adds_its_members_as_aws_writes_them() {
        let source = EventSource::new(&Scope::default(), "lambda-stream");
        let window = EventWindow {
            start: UnixMillis(1_607_497_440_000),
            end: UnixMillis(1_607_497_560_000),
            state: r#"{"1":282,"2":715}"#.into(),
            is_final: false,
            ended_early: false,
        };
        let event = source.event_in_window(&Batch::default(), ShardId(6), &window);
        let text = r#"{"Records":[],"window":{"start":"2020-12-09T07:04:00Z","end":"2020-12-09T07:06:00Z"},"state":{"1":282,"2":715},"shardId":"shardId-000000000006","eventSourceARN":"arn:aws:kinesis:us-east-1:000000000000:stream/lambda-stream","isFinalInvokeForWindow":false,"isWindowTerminatedEarly":false}"#;
        assert_eq!(std::str::from_utf8(&event), Ok(text));
        let bytes = source.window_bytes(ShardId(6), &window);
        assert_eq!(event.len(), EMPTY_EVENT_BYTES - 1 + bytes);
    }

    #[test]
    fn the_event_is_aws_text_and_its_length_is_known_before() {
        let mut records = Records::default();
        records.push("1", None, b"Hello, this is a test.");
        records.push("quo\"te", None, b"");
        let (index, blob) = records.into_parts();
        let placement = Placement {
            shard: ShardId(6),
            created_seconds: 1_545_000_000,
            first: 1,
            arrival: UnixMillis(1_545_084_650_980),
        };
        let block = Block::new(placement, index.into(), blob.into()).expect("a block");
        let batch = Batch::new([Slice {
            block,
            from: 0,
            to: 2,
        }]);
        let source = EventSource::new(&Scope::default(), "lambda-stream");
        let event = source.event(&batch);
        let sizes: usize = batch.iter().map(|r| source.record_bytes(&r)).sum();
        assert_eq!(event.len(), EMPTY_EVENT_BYTES + sizes - 1);
        let text = std::str::from_utf8(&event).expect("UTF-8");
        assert!(text.starts_with(
            r#"{"Records":[{"kinesis":{"kinesisSchemaVersion":"1.0","partitionKey":"1","sequenceNumber":"49"#
        ));
        assert!(text.contains(
            r#""data":"SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==","approximateArrivalTimestamp":1545084650.98},"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":"shardId-000000000006:49"#
        ));
        assert!(text.ends_with(
            r#""eventName":"aws:kinesis:record","invokeIdentityArn":"arn:aws:iam::000000000000:role/shardmill","awsRegion":"us-east-1","eventSourceARN":"arn:aws:kinesis:us-east-1:000000000000:stream/lambda-stream"}]}"#
        ));
        serde_json::from_str::<serde_json::Value>(text).expect("valid JSON");
    }
}
