//! Rot, full disks, failed syncs, and how much a start and a trim cost.

use super::*;
use crate::journal::SegmentInfo;
use crate::tx::{ProducerMark, Trim, Urgency};

/// A store with records of 4 KB, positions 1 to `count`, in the tables and closed.
async fn filled(io: &SimIo, count: u64) -> StreamId {
    let store = open(io);
    let stream = create(&store, "clicks", 1).await;
    for n in 1..=count {
        let tx = Tx {
            appends: vec![large(stream, 0, &format!("key {n}"))],
            ..Tx::default()
        };
        store.commit(tx).await.expect("an append");
    }
    store.close().await;
    stream
}

/// Where the records' data lie: of each record one byte.
fn data_places(io: &SimIo, keys: impl Iterator<Item = u64>) -> Vec<(String, u64)> {
    let mut places = Vec::new();
    let segments: Vec<(String, Vec<u8>)> = io
        .files()
        .into_iter()
        .filter(|name| name.starts_with("journal/") && name.ends_with(".log"))
        .map(|name| {
            let file = Io::open(io, &name).expect("a file");
            let mut bytes = vec![0; file.len().expect("its length") as usize];
            file.read_at(0, &mut bytes).expect("its bytes");
            (name, bytes)
        })
        .collect();
    for key in keys {
        let needle = large_data(&format!("key {key}"));
        let found = segments.iter().find_map(|(name, bytes)| {
            let at = bytes
                .windows(64)
                .position(|window| *window == needle[..64])?;
            Some((name.clone(), at as u64 + 2000))
        });
        places.push(found.expect("the record's data"));
    }
    places
}

#[tokio::test]
async fn exactly_the_block_that_rotted_is_refused() {
    let io = SimIo::new();
    let stream = filled(&io, 150).await;
    let (name, offset) = data_places(&io, [77].into_iter()).remove(0);
    io.flip(&name, offset, 4);
    let store = open(&io);
    let shard = shard(stream, 0);
    let blocks = store
        .read(shard, 1, ALL)
        .await
        .expect("what lies before it");
    assert_eq!(blocks[blocks.len() - 1].end(), 77);
    let refused = store.read(shard, 77, ALL).await;
    let Err(ReadError::Damaged(what)) = refused else {
        panic!("not refused: {refused:?}");
    };
    assert!(what.contains(&name), "{what}");
    let blocks = store
        .read(shard, 78, ALL)
        .await
        .expect("what lies behind it");
    assert_eq!(blocks.iter().map(|b| u64::from(b.count())).sum::<u64>(), 73);
    let tx = Tx {
        appends: vec![large(stream, 0, "key 151")],
        ..Tx::default()
    };
    store.commit(tx).await.expect("it takes more");
}

#[tokio::test]
async fn rot_behind_the_tables_position_refuses_to_start_and_says_where() {
    let io = SimIo::new();
    let stream = filled(&io, 10).await;
    let store = open(&io);
    for n in 11..=20 {
        let tx = Tx {
            appends: vec![large(stream, 0, &format!("key {n}"))],
            ..Tx::default()
        };
        store.commit(tx).await.expect("an append");
    }
    drop(store);
    let (name, offset) = data_places(&io, [14].into_iter()).remove(0);
    io.flip(&name, offset, 1);
    let refused = try_open(&io, options());
    let Err(OpenError::Journal(journal::OpenError::Corrupt(damage))) = refused else {
        panic!("not refused: {refused:?}");
    };
    assert_eq!(damage.file, name);
    io.flip(&name, offset, 1);
    let store = open(&io);
    assert_eq!(records_of(&store, shard(stream, 0)).await.len(), 20);
}

#[tokio::test]
async fn a_failed_sync_ends_the_store_and_acknowledges_nothing() {
    let io = SimIo::new();
    let stream = filled(&io, 10).await;
    let store = open(&io);
    let failure = store.failure();
    io.fail_syncs(1);
    let put = |n: u64| Tx {
        appends: vec![large(stream, 0, &format!("key {n}"))],
        ..Tx::default()
    };
    for n in 11..14 {
        let outcome = store.commit(put(n)).await;
        assert!(
            matches!(outcome, Err(CommitError::Unknown(_))),
            "{outcome:?}"
        );
    }
    assert!(failure.borrow().is_some(), "the process is told");
    assert_eq!(
        records_of(&store, shard(stream, 0)).await.len(),
        10,
        "still read"
    );
    store.close().await;
    drop(store);
    for seed in 0..20 {
        let store = open(&io.crash(seed));
        let found = records_of(&store, shard(stream, 0)).await;
        assert!((10..=11).contains(&found.len()), "{found:?}");
        store.commit(put(99)).await.expect("a restart helps");
    }
}

