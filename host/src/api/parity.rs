//! `docs/parity.md`, made from the tables that dispatch, so that it cannot be wrong.

use super::kinesis::{OPERATIONS, Support};
use super::sqs;

const HEAD: &str = "\
# What behaves as AWS does

Made from the tables that dispatch requests: do not edit. `UPDATE_GOLDEN=1 cargo test -p shardmill
--lib parity` writes it again.

## Kinesis Data Streams (API 2013-12-02)

JSON 1.1 over HTTP/1.1 and HTTP/2 with prior knowledge. CBOR is refused by name for now. An
operation that is not supported is answered with `UnknownOperationException` (400) and a message
that names it. Cross-origin requests are answered as AWS does for loopback origins, and refused
for all others.

Signatures (Signature Version 4) are checked on a closed host: header, presigned query, signed
chunks. Session tokens, trailing checksums and `AWS4-ECDSA-P256-SHA256` are refused by name;
`UNSIGNED-PAYLOAD` is taken over TLS only. There are no policies: a key may do everything in its
account. \"No throttling\" below is about shards; a tenant may have quotas (`docs/tenants.md`): too
many requests are answered with `ProvisionedThroughputExceededException` where records are put or
read, with `LimitExceededException` elsewhere.

| Operation | Supported | Differences |
| --- | --- | --- |
";

const SQS_HEAD: &str = "
## SQS (API 2012-11-05)

JSON 1.0, for dead-letter queues: standard queues of this host, per account and region, durable.
An operation that is not supported is answered with `UnsupportedOperation` (400) and a message
that names it.

| Operation | Supported | Differences |
| --- | --- | --- |
";

/// What the mapping does where AWS's documentation says nothing, or too little.
const MAPPING_CHOICES: &[(&str, &str)] = &[
    (
        "Hash that chooses an alias's version",
        "FNV-1a of the request id, mixed: attempts at a batch stay on one version until the alias changes",
    ),
    (
        "Hash that chooses a lane",
        "FNV-1a of the partition key, mixed; not of the explicit hash key",
    ),
    (
        "How lanes' checkpoints join",
        "a shard's position is the lowest of its lanes; each lane keeps its own beside it",
    ),
    (
        "Change of the parallelization factor",
        "lanes meet at one record first; then the new number runs",
    ),
    (
        "Children found while a mapping runs",
        "read from their first record, whatever `StartingPosition`; after all their parents are done",
    ),
    (
        "Time between retries",
        "0.2 s, doubled each time, at most 60 s; no jitter",
    ),
    (
        "Split or retry first with bisect",
        "split on the first failure; the parts have their own attempts",
    ),
    ("Which half gets the odd record", "the second"),
    (
        "Both bisect and a partial response that names the first record",
        "that record is set apart",
    ),
    (
        "Records behind those that grew too old",
        "a new batch, tried at once, with its own attempts",
    ),
    (
        "Batching window longer than the maximum record age",
        "the batch goes before its first record is too old",
    ),
    (
        "Record whose event passes 6 MiB",
        "given up at once; AWS spends its retries without an invocation",
    ),
    (
        "Grid of tumbling windows",
        "multiples of the length since 1970-01-01T00:00:00Z",
    ),
    (
        "Close of an idle shard's window",
        "one second after its end; AWS up to two minutes",
    ),
    (
        "Record that comes after its window was closed",
        "counted in the first window that is open",
    ),
    (
        "Response of a window's final invocation",
        "needs no `state`",
    ),
    (
        "State above 1 MB",
        "1 MiB of JSON; the window ends early and its interval begins anew",
    ),
    (
        "Age of a window's final invocation",
        "counted from the window's end",
    ),
    (
        "De-aggregation",
        "a setting of the mapping: off for a stream; AWS does it for consumers of enhanced fan-out only",
    ),
    (
        "Item identifier of an inner record",
        "names the first record of the batch with that number",
    ),
    (
        "Filters on metadata",
        "`partitionKey`, `sequenceNumber`, `approximateArrivalTimestamp`, `kinesisSchemaVersion` at the top level",
    ),
    (
        "Change while another is under way",
        "taken; AWS answers `ResourceInUseException`",
    ),
    (
        "Metadata of failures that retention ended",
        "one `Expired` entry of the failure store; not sent to a destination",
    ),
];

/// The document.
pub fn document() -> String {
    let mut text = HEAD.to_owned();
    for operation in OPERATIONS {
        let supported = match operation.support {
            Support::Yes(_) => "yes",
            Support::No => "no",
        };
        let row = format!("| {} | {supported} | {} |", operation.name, operation.note);
        text += row.replace("|  |", "| |").trim_end();
        text.push('\n');
    }
    text += SQS_HEAD;
    for operation in sqs::OPERATIONS {
        let supported = if operation.run.is_some() { "yes" } else { "no" };
        let row = format!("| {} | {supported} | {} |", operation.name, operation.note);
        text += row.replace("|  |", "| |").trim_end();
        text.push('\n');
    }
    text += "\n## Event source mappings: choices where AWS says nothing\n\n";
    text += "`docs/mapping.md` has the rest.\n\n| Matter | Here |\n| --- | --- |\n";
    for (matter, here) in MAPPING_CHOICES {
        text += &format!("| {matter} | {here} |\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_in_the_tree_is_the_one_made_from_the_tables() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/parity.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, document()).expect("docs/parity.md is written");
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(
            kept,
            document(),
            "UPDATE_GOLDEN=1 writes docs/parity.md again"
        );
    }
}
