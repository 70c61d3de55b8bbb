//! Loss of power and death of the process, at any moment.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::journal::Position;
use crate::tx::{Expect, Trim, Urgency};

/// What must hold of a store whose first `done` steps were acknowledged and of whose later ones
/// any number may have happened, in order.
///
/// Step `n` is one transaction: a record in shard n % 3, a second one in shard (n + 1) % 3 with
/// the same key, the value of one of five keys, two counters, and now and then a blob or a trim.
struct Story {
    stream: StreamId,
    acknowledged: u64,
    submitted: u64,
}

const SHARDS: u64 = 3;
const KEYS: u64 = 5;

fn step(stream: StreamId, n: u64, revision: Option<u64>) -> Tx {
    let mut tx = Tx {
        expect: vec![Expect::Revision(state(&format!("k{}", n % KEYS)), revision)],
        appends: vec![
            large(stream, (n % SHARDS) as u32, &format!("step {n}")),
            append(stream, ((n + 1) % SHARDS) as u32, [format!("step {n}")]),
        ],
        writes: vec![
            write(&format!("k{}", n % KEYS), &n.to_string()),
            write("last", &n.to_string()),
        ],
        counters: vec![count("steps", 1), count("sum", n as i64)],
        ..Tx::default()
    };
    if n.is_multiple_of(7) {
        let blob = Bytes::from(large_data(&format!("blob {n}")));
        tx.writes.push((state("blob"), Value::Blob(blob)));
    }
    if n.is_multiple_of(10) {
        tx.trims.push(Trim {
            shard: shard(stream, 0),
            before: n / 3,
        });
        tx.urgency = Urgency::Housekeeping;
    }
    tx
}

/// Which steps put a record into a shard, in order.
fn steps_in(index: u64, last: u64) -> Vec<u64> {
    (1..=last)
        .filter(|n| n % SHARDS == index || (n + 1) % SHARDS == index)
        .collect()
}

impl Story {
    /// Looks at everything and gives the last step that happened.
    async fn check(&self, store: &Embedded, hint: &str) -> u64 {
        let get = |name: &str| store.get(&state(name)).expect(hint);
        let number = |bytes: &[u8]| -> u64 {
            let text = std::str::from_utf8(bytes).expect("digits");
            text.parse().expect("a number")
        };
        let last = get("last").map_or(0, |stored| number(&stored.value));
        assert!(
            last >= self.acknowledged,
            "{hint}: {last} of {}",
            self.acknowledged
        );
        assert!(last <= self.submitted, "{hint}");
        for index in 0..SHARDS {
            let key = shard(self.stream, index as u32);
            let want: Vec<_> = (1..).zip(steps_in(index, last)).collect();
            let floor = store.seek(key, Seek::TrimHorizon).await.expect(hint);
            let want = want.into_iter().filter(|(position, _)| *position >= floor);
            let want: Vec<_> = want.map(|(p, n)| (p, format!("step {n}"))).collect();
            assert_eq!(records_of(store, key).await, want, "{hint}: shard {index}");
            if index == 0 {
                assert_eq!(floor, (last / 10 * 10 / 3).max(1), "{hint}");
            }
        }
        for key in 0..KEYS {
            let want = (1..=last).rev().find(|n| n % KEYS == key);
            let found = get(&format!("k{key}")).map(|stored| number(&stored.value));
            assert_eq!(found, want, "{hint}: key {key}");
        }
        let want = match last {
            0 => vec![],
            _ => vec![
                ("steps".to_owned(), last as i64),
                ("sum".to_owned(), (last * (last + 1) / 2) as i64),
            ],
        };
        assert_eq!(
            store.counters(&Scope::default(), "f").expect(hint),
            want,
            "{hint}"
        );
        let blob = store.blob(&state("blob")).await.expect(hint);
        let want = (last >= 7).then(|| large_data(&format!("blob {}", last / 7 * 7)));
        assert_eq!(blob.as_deref(), want.as_deref(), "{hint}");
        last
    }

    /// Takes the next `count` steps, up to the first failure.
    async fn go_on(&mut self, store: &Embedded, count: u64) {
        let mut revisions = [None; KEYS as usize];
        for key in 0..KEYS {
            let stored = store.get(&state(&format!("k{key}"))).expect("a value");
            revisions[key as usize] = stored.map(|stored| stored.revision);
        }
        for _ in 0..count {
            let n = self.submitted + 1;
            let revision = &mut revisions[(n % KEYS) as usize];
            self.submitted = n;
            match store.commit(step(self.stream, n, *revision)).await {
                Ok(receipt) => *revision = Some(receipt.revision),
                Err(_) => break,
            }
            self.acknowledged = n;
        }
    }
}

