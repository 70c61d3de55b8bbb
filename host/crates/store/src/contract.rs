//! What every engine promises, tested on each of them.

use std::sync::Arc;

use shardmill_core::limits::{COUNTER_OVERFLOW_NAME, MAX_COUNTER_NAMES};
use shardmill_core::sandbox::BoxFuture;
use shardmill_core::{Block, HashKey, Records, Scope, ShardId, ShardKey, Stream, StreamId};
use shardmill_core::{StreamName, UnixMillis};

use crate::test_support::{CREATED, TestClock, records, stream_of};
use crate::*;

mod reshard;
pub(crate) use reshard::*;

/// An engine under test.
pub(crate) trait Engine {
    /// An empty store.
    fn open(&self, clock: Clock) -> Arc<dyn Store>;

    /// The store again, after the process ended and started again.
    fn reopen(&self, store: Arc<dyn Store>, clock: Clock) -> BoxFuture<'_, Arc<dyn Store>>;

    /// Makes the disk nearly full, or gives room again.
    fn fill_disk(&self, full: bool);
}

/// Runs every claim on an engine: one test each.
macro_rules! check {
    ($engine:expr) => {
        check!($engine;
            records_come_back_in_order_with_their_numbers
            a_read_keeps_to_its_limit_but_returns_one_block
            a_place_in_a_shard_can_be_found
            what_lies_between_two_positions_is_known
            bytes_are_known_while_records_come_and_go
            an_append_wakes_its_shard_when_it_can_be_read
            arrival_follows_the_clock_but_never_goes_back
            a_changed_revision_is_a_conflict_and_nothing_is_done
            a_value_that_must_be_absent_or_present_is_checked
            counters_add_up_from_many_tasks
            names_beyond_the_limit_share_one_counter
            a_producers_number_is_done_once
            a_producers_number_is_refused_for_other_records
            a_blob_comes_back_and_is_no_inline_value
            keys_are_scanned_in_order_page_by_page
            trimmed_records_are_not_read
            streams_are_made_changed_and_removed
            a_removed_streams_name_can_be_used_again
            records_follow_their_hash_key_through_a_split
            an_update_of_an_older_state_is_refused
            a_stream_that_was_changed_in_the_same_group_is_not_changed_again
            reshards_at_once_do_not_undo_each_other
            a_shard_closes_no_earlier_than_its_newest_record
            producers_lose_nothing_while_shards_split_and_merge
            a_shard_that_is_taken_out_is_gone
            emitted_records_over_two_shards_keep_their_hops
            a_stream_that_is_being_deleted_takes_no_records
            a_full_disk_refuses_growth_only
            a_transaction_that_fails_anywhere_leaves_nothing
            a_transaction_that_is_too_large_is_refused
            many_tasks_get_dense_positions
            everything_is_found_again
        );
    };
    ($engine:expr; $($claim:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                crate::contract::$claim(&$engine).await;
            }
        )*
    };
}
pub(crate) use check;

const ALL: ReadLimit = ReadLimit {
    records: usize::MAX,
    bytes: usize::MAX,
};

/// A store with one stream.
struct Fixture {
    clock: TestClock,
    store: Arc<dyn Store>,
    stream: StreamId,
}

impl Fixture {
    async fn new(engine: &dyn Engine, shards: u32) -> Self {
        let clock = TestClock::default();
        let store = engine.open(clock.as_clock());
        let stream = create(&*store, stream_of("clicks", shards)).await;
        Self {
            clock,
            store,
            stream: stream.expect("a stream"),
        }
    }

    fn shard(&self, index: u32) -> ShardKey {
        ShardKey {
            stream: self.stream,
            shard: ShardId(index),
        }
    }

    fn append(&self, route: Route, records: Records) -> Append {
        Append {
            stream: self.stream,
            route,
            records,
        }
    }

    async fn put(&self, index: u32, keys: &[&str]) -> Appended {
        let records = records(keys.iter().map(|k| (*k).to_owned()));
        let tx = Tx {
            appends: vec![self.append(Route::Shard(ShardId(index)), records)],
            ..Tx::default()
        };
        let receipt = self.store.commit(tx).await.expect("an append");
        receipt.appended[0]
    }

    async fn keys(&self, index: u32, from: u64) -> Vec<(u64, String)> {
        keys(&*self.store, self.shard(index), from).await
    }

    async fn reopen(&mut self, engine: &dyn Engine) {
        let placeholder: Arc<dyn Store> = Arc::new(Memory::new(self.clock.as_clock()));
        let store = std::mem::replace(&mut self.store, placeholder);
        self.store = engine.reopen(store, self.clock.as_clock()).await;
    }
}

async fn create(store: &dyn Store, stream: Stream) -> Result<StreamId, CommitError> {
    let tx = Tx {
        streams: vec![StreamChange::Create(Box::new(stream))],
        ..Tx::default()
    };
    store.commit(tx).await.map(|receipt| receipt.created[0])
}

async fn keys(store: &dyn Store, shard: ShardKey, from: u64) -> Vec<(u64, String)> {
    let blocks = store.read(shard, from, ALL).await.expect("a read");
    numbered(&blocks, from)
}

fn numbered(blocks: &[Block], from: u64) -> Vec<(u64, String)> {
    blocks
        .iter()
        .flat_map(Block::iter)
        .filter(|record| record.position >= from)
        .map(|record| {
            let key = record.parts.key.to_owned();
            assert_eq!(record.parts.data, format!("data of {key}").as_bytes());
            (record.position, key)
        })
        .collect()
}

