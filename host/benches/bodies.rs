//! Requests, ready to be sent: built before the clock runs, so that a client costs little more
//! than the system's copying.

use base64_simd::STANDARD;

use crate::input::Line;

/// What a caller who signs as nobody in particular sends.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host;x-amz-date, Signature=0";

/// A whole HTTP/1.1 request for an operation of Kinesis.
pub(crate) fn request(operation: &str, body: &str) -> Vec<u8> {
    format!(
        "POST / HTTP/1.1\r\n\
         host: localhost\r\n\
         x-amz-target: Kinesis_20131202.{operation}\r\n\
         content-type: application/x-amz-json-1.1\r\n\
         x-amz-date: 20260101T000000Z\r\n\
         authorization: {AUTHORIZATION}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// `CreateStream`.
pub(crate) fn create_stream(stream: &str, shards: u32) -> Vec<u8> {
    request(
        "CreateStream",
        &format!(r#"{{"StreamName":"{stream}","ShardCount":{shards}}}"#),
    )
}

/// `PutRecord`.
pub(crate) fn put_record(stream: &str, key: &str, data: &[u8]) -> Vec<u8> {
    let data = STANDARD.encode_to_string(data);
    request(
        "PutRecord",
        &format!(r#"{{"StreamName":"{stream}","PartitionKey":"{key}","Data":"{data}"}}"#),
    )
}

/// `PutRecords` of these records.
pub(crate) fn put_records<'a>(
    stream: &str,
    records: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Vec<u8> {
    let entries: Vec<String> = records
        .into_iter()
        .map(|(key, data)| {
            let data = STANDARD.encode_to_string(data);
            format!(r#"{{"Data":"{data}","PartitionKey":"{key}"}}"#)
        })
        .collect();
    let entries = entries.join(",");
    request(
        "PutRecords",
        &format!(r#"{{"StreamName":"{stream}","Records":[{entries}]}}"#),
    )
}

/// `PutRecords` of an access log's lines, 500 in a request.
pub(crate) fn puts_of_lines(stream: &str, lines: &[Line]) -> Vec<Vec<u8>> {
    let of = |lines: &[Line]| {
        let records = lines
            .iter()
            .map(|line| (line.client.as_str(), line.text.as_bytes()));
        put_records(stream, records)
    };
    lines.chunks(500).map(of).collect()
}
