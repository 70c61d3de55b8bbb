//! The outbox and its task against real servers on this machine, a real folder and the store in
//! memory.

use std::net::SocketAddr;
use std::sync::Mutex;

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use shardmill_core::batch::Slice;
use shardmill_core::block::Placement;
use shardmill_core::mapping::Reason;
use shardmill_core::{Batch, Block, Records, ShardId};
use shardmill_store::Memory;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::queues::Attributes;

/// A request as a server saw it.
#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default()
    }
}

/// A server that keeps what it is sent, and answers with a status that can be changed.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    status: Arc<Mutex<StatusCode>>,
}

impl Server {
    async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = Self {
            address: listener.local_addr().expect("an address"),
            seen: Arc::default(),
            status: Arc::new(Mutex::new(StatusCode::from_u16(status).expect("a status"))),
        };
        let host = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let host = host.clone();
                let service = service_fn(move |request| host.clone().answer(request));
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let served = builder.serve_connection(TokioIo::new(stream), service);
                    // A client that goes away is none of this server's business.
                    let _ = served.await;
                });
            }
        });
        server
    }

    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        self.seen.lock().unwrap().push(Seen {
            method: parts.method,
            path: parts.uri.path().into(),
            headers: parts.headers,
            body,
        });
        let status = *self.status.lock().unwrap();
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = status;
        answer
            .headers_mut()
            .insert("etag", "\"e\"".parse().unwrap());
        Ok(answer)
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// A store, and the deliveries of a process that can be ended and started again.
struct World {
    store: Arc<dyn Store>,
    clock: Clock,
    settings: Settings,
    delivery: Delivery,
    running: Option<(CancellationToken, JoinHandle<()>)>,
    batch: Batch,
}

fn batch() -> Batch {
    let mut records = Records::default();
    records.push("user-1", None, b"poison");
    let (index, blob) = records.into_parts();
    let placement = Placement {
        shard: ShardId(0),
        created_seconds: 1_573_000_000,
        first: 1,
        arrival: UnixMillis(1_573_691_884_835),
    };
    let block = Block::new(placement, index.into(), blob.into()).expect("a block");
    Batch::new([Slice {
        block,
        from: 0,
        to: 1,
    }])
}

impl World {
    fn new(settings: Settings) -> Self {
        let clock = Clock::system();
        let store: Arc<dyn Store> = Arc::new(Memory::new(Arc::new(move || clock.now())));
        let delivery = Delivery::new(Arc::clone(&store), clock, settings.clone());
        Self {
            store,
            clock,
            settings,
            delivery,
            running: None,
            batch: batch(),
        }
    }

    fn start(&mut self) {
        let stop = CancellationToken::new();
        let (delivery, token) = (self.delivery.clone(), stop.clone());
        let task = tokio::spawn(async move { delivery.run(token).await });
        self.running = Some((stop, task));
    }

    /// Ends the process's deliveries; the store stays.
    async fn restart(&mut self) {
        if let Some((stop, task)) = self.running.take() {
            stop.cancel();
            task.await.expect("it ends");
        }
        self.delivery = Delivery::new(Arc::clone(&self.store), self.clock, self.settings.clone());
        self.start();
    }

    /// Gives a record up, as a mapping's transaction does.
    async fn give_up(&self, id: &str, destination: &str) {
        let mut tx = Tx::default();
        let scope = Scope::default();
        let given_up = GivenUp {
            id,
            scope: &scope,
            mapping: "m",
            mapping_id: destination,
            function: "f",
            stream: "s",
            shard: "shardId-000000000000",
            reason: Reason::RetryAttemptsExhausted,
            function_error: true,
            request_id: "r",
            invocations: 3,
            batch: &self.batch,
            now: self.clock.now(),
            window: None,
        };
        let destination = destination.parse().expect("a destination");
        self.delivery.outbox_entry(&mut tx, &destination, &given_up);
        self.store.commit(tx).await.expect("committed");
    }

    fn left(&self) -> Vec<Entry> {
        let page = self.page(&Filter::default(), None, usize::MAX);
        page.deliveries.into_iter().map(|one| one.entry).collect()
    }

    fn page(&self, filter: &Filter<'_>, after: Option<&str>, limit: usize) -> Page {
        let scope = Scope::default();
        let page = self.delivery.list(&scope, filter, after, limit);
        page.expect("a list")
    }

