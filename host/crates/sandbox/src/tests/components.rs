//! Components: the same handlers as core modules, by the canonical ABI. Guests are WAT: `parts`
//! imports the host calls under short names, a test writes the handler's body.
//!
//! At 8 of their memory stands the answer "ok", at 32 what `handle` returns for it, 0x80 and up is
//! room for what calls return, 0x100 and up is the test's own.

use shardmill_core::sandbox::{Carrier, LogLevel, Mode};

use super::*;

/// Imports of the host calls.
const HOST: &str = r#"(import "shardmill:handler/host@1.0.0" (instance $host
    (type $p (enum "no-record" "bad-argument" "unknown-index"))
    (export "problem" (type $problem (eq $p)))
    (type $l (enum "error" "warn" "info" "debug" "trace"))
    (export "level" (type $level (eq $l)))
    (export "progress" (func (param "index" u32) (result (result (error $problem)))))
    (export "state-get" (func (param "name" string) (result (result (option (list u8)) (error $problem)))))
    (export "state-set" (func (param "name" string) (param "value" (list u8)) (result (result (error $problem)))))
    (export "state-delete" (func (param "name" string) (result (result (error $problem)))))
    (export "counter-add" (func (param "name" string) (param "amount" s64) (result (result (error $problem)))))
    (export "emit" (func (param "stream-name" string) (param "key" string) (param "data" (list u8))
        (result (result (error $problem)))))
    (export "log" (func (param "level" $level) (param "text" string)))))"#;

const REALLOC: &str = "(local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (local.get $at)";

/// What a component is made of.
struct Parts<'a> {
    abi: u32,
    /// Further imports.
    imports: &'a str,
    /// Functions of theirs that the main module gets: name, function, core type.
    lowered: &'a [(&'a str, &'a str, &'a str)],
    realloc: &'a str,
    /// Fields of the main module.
    fields: &'a str,
    body: &'a str,
}

impl Default for Parts<'_> {
    fn default() -> Self {
        Self {
            abi: RECORD as u32,
            imports: "",
            lowered: &[],
            realloc: REALLOC,
            fields: "",
            body: "",
        }
    }
}

/// The calls of the host, lowered: name, function, type.
const CALLS: [(&str, &str, &str); 7] = [
    ("progress", "$host \"progress\"", "(param i32 i32)"),
    ("get", "$host \"state-get\"", "(param i32 i32 i32)"),
    ("set", "$host \"state-set\"", "(param i32 i32 i32 i32 i32)"),
    ("delete", "$host \"state-delete\"", "(param i32 i32 i32)"),
    (
        "counter",
        "$host \"counter-add\"",
        "(param i32 i32 i64 i32)",
    ),
    (
        "emit",
        "$host \"emit\"",
        "(param i32 i32 i32 i32 i32 i32 i32)",
    ),
    ("log", "$host \"log\"", "(param i32 i32 i32)"),
];

/// Lowers functions for a main module that imports them from "host".
fn lower(calls: &[(&str, &str, &str)]) -> (String, String, String) {
    let (mut lowered, mut given, mut imports) = (String::new(), String::new(), String::new());
    for (name, function, ty) in calls {
        lowered += &format!(
            "(core func ${name} (canon lower (func {function}) (memory (core memory $libc \"memory\")) (realloc (core func $libc \"realloc\"))))"
        );
        given += &format!("(export \"{name}\" (func ${name}))");
        imports += &format!("(import \"host\" \"{name}\" (func ${name} {ty}))");
    }
    (lowered, given, imports)
}

fn libc(realloc: &str) -> String {
    format!(
        r#"(core module $Libc (memory (export "memory") 32) (global $next (mut i32) (i32.const 0x10000))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) {realloc}))
        (core instance $libc (instantiate $Libc))"#
    )
}

