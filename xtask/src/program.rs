//! How other programs are run: quietly, with the end of what they said in the error,
//! or with their output passed on line by line while somebody reads along.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How many lines of a failed program's output its error repeats.
const TAIL_LINE_COUNT: usize = 15;

/// How often a program under a time limit is looked at.
const POLL: Duration = Duration::from_millis(50);

/// The cargo that runs us, or else the one in `PATH`.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a program to its end and returns what it wrote to its standard output.
///
/// # Errors
/// The program cannot be started, or ends with another code than 0; the message ends with
/// the last lines it wrote.
pub(crate) fn quiet(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", name(command)))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    bail!(
        "{} failed ({}):\n{}",
        name(command),
        output.status,
        tail(&format!("{stdout}{stderr}"))
    )
}

/// As [`quiet`], but ends the program when `limit` has passed.
///
/// # Errors
/// As [`quiet`]; and the limit.
pub(crate) fn quiet_within(command: &mut Command, limit: Duration) -> Result<String> {
    let deadline = Instant::now() + limit;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", name(command)))?;
    // The pipes hold 64 KiB each, far more than a program under a limit says.
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("{} took more than {} s", name(command), limit.as_secs());
        }
        thread::sleep(POLL);
    }
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!(
            "{} failed ({}):\n{}",
            name(command),
            output.status,
            tail(&stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program, passes its standard output on as it comes and shows each line to `reader`.
/// Its standard error goes straight through.
///
/// # Errors
/// The program cannot be started or read. How it ended is the value.
pub(crate) fn streamed(command: &mut Command, mut reader: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", name(command)))?;
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        while stdout.read_until(b'\n', &mut line)? > 0 {
            let mut ours = std::io::stdout().lock();
            ours.write_all(&line)?;
            ours.flush()?;
            reader(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
    }
    child
        .wait()
        .with_context(|| format!("wait for {}", name(command)))
}

/// Whether `PATH` has a program of this name.
pub(crate) fn exists(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// The program's name and first argument, as in `apt-get update`.
fn name(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program());
    let first = command
        .get_args()
        .map(|arg| arg.to_string_lossy())
        .find(|arg| !arg.starts_with('-') && !arg.contains('/'));
    match first {
        Some(first) => format!("{} {first}", program.to_string_lossy()),
        None => program.to_string_lossy().into_owned(),
    }
}

/// The last lines of a text, indented.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let from = lines.len().saturating_sub(TAIL_LINE_COUNT);
    lines[from..]
        .iter()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_is_named_with_what_it_said() {
        let error = quiet(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh") && text.contains("why"), "{text}");
    }

    #[test]
    fn a_program_over_its_time_is_ended() {
        let error = quiet_within(Command::new("sleep").arg("60"), POLL).unwrap_err();
        assert!(error.to_string().contains("took more than"), "{error}");
    }

    #[test]
    fn streamed_lines_reach_the_reader_in_order() {
        let mut seen = Vec::new();
        let status = streamed(Command::new("printf").arg("a\\nb"), |line| {
            seen.push(line.to_owned());
        })
        .unwrap();
        assert!(status.success());
        assert_eq!(seen, ["a", "b"]);
    }
}
