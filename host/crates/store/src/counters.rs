//! Counters: sums under a function's names, and what happens to names beyond the limit.

use std::collections::BTreeMap;

use bytes::Bytes;
use shardmill_core::Scope;
use shardmill_core::limits::{COUNTER_OVERFLOW_NAME, MAX_COUNTER_NAMES};

use crate::decide::Values;
use crate::resolved::Resolved;
use crate::tx::{CounterAdd, Value};
use crate::{Key, ReadError, Table, Versioned};

/// Where a counter is kept: 8 bytes, little-endian.
pub(crate) fn key(scope: &Scope, function: &str, name: &str) -> Key {
    prefix(scope, function).part(name)
}

/// The beginning of the keys of a function's counters.
pub(crate) fn prefix(scope: &Scope, function: &str) -> Key {
    Key::new(Table::Counter, scope).part(function)
}

/// A counter's sum from its value.
pub(crate) fn sum_of(value: &[u8]) -> Result<i64, ReadError> {
    let bytes = value.try_into();
    bytes
        .map(i64::from_le_bytes)
        .map_err(|_| ReadError::Damaged("a counter that is not 8 bytes long".into()))
}

/// The names and sums of a function's counters, by name.
pub(crate) fn named(
    stored: impl IntoIterator<Item = (Key, Versioned)>,
) -> Result<Vec<(String, i64)>, ReadError> {
    let damaged = || ReadError::Damaged("a counter without a name".into());
    let name = |key: &Key| {
        let (_, parts) = key.split()?;
        let name = std::str::from_utf8(parts.last()?).ok()?;
        Some(name.to_owned())
    };
    let mut named = stored
        .into_iter()
        .map(|(key, stored)| Ok((name(&key).ok_or_else(damaged)?, sum_of(&stored.value)?)))
        .collect::<Result<Vec<_>, ReadError>>()?;
    // Keys are ordered by their parts' lengths first.
    named.sort();
    Ok(named)
}

/// Adds, and appends the new sums to the transaction, one per counter.
pub(crate) fn add(
    adds: &[CounterAdd],
    values: &dyn Values,
    resolved: &mut Resolved,
) -> Result<(), ReadError> {
    let mut sums = Sums {
        values,
        sums: BTreeMap::new(),
        names: BTreeMap::new(),
    };
    for add in adds {
        let sum = sums.of(add)?;
        *sum = sum.wrapping_add(add.amount);
    }
    resolved.counter_names = sums.names.into_iter().collect();
    resolved
        .puts
        .extend(sums.sums.into_iter().map(|(key, sum)| {
            let bytes = Bytes::copy_from_slice(&sum.to_le_bytes());
            (key, Value::Inline(bytes))
        }));
    Ok(())
}

struct Sums<'a> {
    values: &'a dyn Values,
    /// What this transaction has touched so far.
    sums: BTreeMap<Key, i64>,
    /// How many names a function has, this transaction's included.
    names: BTreeMap<Key, usize>,
}

impl Sums<'_> {
    fn of(&mut self, add: &CounterAdd) -> Result<&mut i64, ReadError> {
        let mut at = key(&add.scope, &add.function, &add.name);
        let mut sum = self.sum(&at)?;
        if sum.is_none() && &*add.name != COUNTER_OVERFLOW_NAME {
            let function = prefix(&add.scope, &add.function);
            let names = match self.names.get(&function) {
                Some(names) => *names,
                None => self.values.count(&function)?,
            };
            if names < MAX_COUNTER_NAMES {
                self.names.insert(function, names + 1);
            } else {
                self.names.insert(function, names);
                at = key(&add.scope, &add.function, COUNTER_OVERFLOW_NAME);
                sum = self.sum(&at)?;
            }
        }
        Ok(self.sums.entry(at).or_insert(sum.unwrap_or(0)))
    }

    fn sum(&self, at: &Key) -> Result<Option<i64>, ReadError> {
        if let Some(sum) = self.sums.get(at) {
            return Ok(Some(*sum));
        }
        let stored = self.values.get(at)?;
        stored.map(|stored| sum_of(&stored.value)).transpose()
    }
}
