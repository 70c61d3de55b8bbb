//! Shares one thing between parties by weight: who has had the least for its weight goes next
//! (start-time fair queueing).
//!
//! Laws, each tested:
//! - Parties that always want are served in proportion to their weights, whatever a turn costs.
//! - A party that comes, or comes back, starts where the least served of the others stands: it
//!   waits for nobody's past, and brings no credit of its own.
//! - A party that leaves after having had more than its share is remembered until the others have
//!   caught up: leaving and coming back gains nothing.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// What parties have had, and which of them want more.
#[derive(Debug)]
pub struct Fair<K> {
    parties: HashMap<K, Party>,
    /// Those that want, the least served first.
    wanting: BTreeSet<(u128, K)>,
    /// Those that want nothing now but have had more than the others.
    ahead: BTreeSet<(u128, K)>,
    /// Where the party stood that had the last turn.
    floor: u128,
}

#[derive(Clone, Copy, Debug)]
struct Party {
    /// Cost of its turns, divided by its weight, in thousandths.
    had: u128,
    weight: u32,
    wants: bool,
}

impl<K> Default for Fair<K> {
    fn default() -> Self {
        Self {
            parties: HashMap::new(),
            wanting: BTreeSet::new(),
            ahead: BTreeSet::new(),
            floor: 0,
        }
    }
}

impl<K: Clone + Ord + Hash> Fair<K> {
    /// The party wants turns from now on. A weight of 0 counts as 1.
    pub fn want(&mut self, key: &K, weight: u32) {
        let floor = self.floor;
        let party = self.parties.entry(key.clone()).or_insert(Party {
            had: floor,
            weight,
            wants: false,
        });
        party.weight = weight.max(1);
        if party.wants {
            return;
        }
        self.ahead.remove(&(party.had, key.clone()));
        party.had = party.had.max(floor);
        party.wants = true;
        self.wanting.insert((party.had, key.clone()));
    }

    /// The party wants no more turns for now.
    pub fn leave(&mut self, key: &K) {
        let Some(party) = self.parties.get_mut(key) else {
            return;
        };
        if std::mem::take(&mut party.wants) {
            self.wanting.remove(&(party.had, key.clone()));
            self.ahead.insert((party.had, key.clone()));
            self.forget();
        }
    }

    /// Whose turn it is: it pays `cost` in advance, and still wants.
    pub fn next(&mut self, cost: u64) -> Option<K> {
        let (had, key) = self.wanting.pop_first()?;
        self.floor = self.floor.max(had);
        if let Some(party) = self.parties.get_mut(&key) {
            party.had = had.saturating_add(share(cost, party.weight));
            self.wanting.insert((party.had, key.clone()));
        }
        self.forget();
        Some(key)
    }

    /// A turn that was paid with `paid` has cost `cost`.
    pub fn settle(&mut self, key: &K, paid: u64, cost: u64) {
        let Some(party) = self.parties.get_mut(key) else {
            return;
        };
        let before = party.had;
        party.had = before
            .saturating_sub(share(paid, party.weight))
            .saturating_add(share(cost, party.weight));
        let set = match party.wants {
            true => &mut self.wanting,
            false => &mut self.ahead,
        };
        set.remove(&(before, key.clone()));
        set.insert((party.had, key.clone()));
    }

    /// Whether nobody wants.
    pub fn is_idle(&self) -> bool {
        self.wanting.is_empty()
    }

    /// Parties that are remembered, wanting or not.
    pub fn len(&self) -> usize {
        self.parties.len()
    }

    /// Whether nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.parties.is_empty()
    }

    /// Drops whoever left and is not ahead any more. Where nobody wants, nobody competes, so nobody
    /// is ahead of anybody.
    fn forget(&mut self) {
        while let Some((had, _)) = self.ahead.first()
            && (*had <= self.floor || self.wanting.is_empty())
            && let Some((_, key)) = self.ahead.pop_first()
        {
            self.parties.remove(&key);
        }
    }
}

fn share(cost: u64, weight: u32) -> u128 {
    u128::from(cost) * 1_000 / u128::from(weight.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves until the turns have cost `until` in all; what each party had.
    fn serve(fair: &mut Fair<u32>, cost: impl Fn(u32) -> u64, until: u64) -> HashMap<u32, u64> {
        let (mut had, mut spent) = (HashMap::new(), 0);
        while spent < until {
            let key = fair.next(1_000).expect("somebody wants");
            fair.settle(&key, 1_000, cost(key));
            *had.entry(key).or_default() += cost(key);
            spent += cost(key);
        }
        had
    }

    #[test]
    fn parties_are_served_by_weight_whatever_a_turn_costs() {
        let mut fair = Fair::default();
        let weights = [(1, 100), (2, 100), (3, 300), (4, 50)];
        for (key, weight) in weights {
            fair.want(&key, weight);
        }
        let cost = |key| [0, 100_000, 1_000_000, 7_000, 3_000_000][key as usize];
        let had = serve(&mut fair, cost, 10_000_000_000);
        for (key, weight) in weights {
            let due = 10_000_000_000.0 * f64::from(weight) / 550.0;
            let got = had[&key] as f64 / due;
            assert!(
                (0.99..1.01).contains(&got),
                "party {key} had {got} of its due"
            );
        }
    }

    #[test]
    fn who_comes_late_goes_next_and_brings_no_credit() {
        let mut fair = Fair::default();
        fair.want(&1, 100);
        serve(&mut fair, |_| 1_000_000, 1_000_000_000);
        fair.want(&2, 100);
        assert_eq!(fair.next(1_000_000), Some(2), "least served");
        let had = serve(&mut fair, |_| 1_000_000, 1_000_000_000);
        assert!(had[&1].abs_diff(had[&2]) <= 2_000_000, "{had:?}");
    }

    #[test]
    fn leaving_and_coming_back_gains_nothing() {
        let mut fair = Fair::default();
        fair.want(&1, 100);
        fair.want(&2, 100);
        let (mut had, mut turns) = ([0u64; 3], 0);
        while turns < 10_000 {
            turns += 1;
            let key = fair.next(1_000).expect("party 1 always wants");
            // Party 2 has turns that cost ten times as much and leaves after each.
            let cost = if key == 2 { 10_000_000 } else { 1_000_000 };
            if key == 2 {
                fair.leave(&2);
            }
            fair.settle(&key, 1_000, cost);
            had[key as usize] += cost;
            fair.want(&2, 100);
        }
        assert!(had[1].abs_diff(had[2]) <= 20_000_000, "{had:?}");
    }

    #[test]
    fn nobody_is_remembered_for_ever() {
        let mut fair = Fair::default();
        for key in 0..10_000u32 {
            fair.want(&key, 100);
            assert!(fair.next(1_000_000).is_some());
            fair.leave(&key);
            fair.settle(&key, 1_000_000, 5_000_000);
        }
        assert!(fair.len() <= 1, "{}", fair.len());
    }
}
