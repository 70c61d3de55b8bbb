use shardmill_core::block::{Placement, Records};
use shardmill_core::effects::Effects;
use shardmill_core::sandbox::Usage;
use shardmill_core::{Block, ShardId, Slice, TenantId};
use shardmill_store::Memory;

use super::*;

/// A batch with one record of each key.
pub(crate) fn batch(keys: &[String]) -> Batch {
    let mut records = Records::default();
    for key in keys {
        records.push(key, None, b"data");
    }
    let (index, blob) = records.into_parts();
    let placement = Placement {
        shard: ShardId(0),
        created_seconds: 1,
        first: 1,
        arrival: UnixMillis(5),
    };
    let block = Block::new(placement, index.into(), blob.into()).expect("a block");
    Batch::new([Slice {
        block,
        from: 0,
        to: keys.len() as u32,
    }])
}

fn owner(tenant: u64, function: &str) -> Arc<Owner> {
    Arc::new(Owner {
        scope: Scope {
            tenant: TenantId::from_number(tenant).expect("a tenant"),
            ..Scope::default()
        },
        function: function.into(),
    })
}

fn report(fuel: u64) -> Report {
    Report {
        outcome: Outcome::Ok {
            text: String::new(),
        },
        effects: Effects::default(),
        usage: Usage {
            fuel,
            duration: Duration::from_micros(7),
            ..Usage::default()
        },
        record_fuel: Vec::new(),
        log: Vec::new(),
        stderr_tail: String::new(),
        output_cut_bytes: 0,
    }
}

fn store() -> Arc<dyn Store> {
    Arc::new(Memory::new(Arc::new(|| UnixMillis(0))))
}

fn fuels(ledger: &Ledger, scope: Option<&Scope>, days: u64) -> Vec<(u64, String, String, u64)> {
    let entries = ledger.since(scope, days).expect("a readable store");
    let view = |e: Entry| (e.day, e.function, e.mapping, e.row.fuel);
    entries.into_iter().map(view).collect()
}

#[tokio::test(start_paused = true)]
async fn sums_are_kept_by_day_function_and_mapping_through_a_restart() {
    let (store, clock) = (store(), Clock::starting_at(UnixMillis(10 * DAY_MS)));
    let ledger = Ledger::new(Arc::clone(&store), clock);
    let (a, b) = (owner(1, "a"), owner(2, "b"));
    let mapping: Arc<str> = "clicks".into();
    ledger.note(&a, Some(&mapping), 3, &report(100));
    ledger.flush().await.expect("a write");
    ledger.note(&a, Some(&mapping), 3, &report(20));
    ledger.note(&a, None, 1, &report(1));
    ledger.note(&b, None, 1, &report(5));
    let mine = [
        (10, "a".to_owned(), String::new(), 1),
        (10, "a".to_owned(), "clicks".to_owned(), 120),
    ];
    assert_eq!(fuels(&ledger, Some(&a.scope), 0), mine);
    ledger.flush().await.expect("a write");
    assert_eq!(fuels(&ledger, Some(&a.scope), 0), mine);
    tokio::time::advance(Duration::from_secs(24 * 3600)).await;
    let again = Ledger::new(Arc::clone(&store), clock);
    assert!(fuels(&again, None, 0).is_empty(), "a new day");
    again.note(&a, Some(&mapping), 3, &report(7));
    again.flush().await.expect("a write");
    assert_eq!(fuels(&again, Some(&a.scope), 1).len(), 3);
    assert_eq!(fuels(&again, None, 1).len(), 4);
    tokio::time::advance(Duration::from_secs(35 * 24 * 3600)).await;
    again.flush().await.expect("a write");
    assert_eq!(
        fuels(&again, None, 100),
        [(11, "a".into(), "clicks".into(), 7)]
    );
}

#[tokio::test]
async fn failures_count_and_throttles_burn_nothing() {
    let ledger = Ledger::new(store(), Clock::starting_at(UnixMillis(0)));
    let a = owner(1, "a");
    let throttled = Report {
        outcome: Outcome::Throttled {
            reason: "full".into(),
        },
        ..report(0)
    };
    ledger.note(&a, None, 3, &report(10));
    ledger.note(&a, None, 3, &throttled);
    let entries = ledger.since(None, 0).expect("a readable store");
    let row = Row {
        fuel: 10,
        invocations: 1,
        records: 3,
        duration_us: 7,
        throttles: 1,
        errors: 0,
    };
    assert_eq!(entries[0].row, row);
}