#[tokio::test]
async fn a_repeated_number_is_not_acknowledged_when_the_sync_of_its_first_failed() {
    let io = SimIo::new();
    let stream = filled(&io, 1).await;
    let small = Options {
        group_bytes: 1,
        ..options()
    };
    let store = try_open(&io, small).expect("the store opens");
    // The threads' work by hand: both are decided before the first is synced.
    let threads = store.take_threads().expect("the threads");
    store.queue.close();
    let writer = threads.writer.join().expect("the writer");
    let syncer = threads.syncer.join().expect("the syncer");
    let queue = Arc::new(Queue::new(1 << 20));
    let mut outcomes = Vec::new();
    for _ in 0..2 {
        let tx = Tx {
            appends: vec![large(stream, 0, "key")],
            producer: Some(ProducerMark {
                scope: Scope::default(),
                id: "loader".into(),
                number: 1,
            }),
            ..Tx::default()
        };
        let (reply, outcome) = oneshot::channel();
        let request = Request {
            prepared: store.submit(tx).expect("sorted records"),
            reply,
            room: queue.room(1).await.expect("room"),
        };
        assert!(queue.push(request));
        outcomes.push(outcome);
    }
    queue.close();
    let shared = &store.shared;
    let (to_syncer, groups) = std::sync::mpsc::sync_channel(2);
    let writing = writer::Writing::new(
        Arc::clone(shared),
        queue,
        shared.catalog(),
        TestClock::default().as_clock(),
        to_syncer,
    );
    writing.run(writer);
    io.fail_syncs(1);
    syncer::run(shared, syncer, groups);
    for outcome in outcomes {
        let outcome = outcome.await.expect("an answer");
        assert!(
            matches!(outcome, Err(CommitError::Unknown(_))),
            "{outcome:?}"
        );
    }
    shared.stop_tabler(false);
    threads.tabler.join().expect("the tables' thread");
}

#[tokio::test]
async fn a_full_disk_fails_a_group_and_goes_on_when_there_is_room() {
    let io = SimIo::new();
    let stream = filled(&io, 10).await;
    let store = open(&io);
    let put = |n: u64| Tx {
        appends: vec![large(stream, 0, &format!("key {n}"))],
        counters: vec![count("puts", 1)],
        ..Tx::default()
    };
    io.set_capacity(Some(store.stats().disk_bytes));
    let mut stored = 10;
    let error = loop {
        match store.commit(put(stored + 1)).await {
            Ok(receipt) => assert_eq!(receipt.appended[0].first, stored + 1),
            Err(error) => break error,
        }
        stored += 1;
        assert!(stored < 1000, "the disk never fills");
    };
    assert!(matches!(error, CommitError::Full { .. }), "{error:?}");
    io.set_capacity(None);
    let receipt = store.commit(put(stored + 1)).await.expect("room again");
    assert_eq!(
        receipt.appended[0].first,
        stored + 1,
        "the refused group left no gap"
    );
    let counters = store.counters(&Scope::default(), "f").expect("counters");
    assert_eq!(counters, [("puts".to_owned(), stored as i64 - 9)]);
    drop(store);
    let store = open(&io.crash(3));
    let found = records_of(&store, shard(stream, 0)).await;
    assert_eq!(found.len() as u64, stored + 1);
}

#[tokio::test]
async fn a_start_reads_what_came_after_the_tables_not_the_store() {
    let io = SimIo::new();
    let stream = filled(&io, 2000).await;
    let stored = 2000 * 4000;
    let cost = |io: &SimIo| {
        let before = io.counts().read_bytes;
        let store = open(io);
        (io.counts().read_bytes - before, store)
    };
    let (bytes, store) = cost(&io);
    assert!(bytes < stored / 20, "{bytes} bytes after an orderly close");
    for n in 0..20 {
        let tx = Tx {
            appends: vec![large(stream, 0, &format!("later {n}"))],
            ..Tx::default()
        };
        store.commit(tx).await.expect("an append");
    }
    drop(store);
    let (bytes, store) = cost(&io.crash(1));
    assert!(bytes < stored / 5, "{bytes} bytes after a crash");
    let end = store.seek(shard(stream, 0), Seek::Latest).await;
    assert_eq!(end, Ok(2021));
}

