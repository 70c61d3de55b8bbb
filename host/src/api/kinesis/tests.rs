//! Kinesis' rows and scenarios, its laws, and what can be done to it.
//!
//! Two doors. [`Host`] is the whole server on a free port, spoken to over HTTP. [`Local`] calls
//! the operations of a host without a socket, so that time can be paused and moved.

mod cases;
mod creating;
mod http;
mod laws;
mod producers;
mod reshard;
mod resharded;
mod scenarios;
mod serve;
mod steps;
mod tenants;
mod time;

use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use serde_json::{Value as Json, json};
use shardmill_core::stream::StreamMode;
use shardmill_core::{Scope, Stream, StreamId, UnixMillis};
use shardmill_store::{Memory, Receipt, StreamChange, Tx};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Error;
use crate::auth::{self, Claim};
use crate::clock::Clock;
use crate::server::serve;
use crate::services::{Services, Settings};
use http::Reply;

/// What the test hosts are signed for.
pub(crate) const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 \
     Credential=111122223333/20240102/eu-central-1/kinesis/aws4_request, \
     SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=0";
pub(crate) const ACCOUNT: &str = "111122223333";
pub(crate) const REGION: &str = "eu-central-1";

/// The account and region of [`AUTHORIZATION`].
pub(crate) fn scope() -> Scope {
    Scope {
        tenant: ACCOUNT.parse().expect("an account"),
        region: REGION.parse().expect("a region"),
    }
}

/// A stream of `shards` shards that nobody stored.
pub(crate) fn stream_of(shards: u32) -> Stream {
    let created = UnixMillis(1_700_000_002_000);
    Stream {
        id: StreamId(1),
        scope: scope(),
        name: "s".parse().expect("a name"),
        created,
        active_from: created,
        deleted: None,
        mode: StreamMode::Provisioned,
        retention_hours: Stream::DEFAULT_RETENTION_HOURS,
        max_record_size_kib: Stream::DEFAULT_MAX_RECORD_SIZE_KIB,
        tags: Default::default(),
        revision: 0,
        updating_until: None,
        count_updates: Vec::new(),
        shards: Stream::initial_shards(shards, created),
    }
}

/// Services over a store in memory.
pub(crate) async fn services(clock: Clock, settings: Settings) -> (Arc<Services>, Arc<Memory>) {
    let store = Arc::new(Memory::new(Arc::new(move || clock.now())));
    let services = Services::start(store.clone(), clock, settings).await;
    (Arc::new(services.expect("a store in memory starts")), store)
}

/// Settings with a short creation time.
pub(crate) fn quick() -> Settings {
    Settings {
        stream_creation_time: Duration::from_millis(1),
        ..Settings::default()
    }
}

/// Commits a change to a stream behind the API's back.
pub(crate) async fn change(services: &Services, change: StreamChange) -> Receipt {
    let tx = Tx {
        streams: vec![change],
        ..Tx::default()
    };
    services
        .store
        .commit(tx)
        .await
        .expect("the change is committed")
}

/// The whole server on a free port.
pub(crate) struct Host {
    pub(crate) port: u16,
    pub(crate) services: Arc<Services>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Host {
    pub(crate) async fn start(settings: Settings) -> Self {
        let (services, _) = services(Clock::system(), settings).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let serving = tokio::spawn(serve(listener, services.clone(), shutdown));
        Self {
            port,
            services,
            stop: Some(stop),
            serving,
        }
    }

    /// Stops it and waits until everything has ended.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.serving.await.expect("the server ends well");
    }

    /// Calls an operation, signed.
    pub(crate) async fn call(&self, operation: &str, input: &Json) -> Reply {
        let target = format!("Kinesis_20131202.{operation}");
        let headers = [
            ("Content-Type", "application/x-amz-json-1.1"),
            ("X-Amz-Target", target.as_str()),
            ("X-Amz-Date", "20240102T030405Z"),
            ("Authorization", AUTHORIZATION),
        ];
        http::send(
            self.port,
            "POST",
            "/",
            &headers,
            input.to_string().as_bytes(),
        )
        .await
    }

