//! From a finished build to the first batch on the new code: the real host, its manifest and a
//! handler's file, while records flow.
//!
//! - *compiled*: the file is replaced by a module of 234 KiB that was never seen; the time until a
//!   record is done by it, as its counter shows.
//! - *from the cache*: the same, back to a module whose compiled form is kept.
//!
//! A record is put every few milliseconds, so the wait for one is part of the figure.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

use crate::bench::Bench;
use crate::client::Client;
use crate::figure::Figure;
use crate::process::Process;
use crate::row::{Goal, Row};
use crate::{bodies, input};

const STREAM: &str = "bench";
/// What a handler of some size comes to.
const MODULE_BYTES: usize = 234 << 10;
/// Functions that are never called: about this many bytes of wasm each.
const FILLER_BYTES: usize = 72;
/// How long a new version may take to be seen.
const STALL_LIMIT: Duration = Duration::from_secs(30);

const MANIFEST: &str = r#"[[stream]]
name = "bench"
shards = 1

[[function]]
name = "handler"
wasm = "module/handler.wasm"

[[mapping]]
name = "bench"
stream = "bench"
function = "handler"
"#;

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let turns = bench.choose(15, 4);
    let folder = bench.folder()?;
    let dir = folder.path();
    let file = dir.join("module/handler.wasm");
    std::fs::create_dir(dir.join("module"))?;
    let manifest = dir.join("shardmill.toml");
    std::fs::write(&manifest, MANIFEST)?;
    let first = module(0)?;
    std::fs::write(&file, &first)?;
    let process = Process::start(dir, Some(&manifest))?;
    let mut host = Host::connect(process.address())?;
    host.until_done_by(&name(0))?;
    let (mut compiled, mut cached) = (Vec::new(), Vec::new());
    for turn in 0..turns {
        bench.turn("reload", turn, turns);
        let number = turn + 1;
        let new = module(number)?;
        anyhow::ensure!(new.len() >= MODULE_BYTES, "a module of {} bytes", new.len());
        compiled.push(replaced(&mut host, &file, &new, number)?);
        cached.push(replaced(&mut host, &file, &first, 0)?);
    }
    process.stop()?;
    let kib = MODULE_BYTES >> 10;
    bench.add(
        format!("build to first batch, {kib} KiB module"),
        |group, name| Row::new(group, name, Figure::of_spans(compiled)).goal(Goal::AtMost(0.5)),
    );
    bench.add(
        "build to first batch, from the artifact cache",
        |group, name| Row::new(group, name, Figure::of_spans(cached)).goal(Goal::AtMost(0.02)),
    );
    Ok(())
}

/// How long it takes from the end of the rename to a record that is done by the module.
fn replaced(host: &mut Host, file: &Path, wasm: &[u8], number: usize) -> anyhow::Result<Duration> {
    let counter = name(number);
    let before = host.count(&counter)?;
    let new = file.with_extension("new");
    std::fs::write(&new, wasm)?;
    std::fs::rename(&new, file)?;
    let from = Instant::now();
    host.until(&counter, before)?;
    Ok(from.elapsed())
}

/// A client of a host.
struct Host {
    client: Client,
    address: SocketAddr,
    record: Vec<u8>,
}

impl Host {
    fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let data = input::noise(1, 100);
        Ok(Self {
            client: Client::connect(address)?,
            address,
            record: bodies::put_records(STREAM, [("key", &data[..])]),
        })
    }

    fn until_done_by(&mut self, counter: &str) -> anyhow::Result<()> {
        self.until(counter, 0)
    }

    /// Puts a record now and then until the counter has grown.
    fn until(&mut self, counter: &str, before: i64) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.count(counter)? <= before {
            anyhow::ensure!(begun.elapsed() < STALL_LIMIT, "{counter} was never run");
            self.client.call(&self.record)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn count(&mut self, counter: &str) -> anyhow::Result<i64> {
        let path = format!("/_shardmill/counters/handler?prefix={counter}");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        let answer = self.client.call(request.as_bytes())?;
        let answer: Value = serde_json::from_slice(answer).context("counters")?;
        Ok(answer["counters"][0]["value"].as_i64().unwrap_or(0))
    }
}

fn name(number: usize) -> String {
    format!("v{number:03}")
}

/// A record-mode handler that counts under a name of its own, with functions beside it that make
/// it as large as others are.
fn module(number: usize) -> anyhow::Result<Vec<u8>> {
    let name = name(number);
    let mut text = format!(
        r#"(module
            (import "shardmill" "progress" (func $progress (param i32) (result i32)))
            (import "shardmill" "counter_add" (func $add (param i32 i32 i64) (result i32)))
            (memory (export "memory") 17)
            (data (i32.const 16) "SMA1\01\00\00\00\00\00\00\00\00\00\00\00")
            (data (i32.const 64) "{name}")
            (func (export "shardmill_abi_v1") (result i32) (i32.const 1))
            (func (export "shardmill_prepare") (param i32) (result i32) (i32.const 65536))
            (func (export "shardmill_handle") (param $ptr i32) (param $len i32) (result i64)
                (local $i i32)
                (block $done (loop $each
                    (br_if $done (i32.ge_u (local.get $i) (i32.load offset=12 (local.get $ptr))))
                    (drop (call $progress (local.get $i)))
                    (drop (call $add (i32.const 64) (i32.const 4) (i64.const 1)))
                    (local.set $i (i32.add (local.get $i) (i32.const 1)))
                    (br $each)))
                (i64.const 0x0000001000000010))"#
    );
    for filler in 0..MODULE_BYTES.div_ceil(FILLER_BYTES) {
        text.push_str("(func (param $a i64) (result i64) (local $b i64)");
        for step in 0..5 {
            let constant = filler * 31 + step + 0x10_0000;
            text.push_str(&format!(
                "(local.set $b (i64.add (i64.mul (local.get $a) (i64.const {constant})) \
                 (local.get $b)))"
            ));
        }
        text.push_str("(local.get $b))");
    }
    text.push(')');
    wat::parse_str(&text).context("a module")
}
