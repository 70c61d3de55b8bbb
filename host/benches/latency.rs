//! From a put to the handler's first instruction, in a host that is otherwise idle: the whole way
//! over HTTP, the sync, the waking of the mapping, and a fresh instance.
//!
//! A record is put with PutRecord, its handler is waited for, and after a pause comes the next.
//! When the handler started is taken from the end of its attempt, less what the attempt ran: a
//! little later than the truth. Limit: the same number of bytes appended to a file of its own and
//! synced with `fdatasync`, once after each put, so that both meet the same disk.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use hdrhistogram::Histogram;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use shardmill_core::Sandbox;
use shardmill_core::sandbox::{BoxFuture, Input, Invocation, LoadError, Module, Report};
use shardmill_sandbox::{SandboxConfig, WasmSandbox};
use shardmill_store::io::{DiskIo, Io as _};

use crate::bench::Bench;
use crate::client::Client;
use crate::figure::Figure;
use crate::guests::NOTHING;
use crate::host::{Host, STREAM, Setup};
use crate::row::{Goal, Row};
use crate::{bodies, input};

/// How long a put may take to reach its handler.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Tells when the handler of each batch started.
struct Stamped {
    sandbox: WasmSandbox,
    started: mpsc::Sender<Instant>,
}

impl Sandbox for Stamped {
    fn load(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        Sandbox::load(&self.sandbox, wasm)
    }

    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        // The dry run of a deploy has no records.
        let is_batch = matches!(&invocation.input, Input::Records(batch) if !batch.is_empty());
        Box::pin(async move {
            let report = Sandbox::invoke(&self.sandbox, invocation).await;
            let now = Instant::now();
            if is_batch && let Some(started) = now.checked_sub(report.usage.duration) {
                let _ = self.started.send(started);
            }
            report
        })
    }
}

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (rounds, puts) = bench.choose((5, 200), (2, 40));
    let folder = bench.folder()?;
    let (started, starts) = mpsc::channel();
    let sandbox = Arc::new(Stamped {
        sandbox: WasmSandbox::new(SandboxConfig::default())?,
        started,
    });
    let setup = Setup {
        shards: 1,
        wasm: wat::parse_str(NOTHING)?.into(),
        batch_size: 100,
        enabled: true,
    };
    let host = Host::start(folder.path(), sandbox, setup)?;
    let raw = DiskIo::new(folder.path().join("raw"))?.create("raw")?;
    let mut client = Client::connect(host.address())?;
    let data = input::noise(1, 1024);
    let put = bodies::put_record(STREAM, "key", &data);
    let mut random = ChaCha8Rng::seed_from_u64(8);
    let mut raw_end = 0;
    let (mut latencies, mut syncs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        bench.turn("put, one at a time", round, rounds);
        let (mut latency, mut sync) = (histogram()?, histogram()?);
        for _ in 0..puts {
            std::thread::sleep(Duration::from_millis(random.random_range(5..20)));
            let put_at = Instant::now();
            client.call(&put)?;
            let start = starts
                .recv_timeout(TIMEOUT)
                .context("the handler did not start")?;
            latency.record(nanos(start.saturating_duration_since(put_at)))?;

            std::thread::sleep(Duration::from_millis(2));
            let sync_at = Instant::now();
            raw.write_at(raw_end, &data)?;
            raw.sync_data()?;
            sync.record(nanos(sync_at.elapsed()))?;
            raw_end += data.len() as u64;
        }
        latencies.push(latency);
        syncs.push(sync);
    }
    host.stop()?;
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let figure = |rounds: &[Histogram<u64>]| {
            let of =
                |round: &Histogram<u64>| Duration::from_nanos(round.value_at_quantile(quantile));
            Figure::of_spans(rounds.iter().map(of))
        };
        bench.add(
            format!("put to handler start, idle, {name}"),
            |group, text| {
                Row::new(group, text, figure(&latencies))
                    .limit("raw append + fdatasync", figure(&syncs))
                    .goal(if name == "p50" {
                        Goal::AboveLimitAtMost(1e-3)
                    } else {
                        Goal::AtMost(10e-3)
                    })
            },
        );
    }
    Ok(())
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new(3)?)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
