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
    let late = queues.delete_messages(&scope, "q", std::slice::from_ref(&first.receipt));
    late.await.expect("no error");
    let queue = queues.get(&scope, "q").expect("the queue");
    assert_eq!(queues.counts(&queue).expect("counts").in_flight, 1);
    let given_back = queues.change_visibility(&scope, "q", &first.receipt, 0);
    assert!(matches!(given_back.await, Err(QueueError::NotInFlight)));
    let deleted = queues.delete_messages(&scope, "q", &[second.receipt]).await;
    assert_eq!(deleted.expect("deleted"), [true]);
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
    let deleted = queues.delete_messages(&scope, "q", &[old.receipt]).await;
    assert_eq!(deleted.expect("an answer"), [false]);
    let other = Attributes {
        delay_seconds: 1,
        ..Attributes::default()
    };
    let made = queues.create(&scope, "q", other).await;
    assert!(matches!(made, Err(QueueError::Exists(_))));
}

async fn write(queues: &Queues, key: Key, bytes: &'static [u8]) {
    let value = Value::Inline(bytes::Bytes::from_static(bytes));
    let tx = Tx {
        writes: vec![(key, value)],
        ..Tx::default()
    };
    queues.store.commit(tx).await.expect("written");
}

fn stored(queues: &Queues, queue: &Queue) -> usize {
    let all = queues.store.scan(&message_prefix(queue), None, usize::MAX);
    all.expect("a scan").len()
}

#[tokio::test(start_paused = true)]
async fn a_damaged_message_or_queue_is_passed_by() {
    let queues = queues().await;
    let scope = Scope::default();
    let queue = queues.get(&scope, "q").expect("the queue");
    write(&queues, queue_key(&scope, "a"), b"damaged").await;
    write(&queues, message_prefix(&queue).part("0"), b"damaged").await;
    send(&queues, &["a", "b"]).await;
    assert_eq!(queues.list(&scope, "").expect("a list").len(), 1);
    assert_eq!(queues.counts(&queue).expect("counts").visible, 2);
    assert_eq!(bodies(&receive(&queues, 1, 0).await), ["a"]);
    let late = NOW.plus(Duration::from_secs(345_600));
    queues.clock.sleep_until(late).await;
    queues.tidy().await.expect("tidied");
    assert_eq!(stored(&queues, &queue), 1, "the damaged one");
    queues.purge(&scope, "q").await.expect("purged");
    assert_eq!(stored(&queues, &queue), 0);
}

#[tokio::test(start_paused = true)]
async fn a_queue_of_the_same_name_gets_nothing_of_its_namesake() {
    let queues = queues().await;
    let scope = Scope::default();
    let old = queues.known(&scope, "q").expect("the queue");
    queues.delete(&scope, "q").await.expect("deleted");
    let made = queues.create(&scope, "q", Attributes::default()).await;
    made.expect("made again");
    let (expect, write, _) = queues.message(&old, NewMessage::default());
    for writes in [vec![write], vec![(queue_key(&scope, "q"), Value::Delete)]] {
        let tx = Tx {
            expect: vec![expect.clone()],
            writes,
            ..Tx::default()
        };
        let refused = queues.store.commit(tx).await;
        assert!(matches!(refused, Err(CommitError::Conflict(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_deleted_by_one_transaction() {
    let queues = queues().await;
    let scope = Scope::default();
    send(&queues, &["a", "b", "c"]).await;
    let received = receive(&queues, 3, 0).await;
    let mut receipts: Vec<Receipt> = received.into_iter().map(|r| r.receipt).collect();
    receipts.push(receipts[0].clone());
    receipts.push(Receipt {
        queue: "another".into(),
        ..receipts[0].clone()
    });
    let before = queues.store.stats().transactions;
    let deleted = queues.delete_messages(&scope, "q", &receipts).await;
    assert_eq!(deleted.expect("deleted"), [true, true, true, true, false]);
    assert_eq!(queues.store.stats().transactions, before + 1);
    let queue = queues.get(&scope, "q").expect("the queue");
    assert_eq!(stored(&queues, &queue), 0);
}

#[tokio::test(start_paused = true)]
async fn a_receive_deletes_old_messages_by_bounded_transactions() {
    let queues = queues().await;
    let queue = queues.get(&Scope::default(), "q").expect("the queue");
    send(&queues, &["old"; 300]).await;
    let late = NOW.plus(Duration::from_secs(345_600));
    queues.clock.sleep_until(late).await;
    send(&queues, &["new"]).await;
    assert_eq!(bodies(&receive(&queues, 1, 0).await), ["new"]);
    assert_eq!(stored(&queues, &queue), 301 - contents::MAX_DELETIONS);
    queues.tidy().await.expect("tidied");
    assert_eq!(stored(&queues, &queue), 1);
}
