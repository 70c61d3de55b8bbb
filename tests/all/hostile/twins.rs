//! Names, ARNs, iterators and ids of another tenant, in every operation that takes one: the answer
//! must be, word for word, that to the name of nothing.

use serde_json::{Value, json};

use super::expected::Complaints;
use super::raw::Answer;
use super::site::{ATTACKER, Site, VICTIM};
use super::victim::Theirs;

/// A call with a place for what is another's.
pub(super) enum Call {
    /// An operation of Kinesis with a stream's name or ARN beside this.
    Stream(&'static str, &'static str),
    /// An operation of SQS with a queue's URL beside this.
    Queue(&'static str, &'static str),
    /// The native API: method and path, `NAME` for the name.
    Native(&'static str, &'static str, &'static str),
}

/// Operations that name nothing which could be another's, or that make it in the caller's account.
const NAMELESS: [&str; 4] = ["CreateStream", "ListStreams", "CreateQueue", "ListQueues"];

/// Every operation that takes a name.
pub(super) const CALLS: &[Call] = &[
    Call::Stream("DeleteStream", "{}"),
    Call::Stream("DescribeStream", "{}"),
    Call::Stream("DescribeStreamSummary", "{}"),
    Call::Stream("ListShards", "{}"),
    Call::Stream("PutRecord", r#"{"PartitionKey": "k", "Data": "eA=="}"#),
    Call::Stream(
        "PutRecords",
        r#"{"Records": [{"PartitionKey": "k", "Data": "eA=="}]}"#,
    ),
    Call::Stream(
        "GetShardIterator",
        r#"{"ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"}"#,
    ),
    Call::Stream(
        "SplitShard",
        r#"{"ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "9"}"#,
    ),
    Call::Stream(
        "MergeShards",
        r#"{"ShardToMerge": "shardId-000000000000", "AdjacentShardToMerge": "shardId-000000000001"}"#,
    ),
    Call::Stream(
        "UpdateShardCount",
        r#"{"TargetShardCount": 1, "ScalingType": "UNIFORM_SCALING"}"#,
    ),
    Call::Queue(
        "ChangeMessageVisibility",
        r#"{"ReceiptHandle": "x", "VisibilityTimeout": 1}"#,
    ),
    Call::Queue("DeleteMessage", r#"{"ReceiptHandle": "x"}"#),
    Call::Queue(
        "DeleteMessageBatch",
        r#"{"Entries": [{"Id": "a", "ReceiptHandle": "x"}]}"#,
    ),
    Call::Queue("DeleteQueue", "{}"),
    Call::Queue("GetQueueAttributes", r#"{"AttributeNames": ["All"]}"#),
    Call::Queue("GetQueueUrl", "{}"),
    Call::Queue("PurgeQueue", "{}"),
    Call::Queue("ReceiveMessage", "{}"),
    Call::Queue("SendMessage", r#"{"MessageBody": "x"}"#),
    Call::Queue(
        "SendMessageBatch",
        r#"{"Entries": [{"Id": "a", "MessageBody": "x"}]}"#,
    ),
    Call::Queue(
        "SetQueueAttributes",
        r#"{"Attributes": {"DelaySeconds": "1"}}"#,
    ),
    Call::Native("GET", "streams/NAME", "work"),
    Call::Native("GET", "functions/NAME", "worker"),
    Call::Native("GET", "functions/NAME:1", "worker"),
    Call::Native("DELETE", "functions/NAME", "worker"),
    Call::Native("DELETE", "functions/NAME:1", "worker"),
    Call::Native("POST", "functions/NAME/invoke", "worker"),
    Call::Native("GET", "functions/NAME/versions", "worker"),
    Call::Native("POST", "functions/NAME/versions", "worker"),
    Call::Native("GET", "functions/NAME/aliases", "worker"),
    Call::Native("GET", "functions/NAME/aliases/live", "worker"),
    Call::Native("DELETE", "functions/NAME/aliases/live", "worker"),
    Call::Native("GET", "mappings/NAME", "work-worker"),
    Call::Native("DELETE", "mappings/NAME", "work-worker"),
    Call::Native("POST", "mappings/NAME/pause", "work-worker"),
    Call::Native("POST", "mappings/NAME/resume", "work-worker"),
    Call::Native("POST", "mappings/NAME/rewind", "work-worker"),
    Call::Native("POST", "mappings/NAME/unpark", "work-worker"),
    Call::Native("GET", "mappings/NAME/parked", "work-worker"),
    Call::Native("POST", "mappings/NAME/dry-run", "work-worker"),
    Call::Native("GET", "counters/NAME", "worker"),
    Call::Native("GET", "state/NAME?key=key-1", "worker"),
    Call::Native("GET", "usage/NAME", "worker"),
    Call::Native("GET", "failures?mapping=NAME", "work-worker"),
    Call::Native("GET", "tenants/NAME", "000000000001"),
];

impl Call {
    /// What it is called.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Stream(operation, _) | Self::Queue(operation, _) => (*operation).to_owned(),
            Self::Native(method, path, _) => format!("{method} {path}"),
        }
    }

    /// The words in which what is another's can be named, each with one of the same form for
    /// nothing.
    fn names(&self) -> Vec<(String, String)> {
        let of = |make: &dyn Fn(&str, &str) -> String, theirs: &str| {
            let nothing: String = theirs.chars().rev().collect();
            (make(VICTIM.account, theirs), make(VICTIM.account, &nothing))
        };
        match self {
            Self::Stream(..) => vec![
                of(&|_, name| name.to_owned(), "work"),
                of(&|account, name| arn(account, name), "work"),
            ],
            Self::Queue("GetQueueUrl", _) => vec![of(&|_, name| name.to_owned(), "letters")],
            Self::Queue(..) => vec![
                of(
                    &|account, name| format!("http://localhost/{account}/{name}"),
                    "letters",
                ),
                of(
                    &|_, name| format!("http://localhost/{}/{name}", ATTACKER.account),
                    "letters",
                ),
            ],
            Self::Native(_, _, theirs) => vec![of(&|_, name| name.to_owned(), theirs)],
        }
    }

    async fn send(&self, site: &Site, name: &str) -> Answer {
        let with = |input: &str, member: &str| {
            let mut input: Value = serde_json::from_str(input).unwrap();
            input[member] = name.into();
            input
        };
        match self {
            Self::Stream(operation, input) => {
                let member = if name.starts_with("arn:") {
                    "StreamARN"
                } else {
                    "StreamName"
                };
                site.kinesis(ATTACKER, operation, &with(input, member))
                    .await
            }
            Self::Queue("GetQueueUrl", input) => {
                let mut input = with(input, "QueueName");
                input["QueueOwnerAWSAccountId"] = VICTIM.account.into();
                site.sqs(ATTACKER, "GetQueueUrl", &input).await
            }
            Self::Queue(operation, input) => {
                site.sqs(ATTACKER, operation, &with(input, "QueueUrl"))
                    .await
            }
            Self::Native(method, path, _) => {
                let path = path.replace("NAME", name);
                let body = match path.ends_with("/rewind") {
                    true => r#"{"position": "TRIM_HORIZON"}"#,
                    false => "",
                };
                site.native(ATTACKER, method, &path, body).await
            }
        }
    }
}

fn arn(account: &str, stream: &str) -> String {
    format!("arn:aws:kinesis:us-east-1:{account}:stream/{stream}")
}

/// Tries each of them.
pub(super) async fn are_like_nothing(site: &Site, victim: &Theirs) -> Complaints {
    let mut complaints = Complaints::default();
    for call in CALLS {
        for (theirs, nothing) in call.names() {
            let told = async |name: &str| {
                let answer = call.send(site, name).await;
                let body = String::from_utf8_lossy(&answer.body).into_owned();
                let short = name.rsplit('/').next().unwrap();
                let body = body.replace(name, "NAME").replace(short, "NAME");
                format!("{} {body}", answer.status)
            };
            let (at_theirs, at_nothing) = (told(&theirs).await, told(&nothing).await);
            complaints.expect(
                &call.name(),
                &at_nothing.replace('*', "?"),
                &at_theirs.replace('*', "?"),
            );
            let listed = call.name().starts_with("GET failures");
            let status = if listed { "200 *" } else { "4*" };
            complaints.expect(&call.name(), status, &at_theirs);
        }
    }
    // Another's iterator is a forged one, and an id is as good as none.
    let iterator = json!({"ShardIterator": victim.iterator});
    let taken = site.kinesis(ATTACKER, "GetRecords", &iterator).await;
    let forged = json!({"ShardIterator": victim.iterator.replace(['A', 'b', '3'], "x")});
    let made_up = site.kinesis(ATTACKER, "GetRecords", &forged).await;
    complaints.expect(
        "GetRecords",
        "400 InvalidArgumentException: *",
        &taken.told(),
    );
    complaints.expect("GetRecords", &made_up.told(), &taken.told());
    let page = json!({"NextToken": victim.page});
    let taken = site.kinesis(ATTACKER, "ListShards", &page).await;
    let forged = json!({"NextToken": victim.page.replace(['A', 'b', '3'], "x")});
    let made_up = site.kinesis(ATTACKER, "ListShards", &forged).await;
    complaints.expect(
        "ListShards",
        "400 InvalidArgumentException: NextToken is invalid.",
        &taken.told(),
    );
    complaints.expect("ListShards", &made_up.told(), &taken.told());
    let path = format!("mappings/{}", victim.mapping);
    let by_id = site.native(ATTACKER, "GET", &path, "").await;
    complaints.expect("GET mappings/ID", "404 not_found: *", &by_id.told());
    complaints
}

#[test]
fn every_operation_that_is_supported_is_tried_on_anothers_things() {
    let parity = include_str!("../../../docs/parity.md");
    let supported = parity.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let name = cells.next()?;
        (cells.next()? == "yes").then_some(name)
    });
    let tried: Vec<String> = CALLS.iter().map(Call::name).collect();
    let mut count = 0;
    for operation in supported {
        count += 1;
        let known = operation == "GetRecords" || NAMELESS.contains(&operation);
        assert!(
            known || tried.iter().any(|name| name == operation),
            "{operation}"
        );
    }
    assert!(count > 20, "{count} operations");
}