fn named(wanted: &[(u64, &str)]) -> Vec<(u64, String)> {
    wanted.iter().map(|(n, k)| (*n, (*k).to_owned())).collect()
}

fn state(name: &str) -> Key {
    Key::new(Table::State, &Scope::default())
        .part("f")
        .part(name)
}

fn inline(value: &str) -> Value {
    Value::Inline(Bytes::copy_from_slice(value.as_bytes()))
}

fn write(key: Key, value: &str) -> Tx {
    Tx {
        writes: vec![(key, inline(value))],
        ..Tx::default()
    }
}

fn add(name: &str, amount: i64) -> CounterAdd {
    CounterAdd {
        scope: Scope::default(),
        function: "f".into(),
        name: name.into(),
        amount,
    }
}

pub(crate) async fn records_come_back_in_order_with_their_numbers(engine: &dyn Engine) {
    let at = Fixture::new(engine, 2).await;
    assert_eq!(at.keys(0, 1).await, []);
    assert_eq!(at.put(0, &["a", "b"]).await.first, 1);
    assert_eq!(at.put(1, &["x"]).await.first, 1);
    assert_eq!(at.put(0, &["c"]).await.first, 3);
    assert_eq!(at.keys(0, 0).await, named(&[(1, "a"), (2, "b"), (3, "c")]));
    assert_eq!(at.keys(0, 2).await, named(&[(2, "b"), (3, "c")]));
    assert_eq!(at.keys(0, 4).await, []);
    assert_eq!(at.keys(0, 400).await, []);
    assert_eq!(at.keys(1, 1).await, named(&[(1, "x")]));
    let blocks = at.store.read(at.shard(0), 1, ALL).await.expect("a read");
    let stream = at.store.stream_by_id(at.stream).expect("the stream");
    let seconds = at.clock.now().seconds();
    for record in blocks.iter().flat_map(Block::iter) {
        let want = stream.shards[0].sequence_number(record.position, seconds);
        assert_eq!(record.sequence_number(), want);
    }
    let nowhere = ShardKey {
        stream: at.stream,
        shard: ShardId(2),
    };
    let error = at.store.read(nowhere, 1, ALL).await;
    assert_eq!(error, Err(ReadError::NoSuchShard(nowhere)));
}

pub(crate) async fn a_read_keeps_to_its_limit_but_returns_one_block(engine: &dyn Engine) {
    let at = Fixture::new(engine, 1).await;
    for _ in 0..10 {
        at.put(0, &["a", "b", "c"]).await;
    }
    let read = async |from, records, bytes| {
        let limit = ReadLimit { records, bytes };
        let blocks = at
            .store
            .read(at.shard(0), from, limit)
            .await
            .expect("a read");
        (blocks[0].first(), blocks[blocks.len() - 1].end())
    };
    assert_eq!(read(1, 1, usize::MAX).await, (1, 4));
    assert_eq!(read(1, 6, usize::MAX).await, (1, 7));
    assert_eq!(read(1, 8, usize::MAX).await, (1, 7));
    assert_eq!(
        read(3, 4, usize::MAX).await,
        (1, 7),
        "counted from the position"
    );
    assert_eq!(read(4, usize::MAX, 1).await, (4, 7));
    assert_eq!(read(4, usize::MAX, usize::MAX).await, (4, 31));
}

pub(crate) async fn a_place_in_a_shard_can_be_found(engine: &dyn Engine) {
    let at = Fixture::new(engine, 1).await;
    let seek = async |to| at.store.seek(at.shard(0), to).await.expect("a position");
    assert_eq!(seek(Seek::TrimHorizon).await, 1);
    assert_eq!(seek(Seek::Latest).await, 1);
    assert_eq!(seek(Seek::AtTime(UnixMillis(0))).await, 1);
    let mut arrivals = Vec::new();
    for _ in 0..20 {
        at.clock.advance(1000);
        arrivals.push(at.put(0, &["a", "b"]).await.arrival);
    }
    assert_eq!(seek(Seek::TrimHorizon).await, 1);
    assert_eq!(seek(Seek::Latest).await, 41);
    assert_eq!(seek(Seek::AtTime(UnixMillis(0))).await, 1);
    for (i, arrival) in arrivals.iter().enumerate() {
        let first = 2 * i as u64 + 1;
        assert_eq!(seek(Seek::AtTime(*arrival)).await, first);
        assert_eq!(
            seek(Seek::AtTime(UnixMillis(arrival.0 + 1))).await,
            first + 2
        );
    }
}

/// Bytes of keys and data that [`Fixture::put`] stores for these keys.
fn stored_bytes(keys: &[&str]) -> u64 {
    let bytes = |key: &&str| key.len() + format!("data of {key}").len();
    keys.iter().map(bytes).sum::<usize>() as u64
}

