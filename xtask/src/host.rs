//! A host of our own: the built binary as a process on a free loopback port, with its data and
//! its log in a folder of ours, and the command line as its client.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{paths, program};

/// How long a host may take to become ready: an empty store takes a fraction of a second.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How long a host may take to finish what is running.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How often its log, or its end, is looked for.
const POLL: Duration = Duration::from_millis(20);

/// What a ready host prints before its address.
const READY: &str = "listening on ";

/// A running host. Dropping it kills it, unless it was left running.
pub(crate) struct Host {
    process: Option<Child>,
    endpoint: String,
    log: PathBuf,
}

impl Host {
    /// Starts one with a manifest, its data below `dir`, and waits until it is ready.
    ///
    /// # Errors
    /// It does not start, or ends, or is not ready in time; the message holds its log.
    pub(crate) fn start(dir: &Path, manifest: &Path) -> Result<Self> {
        let binary = paths::host_binary()?;
        let log = dir.join("host.log");
        let output = File::create(&log).context("make the host's log")?;
        let mut serve = Command::new(&binary);
        serve
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.join("data"))
            .arg("--config")
            .arg(manifest)
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            // A file, not a pipe: a host left running outlives whoever would read the pipe.
            .stdout(output);
        // Its own group: an interrupt at the terminal is ours to handle.
        std::os::unix::process::CommandExt::process_group(&mut serve, 0);
        let process = serve
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let mut host = Self {
            process: Some(process),
            endpoint: String::new(),
            log,
        };
        host.endpoint = host.wait_until_ready()?;
        Ok(host)
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// The command line, addressed to this host.
    pub(crate) fn client(&self, arguments: &[&str]) -> Result<Command> {
        let mut client = Command::new(paths::host_binary()?);
        client.args(arguments).args(["--endpoint", &self.endpoint]);
        Ok(client)
    }

    /// What the command line answers, for people.
    pub(crate) fn text(&self, arguments: &[&str]) -> Result<String> {
        program::quiet(&mut self.client(arguments)?)
    }

    /// What the command line answers with `--json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = program::quiet(self.client(arguments)?.arg("--json"))?;
        serde_json::from_str(&text)
            .with_context(|| format!("read the answer of `shardmill {}`", arguments.join(" ")))
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// It ends with another code than 0, or not in time.
    pub(crate) fn stop(mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        signal_stop(&process)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = process.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("the host ended with {status}:\n{}", self.log_text());
            }
            thread::sleep(POLL);
        }
        process.kill()?;
        process.wait()?;
        bail!("the host did not stop within {} s", STOP_LIMIT.as_secs())
    }

    /// Lets it run on after us and returns its process id.
    pub(crate) fn leave_running(mut self) -> Option<u32> {
        self.process.take().map(|process| process.id())
    }

    fn wait_until_ready(&mut self) -> Result<String> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let log = self.log_text();
            let ready = log
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'))
                .find_map(|line| line.trim_end().split_once(READY));
            if let Some((_, endpoint)) = ready {
                return Ok(endpoint.to_owned());
            }
            let ended = match &mut self.process {
                Some(process) => process.try_wait()?,
                None => None,
            };
            if let Some(status) = ended {
                bail!("the host ended with {status} before it was ready:\n{log}");
            }
            if Instant::now() >= deadline {
                bail!(
                    "the host is not ready after {} s:\n{log}",
                    READY_LIMIT.as_secs()
                );
            }
            thread::sleep(POLL);
        }
    }

    fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn signal_stop(process: &Child) -> Result<()> {
    let pid = i32::try_from(process.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("the host has no process id")?;
    kill_process(pid, Signal::TERM).context("ask the host to stop")
}
