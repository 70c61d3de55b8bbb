//! The two engines, each with a pool of memory: one inlines functions, which makes a module's code
//! faster by a tenth and more; the other does not, since the compiler would hold all of a large
//! module at once (componentize-py's 18 MB take more than 6 GiB then, and 400 MiB otherwise).
//! What a guest does and what fuel it uses is the same in both.
//!
//! Each setting was measured, with its alternatives, on wasmtime 48.0.8. Proposals that no
//! toolchain for handlers needs are off, and whatever could make two runs of the same inputs
//! differ.

use std::hash::{Hash as _, Hasher};
use std::num::NonZeroUsize;

use sha2::{Digest as _, Sha256};
use shardmill_core::limits::MAX_MEMORY_BYTES;
use wasmtime::{
    Config, Enabled, Engine, Inlining, InstanceAllocationStrategy, OptLevel,
    PoolingAllocationConfig, Result, WasmBacktraceDetails,
};

use crate::component::is_component;
use crate::limiter::{MAX_CORE_INSTANCES, MAX_MEMORIES, MAX_TABLE_ELEMENTS, MAX_TABLES};
use crate::module::hex;
use crate::trap::MAX_FRAMES;

/// The engine's name and version, as entries of the failure store keep it.
pub(crate) const NAME: &str = "wasmtime 48.0.8";

/// Memory at the low end of a slot that stays mapped between instances, bytes: a fresh instance
/// then finds its pages without a fault. Only those that the last guest touched are cleared.
const KEEP_RESIDENT_BYTES: usize = 16 << 20;
/// The same of a table.
const TABLE_KEEP_RESIDENT_BYTES: usize = 64 << 10;
/// Slots per core that keep their pages while they are free.
const WARM_SLOTS_PER_CORE: u32 = 4;
/// A guest's stack, bytes; the rest of the host's stack below it is for host calls.
const WASM_STACK_BYTES: usize = 512 << 10;
const HOST_STACK_BYTES: usize = 2 << 20;

/// Largest core module whose functions are inlined, bytes.
const MAX_INLINED_BYTES: usize = 2 << 20;

/// The engines of a process.
pub(crate) struct Engines {
    inlining: Engine,
    plain: Engine,
}

impl Engines {
    /// Engines with a pool for `slots` guests at a time, served by `threads` threads.
    ///
    /// # Errors
    /// When the system refuses address space.
    pub(crate) fn build(slots: u32, threads: usize) -> Result<Self> {
        Self::each(|memories| InstanceAllocationStrategy::Pooling(pool(slots, memories, threads)))
    }

    /// Engines that compile for the others and run nothing: they have no pool, whose address space
    /// would not fit under a limit.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn of_compiler() -> Result<Self> {
        Self::each(|_| InstanceAllocationStrategy::OnDemand)
    }

    /// `strategy` is given the memories of one guest.
    fn each(strategy: impl Fn(u32) -> InstanceAllocationStrategy) -> Result<Self> {
        let engine = |inlining, memories| {
            Engine::new(config(inlining).allocation_strategy(strategy(memories)))
        };
        Ok(Self {
            inlining: engine(Inlining::Yes, 1)?,
            plain: engine(Inlining::No, MAX_MEMORIES)?,
        })
    }

    /// The engine for this wasm.
    pub(crate) fn of(&self, wasm: &[u8]) -> &Engine {
        if is_component(wasm) || wasm.len() > MAX_INLINED_BYTES {
            &self.plain
        } else {
            &self.inlining
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> [&Engine; 2] {
        [&self.inlining, &self.plain]
    }

    /// What artifacts have to have in common with the engines that run them, in hexadecimal.
    pub(crate) fn fingerprint(&self) -> String {
        let mut sum = Sum(Sha256::new_with_prefix(NAME));
        for engine in self.all() {
            engine.precompile_compatibility_hash().hash(&mut sum);
        }
        let digest = sum.0.finalize();
        hex(&digest[..16])
    }
}

/// A hasher whose result no release of the standard library changes.
struct Sum(Sha256);

impl Hasher for Sum {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest[..8]
            .iter()
            .fold(0, |n, byte| n << 8 | u64::from(*byte))
    }
}

fn config(inlining: Inlining) -> Config {
    let mut config = Config::new();
    config
        .memory_init_cow(true)
        .cranelift_opt_level(OptLevel::Speed)
        .compiler_inlining(inlining)
        .consume_fuel(true)
        .epoch_interruption(false)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(HOST_STACK_BYTES)
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        // Of the component model 0.2 only: host calls cost less than half.
        .concurrency_support(false)
        // Line numbers would be read from the guest's own debug sections, in this process, at each trap.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_backtrace_max_frames(NonZeroUsize::new(MAX_FRAMES));
    config
}

fn pool(slots: u32, memories: u32, threads: usize) -> PoolingAllocationConfig {
    let warm = WARM_SLOTS_PER_CORE
        .saturating_mul(u32::try_from(threads).unwrap_or(u32::MAX))
        .min(slots);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(slots.saturating_mul(MAX_CORE_INSTANCES))
        .total_component_instances(slots)
        .max_core_instances_per_component(MAX_CORE_INSTANCES)
        .max_memories_per_component(memories)
        .max_tables_per_component(MAX_TABLES)
        .total_memories(slots.saturating_mul(memories))
        .total_tables(slots.saturating_mul(MAX_TABLES))
        .total_stacks(slots)
        .max_memories_per_module(1)
        .max_tables_per_module(MAX_TABLES)
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_memory_size(MAX_MEMORY_BYTES as usize)
        .max_unused_warm_slots(warm);
    // Without the scan, keeping pages means clearing all of them: worse than giving them back.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
            .table_keep_resident(TABLE_KEEP_RESIDENT_BYTES)
            .pagemap_scan(Enabled::Auto);
    }
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_compiles_for_the_engine_with_the_pool() {
        let compiler = Engines::of_compiler().unwrap();
        let pool = Engines::build(4, 1).unwrap();
        assert_eq!(compiler.fingerprint(), pool.fingerprint());
    }

    #[test]
    fn the_name_is_that_of_the_engine_which_is_linked() {
        let lock = include_str!("../../../../Cargo.lock");
        let (name, version) = NAME.split_once(' ').expect("a name and a version");
        let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        assert!(lock.contains(&entry), "{NAME} is not what Cargo.lock says");
    }
}
