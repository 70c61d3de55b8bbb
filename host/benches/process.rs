//! The real binary, as a process on a free loopback port.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a host may take to finish what is running.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A running `shardmill serve`. Dropping it kills it with -9.
pub(crate) struct Process {
    child: Child,
    /// Held open: what the process says later must not hit a closed pipe.
    _stdout: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Process {
    /// Starts it on the data in `dir`, with a manifest if there is one, and waits for its line.
    ///
    /// # Errors
    /// It does not start, or says something else; its log is `log` in `dir`.
    pub(crate) fn start(dir: &Path, manifest: Option<&Path>) -> anyhow::Result<Self> {
        let log = dir.join("log");
        let log_file = File::options().create(true).append(true).open(&log)?;
        let mut serve = Command::new(env!("CARGO_BIN_EXE_shardmill"));
        serve
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.join("data"))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file);
        if let Some(manifest) = manifest {
            serve.arg("--config").arg(manifest);
        }
        let mut child = serve.spawn().context("start shardmill")?;
        let stdout = child.stdout.take().context("its standard output")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on http://");
        let Some(address) = address.and_then(|address| address.parse().ok()) else {
            let _ = child.kill();
            let _ = child.wait();
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("the host is not ready, but says {line:?}:\n{log}");
        };
        Ok(Self {
            child,
            _stdout: stdout,
            address,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A line of `/proc/PID/status` that counts KiB, in bytes.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn memory_bytes(&self, line: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let value = status.lines().find_map(|text| text.strip_prefix(line));
        let kib = value.and_then(|value| value.strip_prefix(':')?.trim().strip_suffix(" kB"));
        let kib: u64 = kib.with_context(|| format!("find {line}"))?.parse()?;
        Ok(kib << 10)
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// It ends badly, or not in time.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("its process id")?, Signal::TERM)?;
        let asked = Instant::now();
        while asked.elapsed() < STOP_LIMIT {
            if let Some(status) = self.child.try_wait()? {
                anyhow::ensure!(status.success(), "the host ended with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("the host did not stop within {STOP_LIMIT:?}")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