pub(crate) async fn what_lies_between_two_positions_is_known(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 2).await;
    let all = async |at: &Fixture| at.store.extent(at.shard(0), 1, u64::MAX).await;
    assert_eq!(all(&at).await, Ok(Extent::default()));
    let blocks: [&[&str]; 4] = [
        &["a", "bb"],
        &["a much longer key"],
        &["x", "x", "x"],
        &["z"],
    ];
    let mut arrivals = Vec::new();
    for keys in blocks {
        at.clock.advance(1000);
        arrivals.push(at.put(0, keys).await.arrival);
    }
    at.put(1, &["of another shard"]).await;
    let bytes = |from: usize, to: usize| blocks[from..to].iter().map(|b| stored_bytes(b)).sum();
    for again in [false, true] {
        if again {
            at.reopen(engine).await;
        }
        // Backwards too: what was asked before must not matter.
        let spans = [
            (4, u64::MAX, 2, 4),
            (4, 7, 2, 3),
            (7, 8, 3, 4),
            (1, u64::MAX, 0, 4),
            (0, 3, 0, 1),
            (3, 7, 1, 3),
            (1, 8, 0, 4),
        ];
        for (from, to, first, last) in spans {
            let want = Extent {
                records: to.min(8) - from.max(1),
                bytes: bytes(first, last),
                oldest: Some(arrivals[first]),
            };
            let got = at.store.extent(at.shard(0), from, to).await;
            assert_eq!(got, Ok(want), "{from}..{to}");
        }
        for (from, to) in [(8, 9), (8, u64::MAX), (3, 3), (5, 2)] {
            let got = at.store.extent(at.shard(0), from, to).await;
            assert_eq!(got, Ok(Extent::default()), "{from}..{to}");
        }
        // A part of a block counts in proportion.
        let part = at.store.extent(at.shard(0), 5, 7).await.expect("a part");
        let third = stored_bytes(&["x"]);
        assert_eq!((part.records, part.bytes), (2, 2 * third));
        assert_eq!(part.oldest, Some(arrivals[2]));
    }
    let nowhere = ShardKey {
        stream: StreamId(99),
        shard: ShardId(0),
    };
    let got = at.store.extent(nowhere, 1, 2).await;
    assert_eq!(got, Err(ReadError::NoSuchShard(nowhere)));
}

