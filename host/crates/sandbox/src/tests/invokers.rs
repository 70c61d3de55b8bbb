//! Attempts side by side: fair slices, cancellation, admission, faults of the host, replay.

use shardmill_core::sandbox::Carrier;

use super::*;

const SPIN: &str = "(loop $l (br $l))";

fn unlimited(invocation: &mut Invocation) {
    invocation.limits.fuel_base = 1 << 39;
    invocation.limits.timeout = Duration::from_secs(900);
}

/// Waits until nothing is held any more.
pub(super) async fn drained(host: &Host) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while host.sandbox.in_use() != crate::InUse::default() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{:?}",
            host.sandbox.in_use()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until so many attempts run.
pub(super) async fn running(host: &Host, count: u64) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while host.sandbox.in_use().instances < count {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{:?} of {count}",
            host.sandbox.in_use()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn sixty_four_spinners_do_not_keep_a_good_guest_from_finishing() {
    let host = Arc::new(Host::with(SandboxConfig {
        invoker_threads: 2,
        concurrency: 100,
        memory_budget_bytes: 16 << 30,
        ..SandboxConfig::default()
    }));
    let (spinner, good) = (
        host.load(&handler(BATCH, SPIN)).await,
        host.load(&handler(RECORD, &each(""))).await,
    );
    let mut spinners = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let mut spin = invocation(&spinner, 1);
        unlimited(&mut spin);
        let host = Arc::clone(&host);
        spinners.spawn(async move { host.invoke(spin).await });
    }
    running(&host, 64).await;
    let mut finish = invocation(&good, 100);
    finish.limits.timeout = Duration::from_secs(1);
    assert_ok(&host.invoke(finish).await);
    assert!(spinners.try_join_next().is_none(), "the spinners still run");
    spinners.abort_all();
    drained(&host).await;
}

#[tokio::test]
async fn a_sleeper_holds_no_thread() {
    let host = Host::with(SandboxConfig {
        invoker_threads: 1,
        concurrency: 16,
        ..SandboxConfig::default()
    });
    let sleeper = host
        .load(&handler(BATCH, &sleep(Duration::from_millis(300))))
        .await;
    let start = tokio::time::Instant::now();
    let sleepers = (0..8).map(|_| host.invoke(invocation(&sleeper, 1)));
    let mut naps = sleepers.map(Box::pin).collect::<Vec<_>>();
    let all = std::future::poll_fn(|cx| {
        naps.retain_mut(|nap| {
            nap.as_mut()
                .poll(cx)
                .map(|report| assert_ok(&report))
                .is_pending()
        });
        if naps.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    });
    all.await;
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(300)..Duration::from_millis(2_300)).contains(&took),
        "{took:?}"
    );
}

#[tokio::test]
async fn dropping_the_future_cancels_and_frees_the_slot() {
    let host = Host::start();
    for body in [SPIN.to_owned(), sleep(Duration::from_secs(600))] {
        let module = host.load(&handler(BATCH, &body)).await;
        let mut endless = invocation(&module, 1);
        unlimited(&mut endless);
        let cancelled = tokio::time::timeout(Duration::from_millis(30), host.invoke(endless)).await;
        assert!(cancelled.is_err());
        drained(&host).await;
    }
}

#[tokio::test]
async fn a_report_comes_after_everything_is_free() {
    let host = Host::start();
    for body in ["", "unreachable"] {
        let module = host.load(&handler(BATCH, body)).await;
        host.invoke(invocation(&module, 1)).await;
        assert_eq!(host.sandbox.in_use(), crate::InUse::default());
    }
}

#[tokio::test]
async fn what_the_host_lacks_is_a_throttle() {
    let config = SandboxConfig {
        invoker_threads: 1,
        concurrency: 1,
        memory_budget_bytes: 256 << 20,
        admission_timeout: Duration::from_millis(50),
        ..SandboxConfig::default()
    };
    let host = Arc::new(Host::with(config));
    let module = host.load(&handler(BATCH, SPIN)).await;
    let mut greedy = invocation(&module, 1);
    greedy.limits.memory_bytes = 512 << 20;
    let report = host.invoke(greedy).await;
    assert!(
        matches!(&report.outcome, Outcome::Throttled { reason } if reason.contains("above the sandbox's budget")),
        "{report:?}"
    );

    let mut spin = invocation(&module, 1);
    unlimited(&mut spin);
    let spinning = {
        let host = Arc::clone(&host);
        tokio::spawn(async move { host.invoke(spin).await })
    };
    running(&host, 1).await;
    let report = host.invoke(invocation(&module, 1)).await;
    assert!(
        matches!(&report.outcome, Outcome::Throttled { reason } if reason.contains("no free slot")),
        "{report:?}"
    );
    spinning.abort();
    drained(&host).await;
}

