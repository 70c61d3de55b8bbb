//! The binary: the command line, with wasmtime as the sandbox.

use std::process::ExitCode;
use std::sync::Arc;

use shardmill_sandbox::{SandboxConfig, WasmSandbox};

fn main() -> ExitCode {
    shardmill::cli::main(
        || Ok(Arc::new(WasmSandbox::new(SandboxConfig::default())?)),
        || Ok(Arc::new(WasmSandbox::new(SandboxConfig::simulated())?)),
    )
}
