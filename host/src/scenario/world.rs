//! One tenant's side of a host on simulated time: what is put into its streams, and what has become
//! of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use shardmill_core::reshard::Refusal;
use shardmill_core::{Records, Scope, ShardId, ShardKey, Stream, StreamId, StreamName, UnixMillis};
use shardmill_store::{Append, Key, ReadLimit, Route, Store, StreamChange, Table, Tx};
use tokio::sync::watch;

use super::action::NewRecord;
use super::facts::{Facts, RecordFact};
use super::judge::list;
use super::machine::Machine;
use super::simulated::Simulated;
use super::span;
use crate::clock::Clock;
use crate::manifest::{Manifest, Reconciler};
use crate::mapping::{FailureFilter, Fate, Placed, UpdateMapping};
use crate::workloads::Workloads;

/// How long a step has for what is due at once.
pub(super) const SETTLING: Duration = Duration::from_millis(1);
/// Records of one transaction. PutRecords: 500 at most.
const PUT_RECORDS: usize = 500;
/// How often facts are collected that time takes away: twice before records may be trimmed, which
/// is after a day at the earliest.
const COLLECTION: Duration = Duration::from_secs(12 * 3600);
/// Tenants that share a host go on after a drain at whole multiples of this.
const TICK_MS: u64 = 100;

pub(super) struct World {
    clock: Clock,
    store: Arc<dyn Store>,
    sandbox: Arc<Simulated>,
    manifest: Manifest,
    /// Changes with every transaction.
    commits: watch::Receiver<u64>,
    /// What was put into the mapping's stream, in order.
    put: Vec<(Option<String>, Placed)>,
    /// What has become of those, where it is settled.
    settled: Vec<Option<Fate>>,
    /// What handlers have put, by stream.
    emitted: BTreeMap<StreamName, Vec<Emitted>>,
    /// Where each shard is looked at next for those.
    read_to: BTreeMap<ShardKey, u64>,
    /// When facts were collected.
    collected: UnixMillis,
    /// What the hosts before this one have counted.
    counted: Counted,
    /// How much later it is than steps make it, as each takes a moment of its own.
    overrun: Duration,
    /// What was put anywhere.
    own: BTreeSet<(StreamId, ShardId, u64)>,
    /// The host that runs now.
    workloads: Workloads,
    /// Whether others run on the same host.
    among_others: bool,
}

/// A record of a handler.
struct Emitted {
    arrival: UnixMillis,
    shard: ShardId,
    position: u64,
    key: String,
    data: Bytes,
}

/// What a host counts of the mapping.
#[derive(Clone, Copy, Default)]
struct Counted {
    function_errors: u64,
    windows_closed: u64,
}

impl World {
    /// Makes what the manifest names.
    pub(super) async fn start(
        machine: &Machine,
        manifest: Manifest,
        among_others: bool,
    ) -> anyhow::Result<Self> {
        let mut world = Self {
            clock: machine.clock(),
            store: machine.store(),
            sandbox: machine.sandbox(),
            manifest,
            commits: machine.commits(),
            put: Vec::new(),
            settled: Vec::new(),
            emitted: BTreeMap::new(),
            read_to: BTreeMap::new(),
            collected: machine.clock().now(),
            counted: Counted::default(),
            overrun: Duration::ZERO,
            own: BTreeSet::new(),
            workloads: machine.workloads(),
            among_others,
        };
        world.reconcile().await?;
        world.step_over().await;
        Ok(world)
    }

    fn scope(&self) -> &Scope {
        &self.manifest.server.scope
    }

    fn mapping(&self) -> &str {
        &self.manifest.mappings[0].name
    }

    /// Time since the start.
    pub(super) fn elapsed(&self, started: UnixMillis) -> Duration {
        self.clock.now().since(started)
    }

    /// Lets everything happen that is due now.
    async fn settle(&self) {
        tokio::time::sleep(SETTLING).await;
    }

    /// The same behind a step, whose moment this is.
    pub(super) async fn step_over(&mut self) {
        self.settle().await;
        self.overrun += SETTLING;
    }

