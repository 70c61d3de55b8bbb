//! Streams whose shards change while others read, put and change them too.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use shardmill_core::reshard::{self, Refusal};

use super::*;

fn update(stream: Stream) -> Tx {
    Tx {
        streams: vec![StreamChange::Update(Box::new(stream))],
        ..Tx::default()
    }
}

/// Reads the stream and stores what `decide` makes of it, again whenever somebody was faster.
/// Gives what was stored and how often that was.
async fn reshard(
    store: &dyn Store,
    id: StreamId,
    decide: impl Fn(&Stream) -> Result<Stream, Refusal>,
) -> Result<usize, Refusal> {
    for lost in 0.. {
        let stream = store.stream_by_id(id).expect("the stream");
        match store.commit(update(decide(&stream)?)).await {
            Ok(_) => return Ok(lost),
            Err(error) => assert_eq!(error, CommitError::StreamChanged(id)),
        }
    }
    unreachable!()
}

fn middle(stream: &Stream, id: ShardId) -> HashKey {
    let range = stream.shard(id).expect("a shard").range;
    HashKey(range.start.0 + (range.end.0 - range.start.0) / 2)
}

pub(crate) async fn an_update_of_an_older_state_is_refused(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 1).await;
    let read = |at: &Fixture| Stream::clone(&at.store.stream_by_id(at.stream).expect("it"));
    let first = read(&at);
    let split = reshard::split(&first, ShardId(0), HashKey(9), CREATED).expect("a split");
    at.store.commit(update(split)).await.expect("a split");
    let retention = |stream| Stream {
        retention_hours: 48,
        ..stream
    };
    for _ in 0..2 {
        let refused = at.store.commit(update(retention(first.clone()))).await;
        assert_eq!(refused, Err(CommitError::StreamChanged(at.stream)));
        assert_eq!(read(&at).shards.len(), 3, "the split stands");
        at.reopen(engine).await;
    }
    let updated = at.store.commit(update(retention(read(&at)))).await;
    assert_eq!(read(&at).revision, updated.expect("an update").revision);
    assert_eq!(read(&at).retention_hours, 48);
    assert_eq!(read(&at).shards.len(), 3);
}

pub(crate) async fn a_stream_that_was_changed_in_the_same_group_is_not_changed_again(
    engine: &dyn Engine,
) {
    let at = Fixture::new(engine, 1).await;
    let stream = at.store.stream_by_id(at.stream).expect("it");
    let commits = (24..32).map(|retention_hours| {
        at.store.commit(update(Stream {
            retention_hours,
            ..Stream::clone(&stream)
        }))
    });
    // All are under way before the first one is answered.
    let commits: Vec<_> = commits.collect();
    let mut done = 0;
    for commit in commits {
        match commit.await {
            Ok(_) => done += 1,
            Err(error) => assert_eq!(error, CommitError::StreamChanged(at.stream)),
        }
    }
    assert_eq!(done, 1);
}