#[tokio::test]
async fn trimming_gives_segments_back_but_not_those_that_hold_a_blob() {
    let io = SimIo::new();
    let stream = filled(&io, 50).await;
    let store = open(&io);
    let blob = Bytes::from(large_data("blob"));
    let tx = Tx {
        writes: vec![(state("blob"), Value::Blob(blob.clone()))],
        ..Tx::default()
    };
    store.commit(tx).await.expect("a blob");
    let pinned = store.shared.journal.segments().last().map(|s| s.number);
    for n in 51..=1000 {
        let tx = Tx {
            appends: vec![large(stream, 0, &format!("key {n}"))],
            ..Tx::default()
        };
        store.commit(tx).await.expect("an append");
    }
    let before = store.stats().disk_bytes;
    let tx = Tx {
        trims: vec![Trim {
            shard: shard(stream, 0),
            before: 990,
        }],
        urgency: Urgency::Housekeeping,
        ..Tx::default()
    };
    store.commit(tx).await.expect("a trim");
    store.close().await;
    let segments = store.shared.journal.segments();
    let numbers: Vec<u64> = segments.iter().map(|s: &SegmentInfo| s.number).collect();
    assert!(numbers.len() <= 4, "{numbers:?}");
    assert_eq!(numbers.first().copied(), pinned);
    let after = store.stats().disk_bytes;
    assert!(after < before / 2, "{before} bytes before, {after} after");
    drop(store);
    let store = open(&io.crash(5));
    assert_eq!(records_of(&store, shard(stream, 0)).await.len(), 11);
    assert_eq!(store.blob(&state("blob")).await, Ok(Some(blob)));
    let tx = Tx {
        writes: vec![(state("blob"), Value::Delete)],
        ..Tx::default()
    };
    store.commit(tx).await.expect("a deletion");
    store.close().await;
    let segments = store.shared.journal.segments();
    assert!(
        segments.iter().all(|s| Some(s.number) != pinned),
        "the blob's segment goes"
    );
}

#[tokio::test]
async fn readers_never_see_damage_while_segments_are_given_back() {
    let io = SimIo::new();
    let store = try_open(
        &io,
        Options {
            layer_bytes: 1,
            table_sync_bytes: 1,
            tail_cache_bytes: 0,
            ..options()
        },
    )
    .expect("the store opens");
    let stream = create(&store, "clicks", 1).await;
    let key = shard(stream, 0);
    let reader = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut next = 1;
            while next < 600 {
                let blocks = store.read(key, next, ALL).await.expect("never damaged");
                for record in blocks.iter().flat_map(Block::iter) {
                    let name = record.parts.key.to_owned();
                    assert_eq!(record.parts.data, large_data(&name));
                    assert_eq!(name, format!("key {}", record.position));
                    next = next.max(record.position + 1);
                }
                tokio::task::yield_now().await;
            }
        })
    };
    for n in 1..=600u64 {
        let tx = Tx {
            appends: vec![large(stream, 0, &format!("key {n}"))],
            trims: vec![Trim {
                shard: key,
                before: n.saturating_sub(5),
            }],
            ..Tx::default()
        };
        store.commit(tx).await.expect("an append");
    }
    reader.await.expect("the reader");
}

#[tokio::test]
async fn a_store_without_its_tables_is_refused_once_segments_were_given_back() {
    let io = SimIo::new();
    let stream = filled(&io, 300).await;
    let store = open(&io);
    let tx = Tx {
        trims: vec![Trim {
            shard: shard(stream, 0),
            before: 290,
        }],
        ..Tx::default()
    };
    store.commit(tx).await.expect("a trim");
    store.close().await;
    drop(store);
    Io::remove(&io, "tables.redb").expect("it is there");
    let refused = try_open(&io, options());
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn rot_in_the_tables_is_reported_and_gives_no_wrong_value() {
    // redb does not check its pages when it reads: a flipped bit made it panic, or find nothing.
    let io = SimIo::new();
    filled(&io, 100).await;
    let store = open(&io);
    for n in 0..200 {
        let tx = Tx {
            writes: vec![write(&format!("k{n}"), &n.to_string())],
            ..Tx::default()
        };
        store.commit(tx).await.expect("a write");
    }
    store.close().await;
    drop(store);
    let file = Io::open(&io, "tables.redb").expect("the tables");
    let len = file.len().expect("their length");
    let mut noticed = 0;
    for seed in 0..300 {
        let mut random = crate::io::sim::Random(seed);
        let io = io.kill();
        let (at, bit) = (random.below(len), random.below(8));
        io.flip("tables.redb", at, 1 << bit);
        let store = match try_open(&io, options()) {
            Ok(store) => store,
            Err(error) => {
                let damaged = matches!(error, OpenError::Tables(TablesError::Damaged { .. }));
                assert!(damaged, "seed {seed}: {error:?}");
                noticed += 1;
                continue;
            }
        };
        for n in 0..200 {
            match store.get(&state(&format!("k{n}"))) {
                Ok(Some(found)) => assert_eq!(found.value, n.to_string(), "seed {seed}"),
                Ok(None) => panic!("seed {seed}: k{n} is gone without a word"),
                Err(ReadError::Damaged(_)) => noticed += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
    }
    assert!(
        noticed > 30,
        "{noticed}: the test flips bits that nobody reads"
    );
}
