//! The binary: the command line, with wasmtime as the sandbox.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use shardmill::mapping::{FIND_LINES, find_lines};
use shardmill_core::Sandbox;
use shardmill_sandbox::{
    COMPILE_MODULE, CompilerConfig, SandboxConfig, WasmSandbox, compile_module,
};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == COMPILE_MODULE => return compile_module(arguments),
        Some(first) if first == FIND_LINES => return find_lines(),
        _ => {}
    }
    shardmill::cli::main(contained, || {
        Ok(Arc::new(WasmSandbox::new(SandboxConfig::simulated())?))
    })
}

/// The machine of a host: modules are compiled in a child process, and kept in `artifacts`.
fn contained(artifacts: Option<&Path>) -> anyhow::Result<Arc<dyn Sandbox>> {
    let compiler = CompilerConfig::this_program(artifacts.map(Path::to_owned));
    let config = SandboxConfig {
        compiler: Some(compiler),
        ..SandboxConfig::default()
    };
    Ok(Arc::new(WasmSandbox::new(config)?))
}
