//! Queues on simulated time, over the store in memory.

use shardmill_store::Memory;

use super::*;

/// The year 2100.
const NOW: UnixMillis = UnixMillis(4_102_444_800_000);

async fn queues() -> Queues {
    let clock = Clock::starting_at(NOW);
    let store = Arc::new(Memory::new(Arc::new(move || clock.now())));
    let queues = Queues::new(store, clock);
    queues
        .create(&Scope::default(), "q", Attributes::default())
        .await
        .expect("a queue");
    queues
}

async fn send(queues: &Queues, bodies: &[&str]) {
    let message = |body: &&str| NewMessage {
        body: (*body).into(),
        ..NewMessage::default()
    };
    let messages = bodies.iter().map(message).collect();
    let sent = queues.send(&Scope::default(), "q", messages).await;
    assert_eq!(sent.expect("sent").len(), bodies.len());
}

async fn receive(queues: &Queues, most: usize, wait: u64) -> Vec<Received> {
    let (scope, wait) = (Scope::default(), Duration::from_secs(wait));
    let received = queues.receive(&scope, "q", most, None, wait);
    received.await.expect("received")
}

fn bodies(received: &[Received]) -> Vec<&str> {
    received.iter().map(|r| r.message.body.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_received_message_is_hidden_until_its_timeout() {
    let queues = queues().await;
    send(&queues, &["a", "b", "c"]).await;
    assert_eq!(bodies(&receive(&queues, 2, 0).await), ["a", "b"]);
    assert_eq!(bodies(&receive(&queues, 10, 0).await), ["c"]);
    let began = queues.clock.now();
    let again = receive(&queues, 10, 60).await;
    assert_eq!(bodies(&again), ["a", "b", "c"]);
    assert_eq!(queues.clock.now().since(began), Duration::from_secs(30));
    assert_eq!(again[0].message.receives, 2);
    assert_eq!(again[0].message.first_received, Some(NOW));
}

#[tokio::test(start_paused = true)]
async fn a_receipt_deletes_its_own_receive_only() {
    let queues = queues().await;
    let scope = Scope::default();
    send(&queues, &["a"]).await;
    let first = receive(&queues, 1, 0).await.remove(0);
    let second = receive(&queues, 1, 31).await.remove(0);
    let late = queues.delete_message(&scope, "q", &first.receipt).await;
    late.expect("no error");
    let queue = queues.get(&scope, "q").expect("the queue");
    assert_eq!(queues.counts(&queue).expect("counts").in_flight, 1);
    let given_back = queues.change_visibility(&scope, "q", &first.receipt, 0);
    assert!(matches!(given_back.await, Err(QueueError::NotInFlight)));
    let deleted = queues.delete_message(&scope, "q", &second.receipt).await;
    deleted.expect("deleted");
    assert_eq!(queues.counts(&queue).expect("counts"), Counts::default());
}

#[tokio::test(start_paused = true)]
async fn a_message_given_back_wakes_who_waits() {
    let queues = queues().await;
    send(&queues, &["a"]).await;
    let first = receive(&queues, 1, 0).await.remove(0);
    let (waiting, ()) = tokio::join!(receive(&queues, 1, 20), async {
        let scope = Scope::default();
        let given_back = queues.change_visibility(&scope, "q", &first.receipt, 0);
        given_back.await.expect("given back");
    });
    assert_eq!(bodies(&waiting), ["a"]);
    assert_eq!(queues.clock.now(), NOW, "at once");
}

#[tokio::test(start_paused = true)]
async fn delays_and_retention_are_kept() {
    let queues = queues().await;
    let late = NewMessage {
        body: "late".into(),
        delay: Some(10),
        ..NewMessage::default()
    };
    let sent = queues.send(&Scope::default(), "q", vec![late]).await;
    sent.expect("sent");
    assert!(receive(&queues, 1, 9).await.is_empty());
    assert_eq!(bodies(&receive(&queues, 1, 2).await), ["late"]);
    queues
        .clock
        .sleep_until(NOW.plus(Duration::from_secs(345_600)))
        .await;
    assert!(
        receive(&queues, 1, 0).await.is_empty(),
        "4 days are over, for whoever receives"
    );
    send(&queues, &["a", "b"]).await;
    let scope = Scope::default();
    let queue = queues.get(&scope, "q").expect("the queue");
    let late = queues.clock.now().plus(Duration::from_secs(345_600));
    queues.clock.sleep_until(late).await;
    queues.tidy().await.expect("tidied");
    let left = queues.store.scan(&message_prefix(&queue), None, 10);
    assert!(left.expect("a scan").is_empty(), "and for the disk");
}

#[tokio::test(start_paused = true)]
async fn a_queue_made_again_has_nothing_of_its_namesake() {
    let queues = queues().await;
    let scope = Scope::default();
    send(&queues, &["a"]).await;
    let old = receive(&queues, 1, 0).await.remove(0);
    queues.delete(&scope, "q").await.expect("deleted");
    assert!(matches!(
        queues.get(&scope, "q"),
        Err(QueueError::NotFound { .. })
    ));
    let made = queues.create(&scope, "q", Attributes::default()).await;
    made.expect("made again");
    assert!(receive(&queues, 1, 40).await.is_empty());
    let deleted = queues.delete_message(&scope, "q", &old.receipt).await;
    assert!(matches!(deleted, Err(QueueError::BadReceipt)));
    let other = Attributes {
        delay_seconds: 1,
        ..Attributes::default()
    };
    let made = queues.create(&scope, "q", other).await;
    assert!(matches!(made, Err(QueueError::Exists(_))));
}