    /// Calls an operation that must succeed.
    pub(crate) async fn ok(&self, operation: &str, input: Json) -> Json {
        let reply = self.call(operation, &input).await;
        assert_eq!(reply.status, 200, "{operation} {input}: {reply:?}");
        reply.json().unwrap_or(Json::Null)
    }

    /// Makes a stream and waits until it is ACTIVE.
    pub(crate) async fn stream(&self, name: &str, shards: u32) {
        let input = json!({"StreamName": name, "ShardCount": shards});
        self.ok("CreateStream", input).await;
        self.wait(name, "ACTIVE").await;
    }

    /// Waits until a stream is in a state; at most 10 s.
    pub(crate) async fn wait(&self, name: &str, status: &str) {
        for _ in 0..2000 {
            let input = json!({"StreamName": name});
            let reply = self.ok("DescribeStreamSummary", input).await;
            if reply["StreamDescriptionSummary"]["StreamStatus"] == status {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{name} is not {status} after 10 s");
    }
}

/// A host without a socket.
pub(crate) struct Local {
    pub(crate) services: Arc<Services>,
    pub(crate) memory: Arc<Memory>,
}

impl Local {
    pub(crate) async fn start(settings: Settings) -> Self {
        let clock = Clock::starting_at(UnixMillis(1_700_000_000_500));
        let (services, memory) = services(clock, settings).await;
        Self { services, memory }
    }

    /// Calls an operation with these bytes as its body.
    pub(crate) async fn bytes(&self, operation: &str, body: &[u8]) -> Result<Json, Error> {
        self.with_header(operation, body, ("x-unused", "")).await
    }

    /// The same with one more header.
    pub(crate) async fn with_header(
        &self,
        operation: &str,
        body: &[u8],
        header: (&str, &str),
    ) -> Result<Json, Error> {
        self.signed(AUTHORIZATION, operation, body, header).await
    }

    /// The same for whoever this signature is of.
    pub(crate) async fn signed(
        &self,
        authorization: &str,
        operation: &str,
        body: &[u8],
        (name, value): (&str, &str),
    ) -> Result<Json, Error> {
        let request = Request::builder()
            .uri("/")
            .header("Authorization", authorization)
            .header("X-Amz-Date", "20240102T030405Z")
            .header(name, value);
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let operation = super::operations::find(operation);
        let claim = Claim::of(&self.services, &parts, auth::Service::Kinesis);
        let caller = claim.and_then(|claim| claim.check(&parts, body.to_vec().into()));
        let caller = caller.map(|(caller, _)| caller);
        let output = super::wire::run(&self.services, &parts, caller, operation, body).await?;
        let bytes = output.into_bytes();
        if bytes.is_empty() {
            return Ok(Json::Null);
        }
        Ok(serde_json::from_slice(&bytes).expect("an answer is JSON"))
    }

    /// Calls an operation.
    pub(crate) async fn call(&self, operation: &str, input: Json) -> Result<Json, Error> {
        self.bytes(operation, input.to_string().as_bytes()).await
    }

    /// Calls an operation that must succeed.
    pub(crate) async fn ok(&self, operation: &str, input: Json) -> Json {
        let shown = format!("{operation} {input}");
        self.call(operation, input).await.expect(&shown)
    }

    /// Makes a stream and waits until it is ACTIVE.
    pub(crate) async fn stream(&self, name: &str, shards: u32) {
        let input = json!({"StreamName": name, "ShardCount": shards});
        self.ok("CreateStream", input).await;
        tokio::time::sleep(self.services.settings.stream_creation_time).await;
    }

    /// An iterator.
    pub(crate) async fn iterator(&self, stream: &str, shard: u32, kind: &str) -> String {
        let input = json!({"StreamName": stream, "ShardId": shard.to_string(),
            "ShardIteratorType": kind});
        text(&self.ok("GetShardIterator", input).await["ShardIterator"])
    }
}

/// A text member of an answer.
pub(crate) fn text(json: &Json) -> String {
    json.as_str().expect("a text").to_owned()
}

/// What stands at a dotted path: members by name, items by number.
pub(crate) fn at<'a>(json: &'a Json, path: &str) -> Option<&'a Json> {
    path.split('.').try_fold(json, |json, part| match json {
        Json::Array(items) => items.get(part.parse::<usize>().ok()?),
        json => json.get(part),
    })
}
