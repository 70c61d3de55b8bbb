//! Guests under measurement: the smallest handlers there can be, written as text, and a sandbox
//! with one invoker's thread that is asked for many attempts.

use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use shardmill_core::block::Placement;
use shardmill_core::limits::FunctionLimits;
use shardmill_core::sandbox::{Input, Invocation, Module, NoState, Sandbox};
use shardmill_core::{Batch, BatchContext, Block, Outcome, Records, ShardId, Slice, UnixMillis};
use shardmill_sandbox::{SandboxConfig, WasmSandbox};
use tokio::runtime::Runtime;

use crate::cpu::{Cost, cost_of};
use crate::memory_host::EFFECT_ITEMS;

/// Attempts under way at a time: enough that the invoker's thread never sleeps.
const IN_FLIGHT: usize = 4;

/// A record-mode handler that does nothing but say where it is.
pub(crate) const NOTHING: &str = r#"(module
    (import "shardmill" "progress" (func $progress (param i32) (result i32)))
    (memory (export "memory") 17)
    (data (i32.const 16) "SMA1\01\00\00\00\00\00\00\00\00\00\00\00")
    (func (export "shardmill_abi_v1") (result i32) (i32.const 1))
    (func (export "shardmill_prepare") (param i32) (result i32) (i32.const 65536))
    (func (export "shardmill_handle") (param $ptr i32) (param $len i32) (result i64)
        (local $i i32)
        (block $done (loop $each
            (br_if $done (i32.ge_u (local.get $i) (i32.load offset=12 (local.get $ptr))))
            (drop (call $progress (local.get $i)))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br $each)))
        (i64.const 0x0000001000000010)))"#;

/// A batch-mode handler that sums, for each record, the first 8 bytes of its data, the length of
/// its key and its arrival, and leaves the sum in memory.
pub(crate) const SUM: &str = r#"(module
    (memory (export "memory") 260)
    (data (i32.const 16) "SMA1\01\00\00\00\00\00\00\00\00\00\00\00")
    (func (export "shardmill_abi_v1") (result i32) (i32.const 2))
    (func (export "shardmill_prepare") (param i32) (result i32) (i32.const 65536))
    (func (export "shardmill_handle") (param $ptr i32) (param $len i32) (result i64)
        (local $at i32) (local $left i32) (local $sum i64)
        (local.set $at (i32.add (local.get $ptr) (i32.load offset=16 (local.get $ptr))))
        (local.set $left (i32.load offset=12 (local.get $ptr)))
        (block $done (loop $each
            (br_if $done (i32.eqz (local.get $left)))
            (local.set $sum (i64.add (local.get $sum) (i64.add
                (i64.load align=1 (i32.add (local.get $ptr) (i32.load offset=8 (local.get $at))))
                (i64.add (i64.load32_u offset=4 (local.get $at)) (i64.load offset=40 (local.get $at))))))
            (local.set $at (i32.add (local.get $at) (i32.const 64)))
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br $each)))
        (i64.store (i32.const 1024) (local.get $sum))
        (i64.const 0x0000001000000010)))"#;

/// A sandbox, and what it takes to call it.
pub(crate) struct Guests {
    runtime: Runtime,
    sandbox: Arc<WasmSandbox>,
}

impl Guests {
    /// Starts one with one invoker's thread, so that CPU is that of one guest after the other.
    ///
    /// # Errors
    /// The sandbox's.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let config = SandboxConfig {
            invoker_threads: 1,
            ..SandboxConfig::default()
        };
        Ok(Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()?,
            sandbox: Arc::new(WasmSandbox::new(config)?),
        })
    }

    /// Loads a module.
    ///
    /// # Errors
    /// It is not a good one.
    pub(crate) fn load(&self, wasm: Bytes) -> anyhow::Result<Arc<dyn Module>> {
        let loaded = self.runtime.block_on(Sandbox::load(&*self.sandbox, wasm));
        loaded.context("load a guest")
    }

    /// Loads a module that is written as text.
    ///
    /// # Errors
    /// It is not a good one.
    pub(crate) fn load_text(&self, text: &str) -> anyhow::Result<Arc<dyn Module>> {
        self.load(wat::parse_str(text)?.into())
    }

    /// Invokes a module on a batch, again and again, and says what all of it took: the CPU is
    /// that of every thread, from the invocation's making to its report's end.
    ///
    /// # Errors
    /// An attempt did not end well.
    pub(crate) fn cost(
        &self,
        module: &Arc<dyn Module>,
        batch: &Batch,
        count: usize,
    ) -> anyhow::Result<Cost> {
        let work = async {
            let mut left = count;
            let mut running = tokio::task::JoinSet::new();
            while left > 0 || !running.is_empty() {
                while left > 0 && running.len() < IN_FLIGHT {
                    left -= 1;
                    let (sandbox, invocation) =
                        (Arc::clone(&self.sandbox), invocation(module, batch));
                    running
                        .spawn(async move { Sandbox::invoke(&*sandbox, invocation).await.outcome });
                }
                match running.join_next().await {
                    Some(Ok(Outcome::Ok { .. })) | None => {}
                    Some(other) => anyhow::bail!("an attempt ended with {other:?}"),
                }
            }
            Ok(())
        };
        let (done, cost) = cost_of(|| self.runtime.block_on(work));
        done.map(|()| cost)
    }
}

pub(crate) fn invocation(module: &Arc<dyn Module>, batch: &Batch) -> Invocation {
    Invocation {
        owner: Arc::default(),
        mapping: None,
        module: Arc::clone(module),
        input: Input::Records(batch.clone()),
        context: context(),
        limits: FunctionLimits {
            effect_items: EFFECT_ITEMS,
            ..FunctionLimits::default()
        },
        environment: Arc::default(),
        state: Arc::new(NoState),
        now: UnixMillis(1_431_857_000_000),
        seed: [7; 32],
    }
}

/// What stands in the head of every batch here.
pub(crate) fn context() -> BatchContext {
    BatchContext {
        stream: "bench".into(),
        shard: "shardId-000000000000".into(),
        request_id: "00000000-0000-0000-0000-000000000000".into(),
        function: "bench".into(),
        version: "1".into(),
        tenant: "000000000000".into(),
        attempt: 1,
        ..BatchContext::default()
    }
}

/// A batch of records as a mapping gathers them: blocks of 500.
///
/// # Errors
/// None; a block is made of good parts.
pub(crate) fn batch<'a>(
    records: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> anyhow::Result<Batch> {
    let mut records = records.into_iter().peekable();
    let (mut batch, mut first) = (Batch::default(), 1);
    while records.peek().is_some() {
        let mut packed = Records::default();
        for (key, data) in records.by_ref().take(500) {
            packed.push(key, None, data);
        }
        let count = packed.count() as u32;
        let placement = Placement {
            shard: ShardId(0),
            created_seconds: 1,
            first,
            arrival: UnixMillis(1_431_857_000_000),
        };
        let (index, blob) = packed.into_parts();
        let block = Block::new(placement, index.into(), blob.into())?;
        batch.push(Slice {
            block,
            from: 0,
            to: count,
        });
        first += u64::from(count);
    }
    Ok(batch)
}
