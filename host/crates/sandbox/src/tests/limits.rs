//! Every limit has its outcome, with the figures; whatever a hostile guest does ends in one.

use shardmill_core::outcome::Frame;

use super::*;

#[tokio::test]
async fn an_endless_loop_runs_out_of_fuel() {
    let host = Host::start();
    let module = host.load(&handler(BATCH, "(loop $l (br $l))")).await;
    let mut invocation = invocation(&module, 1);
    invocation.limits.fuel_base = 3_000_000;
    invocation.limits.fuel_per_record = 0;
    let report = host.invoke(invocation).await;
    let Cause::OutOfFuel { allowed, frames } = cause(&report) else {
        panic!("{report:?}")
    };
    assert_eq!((*allowed, frames.len()), (3_000_000, 1));
    assert_eq!(
        (report.usage.fuel, report.usage.fuel_allowed),
        (3_000_000, 3_000_000)
    );
}

#[tokio::test]
async fn an_endless_start_function_runs_out_of_fuel_when_loaded() {
    let wat = with(
        &handler(BATCH, ""),
        "(start $s) (func $s (loop $l (br $l)))",
    );
    let error = Host::start()
        .try_load(&wat)
        .await
        .map(drop)
        .expect_err("refused");
    assert_eq!(
        error,
        LoadError::Abi("shardmill_abi_v1 failed: out of fuel: all 100000000 units used".into())
    );
}

#[tokio::test]
async fn an_endless_start_function_of_a_command_runs_out_of_fuel_when_invoked() {
    let wat = r#"(module (memory (export "memory") 1) (func $s (loop $l (br $l))) (start $s)
        (func (export "_start")))"#;
    let report = Host::start().run(wat, 0).await;
    assert!(
        matches!(cause(&report), Cause::OutOfFuel { .. }),
        "{report:?}"
    );
}

#[tokio::test]
async fn an_endless_abi_function_is_refused_at_load() {
    let wat = handler(BATCH, "").replace("(i32.const 2))", "(loop $l (br $l)) (i32.const 2))");
    let error = Host::start()
        .try_load(&wat)
        .await
        .map(drop)
        .expect_err("refused");
    assert!(error.to_string().contains("out of fuel"), "{error}");
}

#[tokio::test]
async fn memory_grows_to_its_limit_and_the_abort_after_it_is_out_of_memory() {
    let host = Host::start();
    let grow =
        "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    let module = host.load(&handler(BATCH, grow)).await;
    let mut invocation = invocation(&module, 1);
    invocation.limits.memory_bytes = 4 << 20;
    let report = host.invoke(invocation).await;
    let Cause::OutOfMemory {
        asked,
        allowed,
        frames,
    } = cause(&report)
    else {
        panic!("{report:?}")
    };
    assert_eq!((*asked, *allowed), (5 << 20, 4 << 20));
    assert!(!frames.is_empty());
    assert_eq!(report.usage.memory_bytes, 4 << 20);
}

#[tokio::test]
async fn a_memory_that_begins_above_the_limit_is_out_of_memory() {
    let host = Host::start();
    let module = host.load(&handler(BATCH, "")).await;
    let mut invocation = invocation(&module, 1);
    invocation.limits.memory_bytes = 1 << 20;
    let report = host.invoke(invocation).await;
    let Cause::OutOfMemory { asked, allowed, .. } = cause(&report) else {
        panic!("{report:?}")
    };
    assert_eq!((*asked, *allowed), (2 << 20, 1 << 20));
}

#[tokio::test]
async fn a_refused_growth_that_the_guest_lives_with_is_no_failure() {
    let report = Host::start()
        .run(&handler(BATCH, "(drop (memory.grow (i32.const 60000)))"), 1)
        .await;
    assert_ok(&report);
}

#[tokio::test]
async fn a_panic_after_a_refused_growth_is_told_as_the_panic() {
    let body = format!(
        "(drop (memory.grow (i32.const 60000))) {} unreachable",
        print(
            2,
            "thread 'main' panicked at src/lib.rs:1:2:\nno\nnote: run with `RUST_BACKTRACE=1`\n"
        )
    );
    let report = Host::start().run(&handler(BATCH, &body), 1).await;
    let Cause::Trap { trap, message, .. } = cause(&report) else {
        panic!("{report:?}")
    };
    assert_eq!(
        (trap.as_str(), message.as_str()),
        ("unreachable", "src/lib.rs:1:2: no")
    );
}

