//! What the steps of a plan do to the world.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::mapping::Policy;
use shardmill_core::reshard;
use shardmill_core::{HashKey, Records, Scope, Shard, ShardId, ShardKey, Stream};
use shardmill_store::{Append, Appended, Route, Seek, Store, StreamChange, Trim, Tx};

use super::log::WORLD;
use super::plan::Act;
use super::store::OPERATOR;
use super::world::World;
use crate::functions::FunctionSettings;
use crate::mapping::UpdateMapping;

impl World {
    pub(super) async fn act(&mut self, act: &Act) {
        let scope = Scope::default();
        match act {
            Act::Put(records) => self.put(records.clone()).await,
            Act::Split(nth) => self.split(*nth).await,
            Act::Merge(nth) => self.merge(*nth).await,
            Act::Crash { commits, after } => {
                let mut faults = self.shell.faults.lock().unwrap();
                (faults.crash_at, faults.crash_after) = (*commits, *after);
            }
            Act::Refuse(commits) => {
                let mut faults = self.shell.faults.lock().unwrap();
                faults.refuse = *commits;
                faults.refused.clear();
            }
            Act::Throttle(attempts) => {
                let shards = self.truth.stream().shards.clone();
                let mut seen = self.handler.seen.lock().unwrap();
                seen.throttles = shards.iter().map(|s| (s.id.0, *attempts)).collect();
            }
            Act::Update(policy) => self.update(Some((**policy).clone()), None).await,
            Act::Disable => self.update(None, Some(false)).await,
            Act::Enable => self.update(None, Some(true)).await,
            Act::Resume => {
                let mappings = self.mappings.clone();
                self.or_die(async { mappings.resume(&scope, "m").await.map(|_| ()) })
                    .await;
            }
            Act::Release => {
                let mappings = self.mappings.clone();
                let unpark = async { mappings.unpark(&scope, "m", None).await.map(|_| ()) };
                self.or_die(unpark).await;
            }
            Act::Deploy => {
                let functions = Arc::clone(&self.functions);
                self.handler.seen.lock().unwrap().version += 1;
                let version = self.handler.seen.lock().unwrap().version;
                let mut settings = FunctionSettings::default();
                settings
                    .environment
                    .insert("VERSION".into(), version.to_string());
                let deploy = async {
                    functions
                        .deploy(&scope, "f", Bytes::new(), settings)
                        .await
                        .map(|_| ())
                };
                self.or_die(deploy).await;
            }
            Act::Jump(millis) => {
                self.leapt += millis;
                tokio::time::advance(Duration::from_millis(*millis)).await;
            }
            Act::Trim { shard, percent } => self.trim(*shard, *percent).await,
        }
    }

    /// Waits for an operation, or for the host to die at it. Refused operations are not repeated.
    pub(super) async fn or_die<E: std::fmt::Display>(
        &mut self,
        operation: impl Future<Output = Result<(), E>>,
    ) {
        let died = self.shell.died();
        tokio::select! {
            biased;
            done = OPERATOR.scope((), operation) => {
                if let Err(error) = done {
                    self.log.note(self.clock.now(), WORLD, || format!("refused: {error}"));
                }
                return;
            }
            () = died.cancelled() => {}
        }
        self.restart().await;
    }

    pub(super) async fn update(&mut self, policy: Option<Policy>, enabled: Option<bool>) {
        let mappings = self.mappings.clone();
        let change = UpdateMapping {
            policy,
            enabled,
            ..UpdateMapping::default()
        };
        let scope = Scope::default();
        self.or_die(async { mappings.update(&scope, "m", change).await.map(|_| ()) })
            .await;
    }

    pub(super) fn key(&self, shard: ShardId) -> ShardKey {
        let stream = self.truth.mapping().stream_id;
        ShardKey { stream, shard }
    }

    async fn put(&mut self, numbers: std::ops::Range<usize>) {
        let mut records = Records::default();
        for number in numbers.clone() {
            let planned = &self.plan.records[number];
            let data = format!("{{\"n\":{number},\"keep\":{}}}", planned.kept);
            records.push(&planned.key, planned.hash, data.as_bytes());
        }
        let append = Append {
            stream: self.truth.mapping().stream_id,
            route: Route::HashKey,
            records,
        };
        let appends = vec![append];
        let put = self
            .shell
            .memory
            .commit(Tx {
                appends,
                ..Tx::default()
            })
            .await;
        for (number, place) in numbers.zip(put.expect("put").appended) {
            self.log.note(self.clock.now(), WORLD, || {
                let Appended { shard, first, .. } = place;
                format!(
                    "record {number} is {first} of {shard}: {:?}",
                    self.plan.records[number]
                )
            });
            self.places.insert(number, place);
        }
    }

    async fn split(&mut self, nth: u32) {
        let stream = self.truth.stream();
        let Some(shard) = nth_open(&stream, nth) else {
            return;
        };
        let range = shard.range;
        let middle = HashKey(range.start.0 + (range.end.0 - range.start.0) / 2);
        if let Ok(changed) = reshard::split(&stream, shard.id, middle, self.clock.now()) {
            self.change(changed).await;
        }
    }

    async fn merge(&mut self, nth: u32) {
        let stream = self.truth.stream();
        let Some(one) = nth_open(&stream, nth) else {
            return;
        };
        let mut open = stream.shards.iter().filter(|s| s.is_open());
        let touches = |s: &&Shard| s.range.start.0.checked_sub(1) == Some(one.range.end.0);
        let Some(other) = open.find(touches) else {
            return;
        };
        if let Ok(changed) = reshard::merge(&stream, one.id, other.id, self.clock.now()) {
            self.change(changed).await;
        }
    }

    async fn change(&self, stream: Stream) {
        let streams = vec![StreamChange::Update(Box::new(stream))];
        let changed = self
            .shell
            .memory
            .commit(Tx {
                streams,
                ..Tx::default()
            })
            .await;
        changed.expect("changed");
    }

    async fn trim(&mut self, nth: u32, percent: u32) {
        let stream = self.truth.stream();
        let shard = stream.shards[nth as usize % stream.shards.len()].id;
        let key = self.key(shard);
        let memory = &self.shell.memory;
        let end = memory.seek(key, Seek::Latest).await.expect("a shard");
        let before = 1 + (end - 1) * u64::from(percent) / 100;
        let trims = vec![Trim { shard: key, before }];
        memory
            .commit(Tx {
                trims,
                ..Tx::default()
            })
            .await
            .expect("trimmed");
        let trimmed = self.trimmed.entry(shard).or_default();
        *trimmed = before.max(*trimmed);
    }
}

/// The n-th open shard, unless there are many already.
fn nth_open(stream: &Stream, nth: u32) -> Option<&Shard> {
    let open: Vec<&Shard> = stream.shards.iter().filter(|s| s.is_open()).collect();
    (open.len() < 8).then(|| open[nth as usize % open.len()])
}
