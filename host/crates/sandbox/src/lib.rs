//! Runs guests: compiles a module, gives each invocation a fresh instance under fuel, memory,
//! wall-clock, output and effects limits, and says how it ended.
//!
//! The only crate that names wasmtime. It knows no store, no stream and no retry: it is handed a
//! batch and a view of its keyed state, and hands back an outcome with the effects to commit.
//! The contract with guests is `docs/abi.md`.
//!
//! A map, in the order in which an invocation passes through:
//!
//! - `sandbox`: the front; admission against the memory budget
//! - `admission`: slots and memory; `schedule`: whose slice is next
//! - `invoker`: the threads that run guests, slice by slice, and `meter`, which measures slices
//! - `instance`: one attempt on one instance, from the batch in its memory to its outcome
//! - `guest`: what the host keeps beside a running guest, its fuel ledger above all
//! - `calls`, `effects`: the host calls and what they leave; `wasi`, `output`: the little of WASI
//!   that there is
//! - `limiter`, `trap`: growth, and how a failure is told
//! - `component`: the same for components: their host calls, their WASI, and what they export
//! - `module`, `engine`: checking, before any of this; `compiler`, the child process that compiles,
//!   and `artifacts`, what it made

mod admission;
mod artifacts;
mod calls;
mod compiler;
mod component;
mod effects;
mod engine;
mod guest;
mod instance;
mod invoker;
mod limiter;
mod machine;
mod meter;
mod module;
mod output;
mod sandbox;
mod schedule;
mod trap;
mod wasi;

#[cfg(test)]
mod tests;

pub use compiler::{COMPILE_MODULE, CompilerConfig, compile_module};
pub use sandbox::{InUse, SandboxConfig, StartError, WasmSandbox};
