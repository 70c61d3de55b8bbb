//! Tenants side by side: shares of the cores, slots and memory, quotas.

use shardmill_core::quotas::{FunctionQuotas, Quotas};
use shardmill_core::sandbox::Owner;
use shardmill_core::{Scope, TenantId};
use tokio::task::JoinSet;

use super::invokers::{drained, running};
use super::*;

const SPIN: &str = "(loop $l (br $l))";

/// About 2 million units of fuel.
const WORK: &str = "(local.set $n (i64.const 300000))
    (loop $l (br_if $l (i64.gt_s (local.tee $n (i64.sub (local.get $n) (i64.const 1))) (i64.const 0))))";

fn owner(tenant: u64, function: &str) -> Arc<Owner> {
    Arc::new(Owner {
        scope: Scope {
            tenant: TenantId::from_number(tenant).expect("a tenant"),
            ..Scope::default()
        },
        function: function.into(),
    })
}

fn of(owner: &Arc<Owner>, module: &Arc<dyn Module>) -> Invocation {
    let mut invocation = invocation(module, 1);
    invocation.owner = Arc::clone(owner);
    invocation.limits.fuel_base = 1 << 39;
    invocation.limits.timeout = Duration::from_secs(900);
    invocation.limits.memory_bytes = 4 << 20;
    invocation
}

fn host(threads: usize, concurrency: u32, mib: u64) -> Arc<Host> {
    Arc::new(Host::with(SandboxConfig {
        invoker_threads: threads,
        concurrency,
        memory_budget_bytes: mib << 20,
        ..SandboxConfig::default()
    }))
}

/// Keeps `count` attempts of an owner under way until the set is dropped.
fn keep(
    set: &mut JoinSet<()>,
    host: &Arc<Host>,
    owner: &Arc<Owner>,
    module: &Arc<dyn Module>,
    count: usize,
) {
    for _ in 0..count {
        let (host, owner, module) = (Arc::clone(host), Arc::clone(owner), Arc::clone(module));
        set.spawn(async move {
            loop {
                host.invoke(of(&owner, &module)).await;
            }
        });
    }
}

/// Fuel of the attempts that a tenant ends, one after the other, while `turns` of another end.
async fn fuel_beside(
    host: &Arc<Host>,
    good: &Arc<Owner>,
    module: &Arc<dyn Module>,
    attempts: usize,
) -> u64 {
    let mut fuel = 0;
    for _ in 0..attempts {
        let report = host.invoke(of(good, module)).await;
        assert_ok(&report);
        fuel += report.usage.fuel;
    }
    fuel
}

#[tokio::test]
async fn a_tenant_with_sixty_four_spinners_gets_no_more_than_one_with_a_single_good_guest() {
    let host = host(1, 100, 1024);
    let (spin, work) = (
        host.load(&handler(BATCH, SPIN)).await,
        host.load(&handler(BATCH, WORK)).await,
    );
    let (bad, good) = (owner(1, "spin"), owner(2, "work"));
    let mut flood = JoinSet::new();
    keep(&mut flood, &host, &bad, &spin, 64);
    running(&host, 64).await;
    // One thread, a slice about each 60 µs, half of them the good tenant's: its 400 slices need
    // about as many of the other's, twice the time. First come first served would take 65 times as
    // long.
    let began = tokio::time::Instant::now();
    let fuel = fuel_beside(&host, &good, &work, 200).await;
    let took = began.elapsed();
    flood.abort_all();
    let alone = tokio::time::Instant::now();
    drained(&host).await;
    let drained = alone.elapsed();
    let alone = tokio::time::Instant::now();
    assert_eq!(fuel_beside(&host, &good, &work, 200).await, fuel);
    let alone = alone.elapsed();
    assert!(
        took < 12 * alone,
        "{took:?} beside the flood, {alone:?} alone"
    );
    assert!(
        drained < Duration::from_secs(5),
        "cancelled spinners end at once: {drained:?}"
    );
}

#[tokio::test]
async fn sleepers_that_hold_every_slot_they_may_leave_some_for_others() {
    let host = host(1, 16, 1024);
    let (sleep, work) = (
        host.load(&handler(BATCH, &sleep(Duration::from_secs(600))))
            .await,
        host.load(&handler(BATCH, WORK)).await,
    );
    let mut flood = JoinSet::new();
    keep(&mut flood, &host, &owner(1, "sleep"), &sleep, 40);
    running(&host, 10).await;
    for tenant in 2..6 {
        assert_ok(&host.invoke(of(&owner(tenant, "work"), &work)).await);
    }
    assert_eq!(
        host.sandbox.in_use().instances,
        10,
        "the sleepers still sleep"
    );
}

#[tokio::test]
async fn fuel_per_second_makes_a_tenant_slow_and_fails_nothing() {
    let host = host(1, 16, 1024);
    let work = host.load(&handler(BATCH, WORK)).await;
    let (bound, free) = (owner(1, "work"), owner(2, "work"));
    let fuel = host.invoke(of(&free, &work)).await.usage.fuel;
    let quotas = Quotas {
        fuel_per_second: Some(10 * fuel),
        ..Quotas::default()
    };
    Sandbox::set_quotas(&host.sandbox, bound.scope.tenant, &quotas);
    let began = tokio::time::Instant::now();
    // A second's worth may be burnt at once; five more attempts take half a second.
    fuel_beside(&host, &bound, &work, 15).await;
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(350), "{took:?}");
    let began = tokio::time::Instant::now();
    fuel_beside(&host, &free, &work, 15).await;
    assert!(began.elapsed() < took, "the other tenant is not slow");
    Sandbox::set_quotas(&host.sandbox, bound.scope.tenant, &Quotas::default());
    fuel_beside(&host, &bound, &work, 100).await;
}

#[tokio::test]
async fn reserved_concurrency_bounds_a_function_and_keeps_room_for_it() {
    let host = host(2, 16, 1024);
    let spin = host.load(&handler(BATCH, SPIN)).await;
    let (reserved, other) = (owner(1, "reserved"), owner(1, "other"));
    let quotas = Quotas {
        concurrent_invocations: Some(6),
        ..Quotas::default()
    };
    Sandbox::set_quotas(&host.sandbox, reserved.scope.tenant, &quotas);
    let two = FunctionQuotas {
        reserved_concurrency: Some(2),
        ..FunctionQuotas::default()
    };
    Sandbox::set_function_quotas(&host.sandbox, &reserved, two);
    let mut flood = JoinSet::new();
    keep(&mut flood, &host, &other, &spin, 10);
    keep(&mut flood, &host, &reserved, &spin, 10);
    running(&host, 6).await;
    let standings = Sandbox::standings(&host.sandbox);
    let (_, standing) = standings
        .iter()
        .find(|(id, _)| *id == other.scope.tenant)
        .expect("it runs");
    assert_eq!((standing.held.slots, standing.waiting), (6, 14));
    assert!(standing.held_back >= 14);
    let none = FunctionQuotas {
        reserved_concurrency: Some(0),
        ..FunctionQuotas::default()
    };
    Sandbox::set_function_quotas(&host.sandbox, &reserved, none);
    let report = host.invoke(of(&reserved, &spin)).await;
    assert!(
        matches!(&report.outcome, Outcome::Throttled { reason } if reason.contains("reserved concurrency is 0")),
        "{report:?}"
    );
}
