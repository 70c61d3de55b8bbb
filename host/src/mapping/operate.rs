//! What a person does to a running mapping: let paused shards and parked keys go on, and move
//! its cursors.

use std::collections::{BTreeMap, BTreeSet};

use shardmill_core::mapping::{Cursor, Position};
use shardmill_core::sequence::Decoded;
use shardmill_core::{Scope, SequenceNumber, ShardId, ShardKey, Stream, UnixMillis};
use shardmill_store::{CommitError, Expect, Key, Seek, Tx, Urgency, Value};

use tokio::sync::{MutexGuard, OwnedRwLockWriteGuard};

use super::failures::Failures;
use super::parked::{ParkedKey, ParkedKeys, Release};
use super::resource::{
    Inner, Mapping, MappingError, Mappings, cursor_key, cursor_prefix, mapping_key,
};
use crate::functions::to_json;

/// Keys that one transaction lets go on.
const RELEASES: usize = 1_000;

/// The epoch of a cursor in the first epoch of its mapping.
const FIRST_EPOCH: u64 = 1;

/// A mapping, and what keeps others off it.
type Guarded<'a> = (
    Mapping,
    (Option<OwnedRwLockWriteGuard<()>>, MutexGuard<'a, ()>),
);

/// Where a mapping's cursors are moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewindTo {
    /// The oldest records.
    TrimHorizon,
    /// Behind the newest records.
    Latest,
    /// The first records that arrived at this instant or later.
    Time(UnixMillis),
    /// This record; the shards that came from its shard begin anew, others stay.
    Sequence(SequenceNumber),
}

/// What happens to keyed state, counters and parked records when cursors are moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RewindOptions {
    /// Deletes the keyed state and the counters of the function, which other mappings may share.
    pub reset_state: bool,
    /// Drops parked records of the shards whose cursors are moved. Those that are not read again
    /// are left in the failure store.
    pub drop_parked: bool,
}

impl Mappings {
    /// Lets paused shards go on: what was given up on is tried again from the start. Those whose
    /// pollers died begin anew, too, and a version that was rolled back is tried once more. Gives
    /// how many shards.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub async fn resume(&self, scope: &Scope, name: &str) -> Result<usize, MappingError> {
        let _control = self.inner.control.lock().await;
        let mapping = self.get(scope, name)?;
        let mut tx = Tx {
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        for (key, stored) in self
            .inner
            .store
            .scan(&cursor_prefix(&mapping), None, usize::MAX)?
        {
            let Ok(mut cursor) = serde_json::from_slice::<Cursor>(&stored.value) else {
                continue;
            };
            if cursor.resume() {
                tx.expect
                    .push(Expect::Revision(key.clone(), Some(stored.revision)));
                tx.writes.push((key, Value::Inline(to_json(&cursor))));
            }
        }
        let resumed = tx.writes.len();
        if resumed > 0 {
            self.inner.store.commit(tx).await?;
        }
        let dead = self.inner.forget_dead(&mapping.id);
        let rollout = self.inner.rollout_of(&mapping)?;
        let again = rollout.resume(&self.inner, &mapping).await?;
        if resumed + dead > 0 || again {
            self.inner.changed(&mapping.id);
        }
        Ok(resumed + dead)
    }