#[tokio::test]
async fn a_table_grows_to_its_limit_only() {
    let body = "(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) unreachable";
    let wat = with(&handler(BATCH, body), "(table $t 1 funcref)");
    let report = Host::start().run(&wat, 1).await;
    let Cause::OutOfMemory { asked, allowed, .. } = cause(&report) else {
        panic!("{report:?}")
    };
    assert_eq!((*asked, *allowed), (20_001, 20_000));
}

#[tokio::test]
async fn deep_recursion_is_a_stack_overflow() {
    let wat = with(&handler(BATCH, "(call $deep)"), "(func $deep (call $deep))");
    let report = Host::start().run(&wat, 1).await;
    let Cause::Trap { trap, frames, .. } = cause(&report) else {
        panic!("{report:?}")
    };
    assert_eq!(trap, "stack overflow");
    assert_eq!(frames.len(), 40);
    assert_eq!(frames[0].function, "deep");
}

#[tokio::test]
async fn traps_are_told_by_name_and_place() {
    let host = Host::start();
    for (body, name) in [
        ("unreachable", "unreachable"),
        ("(drop (i32.load (i32.const -4)))", "memory out of bounds"),
        (
            "(drop (i32.div_u (i32.const 1) (local.get $i)))",
            "integer divide by zero",
        ),
        (
            "(drop (i32.trunc_f32_s (f32.const nan)))",
            "invalid conversion to integer",
        ),
        ("(call_indirect $t (local.get $i))", "uninitialized element"),
    ] {
        let wat = with(&handler(BATCH, body), "(table $t 1 funcref)");
        let report = host.run(&wat, 1).await;
        let Cause::Trap {
            trap,
            message,
            frames,
        } = cause(&report)
        else {
            panic!("{report:?}")
        };
        assert_eq!((trap.as_str(), message.as_str()), (name, ""));
        let [
            Frame {
                function,
                module_offset: Some(_),
                ..
            },
        ] = &frames[..]
        else {
            panic!("{frames:?}")
        };
        assert!(function.starts_with("func["), "{function}");
    }
}

#[tokio::test]
async fn a_flood_of_output_is_cut_and_counted_and_its_end_kept() {
    let host = Host::start();
    let line = format!("{}\n", "x".repeat(99));
    let flood = format!(
        "(loop $l {} (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $i) (i32.const 2000)))) {}",
        print(2, &line),
        print(2, "the end")
    );
    let report = host.run(&handler(BATCH, &flood), 1).await;
    assert_ok(&report);
    let kept: usize = report.log.iter().map(|line| line.text.len() + 1).sum();
    assert!(kept <= (64 << 10) + 1, "{kept}");
    assert_eq!(report.output_cut_bytes, 200_007 - (64 << 10));
    assert_eq!(report.stderr_tail.len(), 4 << 10);
    assert!(report.stderr_tail.ends_with("x\nthe end"));
}

#[tokio::test]
async fn a_sleep_past_the_deadline_is_cut_at_the_deadline() {
    let host = Host::start();
    let module = host
        .load(&handler(BATCH, &sleep(Duration::from_secs(3600))))
        .await;
    let mut invocation = invocation(&module, 1);
    invocation.limits.timeout = Duration::from_millis(100);
    let start = tokio::time::Instant::now();
    let report = host.invoke(invocation).await;
    let Cause::TimedOut { allowed, fuel_used } = cause(&report) else {
        panic!("{report:?}")
    };
    assert_eq!(*allowed, Duration::from_millis(100));
    assert!(*fuel_used > 0);
    assert_eq!(report.usage.duration, Duration::from_millis(100));
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(100)..Duration::from_secs(5)).contains(&took),
        "{took:?}"
    );
}

