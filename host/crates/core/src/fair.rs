//! Shares one thing between parties by weight: who has had the least for its weight goes next
//! (start-time fair queueing).
//!
//! Laws, each tested:
//! - Parties that always want are served in proportion to their weights, whatever a turn costs, and
//!   however many turns are under way at a time.
//! - A party that comes, or comes back, starts where the least served of the others stands: it
//!   waits for nobody's past, and brings no credit of its own.
//! - A party that leaves after having had more than its share is remembered until the others have
//!   caught up, also when it left in the middle of a turn: leaving and coming back gains nothing.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// Parties that are remembered for having had more than the others, at the most. Beyond it those
/// are forgotten who are the least ahead.
const REMEMBERED: usize = 16_384;

/// What parties have had, and which of them want more.
#[derive(Debug)]
pub struct Fair<K> {
    parties: HashMap<K, Party>,
    /// Those that want, the least served first; of several the one that has waited longest.
    wanting: BTreeSet<(u128, u64, K)>,
    /// Those that want nothing now, have no turn, and have had more than the others.
    ahead: BTreeSet<(u128, K)>,
    /// Where the party stood that had the last turn.
    floor: u128,
    arrivals: u64,
}

#[derive(Clone, Copy, Debug)]
struct Party {
    /// Cost of its turns, divided by its weight, in thousandths.
    had: u128,
    weight: u32,
    /// Its place among those that have had the same; none when it wants nothing.
    wants: Option<u64>,
    /// Turns that are not settled.
    turns: u32,
    /// What was paid for them in advance, part of `had`.
    paid: u128,
}

impl<K> Default for Fair<K> {
    fn default() -> Self {
        Self {
            parties: HashMap::new(),
            wanting: BTreeSet::new(),
            ahead: BTreeSet::new(),
            floor: 0,
            arrivals: 0,
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
            wants: None,
            turns: 0,
            paid: 0,
        });
        party.weight = weight.max(1);
        if party.wants.is_some() {
            return;
        }
        if party.turns == 0 {
            self.ahead.remove(&(party.had, key.clone()));
        }
        party.had = party.had.max(floor);
        self.arrivals += 1;
        party.wants = Some(self.arrivals);
        self.wanting.insert((party.had, self.arrivals, key.clone()));
    }

    /// The party wants no more turns for now.
    pub fn leave(&mut self, key: &K) {
        let Some(party) = self.parties.get_mut(key) else {
            return;
        };
        if let Some(arrival) = party.wants.take() {
            self.wanting.remove(&(party.had, arrival, key.clone()));
            if party.turns == 0 {
                self.ahead.insert((party.had, key.clone()));
                self.forget();
            }
        }
    }

    /// Whose turn it is: it pays `cost` in advance, and still wants. The turn has to be settled.
    pub fn next(&mut self, cost: u64) -> Option<K> {
        let (had, _, key) = self.wanting.pop_first()?;
        self.floor = self.floor.max(had);
        if let Some(party) = self.parties.get_mut(&key) {
            let paid = share(cost, party.weight);
            party.had = had.saturating_add(paid);
            party.paid += paid;
            party.turns += 1;
            self.arrivals += 1;
            party.wants = Some(self.arrivals);
            self.wanting.insert((party.had, self.arrivals, key.clone()));
        }
        self.forget();
        Some(key)
    }

    /// A turn has ended and has cost `cost`.
    pub fn settle(&mut self, key: &K, cost: u64) {
        let Some(party) = self.parties.get_mut(key) else {
            return;
        };
        let paid = party.paid.checked_div(u128::from(party.turns)).unwrap_or(0);
        party.paid -= paid;
        party.turns = party.turns.saturating_sub(1);
        let before = party.had;
        party.had = before.saturating_sub(paid) + share(cost, party.weight);
        match party.wants {
            Some(arrival) => {
                self.wanting.remove(&(before, arrival, key.clone()));
                self.wanting.insert((party.had, arrival, key.clone()));
            }
            None if party.turns == 0 => {
                self.ahead.insert((party.had, key.clone()));
                self.forget();
            }
            None => {}
        }
    }

    /// Something outside its turns has cost the party this much.
    pub fn charge(&mut self, key: &K, weight: u32, cost: u64) {
        let wanted = self
            .parties
            .get(key)
            .is_some_and(|party| party.wants.is_some());
        self.want(key, weight);
        if let Some(party) = self.parties.get_mut(key) {
            party.turns += 1;
        }
        if !wanted {
            self.leave(key);
        }
        self.settle(key, cost);
    }

    /// Whether nobody wants.
    pub fn is_idle(&self) -> bool {
        self.wanting.is_empty()
    }

    /// Whether nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.parties.is_empty()
    }

    /// Drops whoever left and is not ahead any more.
    fn forget(&mut self) {
        while let Some((had, _)) = self.ahead.first()
            && (*had <= self.floor || self.ahead.len() > REMEMBERED)
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
            fair.settle(&key, cost(key));
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
            fair.settle(&key, cost);
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
            fair.settle(&key, 5_000_000);
        }
        // Each came where the last one had begun, so all of them are ahead of whoever comes now.
        assert!(fair.parties.len() <= REMEMBERED);
        for _ in 0..10 {
            fair.want(&0, 100);
            fair.next(1_000_000);
            fair.settle(&0, 5_000_000);
        }
        assert_eq!(
            fair.parties.len(),
            1,
            "they are forgotten as the others catch up"
        );
    }

    /// `threads` serve at a time; party 0 has one turn at a time, which costs 300 times as much as
    /// those of the others, and leaves during each.
    fn with_long_turns(threads: usize, others: u32) -> f64 {
        let mut fair = Fair::default();
        let cost = |key: u32| if key == 0 { 300 } else { 1 };
        for key in 0..=others {
            fair.want(&key, 100);
        }
        let mut running: Vec<(u64, u32)> = Vec::new();
        let (mut now, mut had) = (0, vec![0u64; others as usize + 1]);
        while now < 100_000 {
            while running.len() < threads
                && let Some(key) = fair.next(1)
            {
                fair.leave(&key);
                running.push((now + cost(key), key));
            }
            running.sort_unstable();
            let (at, key) = running.remove(0);
            now = at;
            had[key as usize] += cost(key);
            fair.settle(&key, cost(key));
            fair.want(&key, 100);
        }
        had[0] as f64 / had.iter().sum::<u64>() as f64
    }

    #[test]
    fn a_long_turn_is_paid_for_however_many_turns_end_meanwhile() {
        for (threads, others) in [(1, 10), (2, 20), (2, 100), (4, 20), (8, 40)] {
            let share = with_long_turns(threads, others);
            let due = 1.0 / f64::from(others + 1);
            assert!(
                share < 1.15 * due,
                "{threads} threads, {others} others: {share} of {due}"
            );
        }
    }

    #[test]
    fn who_has_had_the_same_goes_in_the_order_of_coming() {
        let mut fair = Fair::default();
        for key in [7, 3, 9] {
            fair.want(&key, 100);
        }
        let turns: Vec<_> = (0..6).filter_map(|_| fair.next(10)).collect();
        assert_eq!(turns, [7, 3, 9, 7, 3, 9]);
    }
}