pub(crate) async fn bytes_are_known_while_records_come_and_go(engine: &dyn Engine) {
    let at = Fixture::new(engine, 1).await;
    let names: Vec<String> = (0..400_usize).map(|n| "k".repeat(1 + n * 7 % 23)).collect();
    let bytes = |from: u64, to: u64| -> u64 {
        let names = &names[from as usize - 1..to as usize - 1];
        names.iter().map(|k| stored_bytes(&[k])).sum()
    };
    let mut floor = 1;
    for (n, name) in (1..).zip(&names) {
        at.put(0, &[name]).await;
        let end = n + 1;
        if n % 50 == 0 {
            floor = n - 20;
            let trims = vec![Trim {
                shard: at.shard(0),
                before: floor,
            }];
            let trim = Tx {
                trims,
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            at.store.commit(trim).await.expect("a trim");
        }
        // Readers at several places of the shard, some of them trimmed.
        for from in [1, n / 3 + 1, n / 2 + 1, n, end] {
            let known = from.max(floor).min(end);
            let got = at.store.extent(at.shard(0), from, u64::MAX).await;
            let got = got.expect("an extent");
            assert_eq!(
                (got.records, got.bytes),
                (end - known, bytes(known, end)),
                "{from}.. of {floor}..{end}"
            );
        }
    }
}

pub(crate) async fn an_append_wakes_its_shard_when_it_can_be_read(engine: &dyn Engine) {
    let at = Fixture::new(engine, 2).await;
    at.put(0, &["a"]).await;
    let mut ends = at.store.subscribe(at.shard(0)).expect("a subscription");
    assert_eq!(*ends.borrow_and_update(), 2);
    let other = at.put(1, &["x"]).await;
    assert_eq!(other.first, 1);
    assert!(!ends.has_changed().expect("an open channel"));
    let reader = async {
        ends.changed().await.expect("an open channel");
        let end = *ends.borrow_and_update();
        (end, at.keys(0, 2).await)
    };
    let (woken, put) = tokio::join!(reader, at.put(0, &["b", "c"]));
    assert_eq!(put.first, 2);
    assert_eq!(woken, (4, named(&[(2, "b"), (3, "c")])));
    let nowhere = ShardKey {
        stream: StreamId(99),
        shard: ShardId(0),
    };
    assert!(at.store.subscribe(nowhere).is_err());
    let tx = Tx {
        streams: vec![StreamChange::Remove(at.stream)],
        ..Tx::default()
    };
    at.store.commit(tx).await.expect("a removal");
    ends.changed().await.expect_err("the shard is gone");
}

pub(crate) async fn arrival_follows_the_clock_but_never_goes_back(engine: &dyn Engine) {
    let at = Fixture::new(engine, 1).await;
    at.clock.set(0);
    let created = at.store.stream_by_id(at.stream).expect("it").shards[0].created_seconds;
    assert_eq!(at.put(0, &["a"]).await.arrival, UnixMillis(created * 1000));
    at.clock.set(CREATED.0 + 500);
    assert_eq!(at.put(0, &["b"]).await.arrival, UnixMillis(CREATED.0 + 500));
    at.clock.set(CREATED.0 + 200);
    assert_eq!(at.put(0, &["c"]).await.arrival, UnixMillis(CREATED.0 + 500));
    let blocks = at.store.read(at.shard(0), 2, ALL).await.expect("a read");
    assert!(
        blocks
            .iter()
            .all(|b| b.arrival() == UnixMillis(CREATED.0 + 500))
    );
}

pub(crate) async fn a_changed_revision_is_a_conflict_and_nothing_is_done(engine: &dyn Engine) {
    let at = Fixture::new(engine, 1).await;
    let first = at
        .store
        .commit(write(state("a"), "1"))
        .await
        .expect("a write");
    let stored = at.store.get(&state("a")).expect("a get").expect("a value");
    assert_eq!(
        (&*stored.value, stored.revision),
        (&b"1"[..], first.revision)
    );
    let change = |revision, value| Tx {
        expect: vec![Expect::Revision(state("a"), Some(revision))],
        appends: vec![at.append(Route::HashKey, records([format!("from {value}")]))],
        counters: vec![add("changes", 1)],
        ..write(state("a"), value)
    };
    let second = at
        .store
        .commit(change(first.revision, "2"))
        .await
        .expect("fits");
    assert!(second.revision > first.revision);
    let refused = at.store.commit(change(first.revision, "3")).await;
    assert_eq!(refused, Err(CommitError::Conflict(state("a"))));
    let stored = at.store.get(&state("a")).expect("a get").expect("a value");
    assert_eq!(
        (&*stored.value, stored.revision),
        (&b"2"[..], second.revision)
    );
    assert_eq!(at.keys(0, 1).await, named(&[(1, "from 2")]));
    let counters = at.store.counters(&Scope::default(), "f").expect("counters");
    assert_eq!(counters, [("changes".to_owned(), 1)]);
    assert_eq!(at.store.stats().conflicts, 1);
}

pub(crate) async fn a_value_that_must_be_absent_or_present_is_checked(engine: &dyn Engine) {
    let at = Fixture::new(engine, 1).await;
    let absent = || Tx {
        expect: vec![Expect::Revision(state("a"), None)],
        ..write(state("a"), "made")
    };
    let present = || Tx {
        expect: vec![Expect::Present(state("a"))],
        ..write(state("b"), "x")
    };
    let conflict = Err(CommitError::Conflict(state("a")));
    assert_eq!(at.store.commit(present()).await, conflict);
    at.store.commit(absent()).await.expect("it is absent");
    assert_eq!(at.store.commit(absent()).await, conflict);
    at.store.commit(present()).await.expect("it is present");
    let delete = Tx {
        writes: vec![(state("a"), Value::Delete)],
        ..Tx::default()
    };
    at.store.commit(delete).await.expect("a deletion");
    assert_eq!(at.store.get(&state("a")), Ok(None));
    assert_eq!(at.store.commit(present()).await, conflict);
    at.store.commit(absent()).await.expect("absent again");
    let stream = |id| Tx {
        expect: vec![Expect::StreamExists(id)],
        ..Tx::default()
    };
    at.store.commit(stream(at.stream)).await.expect("it exists");
    let missing = StreamId(1234);
    let refused = at.store.commit(stream(missing)).await;
    assert_eq!(refused, Err(CommitError::NoSuchStream(missing)));
}

pub(crate) async fn counters_add_up_from_many_tasks(engine: &dyn Engine) {
    let at = Fixture::new(engine, 1).await;
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let store = Arc::clone(&at.store);
            tokio::spawn(async move {
                for _ in 0..25 {
                    let tx = Tx {
                        counters: vec![
                            add("hits", 2),
                            add("hits", 1),
                            add(&format!("task {task}"), -1),
                        ],
                        ..Tx::default()
                    };
                    store.commit(tx).await.expect("it commutes");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task");
    }
    let counters = at.store.counters(&Scope::default(), "f").expect("counters");
    let mut want = vec![("hits".to_owned(), 600)];
    want.extend((0..8).map(|task| (format!("task {task}"), -25)));
    assert_eq!(counters, want);
    assert_eq!(at.store.counters(&Scope::default(), "g"), Ok(vec![]));
}

pub(crate) async fn names_beyond_the_limit_share_one_counter(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 1).await;
    let many = |range: std::ops::Range<usize>| Tx {
        counters: range.map(|i| add(&format!("n{i}"), 1)).collect(),
        ..Tx::default()
    };
    at.store
        .commit(many(0..MAX_COUNTER_NAMES))
        .await
        .expect("names");
    at.reopen(engine).await;
    at.store
        .commit(many(0..MAX_COUNTER_NAMES + 7))
        .await
        .expect("more names");
    let counters = at.store.counters(&Scope::default(), "f").expect("counters");
    assert_eq!(counters.len(), MAX_COUNTER_NAMES + 1);
    for (name, sum) in counters {
        assert_eq!(
            sum,
            if name == COUNTER_OVERFLOW_NAME { 7 } else { 2 },
            "{name}"
        );
    }
}

pub(crate) async fn a_producers_number_is_done_once(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 4).await;
    let put = |at: &Fixture, number| Tx {
        appends: vec![at.append(
            Route::HashKey,
            records((0..10).map(|i| format!("{number} {i}"))),
        )],
        producer: Some(ProducerMark {
            scope: Scope::default(),
            id: "loader".into(),
            number,
        }),
        ..Tx::default()
    };
    at.store.commit(put(&at, 3)).await.expect("the first");
    let first = at.store.commit(put(&at, 5)).await.expect("the next");
    assert!(!first.repeated);
    let count = async |at: &Fixture| {
        let mut count = 0;
        for shard in 0..4 {
            count += at.keys(shard, 1).await.len();
        }
        count
    };
    for _ in 0..2 {
        let again = at.store.commit(put(&at, 5)).await.expect("the same");
        let want = Receipt {
            repeated: true,
            ..first.clone()
        };
        assert_eq!(again, want);
        let behind = at.store.commit(put(&at, 4)).await;
        let want = CommitError::ProducerBehind {
            id: "loader".into(),
            number: 4,
            last: 5,
        };
        assert_eq!(behind, Err(want));
        assert_eq!(count(&at).await, 20);
        at.reopen(engine).await;
    }
    let (one, two) = tokio::join!(at.store.commit(put(&at, 6)), at.store.commit(put(&at, 6)));
    let (one, two) = (one.expect("one"), two.expect("two"));
    assert!(one.repeated != two.repeated);
    assert_eq!(one.appended, two.appended);
    assert_eq!(count(&at).await, 30);
}

pub(crate) async fn a_producers_number_is_refused_for_other_records(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 2).await;
    let other = create(&*at.store, stream_of("other", 2)).await;
    let other = other.expect("a second stream");
    let put = |stream, route, keys: &[&str]| Tx {
        appends: vec![Append {
            stream,
            route,
            records: records(keys.iter().map(|k| (*k).to_owned())),
        }],
        producer: Some(ProducerMark {
            scope: Scope::default(),
            id: "loader".into(),
            number: 1,
        }),
        ..Tx::default()
    };
    let same = |at: &Fixture| put(at.stream, Route::HashKey, &["a", "b"]);
    let first = at.store.commit(same(&at)).await.expect("the first");
    for _ in 0..2 {
        for tx in [
            put(other, Route::HashKey, &["a", "b"]),
            put(at.stream, Route::Shard(ShardId(0)), &["a", "b"]),
            put(at.stream, Route::HashKey, &["a", "c"]),
            put(at.stream, Route::HashKey, &["a"]),
        ] {
            let refused = at.store.commit(tx).await.expect_err("other records");
            let want = CommitError::ProducerReused {
                id: "loader".into(),
                number: 1,
            };
            assert_eq!(refused, want);
            assert_eq!(
                refused.to_string(),
                "producer \"loader\" has used number 1 for other records: count on"
            );
        }
        let again = at.store.commit(same(&at)).await.expect("the same");
        assert!(again.repeated);
        assert_eq!(again.appended, first.appended);
        at.reopen(engine).await;
    }
    let next = Tx {
        producer: Some(ProducerMark {
            scope: Scope::default(),
            id: "loader".into(),
            number: 2,
        }),
        ..put(other, Route::HashKey, &["a", "b"])
    };
    let next = at.store.commit(next).await.expect("the next number");
    assert!(!next.repeated);
}

