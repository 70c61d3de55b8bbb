//! What a person does to a running mapping: let paused shards and parked keys go on, and move
//! its cursors.

use std::collections::BTreeSet;

use shardmill_core::mapping::{Cursor, Position};
use shardmill_core::sequence::Decoded;
use shardmill_core::{Scope, SequenceNumber, ShardId, ShardKey, Stream, UnixMillis};
use shardmill_store::{CommitError, Expect, Key, Seek, Tx, Urgency, Value};

use super::parked::{ParkedKey, Release};
use super::resource::{
    Inner, Mapping, MappingError, Mappings, cursor_key, cursor_prefix, mapping_key,
};
use crate::functions::to_json;

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
    /// Drops parked records.
    pub drop_parked: bool,
}

impl Mappings {
    /// Lets paused shards go on: what was given up on is tried again from the start.
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
            self.inner.changed();
        }
        Ok(resumed)
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
        let wanted: Vec<ParkedKey> = match key {
            None => parked.list(),
            Some(key) => match parked.get(key) {
                Some((found, _)) => vec![found],
                None => return Err(MappingError::NotParked(key.into())),
            },
        };
        let mut released = Ok(0);
        for key in wanted {
            match self.inner.release(&mapping, &key.key).await {
                Ok(now) => released = released.map(|n| n + usize::from(now)),
                Err(error) => {
                    released = Err(error);
                    break;
                }
            }
        }
        // Keys that were let go on before an error do go on.
        self.inner.changed();
        released
    }

    /// Moves the cursors of a mapping: a new epoch, in which what is running now does not count.
    /// Gives the shards whose cursors were moved.
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
        let _control = self.inner.control.lock().await;
        let mut mapping = self.get(scope, name)?;
        if mapping.deleting {
            return Err(MappingError::Deleting(mapping.name));
        }
        let parked = self.inner.parked_of(&mapping)?;
        let keys = parked.list().len();
        if keys > 0 && !options.drop_parked {
            let name = mapping.name;
            return Err(MappingError::Parked { name, keys });
        }
        let stream = self.inner.store.stream_by_id(mapping.stream_id);
        let stream = stream.ok_or_else(|| MappingError::NoStream(mapping.stream.clone()))?;
        let places = self.inner.places(&stream, to).await?;
        mapping.epoch += 1;
        mapping.last_modified = self.inner.clock.now();
        // A poller may commit between the read of its cursor and this: then look again.
        loop {
            let mut tx = Tx {
                expect: vec![Expect::Present(mapping_key(&mapping))],
                writes: vec![(mapping_key(&mapping), Value::Inline(to_json(&mapping)))],
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            for (shard, at) in &places {
                self.inner.move_cursor(&mut tx, &mapping, *shard, *at)?;
            }
            if options.drop_parked {
                parked.delete_all(&self.inner, &mut tx)?;
            }
            if options.reset_state {
                self.inner.reset_state(&mapping, &mut tx)?;
            }
            match self.inner.store.commit(tx).await {
                Ok(_) => break,
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        parked.reload(&self.inner)?;
        self.inner.changed();
        Ok(places.into_iter().map(|(shard, _)| shard).collect())
    }
}

impl Inner {
    /// Marks a key to be let go on. `false`: it is not parked any more.
    async fn release(&self, mapping: &Mapping, name: &str) -> Result<bool, MappingError> {
        let parked = self.parked_of(mapping)?;
        while let Some((mut key, revision)) = parked.get(name) {
            key.release = Release {
                releasing: true,
                ..Release::default()
            };
            let mut tx = Tx {
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            parked.expect(&mut tx, name, revision);
            parked.write(&mut tx, name, Some(&key));
            match self.store.commit(tx).await {
                Ok(receipt) => {
                    parked.settled(name, Some(key), receipt.revision);
                    return Ok(true);
                }
                Err(CommitError::Conflict(_)) => parked.reload(self)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
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

    fn move_cursor(
        &self,
        tx: &mut Tx,
        mapping: &Mapping,
        shard: ShardId,
        at: Position,
    ) -> Result<(), MappingError> {
        let key = cursor_key(mapping, shard);
        let stored = self.store.get(&key)?;
        let before = stored
            .as_ref()
            .and_then(|v| serde_json::from_slice::<Cursor>(&v.value).ok());
        let cursor = before.map_or_else(|| Cursor::starting_at(at), |c| c.moved_to(at));
        tx.expect
            .push(Expect::Revision(key.clone(), stored.map(|v| v.revision)));
        tx.writes.push((key, Value::Inline(to_json(&cursor))));
        Ok(())
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
