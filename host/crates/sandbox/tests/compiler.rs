//! The compiler's child process. This program is both: run with [`COMPILE_MODULE`] it compiles,
//! otherwise it is the tests, which is why it has no harness.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::sandbox::{LoadError, Module, Sandbox};
use shardmill_sandbox::{
    COMPILE_MODULE, CompilerConfig, SandboxConfig, WasmSandbox, compile_module,
};

/// A handler of the packed ABI that does nothing.
const HANDLER: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "shardmill_abi_v1") (result i32) i32.const 2)
    (func (export "shardmill_prepare") (param i32) (result i32) i32.const 1024)
    (func (export "shardmill_handle") (param i32 i32) (result i64) i64.const 0))"#;

type Test = (&'static str, fn(&Path));

const TESTS: [Test; 8] = [
    ("what_was_compiled_is_not_compiled_again", kept),
    ("a_component_is_compiled_and_kept_too", component),
    ("what_others_may_write_to_is_not_used", not_private),
    ("what_is_no_module_is_refused_with_its_fault", invalid),
    ("too_much_cpu_time_is_an_error", too_slow),
    ("too_much_memory_is_an_error", too_large),
    ("too_long_a_wait_is_an_error", too_late),
    ("a_program_that_is_no_compiler_is_an_error", foreign),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments
        .next()
        .is_some_and(|first| first == COMPILE_MODULE)
    {
        return compile_module(arguments);
    }
    // As the harness does, so that tests can be counted and chosen.
    let chosen = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    if std::env::args().any(|argument| argument == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted = |(name, _): &&Test| {
        chosen
            .as_ref()
            .is_none_or(|part| name.contains(part.as_str()))
    };
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in TESTS.iter().filter(wanted) {
        let folder = tempfile::tempdir().expect("a folder");
        let ended = std::panic::catch_unwind(|| test(folder.path()));
        println!(
            "test {name} ... {}",
            if ended.is_ok() { "ok" } else { "FAILED" }
        );
        *(if ended.is_ok() {
            &mut passed
        } else {
            &mut failed
        }) += 1;
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    let left = TESTS.len() - passed - failed;
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {left} filtered out\n"
    );
    ExitCode::from(u8::from(failed > 0))
}

fn compiler(folder: &Path) -> CompilerConfig {
    CompilerConfig::this_program(Some(folder.join("artifacts")))
}

fn load(compiler: CompilerConfig, wasm: Vec<u8>) -> Result<Arc<dyn Module>, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let config = SandboxConfig {
            compiler: Some(compiler),
            concurrency: 4,
            invoker_threads: 1,
            ..SandboxConfig::default()
        };
        let sandbox = WasmSandbox::new(config).expect("a sandbox");
        Sandbox::load(&sandbox, Bytes::from(wasm)).await
    })
}

fn handler() -> Vec<u8> {
    wat::parse_str(HANDLER).expect("a module")
}

/// A handler and so many functions of nothing: small in bytes, and dear to compile.
fn bomb(functions: usize) -> Vec<u8> {
    let tiny = "(func (result i32) i32.const 1 i32.const 2 i32.add)";
    let module = HANDLER.trim_end_matches(')');
    // The last one closed the module's last function.
    let text = format!("{module}){})", tiny.repeat(functions));
    wat::parse_str(text).expect("a module")
}

fn refused(ended: Result<Arc<dyn Module>, LoadError>) -> String {
    match ended {
        Ok(module) => panic!("{} was accepted", module.digest()),
        Err(error) => error.to_string(),
    }
}

fn kept(folder: &Path) {
    let first = load(compiler(folder), handler()).expect("a module");
    // Nobody compiles any more.
    let broken = CompilerConfig {
        program: PathBuf::from("/nowhere"),
        ..compiler(folder)
    };
    let again = load(broken.clone(), handler()).expect("the artifact");
    assert_eq!(first.digest(), again.digest());
    let why = refused(load(broken, bomb(1)));
    assert!(why.contains("/nowhere"), "{why}");
}

fn component(folder: &Path) {
    const HANDLER: &str = r#"(component
        (core module $M (memory (export "memory") 1)
            (func (export "abi") (result i32) i32.const 2)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 0)
            (func (export "handle") (param i32 i32) (result i32) i32.const 0))
        (core instance $m (instantiate $M))
        (func (export "abi") (result u32) (canon lift (core func $m "abi")))
        (func (export "handle") (param "batch" (list u8)) (result (result (list u8) (error string)))
            (canon lift (core func $m "handle") (memory (core memory $m "memory")) (realloc (core func $m "realloc")))))"#;
    let wasm = wat::parse_str(HANDLER).expect("a component");
    let first = load(compiler(folder), wasm.clone()).expect("a component");
    let broken = CompilerConfig {
        program: PathBuf::from("/nowhere"),
        ..compiler(folder)
    };
    let again = load(broken.clone(), wasm.clone()).expect("the artifact");
    assert_eq!(first.digest(), again.digest());
    // One whose bytes are not those that were written is not run.
    let artifacts = folder.join("artifacts");
    let engine = std::fs::read_dir(artifacts).expect("a folder").next();
    let artifact = engine
        .expect("one engine")
        .expect("readable")
        .path()
        .join(first.digest());
    let mut forged = std::fs::read(&artifact).expect("the artifact");
    let middle = forged.len() / 2;
    forged[middle] ^= 1;
    std::fs::remove_file(&artifact).expect("removed");
    std::fs::write(&artifact, forged).expect("written");
    let why = refused(load(broken, wasm));
    assert!(why.contains("/nowhere"), "{why}");
}

fn not_private(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    load(compiler(folder), handler()).expect("a module");
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder.join("artifacts"), open).expect("open to all");
    let broken = CompilerConfig {
        program: PathBuf::from("/nowhere"),
        ..compiler(folder)
    };
    refused(load(broken, handler()));
    load(compiler(folder), handler()).expect("compiled again");
}

fn invalid(folder: &Path) {
    let mut wasm = handler();
    wasm.truncate(wasm.len() - 3);
    match load(compiler(folder), wasm) {
        Err(LoadError::Invalid(why)) => assert!(why.contains("unexpected end"), "{why}"),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

fn too_slow(folder: &Path) {
    let limited = CompilerConfig {
        cpu: Duration::from_secs(1),
        ..compiler(folder)
    };
    let why = refused(load(limited, bomb(200_000)));
    assert!(why.contains("more than 1s of CPU time"), "{why}");
}

fn too_large(folder: &Path) {
    let limited = CompilerConfig {
        memory_bytes: 320 << 20,
        ..compiler(folder)
    };
    load(limited.clone(), handler()).expect("a small one fits");
    let why = refused(load(limited, bomb(200_000)));
    assert!(why.contains("more than 320 MiB of memory"), "{why}");
}

fn too_late(folder: &Path) {
    let limited = CompilerConfig {
        timeout: Duration::from_millis(50),
        ..compiler(folder)
    };
    let why = refused(load(limited, bomb(200_000)));
    assert!(why.contains("more than 50ms to compile"), "{why}");
}

fn foreign(folder: &Path) {
    for program in ["/bin/true", "/bin/false", "/bin/cat"] {
        let other = CompilerConfig {
            program: PathBuf::from(program),
            ..compiler(folder)
        };
        let why = refused(load(other, handler()));
        assert!(why.contains("compiler"), "{program}: {why}");
    }
}