    /// The parked keys of a mapping.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub fn parked(&self, scope: &Scope, name: &str) -> Result<Vec<ParkedKey>, MappingError> {
        let mapping = self.get(scope, name)?;
        Ok(self.inner.parked_of(&mapping)?.list())
    }

    /// Lets parked keys go on, in order: all of them, or the one that is named. Gives how many.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub async fn unpark(
        &self,
        scope: &Scope,
        name: &str,
        key: Option<&str>,
    ) -> Result<usize, MappingError> {
        let _control = self.inner.control.lock().await;
        let mapping = self.get(scope, name)?;
        let parked = self.inner.parked_of(&mapping)?;
        let wanted: Vec<String> = match key {
            None => parked.list().into_iter().map(|key| key.key).collect(),
            Some(key) if parked.get(key).is_none() => {
                return Err(MappingError::NotParked(key.into()));
            }
            Some(key) => vec![key.to_owned()],
        };
        let mut released = Ok(0);
        for chunk in wanted.chunks(RELEASES) {
            match (self.inner.release(&parked, chunk).await, &mut released) {
                (Ok(more), Ok(released)) => *released += more,
                (failed, _) => {
                    released = failed;
                    break;
                }
            }
        }
        // Keys that were let go on before an error do go on.
        parked.tell_releaser();
        self.inner.changed(&mapping.id);
        released
    }

    /// Moves the cursors of a mapping: a new epoch, in which what is running now does not count.
    /// Resetting the state waits until the running batches of the function have ended. Gives the
    /// shards whose cursors were moved.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub async fn rewind(
        &self,
        scope: &Scope,
        name: &str,
        to: RewindTo,
        options: RewindOptions,
    ) -> Result<Vec<ShardId>, MappingError> {
        let (mut mapping, held) = self.hold(scope, name, options.reset_state).await?;
        if mapping.deleting {
            return Err(MappingError::Deleting(mapping.name));
        }
        let stream = self.inner.store.stream_by_id(mapping.stream_id);
        let stream = stream.ok_or_else(|| MappingError::NoStream(mapping.stream.clone()))?;
        let places = self.inner.places(&stream, to).await?;
        let moved: BTreeSet<ShardId> = places.iter().map(|(shard, _)| *shard).collect();
        let moved = matches!(to, RewindTo::Sequence(_)).then_some(&moved);
        let parked = self.inner.parked_of(&mapping)?;
        let alone = parked.alone().await;
        let in_the_way = parked.in_the_way(&self.inner, moved).await?;
        if in_the_way.keys() > 0 && !options.drop_parked {
            let (name, keys) = (mapping.name, in_the_way.keys());
            return Err(MappingError::Parked { name, keys });
        }
        let failures = Failures::of(self);
        let mut entries = Vec::new();
        if options.drop_parked {
            let lost = in_the_way.lost(&self.inner.read_from(&stream, &places).await?);
            let side_log = (parked.as_ref(), &in_the_way);
            entries = failures.keep_lost(&mapping, side_log, lost).await?;
        }
        mapping.epoch += 1;
        mapping.last_modified = self.inner.clock.now();
        let mut tx = Tx {
            expect: vec![Expect::Present(mapping_key(&mapping))],
            writes: vec![(mapping_key(&mapping), Value::Inline(to_json(&mapping)))],
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        for (shard, at) in &places {
            // Whatever stands there: a poller expects the revision of what it has read, so what
            // it commits from now on is refused.
            let cursor = Cursor {
                epoch: FIRST_EPOCH + mapping.epoch,
                ..Cursor::starting_at(*at)
            };
            let key = cursor_key(&mapping, *shard);
            tx.writes.push((key, Value::Inline(to_json(&cursor))));
        }
        if options.drop_parked {
            parked.drop_from(&self.inner, &mut tx, &in_the_way, moved)?;
        }
        if options.reset_state {
            self.inner.reset_state(&mapping, &mut tx)?;
        }
        let marked = failures.commit_unparking(&mapping, tx, &entries).await?;
        if options.drop_parked
            && let Err(error) = parked.dropped(&self.inner)
        {
            let mapping = &mapping.name;
            tracing::warn!(mapping, %error, "the parked keys cannot be read");
        }
        drop(alone);
        self.inner.changed(&mapping.id);
        drop(held);
        if let Err(error) = failures.unpark(&mapping, &entries[marked..]).await {
            let mapping = &mapping.name;
            tracing::warn!(mapping, %error, "failures of dropped records stay marked as parked");
        }
        Ok(places.into_iter().map(|(shard, _)| shard).collect())
    }

    /// A mapping that nobody else changes as long as the guards live. With `idle`, no batch of
    /// its function runs either, nor is one about to be committed.
    async fn hold(
        &self,
        scope: &Scope,
        name: &str,
        idle: bool,
    ) -> Result<Guarded<'_>, MappingError> {
        loop {
            let function = self.get(scope, name)?.function;
            let lock = self.inner.function_lock(scope, &function);
            let alone = match idle {
                true => Some(lock.write_owned().await),
                false => None,
            };
            let control = self.inner.control.lock().await;
            let mapping = self.get(scope, name)?;
            if mapping.function == function {
                return Ok((mapping, (alone, control)));
            }
        }
    }
}

