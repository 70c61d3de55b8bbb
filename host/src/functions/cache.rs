//! What is held in memory of functions: those that ran last, and what names stood for.
//!
//! Nothing is held of a function that nobody invokes, and of the others only so many.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use shardmill_core::Scope;

use super::model::{Function, Loaded};
use super::reference::Qualifier;
use super::route::Route;

/// Versions that are held ready to run.
const MAX_LOADED: usize = 256;
/// Versions of one function among them: reloads leave one behind each.
const MAX_LOADED_OF_ONE: usize = 4;
/// Bytes of wasm of those, together. What is compiled of them takes several times as much.
const MAX_LOADED_BYTES: u64 = 64 << 20;
/// Names whose meaning is held: a few hundred bytes each.
const MAX_ROUTES: usize = 4_096;

/// A scope, a function's name, and the version's number.
type VersionId = (Scope, String, u64);
/// A scope, a function's name, and what of it.
type RouteId = (Scope, String, Option<Qualifier>);

/// Versions and names.
#[derive(Default)]
pub(super) struct Cache {
    /// Grows with every change of a function: what was read before is not put in behind it.
    changes: u64,
    loaded: Recent<VersionId, Arc<Loaded>>,
    /// Those that were dropped and may still be in use.
    in_use: HashMap<VersionId, Weak<Loaded>>,
    routes: Recent<RouteId, Arc<Route>>,
}

impl Cache {
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn loaded(&mut self, scope: &Scope, function: &Function) -> Option<Arc<Loaded>> {
        let id = (scope.clone(), function.name.clone(), function.number());
        // A function that was deleted and made again counts from 1 again.
        let same = |loaded: &&Arc<Loaded>| {
            std::ptr::eq(loaded.function.as_ref(), function) || *loaded.function == *function
        };
        if let Some(held) = self.loaded.get(&id) {
            return Some(held).filter(same).cloned();
        }
        let used = self.in_use.get(&id).and_then(Weak::upgrade);
        used.filter(|used| same(&used))
    }

    /// A module that is held for any version of the scope.
    pub(super) fn with_digest(&self, scope: &Scope, digest: &str) -> Option<Arc<Loaded>> {
        let is = |(id, loaded): &(&VersionId, &Arc<Loaded>)| {
            id.0 == *scope && loaded.module.digest() == digest
        };
        let found = self.loaded.iter().find(is);
        found.map(|(_, loaded)| Arc::clone(loaded))
    }

    pub(super) fn keep(&mut self, scope: &Scope, loaded: &Arc<Loaded>) {
        let function = &loaded.function;
        let id = (scope.clone(), function.name.clone(), function.number());
        self.in_use.remove(&id);
        self.loaded.put(id, Arc::clone(loaded));
        let of_one = |id: &VersionId| id.0 == *scope && id.1 == function.name;
        while self.loaded.iter().filter(|(id, _)| of_one(id)).count() > MAX_LOADED_OF_ONE {
            let dropped = self.loaded.drop_oldest(of_one);
            self.note_dropped(dropped);
        }
        let size = |loaded: &Arc<Loaded>| loaded.function.code_size;
        let mut bytes: u64 = self.loaded.iter().map(|(_, loaded)| size(loaded)).sum();
        while self.loaded.len() > 1 && (self.loaded.len() > MAX_LOADED || bytes > MAX_LOADED_BYTES)
        {
            let dropped = self.loaded.drop_oldest(|_| true);
            bytes -= dropped.as_ref().map_or(0, |(_, gone)| size(gone));
            self.note_dropped(dropped);
        }
    }

    fn note_dropped(&mut self, dropped: Option<(VersionId, Arc<Loaded>)>) {
        self.in_use.retain(|_, loaded| loaded.strong_count() > 0);
        if let Some((id, loaded)) = dropped {
            self.in_use.insert(id, Arc::downgrade(&loaded));
        }
    }

    pub(super) fn route(&mut self, id: &RouteId) -> Option<Arc<Route>> {
        self.routes.get(id).cloned()
    }

    /// Keeps what was read when there had been `changes` changes.
    pub(super) fn keep_route(&mut self, id: RouteId, route: &Arc<Route>, changes: u64) {
        if changes != self.changes {
            return;
        }
        self.routes.put(id, Arc::clone(route));
        while self.routes.len() > MAX_ROUTES {
            self.routes.drop_oldest(|_| true);
        }
    }

    /// Forgets what a function's names stood for.
    pub(super) fn changed(&mut self, scope: &Scope, name: &str) {
        self.changes += 1;
        self.routes.retain(|(of, n, _)| of != scope || n != name);
    }

    /// Forgets a function that is deleted, or one of its versions.
    pub(super) fn gone(&mut self, scope: &Scope, name: &str, version: Option<u64>) {
        self.changed(scope, name);
        let stays = |(of, n, number): &VersionId| {
            of != scope || n != name || version.is_some_and(|version| version != *number)
        };
        self.loaded.retain(stays);
        self.in_use.retain(|id, _| stays(id));
    }
}

/// A map that knows which of its entries was not asked for longest.
struct Recent<K, V> {
    entries: HashMap<K, (V, u64)>,
    clock: u64,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            clock: 0,
        }
    }
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn get(&mut self, key: &K) -> Option<&V> {
        self.clock += 1;
        let (value, used) = self.entries.get_mut(key)?;
        *used = self.clock;
        Some(value)
    }

    fn put(&mut self, key: K, value: V) {
        self.clock += 1;
        self.entries.insert(key, (value, self.clock));
    }

    fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (value, _))| (key, value))
    }

    /// Takes out the one that was not asked for longest among those that `may` go.
    fn drop_oldest(&mut self, may: impl Fn(&K) -> bool) -> Option<(K, V)> {
        let all = self.entries.iter().filter(|(key, _)| may(key));
        let oldest = all.min_by_key(|(_, (_, used))| *used);
        let key = oldest.map(|(key, _)| key.clone())?;
        let (value, _) = self.entries.remove(&key)?;
        Some((key, value))
    }

    fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.entries.retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_longest_goes_first() {
        let mut recent = Recent::default();
        for n in 0..3 {
            recent.put(n, n);
        }
        assert_eq!(recent.get(&0), Some(&0));
        let mut drop_oldest = || recent.drop_oldest(|_| true).map(|(key, _)| key);
        assert_eq!((drop_oldest(), drop_oldest()), (Some(1), Some(2)));
        assert_eq!((drop_oldest(), drop_oldest()), (Some(0), None));
    }
}
