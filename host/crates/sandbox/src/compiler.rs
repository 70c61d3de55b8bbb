//! Compiling in a child process. What a module costs to compile has no bound that its size would
//! tell: 600 KB of tiny functions take nine seconds and 300 MiB. So the host's own binary is run
//! once more, under limits of CPU time, address space and wall-clock time that it sets itself
//! before it reads a byte of the module, and a module that breaks them costs the host an error.
//!
//! The child is given the module on its standard input and answers on its standard output with a
//! byte that says what follows: an artifact, or why there is none. It opens nothing and runs
//! nothing of the module.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use shardmill_core::sandbox::LoadError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::component::is_component;
use crate::engine::Engines;

/// First argument of the child process.
pub const COMPILE_MODULE: &str = "compile-module";

/// Says that an artifact follows.
const ARTIFACT: u8 = 0;
/// Says that a text follows: what is wrong with the module.
const INVALID: u8 = 1;
/// Says that a text follows: the program is not the one that asked.
const FOREIGN: u8 = 2;

/// Most that is read of an answer: native code is a few times larger than its module.
const MAX_ANSWER_BYTES: u64 = 1 << 30;

/// A child process of the compiler, and what it may use.
#[derive(Clone, Debug)]
pub struct CompilerConfig {
    /// The program, whose `main` hands [`COMPILE_MODULE`] to [`compile_module`].
    pub program: PathBuf,
    /// Folder of what was compiled; without one nothing is kept. Nobody but this process's user may
    /// write to it.
    pub artifacts: Option<PathBuf>,
    /// Address space, bytes. Default: 2 GiB.
    pub memory_bytes: u64,
    /// CPU time of all its threads. Default: 60 s.
    pub cpu: Duration,
    /// Wall-clock time. Default: 120 s.
    pub timeout: Duration,
}

impl CompilerConfig {
    /// This program once more, whatever has become of its file.
    pub fn this_program(artifacts: Option<PathBuf>) -> Self {
        Self {
            program: "/proc/self/exe".into(),
            artifacts,
            memory_bytes: 2 << 30,
            cpu: Duration::from_secs(60),
            timeout: Duration::from_secs(120),
        }
    }

    /// Compiles a module for the engine with this fingerprint.
    pub(crate) async fn compile(
        &self,
        wasm: &[u8],
        fingerprint: &str,
    ) -> Result<Vec<u8>, LoadError> {
        let failed = |why: String| LoadError::Refused(format!("the compiler failed: {why}"));
        let mut child = Command::new(&self.program)
            .arg(COMPILE_MODULE)
            .arg(self.memory_bytes.to_string())
            .arg(self.cpu.as_secs().max(1).to_string())
            .arg(fingerprint)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("{}: {error}", self.program.display())))?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("it has no standard streams".into()));
        };
        let ask = async move {
            // A child that dies early is told of below.
            let _ = stdin.write_all(wasm).await;
            drop(stdin);
        };
        let mut answer = Vec::new();
        let mut stdout = stdout.take(MAX_ANSWER_BYTES);
        let answered = async {
            let ((), read) = tokio::join!(ask, stdout.read_to_end(&mut answer));
            read.map_err(|error| failed(error.to_string()))?;
            child
                .wait()
                .await
                .map_err(|error| failed(error.to_string()))
        };
        let status = tokio::time::timeout(self.timeout, answered).await;
        let status = status.map_err(|_| {
            LoadError::Refused(format!(
                "the module takes more than {:?} to compile: make it smaller",
                self.timeout
            ))
        })??;
        if !status.success() {
            return Err(self.broken(status));
        }
        match answer.split_first() {
            Some((&ARTIFACT, _)) => {
                answer.remove(0);
                Ok(answer)
            }
            Some((&INVALID, why)) => Err(LoadError::Invalid(String::from_utf8_lossy(why).into())),
            Some((_, why)) => Err(failed(String::from_utf8_lossy(why).into())),
            None => Err(failed("it said nothing".into())),
        }
    }

    /// Which limit a child has met that did not end by itself.
    fn broken(&self, status: ExitStatus) -> LoadError {
        use std::os::unix::process::ExitStatusExt as _;
        const SIGABRT: i32 = 6;
        const SIGKILL: i32 = 9;
        const SIGXCPU: i32 = 24;
        let why = match status.signal() {
            Some(SIGXCPU | SIGKILL) => {
                format!("takes more than {:?} of CPU time to compile", self.cpu)
            }
            Some(SIGABRT) => format!(
                "takes more than {} MiB of memory to compile",
                self.memory_bytes >> 20
            ),
            _ => format!("makes the compiler fail ({status})"),
        };
        LoadError::Refused(format!("the module {why}: make it smaller"))
    }
}

/// The child process: limits itself, compiles what stands on its standard input and answers.
/// `arguments` are those behind [`COMPILE_MODULE`].
pub fn compile_module(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let answered = answer(arguments).and_then(|(kind, bytes)| {
        let mut out = std::io::stdout().lock();
        out.write_all(&[kind])?;
        out.write_all(&bytes)?;
        out.flush()
    });
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer(arguments: impl Iterator<Item = OsString>) -> std::io::Result<(u8, Vec<u8>)> {
    let usage =
        || std::io::Error::other("a limit of memory, of CPU time and a fingerprint expected");
    let mut arguments = arguments.filter_map(|argument| argument.into_string().ok());
    let mut number = || arguments.next().and_then(|n| n.parse::<u64>().ok());
    let (memory, cpu) = number().zip(number()).ok_or_else(usage)?;
    let fingerprint = arguments.next().ok_or_else(usage)?;
    // One second more before it is killed outright, should it survive the first signal.
    limit(Resource::Cpu, cpu, cpu + 1)?;
    limit(Resource::As, memory, memory)?;
    limit(Resource::Core, 0, 0)?;
    let engines = match Engines::of_compiler() {
        Ok(engines) => engines,
        Err(error) => return Ok((FOREIGN, format!("{error:#}").into())),
    };
    if engines.fingerprint() != fingerprint {
        let why = "its engine is not the host's: the program was replaced, so restart the host";
        return Ok((FOREIGN, why.into()));
    }
    let mut wasm = Vec::new();
    std::io::stdin().lock().read_to_end(&mut wasm)?;
    let engine = engines.of(&wasm);
    let compiled = if is_component(&wasm) {
        engine.precompile_component(&wasm)
    } else {
        engine.precompile_module(&wasm)
    };
    Ok(match compiled {
        Ok(artifact) => (ARTIFACT, artifact),
        Err(error) => (INVALID, format!("{error:#}").into()),
    })
}

fn limit(resource: Resource, soft: u64, hard: u64) -> std::io::Result<()> {
    let limit = Rlimit {
        current: Some(soft),
        maximum: Some(hard),
    };
    Ok(setrlimit(resource, limit)?)
}
