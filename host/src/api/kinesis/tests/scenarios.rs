//! The scenarios of `tests/golden/kinesis/conformance-cases.json` for these operations, and what
//! official clients do: several steps each.

use serde_json::json;

use super::{ACCOUNT, Host, REGION, at, quick, text};
use crate::services::Settings;

#[tokio::test]
async fn a_stream_is_creating_then_active_then_gone() {
    let host = Host::start(Settings::default()).await;
    let reply = host
        .call(
            "CreateStream",
            &json!({"StreamName": "x1", "ShardCount": 3}),
        )
        .await;
    assert_eq!((reply.status, reply.text()), (200, String::new()));
    let name = json!({"StreamName": "x1"});
    let told = host.ok("DescribeStream", name.clone()).await;
    for (path, want) in [
        ("StreamStatus", json!("CREATING")),
        ("Shards", json!([])),
        ("HasMoreShards", json!(false)),
        ("RetentionPeriodHours", json!(24)),
        ("EncryptionType", json!("NONE")),
        ("EnhancedMonitoring", json!([{"ShardLevelMetrics": []}])),
        ("StreamModeDetails", json!({"StreamMode": "PROVISIONED"})),
        (
            "StreamARN",
            json!(format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/x1")),
        ),
    ] {
        assert_eq!(told["StreamDescription"][path], want, "{path}");
    }
    host.wait("x1", "ACTIVE").await;
    let told = host.ok("DescribeStream", name.clone()).await;
    let shards = &told["StreamDescription"]["Shards"];
    assert_eq!(shards[0]["ShardId"], "shardId-000000000000");
    for (shard, (start, end)) in [
        ("0", "113427455640312821154458202477256070484"),
        (
            "113427455640312821154458202477256070485",
            "226854911280625642308916404954512140969",
        ),
        (
            "226854911280625642308916404954512140970",
            "340282366920938463463374607431768211455",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let want = json!({"StartingHashKey": start, "EndingHashKey": end});
        assert_eq!(shards[shard]["HashKeyRange"], want);
    }
    assert_eq!(
        at(&shards[0], "SequenceNumberRange.EndingSequenceNumber"),
        None
    );
    assert_eq!(at(&shards[0], "ParentShardId"), None);
    let reply = host.call("DeleteStream", &name).await;
    assert_eq!((reply.status, reply.text()), (200, String::new()));
    let deleting = host.ok("DescribeStream", name.clone()).await;
    assert_eq!(deleting["StreamDescription"]["StreamStatus"], "DELETING");
    let gone = json!({"__type": "ResourceNotFoundException",
        "message": format!("Stream x1 under account {ACCOUNT} not found.")});
    let put = json!({"StreamName": "x1", "PartitionKey": "a", "Data": ""});
    assert_eq!(
        host.call("PutRecord", &put).await.json(),
        Some(gone.clone())
    );
    while host.call("DescribeStream", &name).await.status == 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(host.call("DescribeStream", &name).await.json(), Some(gone));
    // The name is free at once, though nothing has tidied up yet.
    host.stream("x1", 1).await;
    host.stop().await;
}

#[tokio::test]
async fn a_record_goes_where_its_hash_key_belongs() {
    let host = Host::start(quick()).await;
    host.stream("s", 3).await;
    for (key, explicit, shard) in [
        ("a", None, 0),
        ("b", None, 1),
        ("e", None, 2),
        ("a", Some("340282366920938463463374607431768211455"), 2),
        ("a", Some("113427455640312821154458202477256070484"), 0),
        ("a", Some("113427455640312821154458202477256070485"), 1),
    ] {
        let input = json!({"StreamName": "s", "PartitionKey": key, "Data": "AAAA",
            "ExplicitHashKey": explicit});
        let told = host.ok("PutRecord", input).await;
        assert_eq!(
            told["ShardId"],
            format!("shardId-{shard:012}"),
            "{key} {explicit:?}"
        );
    }
    host.stop().await;
}

#[tokio::test]
async fn what_is_put_is_read_back_from_any_number() {
    let host = Host::start(quick()).await;
    host.stream("s", 3).await;
    let entry = |data: &str| json!({"PartitionKey": "a", "Data": data});
    let records = json!([entry("MQ=="), entry("Mg=="), entry("Mw==")]);
    let told = host
        .ok("PutRecords", json!({"StreamName": "s", "Records": records}))
        .await;
    assert_eq!(told["FailedRecordCount"], 0);
    let second = text(&told["Records"][1]["SequenceNumber"]);
    let iterator = async |kind: &str| {
        let input = json!({"StreamName": "s", "ShardId": "shardId-000000000000",
            "ShardIteratorType": kind, "StartingSequenceNumber": second});
        text(&host.ok("GetShardIterator", input).await["ShardIterator"])
    };
    let at = iterator("AT_SEQUENCE_NUMBER").await;
    let page = host.ok("GetRecords", json!({"ShardIterator": at})).await;
    assert_eq!(page["Records"][0]["Data"], "Mg==");
    assert_eq!(page["Records"][0]["SequenceNumber"], second.as_str());
    assert_eq!(page["Records"][1]["Data"], "Mw==");
    assert_eq!(page["Records"][0]["PartitionKey"], "a");
    assert_eq!(page["Records"][0].get("EncryptionType"), None);
    assert_eq!(page.get("ChildShards"), None);
    assert_eq!(page["MillisBehindLatest"], 0);
    let again = host
        .ok("GetRecords", json!({"ShardIterator": at, "Limit": 1}))
        .await;
    assert_eq!(again["Records"].as_array().map(Vec::len), Some(1));
    assert_eq!(again["Records"][0]["Data"], "Mg==");
    assert_ne!(
        again["MillisBehindLatest"], 0,
        "a record is behind the page"
    );
    let after = iterator("AFTER_SEQUENCE_NUMBER").await;
    let page = host.ok("GetRecords", json!({"ShardIterator": after})).await;
    assert_eq!(page["Records"][0]["Data"], "Mw==");
    host.stop().await;
}

#[tokio::test]
async fn a_bad_entry_refuses_the_whole_request() {
    let host = Host::start(quick()).await;
    host.stream("s", 1).await;
    let explicit = "340282366920938463463374607431768211456";
    let records = json!([{"PartitionKey": "a", "Data": ""},
        {"PartitionKey": "a", "Data": "", "ExplicitHashKey": explicit}]);
    let reply = host
        .call(
            "PutRecords",
            &json!({"StreamName": "s", "Records": records}),
        )
        .await;
    let kind = reply.json().expect("an error")["__type"].clone();
    assert_eq!(
        (reply.status, kind),
        (400, json!("InvalidArgumentException"))
    );
    let input = json!({"StreamName": "s", "ShardId": "0", "ShardIteratorType": "TRIM_HORIZON"});
    let iterator = host.ok("GetShardIterator", input).await["ShardIterator"].clone();
    let page = host
        .ok("GetRecords", json!({"ShardIterator": iterator}))
        .await;
    assert_eq!(page["Records"], json!([]), "nothing is written");
    assert_ne!(
        page["NextShardIterator"], iterator,
        "an iterator is always new"
    );
    host.stop().await;
}

#[tokio::test]
async fn listings_go_on_where_they_stopped() {
    let host = Host::start(quick()).await;
    for name in ["b", "c", "a"] {
        host.stream(name, 5).await;
    }
    let first = host.ok("ListStreams", json!({"Limit": 2})).await;
    assert_eq!(first["StreamNames"], json!(["a", "b"]));
    assert_eq!(first["HasMoreStreams"], true);
    assert_eq!(first["StreamSummaries"][1]["StreamName"], "b");
    let by_token = json!({"NextToken": first["NextToken"]});
    let by_name = json!({"ExclusiveStartStreamName": "b"});
    for input in [by_token, by_name] {
        let rest = host.ok("ListStreams", input).await;
        assert_eq!(rest["StreamNames"], json!(["c"]));
        assert_eq!(
            (&rest["HasMoreStreams"], rest.get("NextToken")),
            (&json!(false), None)
        );
    }
    let mut seen = Vec::new();
    let mut input = json!({"StreamName": "a", "MaxResults": 2});
    loop {
        let page = host.ok("ListShards", input).await;
        let shards = page["Shards"].as_array().expect("shards").iter();
        seen.extend(shards.map(|shard| text(&shard["ShardId"])));
        match page.get("NextToken") {
            Some(token) => input = json!({"NextToken": token, "MaxResults": 2}),
            None => break,
        }
    }
    let want: Vec<_> = (0..5).map(|index| format!("shardId-{index:012}")).collect();
    assert_eq!(seen, want);
    let input =
        json!({"StreamName": "a", "Limit": 2, "ExclusiveStartShardId": "shardId-000000000001"});
    let page = host.ok("DescribeStream", input).await["StreamDescription"].clone();
    assert_eq!(page["Shards"][0]["ShardId"], "shardId-000000000002");
    assert_eq!(page["HasMoreShards"], true);
    let input = json!({"StreamName": "a", "ExclusiveStartShardId": "2"});
    let page = host.ok("DescribeStream", input).await["StreamDescription"].clone();
    assert_eq!(page["HasMoreShards"], false);
    host.stop().await;
}

#[tokio::test]
async fn a_stream_is_found_by_name_and_by_arn() {
    let host = Host::start(quick()).await;
    host.stream("s", 1).await;
    let arn = format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/s");
    let foreign = format!("arn:aws:kinesis:{REGION}:999999999999:stream/s");
    let missing = format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/t");
    for (input, want) in [
        (json!({"StreamARN": arn}), None),
        (json!({"StreamARN": arn, "StreamName": "s"}), None),
        (
            json!({"StreamARN": arn, "StreamName": "t"}),
            Some("InvalidArgumentException"),
        ),
        (
            json!({"StreamARN": missing}),
            Some("ResourceNotFoundException"),
        ),
        (json!({"StreamARN": foreign}), Some("AccessDeniedException")),
        (json!({"StreamARN": "s"}), Some("ValidationException")),
        (json!({}), Some("InvalidArgumentException")),
    ] {
        let reply = host.call("DescribeStreamSummary", &input).await;
        let told = reply.json().expect("JSON");
        assert_eq!(told["__type"].as_str(), want, "{input}: {told}");
        let mut put = input.clone();
        put["Records"] = json!([{"PartitionKey": "k", "Data": ""}]);
        let told = host.call("PutRecords", &put).await.json().expect("JSON");
        assert_eq!(told["__type"].as_str(), want, "{put}: {told}");
    }
    host.stop().await;
}

#[tokio::test]
async fn a_dry_run_checks_and_does_nothing() {
    let host = Host::start(quick()).await;
    host.stream("s", 1).await;
    let iterator = json!({"StreamName": "s", "ShardId": "0", "ShardIteratorType": "LATEST"});
    let made = host.ok("GetShardIterator", iterator.clone()).await;
    let record = json!({"PartitionKey": "k", "Data": ""});
    for (operation, mut input) in [
        (
            "PutRecord",
            json!({"StreamName": "s", "PartitionKey": "k", "Data": ""}),
        ),
        (
            "PutRecords",
            json!({"StreamName": "s", "Records": [record]}),
        ),
        ("GetShardIterator", iterator),
        (
            "GetRecords",
            json!({"ShardIterator": made["ShardIterator"]}),
        ),
    ] {
        input["DryRun"] = json!(true);
        let told = host.call(operation, &input).await.json().expect("JSON");
        assert_eq!(told["__type"], "DryRunOperationException", "{operation}");
        input["StreamName"] = json!("t");
        input["ShardIterator"] = json!("AAAA");
        let told = host.call(operation, &input).await.json().expect("JSON");
        assert_ne!(
            told["__type"], "DryRunOperationException",
            "{operation} is checked"
        );
    }
    let page = host
        .ok(
            "GetRecords",
            json!({"ShardIterator": made["ShardIterator"]}),
        )
        .await;
    assert_eq!(page["Records"], json!([]));
    host.stop().await;
}
