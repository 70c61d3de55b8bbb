//! What is taken as a handler, what is refused and why; JSON events and WASI commands; and that
//! a guest has nothing but what it is given.

use shardmill_core::sandbox::{Carrier, LogLevel, Mode};

use super::*;

/// A WASI command whose `_start` runs `body`.
fn command(body: &str) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env_sizes (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
        (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "sock_send" (func $send (param i32 i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
        (memory (export "memory") 256)
        (func $expect (param i32 i32) (if (i32.ne (local.get 0) (local.get 1)) (then unreachable)))
        (func (export "_start") (local $i i32) {body}))"#
    )
}

async fn run_command(body: &str, json: &str) -> Report {
    let host = Host::start();
    let module = host.load(&command(body)).await;
    let mut environment = BTreeMap::new();
    environment.insert("COLOR".to_owned(), "blue".to_owned());
    let invocation = Invocation {
        input: event(json, 1),
        environment: Arc::new(environment),
        ..invocation(&module, 0)
    };
    host.invoke(invocation).await
}

#[track_caller]
fn response(report: &Report) -> &str {
    match &report.outcome {
        Outcome::Json { text } => text,
        other => panic!("a response was expected, not {other:?}"),
    }
}

/// Copies standard input to standard output, by pieces of 10 bytes.
const CAT: &str = "(i32.store (i32.const 0x100) (i32.const 0x200))
    (loop $l (i32.store (i32.const 0x104) (i32.const 10))
        (call $expect (call $read (i32.const 0) (i32.const 0x100) (i32.const 1) (i32.const 0x104)) (i32.const 0))
        (call $expect (call $write (i32.const 1) (i32.const 0x100) (i32.const 1) (i32.const 0x108)) (i32.const 0))
        (br_if $l (i32.load (i32.const 0x104))))";

#[tokio::test]
async fn a_command_reads_the_event_and_writes_its_response() {
    let json = r#"{"Records": [{"eventSource": "aws:kinesis"}]}"#;
    let report = run_command(CAT, json).await;
    assert_eq!(response(&report), json);
    assert!(report.log.is_empty(), "the response is no log");
}

#[tokio::test]
async fn a_command_that_writes_nothing_answers_null() {
    assert_eq!(response(&run_command("", "{}").await), "null");
    assert_eq!(
        response(&run_command("(call $exit (i32.const 0))", "{}").await),
        "null"
    );
}

#[tokio::test]
async fn a_command_fails_by_its_exit_code_and_by_writing_no_json() {
    let report = run_command("(call $exit (i32.const 3))", "{}").await;
    assert_eq!(cause(&report), &Cause::Exited { code: 3 });
    let report = run_command(CAT, "hello").await;
    assert!(
        matches!(cause(&report), Cause::BadAnswer { .. }),
        "{report:?}"
    );
    let report = run_command("unreachable", "{}").await;
    assert!(matches!(cause(&report), Cause::Trap { .. }), "{report:?}");
}

#[tokio::test]
async fn a_command_logs_on_standard_error() {
    let report = run_command(&print(2, "one\ntwo"), "{}").await;
    let lines: Vec<_> = report
        .log
        .iter()
        .map(|line| (line.level, line.text.as_str()))
        .collect();
    assert_eq!(lines, [(LogLevel::Warn, "one"), (LogLevel::Warn, "two")]);
    assert_eq!(report.stderr_tail, "one\ntwo");
}

#[tokio::test]
async fn a_response_above_lambdas_limit_is_too_large() {
    let body = "(i32.store (i32.const 0x100) (i32.const 0)) (i32.store (i32.const 0x104) (i32.const 0x600065))
        (call $expect (call $write (i32.const 1) (i32.const 0x100) (i32.const 1) (i32.const 0x108)) (i32.const 0))";
    let report = run_command(body, "{}").await;
    assert_eq!(
        cause(&report),
        &Cause::ResponseTooLarge {
            size: 6 * 1024 * 1024 + 101,
            allowed: 6 * 1024 * 1024 + 100
        }
    );
}

#[tokio::test]
async fn a_guest_sees_its_own_environment_only() {
    let body = "(call $expect (call $env_sizes (i32.const 0x100) (i32.const 0x104)) (i32.const 0))
        (call $expect (i32.load (i32.const 0x100)) (i32.const 1))
        (call $expect (i32.load (i32.const 0x104)) (i32.const 11))
        (call $expect (call $env (i32.const 0x110) (i32.const 0x201)) (i32.const 0))
        (call $expect (i32.load (i32.const 0x110)) (i32.const 0x201))
        (i32.store8 (i32.const 0x200) (i32.const 34)) (i32.store8 (i32.const 0x20b) (i32.const 34))
        (i32.store (i32.const 0x100) (i32.const 0x200)) (i32.store (i32.const 0x104) (i32.const 12))
        (call $expect (call $write (i32.const 1) (i32.const 0x100) (i32.const 1) (i32.const 0x108)) (i32.const 0))
        (call $expect (call $args (i32.const 0x100) (i32.const 0x104)) (i32.const 0))
        (call $expect (i32.load (i32.const 0x100)) (i32.const 0))";
    assert_eq!(response(&run_command(body, "{}").await), "\"COLOR=blue\"");
}

#[tokio::test]
async fn files_and_sockets_are_refused() {
    let badf = "(i32.const 8)";
    let notcapable = "(i32.const 76)";
    let open = |fd: i32| {
        format!(
            "(call $open (i32.const {fd}) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 0) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 64))"
        )
    };
    let body = [
        format!("(call $expect (call $prestat (i32.const 3) (i32.const 64)) {badf})"),
        format!("(call $expect {} {notcapable})", open(3)),
        format!("(call $expect {} {notcapable})", open(0)),
        format!("(call $expect (call $accept (i32.const 3) (i32.const 0) (i32.const 64)) {notcapable})"),
        format!("(call $expect (call $send (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 64)) {notcapable})"),
        format!("(call $expect (call $write (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 64)) {badf})"),
        format!("(call $expect (call $write (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 64)) {badf})"),
        format!("(call $expect (call $read (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 64)) {badf})"),
        "(call $expect (call $close (i32.const 1)) (i32.const 0))".to_owned(),
        format!("(call $expect (call $close (i32.const 1)) {badf})"),
        format!("(call $expect (call $write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 64)) {badf})"),
        format!("(call $expect (call $close (i32.const -1)) {badf})"),
        // Pointers outside memory are an error of the call, not of the host.
        "(call $expect (call $env_sizes (i32.const -1) (i32.const -1)) (i32.const 21))".to_owned(),
        "(call $expect (call $write (i32.const 2) (i32.const -8) (i32.const 1) (i32.const 0)) (i32.const 21))".to_owned(),
        "(call $expect (call $write (i32.const 2) (i32.const 0) (i32.const -1) (i32.const 0)) (i32.const 28))".to_owned(),
    ]
    .concat();
    assert_eq!(response(&run_command(&body, "{}").await), "null");
}

#[tokio::test]
async fn an_event_handler_gets_the_event_and_answers_json() {
    let host = Host::start();
    // The answer's text is the event itself: the blob, whose place and length the header tells.
    let body = "(i32.store (i32.const 0x40c) (i32.load offset=24 (local.get $ptr)))
        (memory.copy (i32.const 0x410) (i32.add (local.get $ptr) (i32.load offset=20 (local.get $ptr))) (i32.load offset=24 (local.get $ptr)))
        (return (i64.or (i64.const 0x0000040000000000) (i64.extend_i32_u (i32.add (i32.const 16) (i32.load offset=24 (local.get $ptr))))))";
    let answer = r#"(data (i32.const 0x400) "SMA1\01\00\03\00\00\00\00\00")"#;
    let module = host.load(&with(&handler(EVENT, body), answer)).await;
    assert_eq!(
        module.carrier(),
        Carrier::Packed {
            mode: Mode::Event,
            uses_state: false
        }
    );
    let report = host
        .invoke(Invocation {
            input: event("[1, 2]", 2),
            ..invocation(&module, 0)
        })
        .await;
    assert_eq!(response(&report), "[1, 2]");
    let report = host
        .invoke(Invocation {
            input: event("[1, 2", 2),
            ..invocation(&module, 0)
        })
        .await;
    assert!(
        matches!(cause(&report), Cause::BadAnswer { .. }),
        "{report:?}"
    );
}

#[tokio::test]
async fn an_event_handler_must_answer_json() {
    let report = Host::start().run(&handler(EVENT, ""), 1).await;
    assert_eq!(
        cause(&report),
        &Cause::BadAnswer {
            reason: "an event-mode handler answered with status 0 (ok)".into()
        }
    );
}

#[tokio::test]
async fn the_header_tells_the_deadline_on_the_guests_clock() {
    let body = format!(
        "(if (i64.ne (i64.load offset=48 (local.get $ptr)) (i64.const {})) (then unreachable))
        (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 0x100)))
        (if (i64.ne (i64.load (i32.const 0x100)) (i64.const {})) (then unreachable))",
        NOW.0 + 3_000,
        NOW.0 * 1_000_000
    );
    assert_ok(&Host::start().run(&handler(BATCH, &body), 1).await);
}

