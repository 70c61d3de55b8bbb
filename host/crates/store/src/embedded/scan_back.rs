//! Scanning keys from the last one down: the layers above the tables, and the tables below them.
//! What a layer says of a key hides what is below it, deletions included.

use super::shared::{Shared, State, versioned};
use crate::layer::{Layer, Stored};
use crate::{Key, ReadError, Versioned};

impl Shared {
    pub(super) fn scan_back(
        &self,
        prefix: &Key,
        before: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, ReadError> {
        let end = before.map_or_else(|| prefix.end(), |before| prefix.end().min(before.clone()));
        if end <= *prefix {
            return Ok(Vec::new());
        }
        let (above, snapshot) = {
            let state = self.state();
            let above = above_tables(&state, prefix, &end, limit);
            (above, self.tables.snapshot()?)
        };
        let mut found = Vec::new();
        let mut above = above.into_iter().peekable();
        snapshot.values_back(prefix, &end, |key, stored| {
            while found.len() < limit
                && let Some((key, stored)) = above.next_if(|(above, _)| *above > key)
            {
                found.extend(stored.map(|stored| (key, versioned(stored))));
            }
            if found.len() >= limit {
                return false;
            }
            match above.next_if(|(above, _)| *above == key) {
                Some((_, stored)) => found.extend(stored.map(|stored| (key, versioned(stored)))),
                None => found.push((key, versioned(stored))),
            }
            true
        })?;
        let rest = above.filter_map(|(key, stored)| Some((key, versioned(stored?))));
        found.extend(rest.take(limit.saturating_sub(found.len())));
        Ok(found)
    }
}

/// What the layers say about keys below `end`, the last one first, as far as a scan of `limit`
/// needs it.
fn above_tables(state: &State, start: &Key, end: &Key, limit: usize) -> Vec<(Key, Option<Stored>)> {
    let keys = |layer| Layer::keys_back(layer, start, end).peekable();
    let mut newer = keys(&state.active);
    let mut older = state.frozen.as_deref().map(keys);
    let mut above: Vec<(Key, Option<Stored>)> = Vec::new();
    let mut live = 0;
    while live <= limit {
        let next = match (newer.peek(), older.as_mut().and_then(|older| older.peek())) {
            (Some((new, _)), Some((old, _))) if old > new => {
                older.as_mut().and_then(Iterator::next)
            }
            (None, Some(_)) => older.as_mut().and_then(Iterator::next),
            (Some((new, _)), Some((old, _))) if old == new => {
                older.as_mut().and_then(Iterator::next);
                newer.next()
            }
            _ => newer.next(),
        };
        let Some((key, stored)) = next else { break };
        live += usize::from(stored.is_some());
        above.push((key.clone(), stored.clone()));
    }
    above
}