pub(crate) async fn a_blob_comes_back_and_is_no_inline_value(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 1).await;
    let big = Bytes::from(vec![7; 300_000]);
    let tx = Tx {
        writes: vec![
            (state("big"), Value::Blob(big.clone())),
            (state("empty"), Value::Blob(Bytes::new())),
            (state("small"), inline("small")),
        ],
        ..Tx::default()
    };
    let revision = at.store.commit(tx).await.expect("a blob").revision;
    for _ in 0..2 {
        let stored = at
            .store
            .get(&state("big"))
            .expect("a get")
            .expect("a value");
        assert_eq!((stored.value.len(), stored.revision), (0, revision));
        assert_eq!(at.store.blob(&state("big")).await, Ok(Some(big.clone())));
        assert_eq!(at.store.blob(&state("empty")).await, Ok(Some(Bytes::new())));
        assert_eq!(at.store.blob(&state("small")).await, Ok(None));
        assert_eq!(at.store.blob(&state("none")).await, Ok(None));
        at.reopen(engine).await;
    }
    // It outlives its stream, and ends when it is overwritten.
    let tx = Tx {
        streams: vec![StreamChange::Remove(at.stream)],
        writes: vec![(state("empty"), inline("now inline"))],
        ..Tx::default()
    };
    at.store.commit(tx).await.expect("a removal");
    assert_eq!(at.store.blob(&state("big")).await, Ok(Some(big)));
    assert_eq!(at.store.blob(&state("empty")).await, Ok(None));
}

pub(crate) async fn keys_are_scanned_in_order_page_by_page(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 1).await;
    let key = |n: u64| {
        Key::new(Table::Cursor, &Scope::default())
            .part("m")
            .number(n)
    };
    let mut order: Vec<u64> = (0..50).map(|n| n * 37 % 50).collect();
    let last = order.split_off(25);
    let save = async |at: &Fixture, numbers: Vec<u64>| {
        for n in numbers {
            let written = at.store.commit(write(key(n), &n.to_string())).await;
            written.expect("a write");
        }
    };
    save(&at, order).await;
    at.reopen(engine).await;
    save(&at, last).await;
    let other = Key::new(Table::Cursor, &Scope::default()).part("n");
    at.store
        .commit(write(other, "other"))
        .await
        .expect("a write");
    at.store
        .commit(write(state("x"), "other"))
        .await
        .expect("a write");
    for n in [10, 11, 30] {
        let tx = Tx {
            writes: vec![(key(n), Value::Delete)],
            ..Tx::default()
        };
        at.store.commit(tx).await.expect("a deletion");
    }
    let prefix = Key::new(Table::Cursor, &Scope::default()).part("m");
    let mut seen = Vec::new();
    let mut after: Option<Key> = None;
    loop {
        let page = at.store.scan(&prefix, after.as_ref(), 7).expect("a page");
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        assert!(page.len() <= 7);
        seen.extend(page);
    }
    let want: Vec<_> = (0..50).filter(|n| ![10, 11, 30].contains(n)).collect();
    assert_eq!(
        seen.iter().map(|(k, _)| k.clone()).collect::<Vec<_>>(),
        want.iter().map(|n| key(*n)).collect::<Vec<_>>()
    );
    for ((_, stored), n) in seen.iter().zip(want) {
        assert_eq!(stored.value, n.to_string());
        assert_eq!(Ok(Some(stored.clone())), at.store.get(&key(n)));
    }
    let mut back = Vec::new();
    let mut before: Option<Key> = None;
    loop {
        let page = at.store.scan_back(&prefix, before.as_ref(), 7);
        let page = page.expect("a page");
        let Some((last, _)) = page.last() else { break };
        before = Some(last.clone());
        assert!(page.len() <= 7);
        back.extend(page);
    }
    back.reverse();
    assert_eq!(back, seen, "the same, from the last one down");
    let table = Key::table_prefix(Table::Cursor);
    assert_eq!(
        at.store.scan(&table, None, 1000).expect("a table").len(),
        48
    );
}