    /// The deliveries of one destination, which is its own mapping here.
    fn figures(&self, destination: &str) -> Figures {
        self.delivery.figures(destination)
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert!(waited.is_ok(), "never: {what}");
}

#[tokio::test]
async fn a_webhook_gets_the_document_its_id_and_its_signature() {
    let server = Server::start(204).await;
    let mut world = World::new(Settings {
        webhook_secret: Some("secret".into()),
        ..Settings::default()
    });
    world.start();
    let url = format!("{}/hook", server.url());
    world.give_up("id-1", &url).await;
    until("delivered", || world.left().is_empty()).await;
    let [seen] = server.seen().try_into().expect("one request");
    assert_eq!(
        (seen.method.clone(), seen.path.as_str()),
        (Method::POST, "/hook")
    );
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(seen.header(webhook::ID_HEADER), "id-1");
    assert!(
        seen.header(webhook::SIGNATURE_HEADER)
            .starts_with("sha256=")
    );
    let document: serde_json::Value = serde_json::from_slice(&seen.body).expect("JSON");
    assert_eq!(
        document["requestContext"]["condition"],
        "RetryAttemptsExhausted"
    );
    let want = Figures {
        delivered: 1,
        ..Figures::default()
    };
    until("counted", || world.figures(&url) == want).await;
}

#[tokio::test]
async fn a_dead_webhook_delays_no_other_and_is_tried_until_it_is_back() {
    let (dead, good) = (Server::start(503).await, Server::start(200).await);
    let mut world = World::new(Settings::default());
    world.start();
    for n in 0..3 {
        world.give_up(&format!("a{n}"), &dead.url()).await;
    }
    for n in 0..3 {
        world.give_up(&format!("b{n}"), &good.url()).await;
    }
    until("the good one has all", || good.seen().len() == 3).await;
    until("the dead one was tried", || !dead.seen().is_empty()).await;
    until("its problem shows", || {
        world.figures(&dead.url()).delivery_problem.is_some()
    })
    .await;
    assert_eq!(world.figures(&dead.url()).deliveries_pending, 3);
    *dead.status.lock().unwrap() = StatusCode::OK;
    until("all are delivered", || world.left().is_empty()).await;
    let ids: Vec<String> = dead
        .seen()
        .iter()
        .map(|seen| seen.header(webhook::ID_HEADER).to_owned())
        .collect();
    assert_eq!(ids.first().map(String::as_str), Some("a0"));
    assert_eq!(&ids[ids.len() - 3..], ["a0", "a1", "a2"], "in order");
}

#[tokio::test]
async fn a_restart_goes_on_with_what_is_left() {
    let server = Server::start(500).await;
    let mut world = World::new(Settings::default());
    world.start();
    world.give_up("id-1", &server.url()).await;
    until("it was tried", || !server.seen().is_empty()).await;
    assert_eq!(world.left().len(), 1);
    *server.status.lock().unwrap() = StatusCode::OK;
    world.restart().await;
    until("delivered", || world.left().is_empty()).await;
    let seen = server.seen();
    assert_eq!(seen[seen.len() - 1].header(webhook::ID_HEADER), "id-1");
}

#[tokio::test]
async fn a_delivery_past_its_age_is_listed_and_may_be_tried_anew() {
    let server = Server::start(400).await;
    let mut world = World::new(Settings {
        maximum_age: Duration::ZERO,
        ..Settings::default()
    });
    world.start();
    let url = server.url();
    world.give_up("id-1", &url).await;
    until("given up", || world.figures(&url).delivery_failures == 1).await;
    let [entry] = world.left().try_into().expect("it stays listed");
    let undeliverable = entry.undeliverable.expect("it is marked");
    assert_eq!(undeliverable.why, "answered 400 Bad Request");
    let counted =
        |world: &World, count| world.delivery.undeliverable() == [(Scope::default(), count)];
    assert!(counted(&world, 1));
    world.restart().await;
    until("it is counted after a restart", || counted(&world, 1)).await;
    assert_eq!(world.figures(&url).deliveries_pending, 0, "nor is it tried");
    *server.status.lock().unwrap() = StatusCode::OK;
    let scope = Scope::default();
    world.delivery.retry(&scope, "id-1").await.expect("retried");
    assert!(counted(&world, 0), "it is tried again");
    until("delivered", || world.left().is_empty()).await;
    let again = world.delivery.retry(&scope, "id-1").await;
    assert!(matches!(again, Err(DeliveryError::NotFound(_))));
}

#[tokio::test]
async fn a_full_outbox_counts_the_delivery_as_failed() {
    let mut world = World::new(Settings {
        bounds: Bounds {
            entries: 1,
            ..Bounds::default()
        },
        ..Settings::default()
    });
    let server = Server::start(200).await;
    let url = server.url();
    world.give_up("1", &url).await;
    world.give_up("2", &url).await;
    let ids: Vec<_> = world.left().into_iter().map(|e| e.id).collect();
    assert_eq!(ids, ["1"]);
    assert_eq!(world.figures(&url).delivery_failures, 1);
    world.start();
    until("there is room again", || world.left().is_empty()).await;
    until("it is counted", || world.figures(&url).delivered == 1).await;
    world.give_up("3", &url).await;
    until("the third arrives", || server.seen().len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_was_not_committed_takes_no_room() {
    let clock = Clock::starting_at(UnixMillis(4_102_444_800_000));
    let store: Arc<dyn Store> = Arc::new(Memory::new(Arc::new(move || clock.now())));
    let settings = Settings {
        bounds: Bounds {
            entries: 1,
            ..Bounds::default()
        },
        ..Settings::default()
    };
    let mut world = World::new(settings.clone());
    world.delivery = Delivery::new(Arc::clone(&store), clock, settings);
    (world.store, world.clock) = (Arc::clone(&store), clock);
    let destination: Destination = "http://127.0.0.1:9/".parse().expect("a destination");
    let scope = Scope::default();
    let given_up = |id| GivenUp {
        id,
        scope: &scope,
        mapping: "m",
        mapping_id: "m",
        function: "f",
        stream: "s",
        shard: "shardId-000000000000",
        reason: Reason::RetryAttemptsExhausted,
        function_error: true,
        request_id: "r",
        invocations: 1,
        batch: &world.batch,
        now: clock.now(),
        window: None,
    };
    let write = |id| {
        let mut tx = Tx::default();
        world
            .delivery
            .outbox_entry(&mut tx, &destination, &given_up(id));
        (!tx.writes.is_empty()).then_some(tx)
    };
    let room = (write("1").is_some(), write("2").is_some());
    assert_eq!(room, (true, false), "the first takes the room");
    tokio::time::advance(Duration::from_secs(61)).await;
    world.delivery.inner.take_up();
    let Some(tx) = write("3") else {
        panic!("there is room again")
    };
    // Its disk is slow.
    tokio::time::advance(Duration::from_secs(61)).await;
    world.delivery.inner.take_up();
    store.commit(tx).await.expect("committed after all");
    tokio::time::advance(Duration::from_secs(60)).await;
    world.delivery.inner.take_up();
    let pending = world.delivery.figures("m").deliveries_pending;
    assert_eq!(pending, 1, "it is not forgotten");
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(world.delivery.inner.take_up(), UnixMillis(u64::MAX));
}

#[tokio::test]
async fn a_folder_gets_an_object_with_the_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let destination = format!("file://{}/given/up", folder.path().display());
    let mut world = World::new(Settings::default());
    world.start();
    world.give_up("id-1", &destination).await;
    until("delivered", || world.left().is_empty()).await;
    let mut path = folder.path().join("given/up/aws/lambda");
    while path.is_dir() {
        let mut entries = std::fs::read_dir(&path).expect("a folder");
        path = entries.next().expect("an entry").expect("an entry").path();
    }
    assert!(path.to_string_lossy().ends_with("-id-1"), "{path:?}");
    let text = std::fs::read_to_string(path).expect("the object");
    let object: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let payload = object["payload"].as_str().expect("a text");
    let event: serde_json::Value = serde_json::from_str(payload).expect("an event");
    assert_eq!(event["Records"][0]["kinesis"]["data"], "cG9pc29u");
}

#[tokio::test]
async fn a_bucket_gets_a_signed_put() {
    let server = Server::start(200).await;
    let mut world = World::new(Settings {
        s3: S3Settings {
            endpoint: Some(server.url()),
            region: Some("eu-west-1".into()),
            access_key_id: Some("AKIDEXAMPLE".into()),
            secret_access_key: Some("secret".into()),
        },
        ..Settings::default()
    });
    world.start();
    world.give_up("id-1", "s3://given-up/pre/fix").await;
    until("delivered", || world.left().is_empty()).await;
    let [seen] = server.seen().try_into().expect("one request");
    assert_eq!(seen.method, Method::PUT);
    let prefix = "/given-up/pre/fix/aws/lambda/";
    assert!(seen.path.starts_with(prefix), "{}", seen.path);
    assert!(seen.path.ends_with("-id-1"), "{}", seen.path);
    let signed = seen.header("authorization");
    assert!(
        signed.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"),
        "{signed}"
    );
    assert!(signed.contains("/eu-west-1/s3/aws4_request"), "{signed}");
    assert_eq!(seen.header("content-type"), "application/octet-stream");
    let object: serde_json::Value = serde_json::from_slice(&seen.body).expect("JSON");
    assert!(object["payload"].is_string());
}

#[tokio::test]
async fn a_queue_that_is_gone_makes_deliveries_wait_until_it_is_back() {
    let scope = Scope::default();
    let arn = "arn:aws:sqs:us-east-1:000000000000:dead-letters";
    let mut world = World::new(Settings::default());
    let destination: Destination = arn.parse().expect("a destination");
    let refused = world.delivery.check(&scope, &destination);
    let refused = refused.expect_err("there is no such queue").to_string();
    assert!(refused.contains("make it first"), "{refused}");
    world.start();
    world.give_up("id-1", arn).await;
    until("it was tried", || {
        world.figures(arn).delivery_problem.is_some()
    })
    .await;
    let queues = world.delivery.queues().clone();
    let made = queues.create(&scope, "dead-letters", Attributes::default());
    made.await.expect("a queue");
    assert!(matches!(
        world.delivery.check(&scope, &destination),
        Ok(Some(_))
    ));
    let wait = Duration::from_secs(20);
    let received = queues.receive(&scope, "dead-letters", 10, None, wait);
    let [received] = received.await.expect("received").try_into().expect("one");
    assert_eq!(received.message.attributes[0].value, "id-1");
    let document: serde_json::Value = serde_json::from_str(&received.message.body).expect("JSON");
    assert_eq!(document["KinesisBatchInfo"]["batchSize"], 1);
    until("the outbox is empty", || world.left().is_empty()).await;
}

#[tokio::test]
async fn a_queue_of_another_account_is_refused() {
    let world = World::new(Settings::default());
    let destination: Destination = "arn:aws:sqs:us-east-1:123456789012:q"
        .parse()
        .expect("a destination");
    let refused = world.delivery.check(&Scope::default(), &destination);
    assert!(matches!(refused, Err(DeliveryError::ForeignQueue { .. })));
}

/// A 502 that broke off counted as delivered, and a 200 that never ended was posted for a day.
#[tokio::test]
async fn a_status_counts_whatever_becomes_of_the_answers_body() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let seen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            *count.lock().unwrap() += 1;
            let first = *count.lock().unwrap() == 1;
            let head: &[u8] = match first {
                true => b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 99\r\n\r\nbroken",
                false => b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nendless",
            };
            let _ = stream.write_all(head).await;
            if !first {
                kept.push(stream);
            }
        }
    });
    let mut world = World::new(Settings::default());
    world.start();
    world.give_up("id-1", &url).await;
    until("the 502 shows", || {
        world.figures(&url).delivery_problem.is_some()
    })
    .await;
    assert_eq!(world.figures(&url).delivered, 0);
    // Less than the time of an attempt.
    let wait = Duration::from_secs(8);
    let delivered = until("delivered", || world.left().is_empty());
    let waited = tokio::time::timeout(wait, delivered).await;
    waited.expect("nobody waits for the end of the body");
    assert_eq!(*seen.lock().unwrap(), 2, "once refused, once taken");
}

