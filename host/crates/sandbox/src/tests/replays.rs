//! An attempt that is run again with what it was given ends as it did: same cause, same record,
//! same fuel to the unit, same standard error.

use std::sync::atomic::{AtomicUsize, Ordering};

use shardmill_core::sandbox::Again;

use super::*;

const PATIENT: Again = Again {
    stop_at_fuel: None,
    timeout: Duration::from_secs(60),
};

/// Keyed state that grows with each read, as if somebody else wrote it meanwhile.
struct Growing(AtomicUsize);

impl StateView for Growing {
    fn get(&self, _: &str, _: &str) -> Result<Option<(Bytes, u64)>, String> {
        let reads = self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Some((vec![b'x'; 10 + reads].into(), reads as u64 + 1)))
    }
}

/// Keyed state as it was.
struct Fixed(usize);

impl StateView for Fixed {
    fn get(&self, _: &str, _: &str) -> Result<Option<(Bytes, u64)>, String> {
        Ok(Some((vec![b'x'; self.0].into(), 1)))
    }
}

fn given(module: &Arc<dyn Module>, now: UnixMillis, seed: u8) -> Invocation {
    Invocation {
        now,
        seed: [seed; 32],
        ..invocation(module, 3)
    }
}

/// Turns a loop as many times as `count` says, then traps at record 1.
fn counting(count: &str) -> String {
    let at_1 = format!(
        "(if (i32.eq (local.get $i) (i32.const 1)) (then {count} {} (unreachable)))",
        print(2, "counted")
    );
    with(
        &handler(RECORD, &each(&at_1)),
        r#"(data (i32.const 0x400) "name")
        (func $turn (param $n i64)
            (loop $l (local.set $n (i64.sub (local.get $n) (i64.const 1)))
                (br_if $l (i64.gt_s (local.get $n) (i64.const 0)))))"#,
    )
}

#[tokio::test]
async fn randomness_the_clock_and_keyed_state_are_those_of_the_attempt() {
    let host = Host::start();
    for (what, count) in [
        (
            "randomness",
            "(drop (call $random (i32.const 0x500) (i32.const 2)))
            (call $turn (i64.load16_u (i32.const 0x500)))",
        ),
        (
            "the clock",
            "(drop (call $clock (i32.const 0) (i64.const 1) (i32.const 0x500)))
            (call $turn (i64.rem_u (i64.load (i32.const 0x500)) (i64.const 65521)))",
        ),
        (
            "keyed state",
            "(call $turn (call $get (i32.const 0x400) (i32.const 4) (i32.const 0x500) (i32.const 100)))",
        ),
    ] {
        let module = host.load(&counting(count)).await;
        let state: Arc<dyn StateView> = Arc::new(Growing(AtomicUsize::new(7)));
        let first = Invocation {
            state: Arc::clone(&state),
            ..given(&module, NOW, 7)
        };
        let first = host.invoke(first).await;
        assert_eq!(failure(&first).record, Some(1), "{what}");
        assert_eq!(first.stderr_tail, "counted");
        let again = Invocation {
            state: Arc::new(Fixed(17)),
            ..given(&module, NOW, 7)
        };
        let again = Sandbox::replay(&host.sandbox, again, PATIENT).await;
        let told = |report: &Report| {
            (
                report.outcome.clone(),
                report.usage.fuel,
                report.usage.fuel_allowed,
                report.stderr_tail.clone(),
            )
        };
        assert_eq!(told(&first), told(&again), "{what}");
        let other = Invocation {
            state,
            ..given(&module, UnixMillis(NOW.0 + 12_345), 8)
        };
        let other = host.invoke(other).await;
        assert_ne!(other.usage.fuel, first.usage.fuel, "{what}: it does count");
    }
}

#[tokio::test]
async fn an_attempt_that_was_cut_off_by_its_wall_clock_stops_at_its_fuel() {
    let host = Host::start();
    let nap = sleep(Duration::from_secs(60));
    for (what, at_1) in [
        ("running", "(loop $l (br $l))".to_owned()),
        ("sleeping", format!("{nap} (loop $l (br $l))")),
    ] {
        let module = host
            .load(&handler(
                RECORD,
                &each(&format!(
                    "(if (i32.eq (local.get $i) (i32.const 1)) (then {at_1}))"
                )),
            ))
            .await;
        let timed = || {
            let mut timed = invocation(&module, 3);
            timed.limits.fuel_base = 1_000_000_000_000;
            timed.limits.timeout = Duration::from_millis(100);
            timed
        };
        let first = host.invoke(timed()).await;
        assert!(
            matches!(cause(&first), Cause::TimedOut { .. }),
            "{what}: {first:?}"
        );
        let fuel = first.usage.fuel;
        let again = Again {
            stop_at_fuel: Some(fuel),
            ..PATIENT
        };
        let again = Sandbox::replay(&host.sandbox, timed(), again).await;
        assert!(
            matches!(cause(&again), Cause::OutOfFuel { .. }),
            "{what}: {again:?}"
        );
        assert_eq!(again.usage.fuel, fuel, "{what}");
        assert_eq!(failure(&again).record, failure(&first).record, "{what}");
    }
}
