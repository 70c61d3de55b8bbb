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