#[tokio::test]
async fn a_delivery_whose_records_are_damaged_holds_up_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let destination = format!("file://{}", folder.path().display());
    let mut world = World::new(Settings::default());
    world.give_up("id-1", &destination).await;
    world.give_up("id-2", &destination).await;
    let key = outbox::payload_key(&Scope::default(), "id-1");
    let damage = Tx {
        writes: vec![(key, Value::Blob(Bytes::from_static(b"damage")))],
        ..Tx::default()
    };
    world.store.commit(damage).await.expect("committed");
    world.start();
    until("the second is delivered", || world.left().len() == 1).await;
    let page = world.page(&Filter::default(), None, 10);
    let [left] = page.deliveries.try_into().expect("one is left");
    assert_eq!(left.entry.id, "id-1");
    let problem = left.problem.expect("it says what is wrong");
    assert!(problem.contains("damaged"), "{problem}");
}

#[tokio::test]
async fn an_object_that_the_store_refuses_holds_up_no_other() {
    let server = Server::start(413).await;
    let mut world = World::new(Settings {
        s3: S3Settings {
            endpoint: Some(server.url()),
            region: Some("eu-west-1".into()),
            access_key_id: Some("AKIDEXAMPLE".into()),
            secret_access_key: Some("secret".into()),
        },
        ..Settings::default()
    });
    world.start();
    let destination = "s3://given-up/pre%20fix%25";
    world.give_up("id-1", destination).await;
    world.give_up("id-2", destination).await;
    until("both are tried", || server.seen().len() == 2).await;
    let paths: Vec<String> = server.seen().into_iter().map(|seen| seen.path).collect();
    let begins = "/given-up/pre%20fix%25/aws/lambda/";
    assert!(paths.iter().all(|p| p.starts_with(begins)), "{paths:?}");
    assert!(paths[1].ends_with("-id-2"), "{paths:?}");
}

