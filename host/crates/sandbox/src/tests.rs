//! The sandbox as its caller sees it. Guests are WAT in the tests: a prelude imports the host
//! calls under short names and exports the ABI, a test writes the handler's body.

mod answers;
mod calls;
mod carriers;
mod components;
mod figures;
mod invokers;
mod limits;
mod records;
mod replays;
mod tenants;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::block::{Placement, Records};
use shardmill_core::limits::FunctionLimits;
use shardmill_core::outcome::{Cause, Failure};
use shardmill_core::sandbox::{Input, Invocation, LoadError, Module, NoState, Report, StateView};
use shardmill_core::{Batch, BatchContext, Block, Outcome, Sandbox, ShardId, Slice, UnixMillis};

use crate::{SandboxConfig, WasmSandbox};

const RECORD: i32 = 1;
const BATCH: i32 = 2;
const EVENT: i32 = 4;

const NOW: UnixMillis = UnixMillis(1_700_000_000_123);

/// Where the prelude's guests get their batch.
const INPUT: usize = 0x1_0000;

/// A guest of the packed ABI. Address 8 holds the answer "ok", 16 bytes; 0x100 and up is the
/// test's own.
fn packed(mode: i32, rest: &str) -> String {
    format!(
        r#"(module
        (import "shardmill" "progress" (func $progress (param i32) (result i32)))
        (import "shardmill" "counter_add" (func $counter (param i32 i32 i64) (result i32)))
        (import "shardmill" "state_get" (func $get (param i32 i32 i32 i32) (result i64)))
        (import "shardmill" "state_set" (func $set (param i32 i32 i32 i32) (result i32)))
        (import "shardmill" "state_delete" (func $delete (param i32 i32) (result i32)))
        (import "shardmill" "emit" (func $emit (param i32 i32 i32 i32 i32 i32) (result i32)))
        (import "shardmill" "log" (func $log (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 32)
        (data (i32.const 8) "SMA1\01\00\00\00\00\00\00\00\00\00\00\00")
        (func (export "shardmill_abi_v1") (result i32) (i32.const {mode}))
        {rest})"#
    )
}

/// The same with a usual `shardmill_prepare` and a handler that runs `body` and answers "ok".
fn handler(mode: i32, body: &str) -> String {
    packed(
        mode,
        &format!(
            r#"(func (export "shardmill_prepare") (param i32) (result i32) (i32.const {INPUT}))
            (func (export "shardmill_handle") (param $ptr i32) (param $len i32) (result i64)
                (local $i i32) (local $n i64) {body} (i64.const 0x0000000800000010))"#
        ),
    )
}

/// A body that makes each record current and runs `body`, with its index in `$i`.
fn each(body: &str) -> String {
    format!(
        "(loop $each (drop (call $progress (local.get $i))) {body}
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $each (i32.lt_u (local.get $i) (i32.load offset=12 (local.get $ptr)))))"
    )
}

/// A body that writes `text` to the descriptor.
fn print(fd: u8, text: &str) -> String {
    let stores: String = text
        .bytes()
        .enumerate()
        .map(|(at, b)| format!("(i32.store8 (i32.const {}) (i32.const {b}))", 0x200 + at))
        .collect();
    format!(
        "{stores} (i32.store (i32.const 0x100) (i32.const 0x200)) (i32.store (i32.const 0x104) (i32.const {}))
        (drop (call $write (i32.const {fd}) (i32.const 0x100) (i32.const 1) (i32.const 0x108)))",
        text.len()
    )
}

/// A body that sleeps on the monotonic clock.
fn sleep(span: Duration) -> String {
    format!(
        "(i32.store (i32.const 0x110) (i32.const 1)) (i64.store (i32.const 0x118) (i64.const {}))
        (drop (call $poll (i32.const 0x100) (i32.const 0x180) (i32.const 1) (i32.const 0x1f0)))",
        span.as_nanos()
    )
}

/// `wat` with more fields before its memory.
fn with(wat: &str, fields: &str) -> String {
    const MEMORY: &str = "(memory (export";
    wat.replacen(MEMORY, &format!("{fields} {MEMORY}"), 1)
}

/// Records with the keys `k0`, `k1`, ….
fn batch(count: usize) -> Batch {
    batch_of(
        &(0..count)
            .map(|index| format!("k{index}"))
            .collect::<Vec<_>>(),
    )
}

fn batch_of(keys: &[impl AsRef<str>]) -> Batch {
    let mut records = Records::default();
    for key in keys {
        records.push(key.as_ref(), None, b"data");
    }
    let placement = Placement {
        shard: ShardId(0),
        created_seconds: 1,
        first: 1,
        arrival: NOW,
    };
    let (index, blob) = records.into_parts();
    let block = Block::new(placement, index.into(), blob.into()).expect("a good block");
    Batch::new([Slice {
        block,
        from: 0,
        to: keys.len() as u32,
    }])
}

fn event(json: &str, count: usize) -> Input {
    Input::Event {
        json: Bytes::copy_from_slice(json.as_bytes()),
        count,
    }
}

struct Host {
    sandbox: WasmSandbox,
}

impl Host {
    fn start() -> Self {
        Self::with(SandboxConfig {
            invoker_threads: 2,
            concurrency: 16,
            ..SandboxConfig::default()
        })
    }

    fn with(config: SandboxConfig) -> Self {
        Self {
            sandbox: WasmSandbox::new(config).expect("a sandbox"),
        }
    }

    async fn try_load(&self, wat: &str) -> Result<Arc<dyn Module>, LoadError> {
        Sandbox::load(&self.sandbox, wat::parse_str(wat).expect("good WAT").into()).await
    }

    async fn load(&self, wat: &str) -> Arc<dyn Module> {
        self.try_load(wat).await.expect("a module that loads")
    }

    async fn invoke(&self, invocation: Invocation) -> Report {
        Sandbox::invoke(&self.sandbox, invocation).await
    }

    /// Runs `wat` on `count` records, or on an event if it takes one.
    async fn run(&self, wat: &str, count: usize) -> Report {
        let module = self.load(wat).await;
        self.invoke(invocation(&module, count)).await
    }
}

fn invocation(module: &Arc<dyn Module>, count: usize) -> Invocation {
    let input = if module.carrier().takes_json() {
        event("{}", count)
    } else {
        Input::Records(batch(count))
    };
    Invocation {
        owner: Arc::default(),
        mapping: None,
        module: Arc::clone(module),
        input,
        context: BatchContext {
            stream: "clicks".into(),
            attempt: 1,
            ..BatchContext::default()
        },
        limits: FunctionLimits::default(),
        environment: Arc::default(),
        state: Arc::new(NoState),
        now: NOW,
        seed: [7; 32],
    }
}

#[track_caller]
fn failure(report: &Report) -> &Failure {
    match &report.outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("a failure was expected, not {other:?}"),
    }
}

#[track_caller]
fn cause(report: &Report) -> &Cause {
    &failure(report).cause
}

#[track_caller]
fn assert_ok(report: &Report) {
    assert!(matches!(&report.outcome, Outcome::Ok { .. }), "{report:?}");
}

/// Counters by name, summed over records.
fn counters(report: &Report) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for (_, add) in &report.effects.counters {
        *sums.entry(add.name.to_string()).or_default() += add.amount;
    }
    sums
}