struct Faulty;

impl StateView for Faulty {
    fn get(&self, key: &str, _: &str) -> Result<Option<(Bytes, u64)>, String> {
        if key == "k0" {
            return Err("disk on fire".into());
        }
        panic!("a bug of the host")
    }
}

#[tokio::test]
async fn a_fault_of_the_host_throttles_and_keeps_the_threads() {
    let host = Host::with(SandboxConfig {
        invoker_threads: 1,
        concurrency: 4,
        ..SandboxConfig::default()
    });
    let body = |record: u32| {
        format!(
            "(drop (call $progress (i32.const {record}))) (drop (call $get (i32.const 8) (i32.const 4) (i32.const 0) (i32.const 0)))"
        )
    };
    for (record, reason) in [
        (0, "read keyed state: disk on fire"),
        (1, "host fault: a bug of the host"),
        (1, "host fault: a bug of the host"),
    ] {
        let module = host.load(&handler(BATCH, &body(record))).await;
        let report = host
            .invoke(Invocation {
                state: Arc::new(Faulty),
                ..invocation(&module, 2)
            })
            .await;
        assert_eq!(
            report.outcome,
            Outcome::Throttled {
                reason: reason.into()
            }
        );
        assert!(report.effects.is_empty());
    }
    assert_eq!(host.sandbox.in_use(), crate::InUse::default());
    assert_ok(&host.run(&handler(BATCH, ""), 1).await);
}

#[tokio::test]
async fn a_module_of_another_sandbox_is_a_throttle() {
    struct Foreign;
    impl Module for Foreign {
        fn digest(&self) -> &str {
            ""
        }
        fn carrier(&self) -> Carrier {
            Carrier::Command
        }
    }
    let (here, there) = (Host::start(), Host::start());
    let module = there.load(&handler(BATCH, "")).await;
    let foreign: Arc<dyn Module> = Arc::new(Foreign);
    for module in [module, foreign] {
        let report = here.invoke(invocation(&module, 1)).await;
        assert!(
            matches!(&report.outcome, Outcome::Throttled { reason } if reason.contains("another sandbox"))
        );
    }
}

#[tokio::test]
async fn dropping_the_sandbox_ends_attempts_that_were_just_cancelled() {
    let host = Arc::new(Host::start());
    let module = host.load(&handler(BATCH, SPIN)).await;
    let mut spin = invocation(&module, 1);
    unlimited(&mut spin);
    drop(tokio::time::timeout(Duration::from_millis(10), host.invoke(spin)).await);
    drop(host);
}

#[tokio::test]
async fn the_same_inputs_give_the_same_result_and_the_same_fuel() {
    let host = Host::start();
    // Branches on randomness and on both clocks, before and after a sleep, and emits what it saw.
    let body = format!(
        "(drop (call $random (i32.const 0x400) (i32.const 64))) (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 0x440)))
        (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 0x448))) {} (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 0x450)))
        (local.set $i (i32.load16_u (i32.const 0x400))) (loop $l (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
        (drop (call $emit (i32.const 8) (i32.const 4) (i32.const 8) (i32.const 4) (i32.const 0x400) (i32.const 88)))",
        sleep(Duration::from_millis(5))
    );
    let module = host.load(&handler(BATCH, &body)).await;
    let first = host.invoke(invocation(&module, 3)).await;
    let second = host.invoke(invocation(&module, 3)).await;
    assert_ok(&first);
    assert_eq!(
        (first.usage.fuel, &first.effects),
        (second.usage.fuel, &second.effects)
    );
    let seen = &first.effects.emits[0].1.data;
    let number = |at: usize| u64::from_le_bytes(seen[at..at + 8].try_into().expect("8 bytes"));
    assert_eq!((number(0x40), number(0x48)), (NOW.0 * 1_000_000, 0));
    assert!(
        number(0x50) > 5_000_000,
        "the monotonic clock saw the sleep"
    );
    let other = host
        .invoke(Invocation {
            seed: [8; 32],
            ..invocation(&module, 3)
        })
        .await;
    assert_ne!(first.effects, other.effects);
}
