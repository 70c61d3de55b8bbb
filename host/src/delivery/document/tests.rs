//! Documents compared whole with the golden ones in `tests/golden/lambda`;
//! `UPDATE_GOLDEN=1` writes those again.

use serde_json::Value;
use shardmill_core::batch::Slice;
use shardmill_core::block::Placement;
use shardmill_core::{Block, Records, ShardId};

use super::*;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/lambda");

fn batch() -> Batch {
    let mut records = Records::default();
    records.push("user-1", None, b"{\"n\":1}");
    records.push("user-2", None, b"not \"JSON\"");
    let (index, blob) = records.into_parts();
    let placement = Placement {
        shard: ShardId(1),
        created_seconds: 1_573_000_000,
        first: 9,
        arrival: UnixMillis(1_573_691_884_835),
    };
    let block = Block::new(placement, index.into(), blob.into()).expect("a block");
    Batch::new([Slice {
        block,
        from: 0,
        to: 2,
    }])
}

fn scope() -> Scope {
    Scope {
        tenant: "123456789012".parse().expect("an account"),
        region: "us-east-2".parse().expect("a region"),
    }
}

fn given_up<'a>(scope: &'a Scope, batch: &'a Batch, reason: Reason) -> GivenUp<'a> {
    GivenUp {
        id: "016e67a1-2f05-7000-8000-000000000001",
        scope,
        mapping: "m",
        mapping_id: "14e0db71-0000-4000-8000-000000000001",
        function: "f",
        stream: "s",
        shard: "shardId-000000000001",
        reason,
        function_error: false,
        request_id: "c9b8fa9f-5a7f-4000-8000-000000000001",
        invocations: 3,
        batch,
        now: UnixMillis(1_573_691_886_021),
        window: None,
    }
}

fn golden(name: &str, made: &str) {
    let path = format!("{FOLDER}/{name}.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(FOLDER).expect("the folder");
        std::fs::write(&path, format!("{made}\n")).expect("the document is written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(kept.trim_end(), made, "{path}");
}

#[test]
fn every_condition_has_its_golden_document() {
    let (scope, batch) = (scope(), batch());
    let none = Batch::default();
    let window = EventWindow {
        start: UnixMillis(1_573_691_820_000),
        end: UnixMillis(1_573_691_880_000),
        state: "{\"n\":1}".into(),
        is_final: true,
        ended_early: false,
    };
    let of = |reason| given_up(&scope, &batch, reason);
    for (name, given_up) in [
        (
            "on-failure-function-error",
            GivenUp {
                function_error: true,
                ..of(Reason::RetryAttemptsExhausted)
            },
        ),
        ("on-failure-partial", of(Reason::RetryAttemptsExhausted)),
        (
            "on-failure-too-large",
            GivenUp {
                invocations: 0,
                ..of(Reason::RecordTooLarge)
            },
        ),
        (
            "on-failure-age",
            GivenUp {
                invocations: 0,
                ..of(Reason::RecordAgeExceeded)
            },
        ),
        (
            "on-failure-age-while-retrying",
            GivenUp {
                invocations: 8,
                ..of(Reason::RecordAgeExceeded)
            },
        ),
        ("on-failure-process-died", of(Reason::ProcessDied)),
        (
            "on-failure-window",
            GivenUp {
                function_error: true,
                window: Some(&window),
                batch: &none,
                ..of(Reason::RetryAttemptsExhausted)
            },
        ),
    ] {
        golden(name, document(&given_up).expect("a document").get());
    }
}

#[test]
fn the_approximate_invoke_count_is_one_if_no_handler_ran() {
    let (scope, batch) = (scope(), batch());
    for (invocations, count) in [(0, 1), (1, 1), (8, 8)] {
        let given_up = GivenUp {
            invocations,
            ..given_up(&scope, &batch, Reason::RecordAgeExceeded)
        };
        let made = document(&given_up).unwrap();
        let wanted = format!("\"approximateInvokeCount\":{count}}}");
        assert!(made.get().contains(&wanted), "{}", made.get());
    }
}

#[test]
fn records_that_retention_trimmed_are_not_reported() {
    let (scope, batch) = (scope(), batch());
    assert!(document(&given_up(&scope, &batch, Reason::Expired)).is_none());
}

#[test]
fn an_object_holds_the_document_and_the_whole_event_as_a_text() {
    let (scope, batch) = (scope(), batch());
    let given_up = given_up(&scope, &batch, Reason::RetryAttemptsExhausted);
    let document = document(&given_up).expect("a document");
    let object = with_payload(&document, &scope, "s", Some(&batch));
    let object = std::str::from_utf8(&object).expect("UTF-8");
    golden("on-failure-object", object);
    let object: Value = serde_json::from_str(object).expect("JSON");
    let event: Value =
        serde_json::from_str(object["payload"].as_str().expect("a text")).expect("an event");
    assert_eq!(event["Records"][1]["kinesis"]["partitionKey"], "user-2");
    let bare = with_payload(&document, &scope, "s", None);
    assert_eq!(
        bare,
        document.get().as_bytes(),
        "records that are gone leave no payload"
    );
}

#[test]
fn an_object_is_named_by_mapping_shard_day_and_id() {
    let key = object_key(
        "14e0db71",
        "shardId-000000000001",
        UnixMillis(1_573_691_886_021),
        "016e67a1",
    );
    assert_eq!(
        key,
        "aws/lambda/14e0db71/shardId-000000000001/2019/11/14/2019-11-14T00.38.06-016e67a1"
    );
}
