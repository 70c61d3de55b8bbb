//! The server itself: protocols, bounds, the door, the end.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http::send;
use super::{AUTHORIZATION, Host, quick};

const PUT_RECORDS: [(&str, &str); 4] = [
    ("Content-Type", "application/x-amz-json-1.1"),
    ("X-Amz-Target", "Kinesis_20131202.PutRecords"),
    ("X-Amz-Date", "20240102T030405Z"),
    ("Authorization", AUTHORIZATION),
];

#[tokio::test]
async fn http_2_is_spoken_on_the_same_port() {
    let host = Host::start(quick()).await;
    host.stream("s", 1).await;
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let record = json!({"PartitionKey": "k", "Data": "A".repeat(400_000)});
    let body = json!({"StreamName": "s", "Records": [record, record]}).to_string();
    let mut request = Request::post(format!("http://localhost:{}/", host.port));
    for (name, value) in PUT_RECORDS {
        request = request.header(name, value);
    }
    let request = request
        .body(Full::new(bytes::Bytes::from(body)))
        .expect("a request");
    let answer = client.request(request).await.expect("an answer");
    assert_eq!(
        (answer.version(), answer.status().as_u16()),
        (hyper::Version::HTTP_2, 200)
    );
    let body = answer
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    let told: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(told["Records"].as_array().map(Vec::len), Some(2));
    drop(client);
    host.stop().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_its_sender_hears_it() {
    let host = Host::start(quick()).await;
    let body = vec![b' '; (16 << 20) + 1];
    let reply = send(host.port, "POST", "/", &PUT_RECORDS, &body).await;
    assert_eq!((reply.status, reply.body.len()), (413, 0));
    assert_eq!(reply.header("connection"), Some("close"));
    let reply = send(host.port, "POST", "/", &PUT_RECORDS, &body[..16 << 20]).await;
    assert_eq!(reply.text(), r#"{"__type":"SerializationException"}"#);
    host.stop().await;
}

#[tokio::test]
async fn the_largest_request_that_aws_takes_is_taken() {
    let host = Host::start(quick()).await;
    host.stream("s", 2).await;
    let data = base64_simd::STANDARD.encode_to_string(vec![7; (1 << 20) - 1]);
    let record = json!({"PartitionKey": "k", "Data": data});
    let records = vec![record.clone(); 10];
    host.ok("PutRecords", json!({"StreamName": "s", "Records": records}))
        .await;
    let reply = host
        .call(
            "PutRecords",
            &json!({"StreamName": "s", "Records": vec![record; 11]}),
        )
        .await;
    let want = "Records size exceeds 10 MB limit (reached with record 11 of 11).";
    assert_eq!(reply.json().expect("JSON")["message"], want);
    let data = base64_simd::STANDARD.encode_to_string(vec![7; 1 << 20]);
    let put = json!({"StreamName": "s", "PartitionKey": "k", "Data": data});
    let told = host.call("PutRecord", &put).await.json().expect("JSON");
    assert_eq!(told["__type"], "InvalidArgumentException", "{told}");
    let input = json!({"StreamName": "s", "ShardId": "0", "ShardIteratorType": "TRIM_HORIZON"});
    let mut seen = 0;
    for shard in ["0", "1"] {
        let mut input = input.clone();
        input["ShardId"] = json!(shard);
        let iterator = host.ok("GetShardIterator", input).await["ShardIterator"].clone();
        let page = host
            .ok("GetRecords", json!({"ShardIterator": iterator}))
            .await;
        seen += page["Records"].as_array().map_or(0, Vec::len);
    }
    assert_eq!(seen, 10, "10 MiB fit one page");
    host.stop().await;
}

#[tokio::test]
async fn the_host_is_healthy_and_only_for_its_own_machine() {
    let host = Host::start(quick()).await;
    let health = "/_shardmill/health";
    let reply = send(host.port, "GET", health, &[], b"").await;
    let health_of = |value: serde_json::Value| value["status"].clone();
    assert_eq!(
        (reply.status, reply.json().map(health_of)),
        (200, Some("ok".into()))
    );
    let foreign = [("Host", "rebound.example.com")];
    let reply = send(host.port, "GET", health, &foreign, b"").await;
    assert_eq!(reply.status, 403);
    assert_eq!(reply.json().expect("JSON")["error"]["code"], "forbidden");
    let page = [PUT_RECORDS.as_slice(), &[("Origin", "http://example.com")]].concat();
    let reply = send(host.port, "POST", "/", &page, b"{}").await;
    assert_eq!(reply.status, 403);
    assert_eq!(
        reply.json().expect("JSON")["__type"],
        "AccessDeniedException"
    );
    assert_eq!(reply.header("access-control-allow-origin"), None);
    host.stop().await;
}

#[tokio::test]
async fn what_is_not_supported_is_refused_by_name() {
    let host = Host::start(quick()).await;
    let told = host
        .call("UpdateStreamMode", &json!({}))
        .await
        .json()
        .expect("JSON");
    assert_eq!(told["__type"], "UnknownOperationException");
    let want = "UpdateStreamMode is not supported yet: docs/parity.md lists what is";
    assert_eq!(told["message"], want);
    let told = host.call("Whatever", &json!({})).await.json();
    assert_eq!(told, Some(json!({"__type": "UnknownOperationException"})));
    let cbor = [
        ("Content-Type", "application/x-amz-cbor-1.1"),
        ("X-Amz-Target", "Kinesis_20131202.ListStreams"),
    ];
    let reply = send(host.port, "POST", "/", &cbor, b"\xa0").await;
    assert_eq!(
        reply.header("content-type"),
        Some("application/x-amz-cbor-1.1")
    );
    assert!(
        reply.text().contains("CBOR is not supported yet"),
        "{}",
        reply.text()
    );
    host.stop().await;
}

#[tokio::test]
async fn a_request_that_runs_is_finished_before_the_server_ends() {
    let host = Host::start(quick()).await;
    let mut stream = TcpStream::connect(("127.0.0.1", host.port))
        .await
        .expect("a connection");
    let idle = TcpStream::connect(("127.0.0.1", host.port))
        .await
        .expect("a connection");
    let body = b"{}";
    let head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nContent-Type: \
         application/x-amz-json-1.1\r\nX-Amz-Target: Kinesis_20131202.ListStreams\r\nX-Amz-Date: \
         d\r\nAuthorization: {AUTHORIZATION}\r\n\r\n{{",
        body.len()
    );
    stream
        .write_all(head.as_bytes())
        .await
        .expect("half a request is sent");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let stopping = tokio::spawn(host.stop());
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream
        .write_all(b"}")
        .await
        .expect("the other half is sent");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("the answer is read");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    tokio::time::timeout(Duration::from_secs(5), stopping)
        .await
        .expect("nothing keeps the server")
        .expect("it ends well");
    drop(idle);
}

/// Not a check of speed: shows that the way through HTTP is sane, and prints what it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_records_come_through_one_connection() {
    let host = Host::start(quick()).await;
    host.stream("s", 4).await;
    let data = base64_simd::STANDARD.encode_to_string(vec![0xa5; 1024]);
    let record = |n: usize| json!({"PartitionKey": format!("key-{n}"), "Data": data});
    let records: Vec<_> = (0..500).map(record).collect();
    let body = json!({"StreamName": "s", "Records": records}).to_string();
    let mut head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in PUT_RECORDS {
        head += &format!("{name}: {value}\r\n");
    }
    let request = [head.as_bytes(), b"\r\n", body.as_bytes()].concat();
    let mut stream = TcpStream::connect(("127.0.0.1", host.port))
        .await
        .expect("a connection");
    let rounds: usize =
        std::env::var("SHARDMILL_PUT_ROUNDS").map_or(4, |n| n.parse().expect("a number"));
    let started = tokio::time::Instant::now();
    for _ in 0..rounds {
        stream.write_all(&request).await.expect("a request is sent");
        let (mut answer, mut chunk) = (Vec::new(), vec![0; 65_536]);
        while !answer.ends_with(b"]}") {
            let read = stream.read(&mut chunk).await.expect("the answer is read");
            answer.extend_from_slice(&chunk[..read]);
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    let records = rounds * 500;
    let rate = records as f64 / started.elapsed().as_secs_f64();
    println!("{records} records of 1 KiB, {rate:.0} records/s");
    assert_eq!(host.services.store.stats().records, records as u64);
    host.stop().await;
}