#[tokio::test]
async fn what_is_not_allowed_is_neither_named_nor_sent_to() {
    let server = Server::start(200).await;
    let mut world = World::new(Settings {
        allowed: Allowed {
            prefixes: Some(vec!["https://hooks.example.com".parse().expect("one")]),
            ..Allowed::default()
        },
        ..Settings::default()
    });
    let url = server.url();
    let named = url.parse().expect("a destination");
    let refused = world.delivery.check(&Scope::default(), &named);
    assert!(matches!(refused, Err(DeliveryError::NotAllowed(_))));
    world.start();
    // What a mapping gave up before the list was written.
    world.give_up("id-1", &url).await;
    until("it says so", || {
        let problem = world.figures(&url).delivery_problem;
        problem.is_some_and(|problem| problem.contains("`allow`"))
    })
    .await;
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn deliveries_are_listed_by_pages_and_named_by_the_beginning_of_their_ids() {
    let world = World::new(Settings::default());
    let id = |n: usize| format!("0190000{n}-0000-7000-8000-000000000000");
    for n in 0..5 {
        let port = 10 + n % 2;
        world
            .give_up(&id(n), &format!("http://127.0.0.1:{port}/"))
            .await;
    }
    let filter = Filter {
        destination: Some("http://127.0.0.1:10/"),
        ..Filter::default()
    };
    let ids = |page: &Page| -> Vec<String> {
        let ids = page.deliveries.iter().map(|one| one.entry.id.clone());
        ids.collect()
    };
    let first = world.page(&filter, None, 2);
    assert_eq!(ids(&first), [id(0), id(2)]);
    assert_eq!(first.after, Some(id(2)));
    let last = world.page(&filter, first.after.as_deref(), 2);
    assert_eq!((ids(&last), last.after), (vec![id(4)], None));
    let scope = Scope::default();
    let resolve = |start: &str| world.delivery.resolve(&scope, start);
    assert_eq!(resolve("01900003").ok(), Some(id(3)));
    assert_eq!(resolve(&id(3)).ok(), Some(id(3)));
    let several = resolve("0190");
    assert!(matches!(
        several,
        Err(DeliveryError::Ambiguous { count: 5, .. })
    ));
    for none in ["", "02", &format!("{}0", id(3))] {
        assert!(matches!(resolve(none), Err(DeliveryError::NotFound(_))));
    }
}

#[tokio::test]
async fn the_figures_of_a_mapping_that_is_gone_are_forgotten() {
    let server = Server::start(200).await;
    let mut world = World::new(Settings::default());
    world.start();
    let url = server.url();
    let key = Key::new(Table::Mapping, &Scope::default()).part(&url);
    let write = |value| Tx {
        writes: vec![(key.clone(), value)],
        ..Tx::default()
    };
    let made = world
        .store
        .commit(write(Value::Inline(Bytes::from_static(b"{}"))));
    made.await.expect("a mapping");
    world.give_up("id-1", &url).await;
    until("delivered", || world.figures(&url).delivered == 1).await;
    world.delivery.tidy().expect("tidied");
    assert_eq!(world.figures(&url).delivered, 1);
    world
        .store
        .commit(write(Value::Delete))
        .await
        .expect("gone");
    world.delivery.tidy().expect("tidied");
    assert_eq!(world.figures(&url), Figures::default());
}