fn component(parts: &Parts<'_>) -> String {
    let Parts {
        abi,
        imports,
        realloc,
        fields,
        body,
        ..
    } = parts;
    let calls: Vec<_> = CALLS.iter().chain(parts.lowered).copied().collect();
    let (lowered, given, imported) = lower(&calls);
    let libc = libc(realloc);
    format!(
        r#"(component {HOST} {imports} {libc} {lowered}
        (core module $Main
            {imported} (import "libc" "memory" (memory 1)) {fields}
            (data (i32.const 8) "SMA1\01\00\00\00\00\00\00\00\00\00\00\00")
            (data (i32.const 32) "\00\00\00\00\08\00\00\00\10\00\00\00")
            (func (export "abi") (result i32) (i32.const {abi}))
            (func (export "handle") (param $ptr i32) (param $len i32) (result i32) (local $i i32)
                {body} (i32.const 32)))
        (core instance $main (instantiate $Main
            (with "libc" (instance $libc)) (with "host" (instance {given}))))
        (func (export "abi") (result u32) (canon lift (core func $main "abi")))
        (func (export "handle") (param "batch" (list u8)) (result (result (list u8) (error string)))
            (canon lift (core func $main "handle") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc")))))"#
    )
}

fn handler(body: &str) -> String {
    component(&Parts {
        body,
        ..Parts::default()
    })
}

/// Makes each record current and runs `body`, with its index in `$i`.
fn each(body: &str) -> String {
    format!(
        "(loop $each (call $progress (local.get $i) (i32.const 0x80)) {body}
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $each (i32.lt_u (local.get $i) (i32.load offset=12 (local.get $ptr)))))"
    )
}

fn store(at: u32, text: &str) -> String {
    text.bytes()
        .zip(at..)
        .map(|(b, at)| format!("(i32.store8 (i32.const {at}) (i32.const {b}))"))
        .collect()
}

/// Ends in a trap unless the result at 0x80 is an error of this number.
fn refused(problem: u8) -> String {
    format!(
        "(if (i32.ne (i32.load16_u (i32.const 0x80)) (i32.const {})) (then unreachable))",
        1 | u32::from(problem) << 8
    )
}

#[tokio::test]
async fn a_component_is_a_handler_of_the_mode_that_it_says() {
    let host = Host::start();
    for (abi, mode, uses_state) in [
        (1, Mode::Record, false),
        (2 + 8, Mode::Batch, true),
        (4, Mode::Event, false),
    ] {
        let wat = component(&Parts {
            abi,
            ..Parts::default()
        });
        let expected = Carrier::Packed { mode, uses_state };
        assert_eq!(host.load(&wat).await.carrier(), expected);
    }
    let none = component(&Parts {
        abi: 3,
        ..Parts::default()
    });
    let refused = host.try_load(&none).await.err().map(|e| e.to_string());
    assert!(refused.is_some_and(|why| why.starts_with("abi returned 0x3")));
}

#[tokio::test]
async fn a_component_gets_the_batch_and_its_effects_are_those_of_a_module() {
    let text = "hitsout";
    let body = each(
        "(call $counter (i32.const 0x100) (i32.const 4) (i64.const 2) (i32.const 0x80))
        (call $set (i32.const 0x100) (i32.const 4) (i32.const 0x104) (i32.const 3) (i32.const 0x80))
        (call $get (i32.const 0x100) (i32.const 4) (i32.const 0x80))
        (if (i32.ne (i32.load (i32.const 0x80)) (i32.const 0)) (then unreachable))
        (if (i32.ne (i32.load (i32.const 0x84)) (i32.const 1)) (then unreachable))
        (if (i32.ne (i32.load (i32.const 0x8c)) (i32.const 3)) (then unreachable))
        (if (i32.ne (i32.load8_u (i32.load (i32.const 0x88))) (i32.const 111)) (then unreachable))
        (call $emit (i32.const 0x104) (i32.const 3) (i32.const 0x100) (i32.const 4) (i32.const 0x100) (i32.const 7)
            (i32.const 0x80))
        (call $log (i32.const 1) (i32.const 0x100) (i32.const 4))",
    );
    let report = Host::start()
        .run(&handler(&format!("{} {body}", store(0x100, text))), 3)
        .await;
    assert_ok(&report);
    assert_eq!(counters(&report)["hits"], 6);
    assert_eq!(report.effects.state.len(), 3);
    assert_eq!(report.effects.emits.len(), 3);
    let log: Vec<_> = report
        .log
        .iter()
        .map(|l| (l.level, l.text.as_str()))
        .collect();
    assert_eq!(log, [(LogLevel::Warn, "hits"); 3]);
}

