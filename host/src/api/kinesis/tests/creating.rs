//! What CreateStream takes, and what is made of it.

use serde_json::{Value as Json, json};

use super::{Local, quick};
use crate::services::Settings;

/// The mode and the number of shards of the stream, or the error's type.
async fn made(host: &Local, input: Json) -> Result<(String, u64), &'static str> {
    host.call("CreateStream", input)
        .await
        .map_err(|e| e.told().kind)?;
    tokio::time::sleep(host.services.settings.stream_creation_time).await;
    let told = host
        .ok("DescribeStreamSummary", json!({"StreamName": "n"}))
        .await;
    let told = &told["StreamDescriptionSummary"];
    let mode = super::text(&told["StreamModeDetails"]["StreamMode"]);
    Ok((mode, told["OpenShardCount"].as_u64().expect("a count")))
}

#[tokio::test(start_paused = true)]
async fn mode_and_shard_count_must_fit() {
    let on_demand = json!({"StreamMode": "ON_DEMAND"});
    let provisioned = json!({"StreamMode": "PROVISIONED"});
    for (mode, count, want) in [
        (json!(null), json!(2), Ok(("PROVISIONED", 2))),
        (provisioned.clone(), json!(2), Ok(("PROVISIONED", 2))),
        (on_demand.clone(), json!(null), Ok(("ON_DEMAND", 4))),
        (json!(null), json!(null), Ok(("ON_DEMAND", 4))),
        (provisioned, json!(null), Err("InvalidArgumentException")),
        (on_demand, json!(2), Err("InvalidArgumentException")),
        (
            json!({"StreamMode": "x"}),
            json!(2),
            Err("ValidationException"),
        ),
        (json!({}), json!(2), Err("ValidationException")),
    ] {
        let host = Local::start(quick()).await;
        let input = json!({"StreamName": "n", "StreamModeDetails": mode, "ShardCount": count});
        let want = want.map(|(mode, count)| (mode.to_owned(), count));
        assert_eq!(made(&host, input.clone()).await, want, "{input}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_kept_is_refused() {
    let many: serde_json::Map<_, _> = (0..51).map(|n| (format!("t{n}"), json!(""))).collect();
    for (member, value, want) in [
        ("Tags", json!({"a": "1", "ü .:/=+-@_": ""}), None),
        ("Tags", json!({"a": "%"}), Some("InvalidArgumentException")),
        ("Tags", json!(many), Some("InvalidArgumentException")),
        ("MaxRecordSizeInKiB", json!(10_240), None),
        (
            "MaxRecordSizeInKiB",
            json!(1023),
            Some("ValidationException"),
        ),
        ("WarmThroughputMiBps", json!(0), None),
        (
            "WarmThroughputMiBps",
            json!(1),
            Some("InvalidArgumentException"),
        ),
        (
            "RecordDistributionStrategy",
            json!("USER_PARTITION_KEY"),
            None,
        ),
        (
            "RecordDistributionStrategy",
            json!("AUTO"),
            Some("InvalidArgumentException"),
        ),
    ] {
        let host = Local::start(quick()).await;
        let mut input = json!({"StreamName": "n", "ShardCount": 1});
        input[member] = value;
        assert_eq!(made(&host, input.clone()).await.err(), want, "{input}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_streams_own_limit_of_record_size_holds() {
    let host = Local::start(quick()).await;
    let input = json!({"StreamName": "s", "ShardCount": 1, "MaxRecordSizeInKiB": 2048});
    host.ok("CreateStream", input).await;
    tokio::time::sleep(host.services.settings.stream_creation_time).await;
    for (bytes, good) in [((2 << 20) - 1, true), (2 << 20, false)] {
        let data = base64_simd::STANDARD.encode_to_string(vec![0; bytes]);
        let put = json!({"StreamName": "s", "PartitionKey": "k", "Data": data});
        assert_eq!(
            host.call("PutRecord", put).await.is_ok(),
            good,
            "{bytes} bytes and a key"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn on_demand_streams_are_counted() {
    let host = Local::start(Settings {
        on_demand_stream_limit: 1,
        ..quick()
    })
    .await;
    host.ok("CreateStream", json!({"StreamName": "a"})).await;
    let told = host.call("CreateStream", json!({"StreamName": "b"})).await;
    assert_eq!(
        told.err().map(|e| e.told().kind),
        Some("LimitExceededException")
    );
    host.ok("DeleteStream", json!({"StreamName": "a"})).await;
    host.ok("CreateStream", json!({"StreamName": "b"})).await;
}