fn random_options(rng: &mut StdRng) -> Options {
    Options {
        // From "every group at once" to "never".
        layer_bytes: [1, 4000, 1 << 30][rng.random_range(0..3)],
        table_sync_bytes: [1, 50_000, 1 << 40][rng.random_range(0..3)],
        tail_cache_bytes: [0, 1 << 20][rng.random_range(0..2)],
        ..options()
    }
}

/// Runs a story on a disk that stops at a random moment, loses power or only the process, and
/// goes on with what is left, a few times over.
async fn survive(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut io = SimIo::new();
    let store = open(&io);
    let stream = create(&store, "clicks", SHARDS as u32).await;
    drop(store);
    let mut story = Story {
        stream,
        acknowledged: 0,
        submitted: 0,
    };
    for life in 0..4 {
        let hint = format!("seed {seed} life {life}");
        // The restart itself may be cut short as well.
        if rng.random_range(0..3) == 0 {
            io.stop_after(Some(rng.random_range(0..40)));
            drop(try_open(&io, options()));
            io = io.crash(rng.random());
        }
        let store = try_open(&io, random_options(&mut rng));
        let store = store.unwrap_or_else(|error| panic!("{hint}: {error}"));
        story.submitted = story.check(&store, &hint).await;
        story.acknowledged = story.submitted;
        let changes = rng.random_range(0..300);
        io.stop_after(Some(changes));
        story.go_on(&store, 80).await;
        let after = if rng.random_range(0..4) == 0 {
            io.kill()
        } else {
            io.crash(rng.random())
        };
        drop(store);
        io = after;
    }
    let store = open(&io);
    story.check(&store, &format!("seed {seed} at last")).await;
}

#[tokio::test]
async fn what_was_acknowledged_is_found_whole_and_in_order_after_any_crash() {
    // More on demand: a hundred take about twenty seconds.
    let seeds = std::env::var("SHARDMILL_CRASH_SEEDS").ok();
    let seeds = seeds.and_then(|text| text.parse().ok()).unwrap_or(25);
    for seed in 0..seeds {
        survive(seed).await;
    }
}

#[tokio::test]
async fn a_transaction_in_flight_is_found_whole_or_not_at_all_when_pages_tear() {
    let io = SimIo::new();
    let store = open(&io);
    let mut story = Story {
        stream: create(&store, "clicks", SHARDS as u32).await,
        acknowledged: 0,
        submitted: 0,
    };
    story.go_on(&store, 12).await;
    // The next group's frame is written, but its sync never happens.
    io.stop_after(Some(1));
    story.go_on(&store, 1).await;
    let pages = io.unsynced_pages();
    assert!(pages.len() > 1, "{pages:?}");
    let mut found = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let after = io.crash(seed);
        let store = open(&after);
        found.insert(story.check(&store, &format!("seed {seed}")).await);
    }
    assert_eq!(found, [12, 13].into(), "both must happen");
}

#[tokio::test]
async fn a_kill_between_the_journals_sync_and_the_tables_loses_nothing() {
    let io = SimIo::new();
    let store = open(&io);
    let mut story = Story {
        stream: create(&store, "clicks", SHARDS as u32).await,
        acknowledged: 0,
        submitted: 0,
    };
    story.go_on(&store, 30).await;
    assert_eq!(
        store.shared.state().applied,
        Position::START,
        "nothing is in the tables"
    );
    let after = io.kill();
    drop(store);
    let store = open(&after);
    assert_eq!(story.check(&store, "after the kill").await, 30);
    // And once more, with the tables half way.
    story.go_on(&store, 10).await;
    store.close().await;
    drop(store);
    let store = open(&after);
    story.go_on(&store, 10).await;
    drop(store);
    let store = open(&after.crash(1));
    assert_eq!(story.check(&store, "after the crash").await, 50);
}

#[tokio::test]
async fn a_first_start_that_was_cut_short_can_be_repeated() {
    for changes in 0..60 {
        let io = SimIo::new();
        io.stop_after(Some(changes));
        drop(try_open(&io, options()));
        let store = open(&io.crash(changes));
        create(&store, "clicks", 1).await;
    }
}