#[tokio::test]
async fn a_component_is_told_why_a_call_was_refused() {
    let name = "(i32.const 0x100) (i32.const 4)";
    let (no_record, bad_argument, unknown) = (refused(0), refused(1), refused(2));
    let accepted = "(if (i32.load8_u (i32.const 0x80)) (then unreachable))";
    let body = format!(
        "{} (call $delete {name} (i32.const 0x80)) {no_record}
        (call $progress (i32.const 9) (i32.const 0x80)) {unknown}
        (call $progress (i32.const 0) (i32.const 0x80)) {accepted}
        (call $delete (i32.const 0x100) (i32.const 0) (i32.const 0x80)) {bad_argument}
        (call $counter (i32.const 0x100) (i32.const 129) (i64.const 1) (i32.const 0x80)) {bad_argument}",
        store(0x100, "name"),
    );
    let wat = component(&Parts {
        abi: BATCH as u32,
        body: &body,
        ..Parts::default()
    });
    assert_ok(&Host::start().run(&wat, 1).await);
}

#[tokio::test]
async fn a_failure_of_a_component_keeps_what_was_done_and_names_the_record() {
    let body = format!(
        "{} {}",
        store(0x100, "n"),
        each(
            "(call $counter (i32.const 0x100) (i32.const 1) (i64.const 1) (i32.const 0x80))
            (if (i32.eq (local.get $i) (i32.const 2)) (then unreachable))"
        )
    );
    let report = Host::start().run(&handler(&body), 5).await;
    assert_eq!(failure(&report).record, Some(2));
    assert_eq!(counters(&report)["n"], 2);
    match cause(&report) {
        Cause::Trap { trap, frames, .. } => {
            assert_eq!(trap, "unreachable");
            assert!(!frames.is_empty());
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_error_of_handle_is_a_function_error() {
    for (text, kind, message) in [
        ("Oops\nno such page", "Oops", "no such page"),
        ("no such page", "Error", "no such page"),
    ] {
        let body = format!(
            "{} (i32.store (i32.const 32) (i32.const 1)) (i32.store (i32.const 36) (i32.const 0x100))
            (i32.store (i32.const 40) (i32.const {}))",
            store(0x100, text),
            text.len()
        );
        let report = Host::start().run(&handler(&body), 1).await;
        let expected = Cause::HandlerError {
            error_type: kind.into(),
            message: message.into(),
        };
        assert_eq!(cause(&report), &expected);
    }
}

/// The trap that a component of these parts ends in.
async fn trap_of(parts: Parts<'_>) -> String {
    let host = Host::start();
    let report = host.run(&component(&parts), 1).await;
    assert_eq!(host.sandbox.in_use(), crate::InUse::default());
    match cause(&report) {
        Cause::Trap { trap, .. } => trap.clone(),
        other => panic!("a trap was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn a_component_that_lies_in_the_canonical_abi_fails_and_harms_nobody() {
    let answer = |ptr: u32, len: u32| {
        format!(
            "(i32.store (i32.const 36) (i32.const {ptr})) (i32.store (i32.const 40) (i32.const {len}))"
        )
    };
    for (body, expected) in [
        (answer(0, 0xffff_ffff), "out of bounds"),
        (format!("(drop (memory.grow (i32.const 200))) {}", answer(0, 0x90_0000)), "too much data"),
        (answer(0, 0x40_0000), "out of bounds"),
        (answer(0xffff_fff0, 64), "out of bounds"),
        ("(i32.store (i32.const 32) (i32.const 7))".to_owned(), "invalid expected discriminant"),
        ("(return (i32.const -4))".to_owned(), "out of bounds"),
        ("(return (i32.const 33))".to_owned(), "not aligned"),
        ("(call $log (i32.const 9) (i32.const 0) (i32.const 0))".to_owned(), "discriminant"),
        ("(call $log (i32.const 1) (i32.const -9) (i32.const 64))".to_owned(), "out of bounds"),
        ("(i32.store8 (i32.const 0x100) (i32.const 255)) (call $log (i32.const 1) (i32.const 0x100) (i32.const 1))".to_owned(), "utf-8"),
    ] {
        let trap = trap_of(Parts { body: &body, ..Parts::default() }).await;
        assert!(trap.contains(expected), "{body}: {trap}");
    }
    for (realloc, expected) in [
        ("(i32.const 0x7fffffff)", "realloc return"),
        ("(i32.const -1)", "realloc return"),
        ("(unreachable)", "unreachable"),
    ] {
        let trap = trap_of(Parts {
            realloc,
            ..Parts::default()
        })
        .await;
        assert!(trap.contains(expected), "{realloc}: {trap}");
    }
}

#[tokio::test]
async fn an_answer_above_its_limit_is_too_large_for_a_component_too() {
    let body =
        "(i32.store (i32.const 36) (i32.const 0)) (i32.store (i32.const 40) (i32.const 0x100001))";
    let report = Host::start().run(&handler(body), 1).await;
    let expected = Cause::ResponseTooLarge {
        size: 0x10_0001,
        allowed: 0x10_0000,
    };
    assert_eq!(cause(&report), &expected);
}

#[tokio::test]
async fn a_component_that_does_not_end_is_out_of_fuel_wherever_it_runs() {
    let host = Host::start();
    let report = host.run(&handler("(loop $l (br $l))"), 1).await;
    assert!(
        matches!(cause(&report), Cause::OutOfFuel { .. }),
        "{report:?}"
    );
    let spinning = Parts {
        realloc: "(loop $l (br $l)) (unreachable)",
        ..Parts::default()
    };
    let report = host.run(&component(&spinning), 1).await;
    assert!(
        matches!(cause(&report), Cause::OutOfFuel { .. }),
        "{report:?}"
    );
    let calls = "(loop $l (call $log (i32.const 2) (i32.const 0) (i32.const 0x1000)) (br $l))";
    let report = host.run(&handler(calls), 1).await;
    assert!(
        matches!(cause(&report), Cause::OutOfFuel { .. }),
        "{report:?}"
    );
    assert!(report.usage.fuel_allowed - report.usage.fuel < 10_000);
    let start = component(&Parts {
        fields: "(func $bomb (loop $l (br $l))) (start $bomb)",
        ..Parts::default()
    });
    let refused = host.try_load(&start).await.err().map(|e| e.to_string());
    assert!(
        refused.as_ref().is_some_and(|why| why.contains("fuel")),
        "{refused:?}"
    );
    assert_eq!(host.sandbox.in_use(), crate::InUse::default());
}

#[tokio::test]
async fn recursion_and_growth_of_a_component_are_bounded() {
    let deep = Parts {
        fields: "(func $deep (param i64) (result i64) (i64.add (call $deep (local.get 0)) (i64.const 1)))",
        body: "(drop (call $deep (i64.const 1)))",
        ..Parts::default()
    };
    assert_eq!(trap_of(deep).await, "stack overflow");
    // From within a call of the host: the canonical ABI runs the guest's allocator.
    let deep_realloc = Parts {
        realloc: "(call 0 (local.get 0) (local.get 1) (local.get 2) (local.get 3))",
        ..Parts::default()
    };
    assert_eq!(trap_of(deep_realloc).await, "stack overflow");
    let body =
        "(loop $l (br_if $l (i32.ge_s (memory.grow (i32.const 64)) (i32.const 0)))) (unreachable)";
    let report = Host::start().run(&handler(body), 1).await;
    match cause(&report) {
        Cause::OutOfMemory { allowed, .. } => assert_eq!(*allowed, 128 << 20),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        report.usage.memory_bytes,
        (128 << 20) - (2 << 20),
        "the next 4 MiB do not fit"
    );
}

#[tokio::test]
async fn two_memories_share_one_limit() {
    let wat = handler(
        "(loop $l (br_if $l (i32.ge_s (memory.grow (i32.const 64)) (i32.const 0)))) (unreachable)",
    );
    let second = r#"(core module $Second (memory 1024)) (core instance (instantiate $Second)) (core module $Main"#;
    let wat = wat.replacen("(core module $Main", second, 1);
    let report = Host::start().run(&wat, 1).await;
    assert!(
        matches!(cause(&report), Cause::OutOfMemory { .. }),
        "{report:?}"
    );
    assert_eq!(
        report.usage.memory_bytes,
        (128 << 20) - (2 << 20),
        "both together"
    );
}

#[tokio::test]
async fn a_component_cannot_call_the_host_while_it_is_called_by_it() {
    // The allocator runs while the host lowers the batch; calls that leave the component are off then.
    let parts = Parts::default();
    let wat = component(&parts).replacen(
        "(core instance $libc (instantiate $Libc))",
        r#"(core module $Table (table (export "t") 1 funcref)) (core instance $table (instantiate $Table))
        (core module $Libc2 (import "table" "t" (table 1 funcref)) (memory (export "memory") 32) (type $log (func (param i32 i32 i32)))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                (call_indirect (type $log) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const 0x10000)))
        (core instance $libc (instantiate $Libc2 (with "table" (instance $table))))"#,
        1,
    );
    // The last lowered function is `log`: put it into the table.
    let wat = wat.replacen(
        "(core module $Main",
        r#"(core module $Fill (import "table" "t" (table 1 funcref)) (import "host" "log" (func $f (param i32 i32 i32)))
            (elem (i32.const 0) $f))
        (core instance (instantiate $Fill (with "table" (instance $table)) (with "host" (instance (export "log" (func $log))))))
        (core module $Main"#,
        1,
    );
    let report = Host::start().run(&wat, 1).await;
    match cause(&report) {
        Cause::Trap { trap, .. } => assert!(trap.contains("cannot leave component"), "{trap}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn imports_that_are_not_offered_are_refused_by_name() {
    let host = Host::start();
    let import = |import: &str| {
        component(&Parts {
            imports: import,
            ..Parts::default()
        })
    };
    for (wat, expected) in [
        (
            import(r#"(import "wasi:http/types@0.2.0" (instance))"#),
            "wasi:http/types@0.2.0",
        ),
        (
            import(r#"(import "wasi:cli/environment@0.3.0" (instance))"#),
            "wasi:cli/environment@0.3.0",
        ),
        (import(r#"(import "secrets" (func))"#), "secrets"),
        (
            import(r#"(import "shardmill:handler/host@1.9.0" (instance (export "fetch" (func))))"#),
            "fetch",
        ),
        (
            import(r#"(import "shardmill:handler/host@2.0.0" (instance))"#),
            "host@2.0.0",
        ),
    ] {
        let refused = host.try_load(&wat).await.err().map(|e| e.to_string());
        assert!(
            refused.as_ref().is_some_and(|why| why.contains(expected)),
            "{expected}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn exports_of_a_component_are_checked() {
    let host = Host::start();
    let why = async |wat: &str| match host.try_load(wat).await {
        Err(error) => error.to_string(),
        Ok(module) => panic!("{:?} was accepted", module.carrier()),
    };
    assert!(why("(component)").await.contains("neither abi and handle"));
    let no_handle = handler("").replace(
        r#"(func (export "handle") (param "batch""#,
        r#"(func (export "other") (param "batch""#,
    );
    assert!(
        why(&no_handle)
            .await
            .contains("must export handle: func(batch: list<u8>)")
    );
    let other_type = handler("").replace("(error string)", "(error u32)");
    let other_type = why(&other_type).await;
    assert!(other_type.contains("must export handle"), "{other_type}");
    let many: String = (0..33)
        .map(|n| format!("(core module $m{n}) (core instance (instantiate $m{n}))"))
        .collect();
    let many = handler("").replacen(
        "(core module $Main",
        &format!("{many} (core module $Main"),
        1,
    );
    let many = why(&many).await;
    assert!(
        many.contains("core module instances") && many.contains("32"),
        "{many}"
    );
}

/// Imports of WASI 0.2, as far as the tests below use it, at some version of it.
const WASI: &str = r#"
    (import "wasi:io/poll@0.2.3" (instance $poll
        (export "pollable" (type $p (sub resource)))
        (export "poll" (func (param "in" (list (borrow $p))) (result (list u32))))
        (export "[method]pollable.block" (func (param "self" (borrow $p))))))
    (alias export $poll "pollable" (type $pollable))
    (import "wasi:io/error@0.2.3" (instance $error (export "error" (type (sub resource)))))
    (alias export $error "error" (type $err))
    (import "wasi:io/streams@0.2.3" (instance $streams
        (export "input-stream" (type $in (sub resource))) (export "output-stream" (type $out (sub resource)))
        (alias outer 1 $err (type $e0)) (export "error" (type $e (eq $e0)))
        (type $s (variant (case "last-operation-failed" (own $e)) (case "closed")))
        (export "stream-error" (type $failed (eq $s)))
        (export "[method]input-stream.blocking-read" (func (param "self" (borrow $in)) (param "len" u64)
            (result (result (list u8) (error $failed)))))
        (export "[method]output-stream.blocking-write-and-flush" (func (param "self" (borrow $out))
            (param "contents" (list u8)) (result (result (error $failed)))))))
    (alias export $streams "input-stream" (type $in))
    (alias export $streams "output-stream" (type $out))
    (import "wasi:cli/stdin@0.2.3" (instance $stdin (alias outer 1 $in (type $i0)) (export "input-stream" (type $i (eq $i0)))
        (export "get-stdin" (func (result (own $i))))))
    (import "wasi:cli/stdout@0.2.3" (instance $stdout (alias outer 1 $out (type $o0)) (export "output-stream" (type $o (eq $o0)))
        (export "get-stdout" (func (result (own $o))))))
    (import "wasi:cli/exit@0.2.3" (instance $exit (export "exit" (func (param "status" (result))))))
    (import "wasi:clocks/monotonic-clock@0.2.3" (instance $mono (alias outer 1 $pollable (type $p0)) (export "pollable" (type $p (eq $p0)))
        (export "now" (func (result u64)))
        (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
    (import "wasi:clocks/wall-clock@0.2.3" (instance $wall (type $d (record (field "seconds" u64) (field "nanoseconds" u32)))
        (export "datetime" (type $datetime (eq $d))) (export "now" (func (result $datetime)))))
    (import "wasi:random/random@0.2.3" (instance $random (export "get-random-u64" (func (result u64)))
        (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
    (import "wasi:filesystem/types@0.2.3" (instance $files (export "descriptor" (type $d (sub resource)))
        (export "[method]descriptor.sync" (func (param "self" (borrow $d))))
        (export "surprise" (func))))
    (alias export $files "descriptor" (type $descriptor))
    (import "wasi:filesystem/preopens@0.2.3" (instance $preopens (alias outer 1 $descriptor (type $d0)) (export "descriptor" (type $d (eq $d0)))
        (export "get-directories" (func (result (list (tuple (own $d) string)))))))
    (import "wasi:sockets/tcp-create-socket@0.2.3" (instance $tcp
        (export "tcp-socket" (type $t (sub resource)))
        (type $e (enum "unknown" "access-denied")) (export "error-code" (type $ec (eq $e)))
        (type $f (enum "ipv4" "ipv6")) (export "ip-address-family" (type $af (eq $f)))
        (export "create-tcp-socket" (func (param "address-family" $af) (result (result (own $t) (error $ec)))))))"#;

const WASI_CALLS: [(&str, &str, &str); 14] = [
    ("poll", "$poll \"poll\"", "(param i32 i32 i32)"),
    ("block", "$poll \"[method]pollable.block\"", "(param i32)"),
    (
        "read",
        "$streams \"[method]input-stream.blocking-read\"",
        "(param i32 i64 i32)",
    ),
    (
        "write",
        "$streams \"[method]output-stream.blocking-write-and-flush\"",
        "(param i32 i32 i32 i32)",
    ),
    ("stdin", "$stdin \"get-stdin\"", "(result i32)"),
    ("stdout", "$stdout \"get-stdout\"", "(result i32)"),
    ("exit", "$exit \"exit\"", "(param i32)"),
    ("now", "$mono \"now\"", "(result i64)"),
    (
        "after",
        "$mono \"subscribe-duration\"",
        "(param i64) (result i32)",
    ),
    ("wall", "$wall \"now\"", "(param i32)"),
    ("random", "$random \"get-random-u64\"", "(result i64)"),
    ("surprise", "$files \"surprise\"", ""),
    (
        "directories",
        "$preopens \"get-directories\"",
        "(param i32)",
    ),
    ("socket", "$tcp \"create-tcp-socket\"", "(param i32 i32)"),
];

fn with_wasi(body: &str) -> String {
    component(&Parts {
        abi: BATCH as u32,
        imports: WASI,
        lowered: &WASI_CALLS,
        body,
        ..Parts::default()
    })
}

#[tokio::test]
async fn a_component_has_a_clock_that_stands_one_that_steps_and_nothing_to_open() {
    let check = |condition: &str| format!("(if (i32.eqz {condition}) (then unreachable))");
    let body = [
        "(call $wall (i32.const 0x80))".to_owned(),
        check("(i64.eq (i64.load (i32.const 0x80)) (i64.const 1700000000))"),
        check("(i32.eq (i32.load (i32.const 0x88)) (i32.const 123000000))"),
        check("(i64.eq (call $now) (i64.const 0))"),
        check("(i64.eq (call $now) (i64.const 1000))"),
        "(call $block (call $after (i64.const 5000000000)))".to_owned(),
        check("(i64.ge_u (call $now) (i64.const 5000000000))"),
        "(i32.store (i32.const 0x100) (call $after (i64.const 9000000000000000000)))".to_owned(),
        "(i32.store (i32.const 0x104) (call $after (i64.const 1)))".to_owned(),
        "(call $poll (i32.const 0x100) (i32.const 2) (i32.const 0x80))".to_owned(),
        check("(i32.eq (i32.load (i32.const 0x84)) (i32.const 1))"),
        check("(i32.eq (i32.load (i32.load (i32.const 0x80))) (i32.const 1))"),
        "(call $directories (i32.const 0x80))".to_owned(),
        check("(i32.eqz (i32.load (i32.const 0x84)))"),
        "(call $socket (i32.const 0) (i32.const 0x80))".to_owned(),
        check("(i32.eq (i32.load8_u (i32.const 0x80)) (i32.const 1))"),
        check("(i32.eq (i32.load8_u (i32.const 0x84)) (i32.const 1))"),
        store(0x100, "r"),
        "(call $counter (i32.const 0x100) (i32.const 1) (i64.shr_u (call $random) (i64.const 1)) (i32.const 0x80))".to_owned(),
    ]
    .join(" ");
    let simulated = SandboxConfig::simulated();
    let host = Host::with(simulated);
    let module = host.load(&with_wasi(&body)).await;
    let run = async |seed: u8| {
        let mut invocation = invocation(&module, 1);
        invocation.seed = [seed; 32];
        invocation.limits.timeout = Duration::from_secs(60);
        let report = host.invoke(invocation).await;
        assert_ok(&report);
        assert!(
            report.usage.duration > Duration::from_secs(4),
            "what it slept counts"
        );
        (counters(&report)["r"], report.usage.fuel)
    };
    let (first, again, other) = (run(1).await, run(1).await, run(2).await);
    assert_eq!(first, again, "same inputs, same result, same fuel");
    assert_ne!(first.0, other.0);
}

#[tokio::test]
async fn a_sleeping_component_holds_no_thread() {
    let host = Host::with(SandboxConfig {
        invoker_threads: 1,
        concurrency: 4,
        ..SandboxConfig::default()
    });
    let sleeper = host
        .load(&with_wasi(
            "(call $block (call $after (i64.const 900000000000)))",
        ))
        .await;
    let quick = host.load(&handler("")).await;
    let mut asleep = invocation(&sleeper, 1);
    asleep.limits.timeout = Duration::from_secs(900);
    let mut asleep = Box::pin(host.invoke(asleep));
    let mut quick = invocation(&quick, 0);
    quick.limits.timeout = Duration::from_secs(60);
    tokio::select! {
        report = &mut asleep => panic!("{report:?}"),
        report = host.invoke(quick) => assert_ok(&report),
    }
    drop(asleep);
}

#[tokio::test]
async fn what_wasi_does_not_offer_ends_a_component_by_its_name() {
    for (body, expected) in [
        (
            "(call $surprise)",
            "wasi:filesystem/types#surprise is not offered",
        ),
        (
            "(call $poll (i32.const 0) (i32.const 0) (i32.const 0x80))",
            "poll of no pollables",
        ),
        (
            "(loop $l (drop (call $after (i64.const 1))) (br $l))",
            "handle",
        ),
        ("(call $block (i32.const 77))", "handle"),
    ] {
        let report = Host::start().run(&with_wasi(body), 1).await;
        match cause(&report) {
            Cause::Trap { trap, .. } => assert!(trap.contains(expected), "{body}: {trap}"),
            other => panic!("{body}: {other:?}"),
        }
    }
    let report = Host::start()
        .run(&with_wasi("(call $exit (i32.const 0))"), 1)
        .await;
    assert_eq!(cause(&report), &Cause::Exited { code: 0 });
}

/// A component that is a WASI command.
fn command(body: &str) -> String {
    let (lowered, given, imported) = lower(&WASI_CALLS);
    let libc = libc(REALLOC);
    format!(
        r#"(component {WASI} {libc} {lowered}
        (core module $Main {imported} (import "libc" "memory" (memory 1))
            (func (export "run") (result i32) {body}))
        (core instance $main (instantiate $Main (with "libc" (instance $libc)) (with "host" (instance {given}))))
        (func $run (result (result)) (canon lift (core func $main "run")))
        (instance $exported (export "run" (func $run)))
        (export "wasi:cli/run@0.2.3" (instance $exported)))"#
    )
}

#[tokio::test]
async fn a_component_may_be_a_command() {
    let host = Host::start();
    let cat = "(loop $l (call $read (call $stdin) (i64.const 10) (i32.const 0x80))
        (if (i32.eqz (i32.load (i32.const 0x80))) (then
            (call $write (call $stdout) (i32.load (i32.const 0x84)) (i32.load (i32.const 0x88)) (i32.const 0xc0))
            (br $l)))) (i32.const 0)";
    let json = r#"{"Records": [{"eventSource": "aws:kinesis"}]}"#;
    let module = host.load(&command(cat)).await;
    assert_eq!(module.carrier(), Carrier::Command);
    let cat = Invocation {
        input: event(json, 1),
        ..invocation(&module, 0)
    };
    let report = host.invoke(cat).await;
    assert!(
        matches!(&report.outcome, Outcome::Json { text } if text == json),
        "{report:?}"
    );
    let report = host.run(&command("(i32.const 1)"), 1).await;
    assert_eq!(cause(&report), &Cause::Exited { code: 1 });
    let report = host
        .run(&command("(call $exit (i32.const 0)) (unreachable)"), 1)
        .await;
    assert!(
        matches!(&report.outcome, Outcome::Json { text } if text == "null"),
        "{report:?}"
    );
}
