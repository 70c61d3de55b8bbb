//! Which shards are read now: a shard begins when all its parents have ended, and begins once.
//!
//! Rules: Kinesis Data Streams, "Resharding a stream": whoever wants the records of a partition
//! key in order finishes a shard's parents first.

use std::collections::BTreeSet;

/// A shard as a listing tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) parents: Vec<String>,
    pub(super) open: bool,
}

/// The shards that were begun and those that have ended.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Listed at first, or begun since.
    known: BTreeSet<String>,
    begun: BTreeSet<String>,
    ended: BTreeSet<String>,
}

impl Tree {
    /// Reads all that is kept. Gives the shards to begin with: those without a parent that is
    /// kept.
    pub(super) fn from_oldest(listed: &[Listed]) -> (Self, Vec<String>) {
        let mut tree = Self {
            known: listed.iter().map(|shard| shard.id.clone()).collect(),
            ..Self::default()
        };
        let shards = listed.iter();
        let first = shards.flat_map(|shard| tree.begin(&shard.id, &shard.parents));
        let first = first.collect();
        (tree, first)
    }

    /// Reads what comes from now on. Gives the shards to begin with: the open ones.
    pub(super) fn from_now(listed: &[Listed]) -> (Self, Vec<String>) {
        let open = listed.iter().filter(|shard| shard.open);
        let open: Vec<_> = open.map(|shard| shard.id.clone()).collect();
        let tree = Self {
            known: open.iter().cloned().collect(),
            begun: open.iter().cloned().collect(),
            ended: BTreeSet::new(),
        };
        (tree, open)
    }

    /// A shard was read to its end.
    pub(super) fn end(&mut self, id: &str) {
        self.ended.insert(id.to_owned());
    }

    /// Begins a shard, if it is its turn.
    pub(super) fn begin(&mut self, id: &str, parents: &[String]) -> Option<String> {
        let waits = |parent| self.known.contains(parent) && !self.ended.contains(parent);
        if parents.iter().any(waits) || !self.begun.insert(id.to_owned()) {
            return None;
        }
        self.known.insert(id.to_owned());
        Some(id.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: &str, parents: &[&str], open: bool) -> Listed {
        Listed {
            id: id.into(),
            parents: parents.iter().map(|&parent| parent.into()).collect(),
            open,
        }
    }

    #[test]
    fn a_shard_begins_once_and_after_all_its_parents() {
        // 0 was split into 2 and 3; 3 and 1 were merged into 4; 9 is no longer kept.
        let shards = [
            listed("0", &["9"], false),
            listed("1", &[], false),
            listed("2", &["0"], true),
            listed("3", &["0"], false),
            listed("4", &["3", "1"], true),
        ];
        let (mut tree, first) = Tree::from_oldest(&shards);
        assert_eq!(first, ["0", "1"]);
        let parents = |id: usize| shards[id].parents.clone();
        tree.end("1");
        assert_eq!(tree.begin("4", &parents(4)), None, "3 has not ended");
        tree.end("0");
        assert_eq!(tree.begin("2", &parents(2)), Some("2".into()));
        assert_eq!(tree.begin("3", &parents(3)), Some("3".into()));
        tree.end("3");
        assert_eq!(tree.begin("4", &parents(4)), Some("4".into()));
        tree.end("4");
        assert_eq!(tree.begin("4", &parents(4)), None, "it was begun");
    }

    #[test]
    fn from_now_on_closed_shards_are_past() {
        let shards = [
            listed("0", &[], false),
            listed("1", &[], true),
            listed("2", &["0"], true),
        ];
        let (mut tree, first) = Tree::from_now(&shards);
        assert_eq!(first, ["1", "2"]);
        tree.end("2");
        let parents = ["2".to_owned(), "1".to_owned()];
        assert_eq!(tree.begin("3", &parents), None);
        tree.end("1");
        assert_eq!(tree.begin("3", &parents), Some("3".into()));
    }
}
