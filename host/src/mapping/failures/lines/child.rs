//! The child process that reads somebody's debug sections: this program once more, under limits
//! of memory and CPU time that it sets itself before it reads a byte of the module.
//!
//! It is given a line of JSON, what is asked, and the module behind it on its standard input, and
//! answers with JSON. It opens nothing. Whatever goes wrong costs the line numbers.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::{Ask, Line, resolve};

/// First argument of the child process.
pub const FIND_LINES: &str = "find-lines";

/// Address space of the child, bytes. The line tables of a large program take some tens of MiB.
const MEMORY_BYTES: u64 = 1 << 30;
/// CPU time of the child, s.
const CPU_SECONDS: u64 = 5;
/// Wall-clock time until it is given up.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Most that is read of its answer: forty frames, each with a hundred inlined functions.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// Has a module read; `None` when the child broke a limit or failed.
pub(super) async fn ask(program: &Path, wasm: &[u8], asks: &[Ask]) -> Option<Vec<Vec<Line>>> {
    let mut question = serde_json::to_vec(asks).ok()?;
    question.push(b'\n');
    let mut child = Command::new(program)
        .arg(FIND_LINES)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .inspect_err(|error| tracing::warn!(%error, "lines of a trap report cannot be found"))
        .ok()?;
    let (mut stdin, stdout) = (child.stdin.take()?, child.stdout.take()?);
    let tell = async move {
        // A child that dies early has no answer.
        let _ = stdin.write_all(&question).await;
        let _ = stdin.write_all(wasm).await;
    };
    let mut answer = Vec::new();
    let mut stdout = stdout.take(MAX_ANSWER_BYTES);
    let answered = async {
        let ((), read) = tokio::join!(tell, stdout.read_to_end(&mut answer));
        read.ok()?;
        child.wait().await.ok()
    };
    let status = tokio::time::timeout(TIMEOUT, answered).await.ok()??;
    let found: Vec<Vec<Line>> = serde_json::from_slice(&answer).ok()?;
    (status.success() && found.len() == asks.len()).then_some(found)
}

/// The child process: limits itself, reads the module that stands on its standard input and answers.
pub fn find_lines() -> ExitCode {
    match answer() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer() -> std::io::Result<()> {
    limit(Resource::Cpu, CPU_SECONDS)?;
    limit(Resource::As, MEMORY_BYTES)?;
    limit(Resource::Core, 0)?;
    let mut input = Vec::new();
    std::io::stdin().lock().read_to_end(&mut input)?;
    let end = input.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| std::io::Error::other("a question expected"))?;
    let asks: Vec<Ask> = serde_json::from_slice(&input[..end])?;
    let found = resolve(&input[end + 1..], &asks);
    let mut out = std::io::stdout().lock();
    out.write_all(&serde_json::to_vec(&found)?)?;
    out.flush()
}

fn limit(resource: Resource, limit: u64) -> std::io::Result<()> {
    let limit = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    Ok(setrlimit(resource, limit)?)
}