pub(crate) async fn trimmed_records_are_not_read(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 2).await;
    for n in 0..10 {
        at.clock.advance(1000);
        at.put(0, &[&format!("a{n}"), &format!("b{n}")]).await;
    }
    let trim = async |at: &Fixture, index, before| {
        let tx = Tx {
            trims: vec![Trim {
                shard: at.shard(index),
                before,
            }],
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        at.store.commit(tx).await.expect("a trim");
    };
    trim(&at, 0, 6).await;
    for _ in 0..2 {
        let blocks = at.store.read(at.shard(0), 1, ALL).await.expect("a read");
        assert_eq!(
            (blocks[0].first(), blocks[0].end()),
            (5, 7),
            "still partly alive"
        );
        assert_eq!(numbered(&blocks, 6).len(), 15);
        let seek = async |to| at.store.seek(at.shard(0), to).await;
        assert_eq!(seek(Seek::TrimHorizon).await, Ok(6));
        assert_eq!(seek(Seek::AtTime(UnixMillis(0))).await, Ok(6));
        assert_eq!(seek(Seek::Latest).await, Ok(21));
        at.reopen(engine).await;
    }
    trim(&at, 0, 3).await;
    assert_eq!(
        at.store.seek(at.shard(0), Seek::TrimHorizon).await,
        Ok(6),
        "never back"
    );
    trim(&at, 0, 1000).await;
    assert_eq!(at.keys(0, 1).await, []);
    assert_eq!(at.store.seek(at.shard(0), Seek::TrimHorizon).await, Ok(21));
    trim(&at, 7, 5).await;
    assert_eq!(at.put(0, &["next"]).await.first, 21);
    assert_eq!(at.keys(0, 1).await, named(&[(21, "next")]));
}

pub(crate) async fn streams_are_made_changed_and_removed(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 1).await;
    let mut changes = at.store.watch_streams();
    changes.borrow_and_update();
    let clicks: StreamName = "clicks".parse().expect("a name");
    let exists = create(&*at.store, stream_of("clicks", 1)).await;
    assert_eq!(exists, Err(CommitError::StreamExists(clicks.clone())));
    assert!(!changes.has_changed().expect("an open channel"));
    let views = create(&*at.store, stream_of("views", 2))
        .await
        .expect("a stream");
    assert!(views > at.stream);
    assert!(changes.has_changed().expect("an open channel"));
    let mut elsewhere = stream_of("clicks", 3);
    elsewhere.scope.region = "eu-west-1".parse().expect("a region");
    let scope = elsewhere.scope.clone();
    let foreign = create(&*at.store, elsewhere).await.expect("another region");
    let mut stream = Stream::clone(&at.store.stream_by_id(views).expect("it"));
    stream.retention_hours = 48;
    let update = |stream: &Stream| Tx {
        streams: vec![StreamChange::Update(Box::new(stream.clone()))],
        ..Tx::default()
    };
    let updated = at.store.commit(update(&stream)).await.expect("an update");
    stream.revision = updated.revision;
    for _ in 0..2 {
        assert_eq!(at.store.stream_by_id(views).as_deref(), Some(&stream));
        assert_eq!(
            at.store.stream(&scope, &clicks).map(|s| s.id),
            Some(foreign)
        );
        let home = Scope::default();
        let ids = |scope| {
            at.store
                .streams(scope)
                .iter()
                .map(|s| s.id)
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(Some(&home)), [at.stream, views]);
        assert_eq!(ids(None).len(), 3);
        at.reopen(engine).await;
    }
    let remove = || Tx {
        streams: vec![StreamChange::Remove(views)],
        ..Tx::default()
    };
    at.store.commit(remove()).await.expect("a removal");
    at.store
        .commit(remove())
        .await
        .expect("no error when it is gone");
    assert_eq!(at.store.stream_by_id(views), None);
    let refused = at.store.commit(update(&stream)).await;
    assert_eq!(refused, Err(CommitError::NoSuchStream(views)));
    let shard = ShardKey {
        stream: views,
        shard: ShardId(0),
    };
    assert_eq!(
        at.store.read(shard, 1, ALL).await,
        Err(ReadError::NoSuchShard(shard))
    );
}

