//! `cargo xtask demo`: a clickstream through a host of its own, from nothing to counters and
//! failure entries. It builds, writes a manifest, starts the host, and drives it by the command
//! line that users have; it knows nothing of the host's insides.

mod input;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::host::Host;
use crate::progress::Progress;
use crate::{guests, paths, program};
use report::{Live, Snapshot};

/// The demo's stream and function, as its manifest names them.
const STREAM: &str = "clicks";
const FUNCTION: &str = "clickstream";
const MAPPING: &str = "clicks-clickstream";

/// The partition key of a line is its first word: the client.
const KEY_REGEX: &str = r"^(\S+)";

/// How often the mapping is asked how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// Without any progress for this long, the demo gives up.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// What to run and what to leave.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Lines of an access log or JSON click events [default: a generated clickstream]
    file: Option<PathBuf>,
    /// Leave the host running and say what to try next
    #[arg(long)]
    keep: bool,
}

/// Runs the demo.
///
/// # Errors
/// Something does not build or start, or the records are not all dealt with.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(file) = &arguments.file
        && !file.is_file()
    {
        bail!("there is no file {}", file.display());
    }
    build_host()?;
    let wasm = handler()?;

    let dir = tempfile::Builder::new()
        .prefix("shardmill-demo-")
        .tempdir()
        .context("make a folder for the demo")?;
    let file = match &arguments.file {
        Some(file) => std::path::absolute(file)?,
        None => input::write(dir.path())?,
    };
    let manifest = dir.path().join("shardmill.toml");
    fs::copy(wasm, dir.path().join("clickstream.wasm")).context("copy the handler")?;
    fs::write(&manifest, manifest_text()).context("write the manifest")?;

    let host = Host::start(dir.path(), &manifest)?;
    println!("host ready at {}", host.endpoint());
    process(&host, &file)?;
    report::counters(&host.json(&["counters", FUNCTION])?);
    failures(&host)?;
    if arguments.keep {
        let dir = dir.keep();
        keep(host, &dir);
        return Ok(());
    }
    host.stop()
}

/// Built with the whole workspace, as the tests build it, so that nothing is compiled twice.
fn build_host() -> Result<()> {
    let progress = Progress::start("demo");
    progress.note("building the host");
    drop(progress);
    let mut build = program::cargo();
    build
        .current_dir(paths::workspace())
        .args(["build", "--workspace", "--bins"]);
    if !program::streamed(&mut build, |_| {})?.success() {
        bail!("the host does not build");
    }
    Ok(())
}

fn handler() -> Result<PathBuf> {
    guests::build()?
        .into_iter()
        .find(|file| file.file_stem().is_some_and(|name| name == FUNCTION))
        .with_context(|| format!("there is no handler {FUNCTION} below handlers/"))
}

fn manifest_text() -> String {
    format!(
        r#"[[stream]]
name = "{STREAM}"
shards = 4

[[function]]
name = "{FUNCTION}"
wasm = "clickstream.wasm"

[[mapping]]
name = "{MAPPING}"
stream = "{STREAM}"
function = "{FUNCTION}"
batch_size = 100
starting_position = "TRIM_HORIZON"
"#
    )
}

/// Puts the lines and waits until the mapping has dealt with all of them.
fn process(host: &Host, file: &Path) -> Result<()> {
    let lines = fs::read(file)
        .with_context(|| format!("read {}", file.display()))?
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .count() as u64;
    println!("putting {lines} lines of {} into {STREAM}", file.display());
    let start = Instant::now();
    let mut put = Putter::start(host, file)?;
    let mut live = Live::start(lines);
    let mut last = Snapshot::default();
    let mut changed = Instant::now();
    loop {
        let all_put = put.is_done()?;
        let now = Snapshot::of(&host.json(&["mappings"])?, MAPPING)?;
        live.show(&now);
        if all_put && now.behind == 0 && now.dealt_with() >= lines {
            break;
        }
        if now != last {
            last = now;
            changed = Instant::now();
        } else if changed.elapsed() > STALL_LIMIT {
            bail!(
                "nothing has moved for {} s, with {} of {lines} records dealt with; the host's log:\n{}",
                STALL_LIMIT.as_secs(),
                now.dealt_with(),
                fs::read_to_string(host.log()).unwrap_or_default()
            );
        }
        thread::sleep(LOOK);
    }
    live.finish();
    println!("done in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// `shardmill put`, running beside the mapping.
struct Putter {
    process: std::process::Child,
    done: bool,
}

impl Putter {
    fn start(host: &Host, file: &Path) -> Result<Self> {
        let mut put: Command = host.client(&["put", STREAM])?;
        let process = put
            .arg(file)
            .args(["--key-regex", KEY_REGEX])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start `shardmill put`")?;
        Ok(Self {
            process,
            done: false,
        })
    }

    fn is_done(&mut self) -> Result<bool> {
        if !self.done
            && let Some(status) = self.process.try_wait()?
        {
            if !status.success() {
                let mut said = String::new();
                if let Some(stderr) = &mut self.process.stderr {
                    std::io::Read::read_to_string(stderr, &mut said)?;
                }
                bail!("`shardmill put` failed ({status}): {}", said.trim());
            }
            self.done = true;
        }
        Ok(self.done)
    }
}

impl Drop for Putter {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

fn failures(host: &Host) -> Result<()> {
    let list = host.json(&["failures", "list"])?;
    for id in report::failures(&list) {
        println!("\n{}", host.text(&["failures", "show", &id])?.trim_end());
    }
    Ok(())
}

fn keep(host: Host, dir: &Path) {
    let endpoint = host.endpoint().to_owned();
    let manifest = dir.join("shardmill.toml");
    let log = host.log().display().to_string();
    let Some(pid) = host.leave_running() else {
        return;
    };
    println!(
        "\nThe host runs on, as process {pid}, at {endpoint}\n\
         \x20 manifest  {}\n\
         \x20 log       {log}\n\
         Try next:\n\
         \x20 export SHARDMILL_ENDPOINT={endpoint}\n\
         \x20 shardmill tail {STREAM}\n\
         \x20 shardmill mappings\n\
         \x20 shardmill failures list\n\
         \x20 aws --endpoint-url {endpoint} --region us-east-1 kinesis list-shards --stream-name {STREAM}\n\
         \x20 kill {pid}          # stop it\n\
         `shardmill` is {}",
        manifest.display(),
        paths::host_binary().map_or_else(
            |_| "in the target folder".to_owned(),
            |path| path.display().to_string()
        ),
    );
}