#[tokio::test]
async fn a_module_says_how_it_is_called() {
    let host = Host::start();
    for (word, mode, uses_state) in [
        (1, Mode::Record, false),
        (2, Mode::Batch, false),
        (4, Mode::Event, false),
        (9, Mode::Record, true),
    ] {
        let module = host.load(&handler(word, "")).await;
        assert_eq!(module.carrier(), Carrier::Packed { mode, uses_state });
        assert_eq!(module.digest().len(), 64);
    }
    assert_eq!(host.load(&command("")).await.carrier(), Carrier::Command);
}

#[tokio::test]
async fn an_abi_word_without_sense_is_refused() {
    let host = Host::start();
    for word in [0, 3, 5, 7, 8, 16, 17, -1] {
        let error = host
            .try_load(&handler(word, ""))
            .await
            .map(drop)
            .expect_err("refused");
        assert!(
            matches!(&error, LoadError::Abi(text) if text.contains("exactly one of")),
            "{word}: {error}"
        );
    }
}

#[tokio::test]
async fn what_is_no_handler_is_refused_with_a_reason() {
    let host = Host::start();
    for (name, wat, reason) in [
        ("no exports", "(module)", "exports neither"),
        (
            "both",
            r#"(module (memory (export "memory") 1) (func (export "_start")) (func (export "shardmill_handle")))"#,
            "exports both",
        ),
        (
            "a missing export",
            r#"(module (memory (export "memory") 1) (func (export "shardmill_handle") (param i32 i32) (result i64) unreachable))"#,
            "must export shardmill_abi_v1: () -> (i32)",
        ),
        (
            "a type",
            r#"(module (memory (export "memory") 1) (func (export "_start") (param i32)))"#,
            "must export _start: () -> ()",
        ),
        (
            "no memory",
            r#"(module (func (export "_start")))"#,
            "must export its memory",
        ),
        (
            "an import of another module",
            r#"(module (import "env" "system" (func)) (memory (export "memory") 1) (func (export "_start")))"#,
            r#"import "env" "system" is not offered"#,
        ),
        (
            "an unknown host call",
            r#"(module (import "shardmill" "launch" (func)) (memory (export "memory") 1) (func (export "_start")))"#,
            r#"import "shardmill" "launch" is not offered"#,
        ),
        (
            "a host call of another type",
            r#"(module (import "shardmill" "progress" (func)) (memory (export "memory") 1) (func (export "_start")))"#,
            "incompatible import type",
        ),
        (
            "64-bit memory",
            r#"(module (memory (export "memory") i64 1) (func (export "_start")))"#,
            "not a usable",
        ),
        (
            "shared memory",
            r#"(module (memory (export "memory") 1 1 shared) (func (export "_start")))"#,
            "not a usable",
        ),
        (
            "two memories",
            r#"(module (memory (export "memory") 1) (memory 1) (func (export "_start")))"#,
            "not a usable",
        ),
        (
            "a huge memory",
            r#"(module (memory (export "memory") 65536) (func (export "_start")))"#,
            "not a usable",
        ),
        (
            "a huge table",
            r#"(module (memory (export "memory") 1) (table 20001 funcref) (func (export "_start")))"#,
            "not a usable",
        ),
        (
            "garbage collection",
            r#"(module (memory (export "memory") 1) (type (struct)) (func (export "_start")))"#,
            "not a usable",
        ),
        (
            "exceptions",
            r#"(module (memory (export "memory") 1) (tag) (func (export "_start")))"#,
            "not a usable",
        ),
        (
            "atomics",
            r#"(module (memory (export "memory") 1) (func (export "_start") (drop (i32.atomic.load (i32.const 0)))))"#,
            "not a usable",
        ),
        (
            "relaxed SIMD",
            r#"(module (memory (export "memory") 1) (func (export "_start") (drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0)))))"#,
            "not a usable",
        ),
        (
            "a component",
            "(component)",
            "exports neither abi and handle",
        ),
    ] {
        let error = host
            .try_load(wat)
            .await
            .map(drop)
            .expect_err(name)
            .to_string();
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[tokio::test]
async fn the_constructors_of_a_reactor_run_before_anything_else() {
    let body = "(if (i32.ne (i32.load (i32.const 0x100)) (i32.const 7)) (then unreachable))";
    let once = r#"(func (export "_initialize") (i32.store (i32.const 0x100)
        (i32.add (i32.load (i32.const 0x100)) (i32.const 7))))"#;
    let wat = with(&handler(BATCH, body), once);
    let host = Host::start();
    assert_ok(&host.run(&wat, 1).await);
    let wrong = wat.replace(r#""_initialize")"#, r#""_initialize") (param i32)"#);
    let refused = host.try_load(&wrong).await.err().map(|e| e.to_string());
    assert!(refused.is_some_and(|why| why.contains("_initialize: () -> ()")));
}

#[tokio::test]
async fn files_that_are_no_modules_are_refused() {
    let host = Host::start();
    let load = async |bytes: Vec<u8>| {
        Sandbox::load(&host.sandbox, bytes.into())
            .await
            .map(drop)
            .expect_err("refused")
            .to_string()
    };
    assert!(
        load(b"hello".to_vec())
            .await
            .contains("not a usable WebAssembly module")
    );
    assert!(
        load(Vec::new())
            .await
            .contains("not a usable WebAssembly module")
    );
    assert!(
        load(b"(module)".to_vec())
            .await
            .contains("not a usable WebAssembly module"),
        "text is not taken"
    );
    let cut = wat::parse_str(handler(BATCH, "")).expect("good WAT");
    assert!(
        load(cut[..cut.len() / 2].to_vec())
            .await
            .contains("not a usable WebAssembly module")
    );
    let native = wasmtime::Engine::default()
        .precompile_module(b"\0asm\x01\0\0\0")
        .expect("an artifact");
    assert!(load(native).await.contains("precompiled artifact"));
}

#[tokio::test]
async fn a_module_above_the_size_limit_is_refused() {
    let host = Host::with(SandboxConfig {
        max_module_bytes: 100,
        concurrency: 4,
        ..SandboxConfig::default()
    });
    let error = host
        .try_load(&handler(BATCH, ""))
        .await
        .map(drop)
        .expect_err("refused");
    assert!(
        matches!(error, LoadError::TooLarge { allowed: 100, .. }),
        "{error}"
    );
}