pub(crate) async fn reshards_at_once_do_not_undo_each_other(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 8).await;
    let tasks: Vec<_> = (0..8)
        .map(|shard| {
            let (store, id) = (Arc::clone(&at.store), at.stream);
            tokio::spawn(async move {
                // Each splits its own shard, and the lower child again.
                reshard(&*store, id, |stream| {
                    let middle = middle(stream, ShardId(shard));
                    reshard::split(stream, ShardId(shard), middle, CREATED)
                })
                .await
                .expect("a split");
                reshard(&*store, id, |stream| {
                    let child = stream.children(ShardId(shard)).next().expect("a child").id;
                    reshard::split(stream, child, middle(stream, child), CREATED)
                })
                .await
                .expect("a split of a child");
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task");
    }
    at.reopen(engine).await;
    let stream = at.store.stream_by_id(at.stream).expect("the stream");
    assert_eq!(stream.shards.len(), 8 + 4 * 8);
    assert_eq!(reshard::open_count(&stream), 3 * 8);
    for shard in 0..8 {
        assert_eq!(stream.children(ShardId(shard)).count(), 2, "{shard}");
    }
}

pub(crate) async fn a_shard_closes_no_earlier_than_its_newest_record(engine: &dyn Engine) {
    let at = Fixture::new(engine, 1).await;
    at.clock.advance(60_000);
    let newest = at.put(0, &["late"]).await.arrival;
    // The clock goes back, and the split is decided by it.
    at.clock.set(CREATED.0);
    reshard(&*at.store, at.stream, |stream| {
        reshard::split(stream, ShardId(0), middle(stream, ShardId(0)), CREATED)
    })
    .await
    .expect("a split");
    let stream = at.store.stream_by_id(at.stream).expect("the stream");
    assert_eq!(stream.shards[0].closed_seconds, Some(newest.seconds()));
    for child in 1..3 {
        let placed = at.put(child, &["next"]).await;
        assert!(placed.arrival > newest, "arrival goes on in the children");
        let shard = &stream.shards[child as usize];
        let first = shard.sequence_number(placed.first, placed.arrival.seconds());
        let last = stream.shards[0].ending_sequence_number();
        assert!(Some(first) > last, "and so do sequence numbers");
    }
}

/// The partition keys and the records of each that [`producers_lose_nothing_while_shards_split_and_merge`] puts.
const KEYS: usize = 24;
const RECORDS_PER_KEY: usize = 40;

pub(crate) async fn producers_lose_nothing_while_shards_split_and_merge(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 2).await;
    let stop = Arc::new(AtomicBool::new(false));
    let resharding = {
        let (store, id, stop) = (Arc::clone(&at.store), at.stream, Arc::clone(&stop));
        let clock = at.clock.clone();
        tokio::spawn(async move {
            let mut rounds = 0;
            while rounds < 12 || !stop.load(Ordering::Relaxed) {
                clock.advance(700);
                let now = clock.now();
                let target = [5, 3, 8, 1, 2][rounds % 5];
                reshard(&*store, id, |stream| reshard::scale(stream, target, now))
                    .await
                    .expect("a plan");
                rounds += 1;
                tokio::task::yield_now().await;
            }
            rounds
        })
    };
    let producers: Vec<_> = (0..4)
        .map(|producer| {
            let (store, stream) = (Arc::clone(&at.store), at.stream);
            tokio::spawn(async move {
                for n in 0..RECORDS_PER_KEY {
                    let mut records = Records::default();
                    for key in (producer..KEYS).step_by(4) {
                        records.push(&format!("key {key}"), None, &(n as u64).to_le_bytes());
                    }
                    let tx = Tx {
                        appends: vec![Append {
                            stream,
                            route: Route::HashKey,
                            records,
                        }],
                        ..Tx::default()
                    };
                    store.commit(tx).await.expect("an append");
                }
            })
        })
        .collect();
    for producer in producers {
        producer.await.expect("a producer");
    }
    stop.store(true, Ordering::Relaxed);
    let rounds = resharding.await.expect("the resharding");
    for _ in 0..2 {
        let stream = at.store.stream_by_id(at.stream).expect("the stream");
        assert!(stream.shards.len() > rounds, "shards came and went");
        let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut numbers: BTreeMap<String, shardmill_core::SequenceNumber> = BTreeMap::new();
        // By id, parents come before their children.
        for shard in &stream.shards {
            let blocks = at.store.read(at.shard(shard.id.0), 1, ALL).await;
            for record in blocks.expect("a read").iter().flat_map(Block::iter) {
                assert!(shard.range.contains(record.parts.hash_key()), "{shard:?}");
                let key = record.parts.key.to_owned();
                let n = u64::from_le_bytes(record.parts.data.try_into().expect("a number"));
                let number = record.sequence_number();
                let last = numbers.insert(key.clone(), number);
                assert!(last < Some(number), "the numbers of {key} grow");
                seen.entry(key).or_default().push(n);
            }
        }
        assert_eq!(seen.len(), KEYS);
        for (key, found) in seen {
            let all: Vec<_> = (0..RECORDS_PER_KEY as u64).collect();
            assert_eq!(found, all, "{key}: each record once, in order");
        }
        at.reopen(engine).await;
    }
}

pub(crate) async fn a_shard_that_is_taken_out_is_gone(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 1).await;
    at.put(0, &["old"]).await;
    let split =
        |stream: &Stream| reshard::split(stream, ShardId(0), middle(stream, ShardId(0)), CREATED);
    reshard(&*at.store, at.stream, split)
        .await
        .expect("a split");
    at.put(1, &["kept"]).await;
    let trim = Tx {
        trims: vec![Trim {
            shard: at.shard(0),
            before: 2,
        }],
        ..Tx::default()
    };
    at.store.commit(trim).await.expect("a trim");
    reshard(&*at.store, at.stream, |stream| {
        let mut stream = stream.clone();
        stream.shards.remove(0);
        Ok(stream)
    })
    .await
    .expect("no refusal");
    for _ in 0..2 {
        let gone = at.store.read(at.shard(0), 1, ALL).await;
        assert_eq!(gone, Err(ReadError::NoSuchShard(at.shard(0))));
        assert_eq!(at.keys(1, 1).await, named(&[(1, "kept")]));
        at.reopen(engine).await;
    }
}
