//! A closed host with an attacker, its victim and an operator.

use std::path::PathBuf;

use serde_json::{Value, json};
use shardmill_core::UnixMillis;

use super::raw::{self, Answer};
use super::sign::{Key, Request, Terms};
use crate::host::{Host, guest, until};

pub(super) const ATTACKER: Key = Key {
    account: "000000000666",
    id: "AKIDATTACKER",
    secret: "secret-of-the-attacker",
};
pub(super) const VICTIM: Key = Key {
    account: "000000000001",
    id: "AKIDVICTIM",
    secret: "secret-of-the-victim",
};
pub(super) const OPERATOR: Key = Key {
    account: "000000000000",
    id: "AKIDOPERATOR",
    secret: "secret-of-the-operator",
};

pub(super) const REGION: &str = "us-east-1";

/// How long silent clients are waited for, s.
pub(super) const PATIENCE_SECONDS: u64 = 2;
/// Connections at a time.
pub(super) const CONNECTIONS: usize = 64;

pub(super) struct Site {
    host: Host,
    address: String,
    process: u32,
}

impl Site {
    pub(super) async fn start() -> Self {
        let manifest = format!(
            r#"
[server]
access = "closed"
patience_seconds = {PATIENCE_SECONDS}
body_grace_seconds = {PATIENCE_SECONDS}
max_connections = {CONNECTIONS}
[[tenant]]
account = "{}"
functions = 200
shards = 200
stored_mib = 256
concurrent_invocations = 4
guest_memory_mib = 768
[[tenant.access_key]]
id = "{}"
secret = "{}"
[[tenant]]
account = "{}"
[[tenant.access_key]]
id = "{}"
secret = "{}"
[[operator]]
name = "ops"
[[operator.access_key]]
id = "{}"
secret = "{}"
"#,
            ATTACKER.account,
            ATTACKER.id,
            ATTACKER.secret,
            VICTIM.account,
            VICTIM.id,
            VICTIM.secret,
            OPERATOR.id,
            OPERATOR.secret
        );
        let mut host = Host::with(&[], Some(&manifest));
        let address = host.url().strip_prefix("http://").unwrap().to_owned();
        let process = host.process_id();
        Self {
            host,
            address,
            process,
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Terms of a good signature.
    pub(super) fn terms(&self, service: &'static str) -> Terms {
        Terms {
            service,
            region: REGION,
            now: now(),
            payload: None,
        }
    }

    /// A request with a good signature.
    pub(super) async fn send(&self, key: Key, service: &'static str, request: &Request) -> Answer {
        let headers = request.signed(key, self.terms(service));
        self.bytes(&request.bytes(&headers)).await
    }

    pub(super) async fn bytes(&self, bytes: &[u8]) -> Answer {
        raw::exchange(&self.address, bytes).await
    }

    /// One request of the native API, below `/_shardmill/`.
    pub(super) async fn native(
        &self,
        key: Key,
        method: &'static str,
        path: &str,
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        let request = Request::new(method, format!("/_shardmill/{path}")).body(body);
        self.send(key, "shardmill", &request).await
    }

    pub(super) async fn kinesis(&self, key: Key, operation: &str, input: &Value) -> Answer {
        self.send(key, "kinesis", &kinesis(operation, input)).await
    }

    pub(super) async fn sqs(&self, key: Key, operation: &str, input: &Value) -> Answer {
        let request = Request::new("POST", "/")
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", format!("AmazonSQS.{operation}"))
            .body(input.to_string());
        self.send(key, "sqs", &request).await
    }

    /// Makes a stream and waits until it is there.
    pub(super) async fn stream(&self, key: Key, name: &str, shards: u32) {
        let input = json!({"StreamName": name, "ShardCount": shards});
        let made = self.kinesis(key, "CreateStream", &input).await;
        assert_eq!(made.told(), "200", "{name}");
        until("the stream is ACTIVE", async || {
            let name = json!({"StreamName": name});
            let found = self.kinesis(key, "DescribeStreamSummary", &name).await;
            found.json()["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"
        })
        .await;
    }

    /// Puts records of a key each.
    pub(super) async fn put(&self, key: Key, stream: &str, records: &[(String, String)]) -> Answer {
        let record = |(key, data): &(String, String)| {
            let data = base64_simd::STANDARD.encode_to_string(data);
            json!({"PartitionKey": key, "Data": data})
        };
        let records: Vec<Value> = records.iter().map(record).collect();
        let input = json!({"StreamName": stream, "Records": records});
        self.kinesis(key, "PutRecords", &input).await
    }

    /// Deploys a guest of the tree.
    pub(super) async fn deploy(&self, key: Key, name: &str, guest_name: &str) {
        let wasm = std::fs::read(guest(guest_name)).unwrap();
        let path = format!("functions/{name}");
        let deployed = self.native(key, "PUT", &path, wasm).await;
        assert_eq!(deployed.told(), "200", "{name}");
    }

    /// Makes a mapping that gives up at once what fails.
    pub(super) async fn map(&self, key: Key, name: &str, stream: &str, function: &str) {
        let body = json!({
            "stream": stream, "function": function,
            "maximum_retry_attempts": 0, "bisect_batch_on_function_error": false,
        });
        let path = format!("mappings/{name}");
        let made = self.native(key, "PUT", &path, body.to_string()).await;
        assert_eq!(made.told(), "200", "{name}");
    }

    /// A mapping once it has nothing left to do.
    pub(super) async fn drained(&self, key: Key, mapping: &str) -> Value {
        let path = format!("mappings/{mapping}");
        let view = async || self.native(key, "GET", &path, "").await.json();
        until(&format!("mapping {mapping} is drained"), async || {
            let view = view().await;
            let shards = view["shards"].as_array().cloned().unwrap_or_default();
            !shards.is_empty() && shards.iter().all(|s| s["records_behind"] == 0)
        })
        .await;
        view().await
    }

    /// What a tenant's failure store holds of a mapping, oldest first.
    pub(super) async fn failures(&self, key: Key, mapping: &str) -> Vec<Value> {
        let path = format!("failures?limit=1000&mapping={mapping}");
        let listed = self.native(key, "GET", &path, "").await.json();
        let mut entries = listed["failures"].as_array().unwrap().clone();
        entries.reverse();
        entries
    }

    /// Counters of a function: `a=1 b=2`.
    pub(super) async fn counters(&self, key: Key, function: &str) -> String {
        let path = format!("counters/{function}");
        let listed = self.native(key, "GET", &path, "").await.json();
        let counters = listed["counters"].as_array().cloned().unwrap_or_default();
        let text = |c: &Value| format!("{}={}", c["name"].as_str().unwrap(), c["value"]);
        counters.iter().map(text).collect::<Vec<_>>().join(" ")
    }

    /// The most memory that the host's process has had, MiB.
    pub(super) fn peak_memory_mib(&self) -> u64 {
        let status = PathBuf::from(format!("/proc/{}/status", self.process));
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib: u64 = line
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        kib / 1024
    }

    /// That no guest or client has written lines, or to a terminal, by way of the host's log, and
    /// that nothing in the host has panicked.
    pub(super) fn log_is_clean(&self) {
        let log = std::fs::read_to_string(self.host.log()).unwrap();
        let bad = |c: char| c.is_control() && c != '\n' && c != '\t';
        for line in log.lines() {
            assert!(!line.contains(bad), "{line:?}");
            assert!(!line.starts_with("FORGED"), "{line:?}");
            assert!(!line.contains("panicked at"), "{line:?}");
        }
        for key in [ATTACKER, VICTIM, OPERATOR] {
            assert!(!log.contains(key.secret));
        }
    }

    /// Ends the host, which must be the process that was started, in good order.
    pub(super) fn end(&mut self) {
        assert_eq!(self.host.process_id(), self.process);
        assert_eq!(self.host.terminate(), Some(0), "it ends in good order");
    }
}

/// A request of Kinesis that is not signed yet.
pub(super) fn kinesis(operation: &str, input: &Value) -> Request {
    Request::new("POST", "/")
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
        .body(input.to_string())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a signature is made at the time that the host's process has"
)]
pub(super) fn now() -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixMillis(since.unwrap().as_millis() as u64)
}