#[tokio::test]
async fn running_past_the_deadline_is_cut_at_the_next_slice() {
    let host = Host::start();
    let module = host.load(&handler(BATCH, "(loop $l (br $l))")).await;
    let mut invocation = invocation(&module, 1);
    invocation.limits.fuel_base = 1 << 39;
    invocation.limits.timeout = Duration::from_millis(50);
    let report = host.invoke(invocation).await;
    assert!(
        matches!(cause(&report), Cause::TimedOut { .. }),
        "{report:?}"
    );
    assert!(report.usage.duration >= Duration::from_millis(50));
    assert!(report.usage.fuel > 0 && report.usage.fuel < 1 << 39);
}

#[tokio::test]
async fn a_guest_that_only_calls_the_host_still_yields() {
    // Setting fuel restarts the count to the next yield: a loop of host calls once never gave way.
    let host = Host::start();
    let body =
        "(loop $l (drop (call $log (i32.const 3) (i32.const 0x200) (i32.const 4096))) (br $l))";
    let module = host.load(&handler(BATCH, body)).await;
    let mut invocation = invocation(&module, 1);
    invocation.limits.fuel_base = 1 << 39;
    invocation.limits.timeout = Duration::from_millis(50);
    let report = host.invoke(invocation).await;
    assert!(
        matches!(cause(&report), Cause::TimedOut { .. }),
        "{report:?}"
    );
    assert!(
        report.usage.duration < Duration::from_secs(5),
        "{:?}",
        report.usage.duration
    );
}

#[tokio::test]
async fn leaving_the_process_is_a_failure_whatever_the_code() {
    let host = Host::start();
    for code in [0, 3, -1] {
        let report = host
            .run(
                &handler(BATCH, &format!("(call $exit (i32.const {code}))")),
                1,
            )
            .await;
        assert_eq!(cause(&report), &Cause::Exited { code });
    }
}

#[tokio::test]
async fn an_answer_above_its_limit_is_too_large() {
    let host = Host::start();
    let wat = packed(
        BATCH,
        &format!(
            r#"(func (export "shardmill_prepare") (param i32) (result i32) (i32.const {INPUT}))
            (func (export "shardmill_handle") (param i32 i32) (result i64) (i64.const 0x0000000800100001))"#
        ),
    );
    let report = host.run(&wat, 1).await;
    assert_eq!(
        cause(&report),
        &Cause::ResponseTooLarge {
            size: 0x10_0001,
            allowed: 0x10_0000
        }
    );
}

#[tokio::test]
async fn effects_above_their_limits_end_the_attempt() {
    let host = Host::start();
    let body = "(drop (call $emit (i32.const 0x200) (i32.const 1) (i32.const 0x200) (i32.const 1)
        (i32.const 0x200) (i32.const 1000)))";
    let data = r#"(data (i32.const 0x200) "s")"#;
    let module = host.load(&with(&handler(RECORD, &each(body)), data)).await;
    for (bytes, items, unit, asked, allowed, at) in [
        (4_000, 10_000, "bytes", 4_008, 4_000, 3),
        (8 << 20, 5, "items", 6, 5, 5),
    ] {
        let mut invocation = invocation(&module, 10);
        invocation.limits.effect_bytes = bytes;
        invocation.limits.effect_items = items;
        let report = host.invoke(invocation).await;
        let expected = Cause::EffectsExceeded {
            asked,
            allowed,
            unit: unit.into(),
        };
        assert_eq!(
            failure(&report),
            &Failure {
                cause: expected,
                record: Some(at)
            }
        );
        assert_eq!(
            report.effects.emits.len(),
            at as usize,
            "the records before it are kept"
        );
    }
}

#[tokio::test]
async fn on_simulated_time_a_guest_is_charged_its_sleep_and_nothing_else() {
    let host = Host::with(SandboxConfig::simulated());
    for (seconds, slept, cut) in [(0, 0, false), (2, 2, false), (3600, 3, true)] {
        let body = sleep(Duration::from_secs(seconds));
        let started = tokio::time::Instant::now();
        let report = host.run(&handler(BATCH, &body), 1).await;
        assert!(started.elapsed() < Duration::from_secs(2), "nobody waits");
        assert_eq!(report.usage.duration, Duration::from_secs(slept));
        let timed_out = matches!(&report.outcome, Outcome::Failed(_));
        assert_eq!(timed_out, cut, "{seconds} s: {:?}", report.outcome);
    }
}