    /// Lets so much time pass.
    pub(super) async fn wait(&mut self, span: Duration) -> anyhow::Result<()> {
        self.until(self.clock.now().plus(span)).await
    }

    /// Lets time pass until so much of it has since the start. False if more has already, other
    /// than the moments of the steps.
    pub(super) async fn wait_until(&mut self, at: UnixMillis) -> anyhow::Result<bool> {
        let late = self.clock.now().since(at);
        if late.is_zero() {
            self.until(at).await?;
            self.overrun = Duration::ZERO;
        }
        Ok(late <= self.overrun)
    }

    async fn until(&mut self, at: UnixMillis) -> anyhow::Result<()> {
        loop {
            let next = self.collected.plus(COLLECTION);
            if next >= at {
                self.clock.sleep_until(at).await;
                return Ok(());
            }
            self.clock.sleep_until(next).await;
            self.collect().await?;
        }
    }

    async fn reconcile(&mut self) -> anyhow::Result<()> {
        let reconciler = Reconciler {
            store: Arc::clone(&self.store),
            functions: Arc::clone(&self.workloads.functions),
            mappings: self.workloads.mappings.clone(),
            clock: self.clock,
        };
        let summary = reconciler.reconcile(&self.manifest).await;
        match summary.problems.first() {
            None => Ok(()),
            Some(problem) => bail!("{}: {}", problem.item, problem.why),
        }
    }

    /// Puts records that have the same time.
    pub(super) async fn put(
        &mut self,
        stream: &StreamName,
        records: &[NewRecord],
    ) -> anyhow::Result<()> {
        let id = self.store.stream(self.scope(), stream);
        let id = id
            .with_context(|| format!("stream {stream} does not exist"))?
            .id;
        for part in records.chunks(PUT_RECORDS) {
            let mut packed = Records::default();
            for record in part {
                packed.push(&record.key, record.hash_key, &record.data);
            }
            let append = Append {
                stream: id,
                route: Route::HashKey,
                records: packed,
            };
            let tx = Tx {
                appends: vec![append],
                ..Tx::default()
            };
            let receipt = self.store.commit(tx).await?;
            for (record, at) in part.iter().zip(&receipt.appended) {
                self.own.insert((id, at.shard, at.first));
                if *stream == self.manifest.mappings[0].stream {
                    let placed = Placed {
                        shard: at.shard,
                        position: at.first,
                        key: record.key.clone(),
                    };
                    self.put.push((record.name.clone(), placed));
                    self.settled.push(None);
                }
            }
        }
        Ok(())
    }

    /// Lets time pass until no record waits, `limit` at the most.
    pub(super) async fn drain(&mut self, limit: Duration) -> anyhow::Result<()> {
        let deadline = self.clock.now().plus(limit);
        loop {
            self.settle().await;
            self.commits.borrow_and_update();
            let waiting = self.waiting().await?;
            let Some(waiting) = waiting else {
                self.overrun += SETTLING;
                if self.among_others {
                    self.align().await;
                }
                return Ok(());
            };
            if self.clock.now() >= deadline {
                bail!("after {} {waiting}", span::format(limit));
            }
            let next = self.collected.plus(COLLECTION);
            if self.clock.now() >= next {
                self.collect().await?;
                continue;
            }
            let mut commits = self.commits.clone();
            tokio::select! {
                biased;
                changed = commits.changed() => changed.context("the store is gone")?,
                () = self.clock.sleep_until(deadline.min(next)) => {}
            }
        }
    }

    /// Waits for the next tick. Others' commits make it look sooner or later whether records
    /// wait, which must not move what it does next.
    async fn align(&mut self) {
        let now = self.clock.now();
        let next = UnixMillis(now.0.next_multiple_of(TICK_MS));
        self.overrun += next.since(now);
        self.clock.sleep_until(next).await;
    }

