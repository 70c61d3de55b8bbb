use std::sync::Arc;

use shardmill_store::Memory;

use super::*;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

#[test]
fn room_ends_at_the_bound_and_narrows_at_half_of_it() {
    let ledger = Ledger::default();
    let store = Memory::new(Arc::new(|| NOW));
    let bounds = FailureBounds {
        bytes: 1000,
        ..FailureBounds::default()
    };
    ledger.open(&store, bounds).expect("an empty store");
    let scope = Scope::default();
    for (taken, asked, room) in [
        (0, 500, Room::Whole),
        (0, 501, Room::Records),
        (0, 1001, Room::Entry),
        (400, 101, Room::Records),
        (600, 0, Room::Records),
        (1, 0, Room::Entry),
        (123, 0, Room::Entry),
        (1, 0, Room::None),
    ] {
        ledger.take(&scope, "id", taken, NOW);
        assert_eq!(ledger.room(&scope, asked), room, "{taken} {asked}");
    }
    let other = Scope {
        tenant: "123456789012".parse().expect("an account"),
        ..Scope::default()
    };
    assert_eq!(
        ledger.room(&other, 500),
        Room::Whole,
        "each account has its own"
    );
}

#[tokio::test]
async fn what_was_never_committed_stops_counting_after_a_while() {
    let ledger = Ledger::default();
    let store = Memory::new(Arc::new(|| NOW));
    let scope = Scope::default();
    let id = ledger.new_id(NOW);
    ledger.take(&scope, &id, 7, NOW);
    let tx = Tx {
        writes: vec![(entry_key(&scope, &id), Value::Inline("{}".into()))],
        ..Tx::default()
    };
    store.commit(tx).await.expect("a commit");
    ledger.take(&scope, "lost", 100, NOW);
    ledger.take(&scope, "removed", 1000, NOW);
    ledger.is_there("removed");
    let gone = Kept {
        entries: 1,
        bytes: 1000,
    };
    ledger.forget(&scope, gone);
    for (seconds, used) in [(59, 107), (60, 7), (120, 7)] {
        let at = NOW.plus(Duration::from_secs(seconds));
        ledger.sweep(&store, at).await.expect("a sweep");
        assert_eq!(ledger.used(&scope).0, used, "after {seconds} s");
    }
    assert_eq!(ledger.all().0[0].1.entries, 1);
}

#[test]
fn entries_that_are_not_kept_are_told_of_once_a_minute() {
    let ledger = Ledger::default();
    let told: Vec<Option<u64>> = [0, 1, 59, 60, 61, 200]
        .map(|s| ledger.dropped(NOW.plus(Duration::from_secs(s))))
        .into();
    assert_eq!(told, [Some(1), None, None, Some(3), None, Some(2)]);
}