pub(crate) async fn a_removed_streams_name_can_be_used_again(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 1).await;
    at.put(0, &["old"]).await;
    let tx = Tx {
        streams: vec![
            StreamChange::Remove(at.stream),
            StreamChange::Create(Box::new(stream_of("clicks", 1))),
        ],
        ..Tx::default()
    };
    let again = at.store.commit(tx).await.expect("made again").created[0];
    assert!(again > at.stream, "an id is never used again");
    at.stream = again;
    for _ in 0..2 {
        assert_eq!(at.keys(0, 1).await, []);
        at.reopen(engine).await;
    }
    assert_eq!(at.put(0, &["new"]).await.first, 1);
    at.reopen(engine).await;
    assert_eq!(at.keys(0, 1).await, named(&[(1, "new")]));
}

pub(crate) async fn records_follow_their_hash_key_through_a_split(engine: &dyn Engine) {
    let at = Fixture::new(engine, 1).await;
    let half = u128::MAX / 2;
    let put = async || {
        let mut records = Records::default();
        records.push("low", Some(HashKey(half)), b"data of low");
        records.push("high", Some(HashKey(half + 1)), b"data of high");
        records.push("low", Some(HashKey(0)), b"data of low");
        let tx = Tx {
            appends: vec![at.append(Route::HashKey, records)],
            ..Tx::default()
        };
        let receipt = at.store.commit(tx).await.expect("an append");
        let placed = receipt.appended.iter().map(|a| (a.shard.0, a.first));
        placed.collect::<Vec<_>>()
    };
    assert_eq!(put().await, [(0, 1), (0, 2), (0, 3)]);
    let mut stream = Stream::clone(&at.store.stream_by_id(at.stream).expect("it"));
    let parent = stream.shards[0].clone();
    stream.shards[0].closed_seconds = Some(CREATED.seconds());
    for (index, (start, end)) in [(1, (0, half)), (2, (half + 1, u128::MAX))] {
        let mut child = parent.clone();
        child.id = ShardId(index);
        child.parents = vec![parent.id];
        child.created_seconds = CREATED.seconds() + 10;
        child.range.start = HashKey(start);
        child.range.end = HashKey(end);
        stream.shards.push(child);
    }
    let split = Tx {
        streams: vec![StreamChange::Update(Box::new(stream))],
        ..Tx::default()
    };
    at.store.commit(split).await.expect("a split");
    assert_eq!(put().await, [(1, 1), (2, 1), (1, 2)]);
    let blocks = at.store.read(at.shard(1), 1, ALL).await.expect("a read");
    assert!(
        blocks[0].arrival().seconds() >= CREATED.seconds() + 10,
        "not before the shard"
    );
    let closed = Tx {
        appends: vec![at.append(Route::Shard(ShardId(0)), records(["x".to_owned()]))],
        ..Tx::default()
    };
    let refused = at.store.commit(closed).await;
    assert_eq!(refused, Err(CommitError::ShardClosed(at.shard(0))));
    assert_eq!(at.keys(0, 1).await.len(), 3, "the parent's records stay");
}

pub(crate) async fn emitted_records_over_two_shards_keep_their_hops(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 2).await;
    let mut records = Records::default();
    for hops in 1..=16u8 {
        records.push_emitted(&format!("after {hops}"), hops, b"data");
    }
    let tx = Tx {
        appends: vec![at.append(Route::HashKey, records)],
        ..Tx::default()
    };
    at.store.commit(tx).await.expect("an append");
    for _ in 0..2 {
        let mut found = 0;
        for shard in [at.shard(0), at.shard(1)] {
            let blocks = at.store.read(shard, 1, ALL).await.expect("a read");
            assert!(!blocks.is_empty(), "both shards get records");
            for record in blocks.iter().flat_map(Block::iter) {
                assert_eq!(record.parts.key, format!("after {}", record.parts.hops));
                found += 1;
            }
        }
        assert_eq!(found, 16);
        at.reopen(engine).await;
    }
}

pub(crate) async fn a_stream_that_is_being_deleted_takes_no_records(engine: &dyn Engine) {
    let at = Fixture::new(engine, 1).await;
    let mut stream = Stream::clone(&at.store.stream_by_id(at.stream).expect("it"));
    stream.deleted = Some(at.clock.now());
    let update = Tx {
        streams: vec![StreamChange::Update(Box::new(stream))],
        ..Tx::default()
    };
    at.store.commit(update).await.expect("an update");
    for route in [Route::HashKey, Route::Shard(ShardId(0))] {
        let tx = Tx {
            appends: vec![at.append(route, records(["x".to_owned()]))],
            ..Tx::default()
        };
        let refused = at.store.commit(tx).await;
        assert_eq!(refused, Err(CommitError::NoSuchStream(at.stream)));
    }
    let tx = Tx {
        expect: vec![Expect::StreamExists(at.stream)],
        ..Tx::default()
    };
    assert!(at.store.commit(tx).await.is_err());
}

pub(crate) async fn a_full_disk_refuses_growth_only(engine: &dyn Engine) {
    let at = Fixture::new(engine, 1).await;
    let put = |urgency| Tx {
        appends: vec![at.append(Route::HashKey, records(["a".to_owned()]))],
        urgency,
        ..Tx::default()
    };
    engine.fill_disk(true);
    let refused = at.store.commit(put(Urgency::Growth)).await;
    assert!(
        matches!(refused, Err(CommitError::Full { .. })),
        "{refused:?}"
    );
    assert!(at.store.stats().full);
    let progress = Tx {
        urgency: Urgency::Housekeeping,
        ..write(state("progress"), "1")
    };
    at.store
        .commit(progress)
        .await
        .expect("progress uses the reserve");
    engine.fill_disk(false);
    at.store
        .commit(put(Urgency::Growth))
        .await
        .expect("room again");
    assert!(!at.store.stats().full);
    assert_eq!(at.keys(0, 1).await, named(&[(1, "a")]));
}