    /// What still waits, in words.
    async fn waiting(&mut self) -> anyhow::Result<Option<String>> {
        let mappings = &self.workloads.mappings;
        let view = mappings
            .view(mappings.get(self.scope(), self.mapping())?)
            .await?;
        if let Some(shard) = view.shards.iter().find(|shard| shard.paused.is_some()) {
            let reason = shard.paused.as_deref().unwrap_or_default();
            return Ok(Some(format!("{} is paused: {reason}", shard.shard)));
        }
        let behind: u64 = view.shards.iter().map(|shard| shard.records_behind).sum();
        if behind > 0 {
            return Ok(Some(match behind {
                1 => "1 record waits".into(),
                many => format!("{many} records wait"),
            }));
        }
        let facts = self.records().await?;
        let waiting = facts
            .iter()
            .enumerate()
            .filter(|(_, r)| r.fate == Fate::Waiting);
        let waiting: Vec<String> = waiting
            .map(|(at, _)| format!("record {}", at + 1))
            .collect();
        let listed = list(&waiting, ", ");
        Ok(listed.map(|records| format!("not delivered: {records}")))
    }

    /// Disables or enables the mapping; enabled, its paused shards go on.
    pub(super) async fn enable(&self, enabled: bool) -> anyhow::Result<()> {
        let mappings = &self.workloads.mappings;
        let change = UpdateMapping {
            enabled: Some(enabled),
            ..UpdateMapping::default()
        };
        mappings
            .update(self.scope(), self.mapping(), change)
            .await?;
        if enabled {
            mappings.resume(self.scope(), self.mapping()).await?;
        }
        Ok(())
    }

    /// Deploys another module under the function's settings.
    pub(super) async fn deploy(&mut self, wasm: std::path::PathBuf) -> anyhow::Result<()> {
        self.manifest.functions[0].wasm = wasm;
        // What a step paused stays so.
        self.manifest.mappings[0].enabled = None;
        self.reconcile().await
    }

    /// Gives a stream other shards.
    pub(super) async fn reshard(
        &self,
        stream: &StreamName,
        decide: impl FnOnce(&Stream, UnixMillis) -> Result<Stream, Refusal>,
    ) -> anyhow::Result<()> {
        let old = self.store.stream(self.scope(), stream);
        let old = old.with_context(|| format!("stream {stream} does not exist"))?;
        let new = decide(&old, self.clock.now())?;
        let tx = Tx {
            streams: vec![StreamChange::Update(Box::new(new))],
            ..Tx::default()
        };
        self.store.commit(tx).await?;
        Ok(())
    }

    /// Lets parked keys go on; all of them where none is named.
    pub(super) async fn unpark(&self, keys: &[String]) -> anyhow::Result<()> {
        let mappings = &self.workloads.mappings;
        if keys.is_empty() {
            mappings.unpark(self.scope(), self.mapping(), None).await?;
        }
        for key in keys {
            mappings
                .unpark(self.scope(), self.mapping(), Some(key))
                .await?;
        }
        Ok(())
    }

    /// Takes over what the host counted that has just ended.
    pub(super) async fn note_end(&mut self) -> anyhow::Result<()> {
        self.counted = self.counted().await?;
        Ok(())
    }

    /// Goes on with the host that has just started.
    pub(super) fn go_on(&mut self, machine: &Machine) {
        self.workloads = machine.workloads();
    }

    /// Notes what time takes away: records are trimmed, and with them goes what had become of
    /// them.
    async fn collect(&mut self) -> anyhow::Result<()> {
        self.collected = self.clock.now();
        self.records().await?;
        self.collect_emitted().await
    }

    /// What has become of every record; what is settled stays so.
    async fn records(&mut self) -> anyhow::Result<Vec<RecordFact>> {
        let Workloads {
            mappings, failures, ..
        } = &self.workloads;
        let open: Vec<usize> = (0..self.put.len())
            .filter(|at| self.settled[*at].is_none())
            .collect();
        let placed: Vec<Placed> = open.iter().map(|at| self.put[*at].1.clone()).collect();
        let fates = mappings.fates(self.scope(), self.mapping(), failures, &placed);
        let mut unsettled = BTreeMap::new();
        for (at, fate) in open.into_iter().zip(fates.await?) {
            match fate {
                Fate::Waiting | Fate::Parked => drop(unsettled.insert(at, fate)),
                Fate::Done | Fate::Filtered | Fate::GivenUp { .. } => self.settled[at] = Some(fate),
            }
        }
        let fate = |at: usize| self.settled[at].clone().or_else(|| unsettled.remove(&at));
        let fates: Vec<Option<Fate>> = (0..self.put.len()).map(fate).collect();
        let facts = self.put.iter().zip(fates);
        Ok(facts
            .map(|((name, placed), fate)| RecordFact {
                name: name.clone(),
                key: placed.key.clone(),
                fate: fate.unwrap_or(Fate::Waiting),
            })
            .collect())
    }