impl Inner {
    /// Marks keys to be let go on. Gives how many are parked still.
    async fn release(&self, parked: &ParkedKeys, names: &[String]) -> Result<usize, MappingError> {
        // Nobody adds to them meanwhile, so there is no conflict but with what is not known yet.
        let _alone = parked.alone().await;
        loop {
            let mut tx = Tx {
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            let mut changed = Vec::new();
            for name in names {
                let Some((mut key, revision)) = parked.get(name) else {
                    continue;
                };
                key.release = Release {
                    releasing: true,
                    ..Release::default()
                };
                parked.expect(&mut tx, name, revision);
                parked.write(&mut tx, name, Some(&key));
                changed.push(key);
            }
            if changed.is_empty() {
                return Ok(0);
            }
            match self.store.commit(tx).await {
                Ok(receipt) => {
                    let released = changed.len();
                    parked.committed(self, changed, receipt.revision);
                    return Ok(released);
                }
                Err(CommitError::Conflict(key)) => parked.refresh(self, &key)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The position in each shard that a place stands for.
    pub(super) async fn places(
        &self,
        stream: &Stream,
        to: RewindTo,
    ) -> Result<Vec<(ShardId, Position)>, MappingError> {
        let key = |shard| ShardKey {
            stream: stream.id,
            shard,
        };
        let mut places = Vec::new();
        let seek = match to {
            RewindTo::TrimHorizon => Seek::TrimHorizon,
            RewindTo::Latest => Seek::Latest,
            RewindTo::Time(at) => Seek::AtTime(at),
            RewindTo::Sequence(number) => {
                let nowhere = || {
                    MappingError::NoSuchPlace(format!(
                        "no record of stream {} has sequence number {number}",
                        stream.name
                    ))
                };
                let Ok(Decoded::Current(fields)) = number.decode() else {
                    return Err(nowhere());
                };
                let shard = stream.shard(ShardId(fields.shard_index));
                let shard = shard.filter(|s| s.created_seconds == fields.created_seconds);
                let shard = shard.ok_or_else(nowhere)?.id;
                let end = self.store.seek(key(shard), Seek::Latest).await?;
                if fields.counter == 0 || fields.counter >= end {
                    return Err(nowhere());
                }
                places.push((shard, Position::of(fields.counter)));
                let mut moved = BTreeSet::from([shard]);
                // Parents stand before their children.
                for child in &stream.shards {
                    if child.parents.iter().any(|parent| moved.contains(parent)) {
                        moved.insert(child.id);
                        places.push((child.id, Position::of(1)));
                    }
                }
                return Ok(places);
            }
        };
        for shard in &stream.shards {
            let at = self.store.seek(key(shard.id), seek).await?;
            places.push((shard.id, Position::of(at)));
        }
        Ok(places)
    }

    /// The record from which on each moved shard is read: nothing before it is there, or wanted.
    async fn read_from(
        &self,
        stream: &Stream,
        places: &[(ShardId, Position)],
    ) -> Result<BTreeMap<ShardId, u64>, MappingError> {
        let mut from = BTreeMap::new();
        for (shard, at) in places {
            let key = ShardKey {
                stream: stream.id,
                shard: *shard,
            };
            let oldest = self.store.seek(key, Seek::TrimHorizon).await?;
            from.insert(*shard, oldest.max(at.record));
        }
        Ok(from)
    }

    /// Deletes the keyed state and the counters of a mapping's function.
    fn reset_state(&self, mapping: &Mapping, tx: &mut Tx) -> Result<(), MappingError> {
        let state = Key::new(shardmill_store::Table::State, &mapping.scope).part(&mapping.function);
        let found = self.store.scan(&state, None, usize::MAX)?;
        tx.writes
            .extend(found.into_iter().map(|(key, _)| (key, Value::Delete)));
        for (name, value) in self.store.counters(&mapping.scope, &mapping.function)? {
            tx.counters.push(shardmill_store::CounterAdd {
                scope: mapping.scope.clone(),
                function: mapping.function.as_str().into(),
                name: name.into(),
                amount: value.wrapping_neg(),
            });
        }
        Ok(())
    }
}