pub(crate) async fn a_transaction_that_fails_anywhere_leaves_nothing(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 2).await;
    let one = |key: &str| records([key.to_owned()]);
    let tx = |last: Append| Tx {
        appends: vec![
            at.append(Route::Shard(ShardId(0)), one("zero")),
            at.append(Route::Shard(ShardId(1)), one("one")),
            last,
        ],
        writes: vec![(state("a"), inline("1"))],
        counters: vec![add("c", 1)],
        streams: vec![StreamChange::Create(Box::new(stream_of("other", 1)))],
        ..Tx::default()
    };
    let closed = at.append(Route::Shard(ShardId(2)), one("two"));
    let refused = at.store.commit(tx(closed)).await;
    assert_eq!(refused, Err(CommitError::ShardClosed(at.shard(2))));
    let nowhere = Append {
        stream: StreamId(77),
        route: Route::HashKey,
        records: one("lost"),
    };
    let refused = at.store.commit(tx(nowhere)).await;
    assert_eq!(refused, Err(CommitError::NoSuchStream(StreamId(77))));
    let whole = tx(at.append(Route::Shard(ShardId(0)), one("two")));
    let nothing = async |at: &Fixture| {
        assert_eq!((at.keys(0, 1).await, at.keys(1, 1).await), (vec![], vec![]));
        assert_eq!(at.store.get(&state("a")), Ok(None));
        assert_eq!(at.store.counters(&Scope::default(), "f"), Ok(vec![]));
        assert_eq!(at.store.streams(None).len(), 1);
    };
    nothing(&at).await;
    at.reopen(engine).await;
    nothing(&at).await;
    at.store
        .commit(whole)
        .await
        .expect("the same without the fault");
    at.reopen(engine).await;
    assert_eq!(at.keys(0, 1).await, named(&[(1, "zero"), (2, "two")]));
    assert_eq!(at.keys(1, 1).await, named(&[(1, "one")]));
    assert_eq!(at.store.streams(None).len(), 2);
}

pub(crate) async fn a_transaction_that_is_too_large_is_refused(engine: &dyn Engine) {
    let at = Fixture::new(engine, 1).await;
    let blob = Bytes::from(vec![0; MAX_TX_BYTES as usize]);
    let tx = Tx {
        writes: vec![(state("huge"), Value::Blob(blob))],
        ..Tx::default()
    };
    let refused = at.store.commit(tx).await;
    assert!(matches!(refused, Err(CommitError::TooLarge { .. })));
    assert_eq!(at.store.get(&state("huge")), Ok(None));
}

pub(crate) async fn many_tasks_get_dense_positions(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 3).await;
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let store = Arc::clone(&at.store);
            let stream = at.stream;
            tokio::spawn(async move {
                let mut placed = Vec::new();
                for n in 0..20 {
                    let keys: Vec<_> = (0..1 + n % 3).map(|i| format!("{task} {n} {i}")).collect();
                    let tx = Tx {
                        appends: vec![Append {
                            stream,
                            route: Route::HashKey,
                            records: records(keys.clone()),
                        }],
                        ..Tx::default()
                    };
                    let receipt = store.commit(tx).await.expect("an append");
                    placed.extend(receipt.appended.into_iter().zip(keys));
                }
                placed
            })
        })
        .collect();
    let mut placed = Vec::new();
    for task in tasks {
        placed.extend(task.await.expect("a task"));
    }
    for _ in 0..2 {
        let mut count = 0;
        for shard in 0..3 {
            let keys = at.keys(shard, 1).await;
            assert!(
                keys.iter().map(|(n, _)| *n).eq(1..=keys.len() as u64),
                "dense"
            );
            for (at, key) in placed.iter().filter(|(at, _)| at.shard.0 == shard) {
                assert_eq!(keys[at.first as usize - 1].1, *key);
                count += 1;
            }
        }
        assert_eq!(count, placed.len());
        at.reopen(engine).await;
    }
}

pub(crate) async fn everything_is_found_again(engine: &dyn Engine) {
    let mut at = Fixture::new(engine, 2).await;
    let mut revision = 0;
    for round in 0..4u32 {
        at.put(0, &[&format!("a{round}")]).await;
        let tx = Tx {
            counters: vec![add("rounds", 1)],
            ..write(state("round"), &round.to_string())
        };
        let receipt = at.store.commit(tx).await.expect("a write");
        assert!(
            receipt.revision > revision,
            "revisions grow across restarts"
        );
        revision = receipt.revision;
        at.reopen(engine).await;
        let found = at
            .store
            .get(&state("round"))
            .expect("a get")
            .expect("a value");
        assert_eq!(
            (found.value, found.revision),
            (round.to_string().into(), revision)
        );
        let counters = at.store.counters(&Scope::default(), "f");
        assert_eq!(counters, Ok(vec![("rounds".into(), i64::from(round) + 1)]));
        assert_eq!(at.keys(0, 1).await.len(), round as usize + 1);
        let ends = at.store.subscribe(at.shard(0)).expect("a subscription");
        assert_eq!(*ends.borrow(), u64::from(round) + 2);
    }
}