    /// What this host and those before it have counted.
    async fn counted(&self) -> anyhow::Result<Counted> {
        let mappings = &self.workloads.mappings;
        let mapping = mappings.get(self.scope(), self.mapping())?;
        let metrics = mappings.view(mapping).await?.metrics;
        let before = self.counted;
        Ok(Counted {
            function_errors: before.function_errors + metrics.failed_invocations,
            windows_closed: before.windows_closed + metrics.windows_closed,
        })
    }

    /// Everything that expectations are judged by, as it is now.
    pub(super) async fn facts(&mut self) -> anyhow::Result<Facts> {
        self.collect().await?;
        let records = self.records().await?;
        let counted = self.counted().await?;
        let Workloads {
            mappings, failures, ..
        } = &self.workloads;
        let function = &self.manifest.functions[0].name;
        let entries = failures.all(self.scope(), &FailureFilter::default())?;
        let parked = mappings.parked(self.scope(), self.mapping())?;
        let counters = self.store.counters(self.scope(), function)?;
        Ok(Facts {
            invocations: self.sandbox.invoked(self.scope().tenant),
            function_errors: counted.function_errors,
            windows_closed: counted.windows_closed,
            records,
            counters: counters.into_iter().collect(),
            state: self.state(function)?,
            emitted: self.emitted(),
            failures: entries,
            parked_keys: parked.into_iter().map(|parked| parked.key).collect(),
        })
    }

    fn state(&self, function: &str) -> anyhow::Result<BTreeMap<(String, String), Bytes>> {
        let prefix = Key::new(Table::State, self.scope()).part(function);
        let mut state = BTreeMap::new();
        for (key, stored) in self.store.scan(&prefix, None, usize::MAX)? {
            let parts = key.split().map(|(_, parts)| parts).unwrap_or_default();
            if let [_, key, name] = parts[..] {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                state.insert((text(key), text(name)), stored.value);
            }
        }
        Ok(state)
    }

    /// Notes what handlers have put since it was noted last.
    async fn collect_emitted(&mut self) -> anyhow::Result<()> {
        let all = ReadLimit {
            records: usize::MAX,
            bytes: usize::MAX,
        };
        for stream in self.store.streams(Some(self.scope())) {
            for shard in &stream.shards {
                let key = ShardKey {
                    stream: stream.id,
                    shard: shard.id,
                };
                let from = self.read_to.get(&key).copied().unwrap_or(1);
                for block in self.store.read(key, from, all).await? {
                    for record in block.iter() {
                        self.read_to.insert(key, record.position + 1);
                        if self.own.contains(&(stream.id, shard.id, record.position)) {
                            continue;
                        }
                        let emitted = Emitted {
                            arrival: record.arrival,
                            shard: shard.id,
                            position: record.position,
                            key: record.parts.key.to_owned(),
                            data: Bytes::copy_from_slice(record.parts.data),
                        };
                        let all = self.emitted.entry(stream.name.clone()).or_default();
                        all.push(emitted);
                    }
                }
            }
        }
        Ok(())
    }

    /// What handlers have put, by stream: in the order of arrival, then of shards.
    fn emitted(&mut self) -> BTreeMap<String, Vec<(String, Bytes)>> {
        let mut found = BTreeMap::new();
        for (stream, emitted) in &mut self.emitted {
            emitted.sort_by_key(|e| (e.arrival, e.shard, e.position));
            let records = emitted.iter().map(|e| (e.key.clone(), e.data.clone()));
            found.insert(stream.to_string(), records.collect());
        }
        found
    }
}
