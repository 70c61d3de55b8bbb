//! Whose slice is next: between tenants, then between a tenant's functions, then first come, first
//! served. Both by weight, of what their slices have cost.
//!
//! **A slice costs** what its time is worth in fuel, or its fuel where that is more: making an
//! instance, touching fresh memory and copying a batch burn little fuel, but they hold the core, and
//! a unit of one guest's fuel takes ten times as long as of another's.
//!
//! A tenant with a quota of fuel per second rests when that is burnt, until there is more.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use shardmill_core::TenantId;
use shardmill_core::fair::Fair;
use shardmill_core::quotas::{DEFAULT_WEIGHT, Quotas};
use shardmill_core::sandbox::Owner;
use tokio::time::Instant;

use crate::meter::SLICE_FUEL;

/// What a nanosecond on a core is worth, units of fuel. Guests were measured to burn 2 to 22: at the
/// most that they can, or else who burns quickly would pay more for its time than who burns slowly.
const FUEL_PER_NANO: u64 = 25;

/// The least that a slice costs: what goes before and after it is not in its own time.
const LEAST_COST: u64 = 125_000;

/// Seconds' worth of its quota that a tenant may be in debt at the most. What a slice burns is known
/// when it has ended, and one instruction may copy a gigabyte.
const DEBT_SECONDS: i128 = 10;

/// Tenants without anything to run that are remembered for their functions' sake.
const REMEMBERED_TENANTS: usize = 4_096;

/// What waits for a slice.
pub(crate) struct Schedule<T> {
    shares: Fair<TenantId>,
    tenants: HashMap<TenantId, Tenant<T>>,
    /// Of those that are not as all others.
    bounds: HashMap<TenantId, Bound>,
    weights: HashMap<Arc<Owner>, u32>,
    /// Tenants whose fuel is burnt, by the instant of more.
    resting: BTreeSet<(Instant, TenantId)>,
}

struct Tenant<T> {
    shares: Fair<Arc<Owner>>,
    queues: HashMap<Arc<Owner>, VecDeque<T>>,
    queued: usize,
    running: usize,
    /// Until when it rests.
    resting: Option<Instant>,
}

/// What a tenant may have.
struct Bound {
    weight: u32,
    fuel: Option<Bucket>,
}

/// Fuel that flows in at a rate, at most a second's worth of it.
struct Bucket {
    per_second: u64,
    level: i128,
    at: Instant,
}

/// What is to be done next.
pub(crate) enum Next<T> {
    /// A slice of this one.
    Run(Arc<Owner>, T),
    /// Nothing before this instant; `None`: until something comes.
    Wait(Option<Instant>),
}

/// What a slice took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    /// Units of fuel.
    pub(crate) fuel: u64,
    /// Of the thread.
    pub(crate) ran: Duration,
}

impl Slice {
    fn cost(self) -> u64 {
        let nanos = u64::try_from(self.ran.as_nanos()).unwrap_or(u64::MAX);
        self.fuel
            .max(nanos.saturating_mul(FUEL_PER_NANO))
            .max(LEAST_COST)
    }
}

impl<T> Default for Tenant<T> {
    fn default() -> Self {
        Self {
            shares: Fair::default(),
            queues: HashMap::new(),
            queued: 0,
            running: 0,
            resting: None,
        }
    }
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self {
            shares: Fair::default(),
            tenants: HashMap::new(),
            bounds: HashMap::new(),
            weights: HashMap::new(),
            resting: BTreeSet::new(),
        }
    }
}

impl<T> Schedule<T> {
    /// What a tenant may have from now on.
    pub(crate) fn set_quotas(&mut self, id: TenantId, quotas: &Quotas, now: Instant) {
        let fuel = quotas.fuel_per_second.map(|per_second| Bucket {
            per_second,
            level: i128::from(per_second),
            at: now,
        });
        let weight = quotas.weight;
        if weight == DEFAULT_WEIGHT && fuel.is_none() {
            self.bounds.remove(&id);
        } else {
            let before = self.bounds.insert(id, Bound { weight, fuel });
            // What was burnt stays burnt, at the new rate.
            if let Some(mut old) = before.and_then(|bound| bound.fuel)
                && let Some(new) = self.bounds.get_mut(&id).and_then(|b| b.fuel.as_mut())
            {
                old.flow(now);
                new.level = old.level.min(new.level);
            }
        }
        if self.wake(id) {
            self.want(id);
        }
    }

    /// A function's weight among its tenant's from now on.
    pub(crate) fn set_weight(&mut self, owner: &Arc<Owner>, weight: u32) {
        if weight == DEFAULT_WEIGHT {
            self.weights.remove(owner);
        } else {
            self.weights.insert(Arc::clone(owner), weight);
        }
    }

    /// Puts something behind what its function has waiting.
    pub(crate) fn push(&mut self, owner: Arc<Owner>, item: T) {
        let id = owner.scope.tenant;
        let weight = self.weights.get(&owner).copied();
        let tenant = self.tenants.entry(id).or_default();
        tenant.shares.want(&owner, weight.unwrap_or(DEFAULT_WEIGHT));
        tenant.queues.entry(owner).or_default().push_back(item);
        tenant.queued += 1;
        if tenant.resting.is_none() {
            self.want(id);
        }
    }

    /// What is next; it has to be settled.
    pub(crate) fn pop(&mut self, now: Instant) -> Next<T> {
        while let Some(&(at, id)) = self.resting.first()
            && at <= now
        {
            if self.wake(id) {
                self.want(id);
            } else {
                self.resting.pop_first();
            }
        }
        while let Some(id) = self.shares.next(SLICE_FUEL) {
            let bound = self.bounds.get_mut(&id);
            let dry = bound.and_then(|bound| bound.fuel.as_mut()?.dry_until(now));
            if let Some(until) = dry {
                self.shares.leave(&id);
                self.shares.settle(&id, 0);
                self.resting.insert((until, id));
                if let Some(tenant) = self.tenants.get_mut(&id) {
                    tenant.resting = Some(until);
                }
                continue;
            }
            let next = self.tenants.get_mut(&id).and_then(Tenant::pop);
            if self
                .tenants
                .get(&id)
                .is_none_or(|tenant| tenant.queued == 0)
            {
                self.shares.leave(&id);
            }
            match next {
                Some((owner, item)) => return Next::Run(owner, item),
                None => self.shares.settle(&id, 0),
            }
        }
        Next::Wait(self.resting.first().map(|(at, _)| *at))
    }

    /// What a slice that was popped took.
    pub(crate) fn settle(&mut self, owner: &Arc<Owner>, slice: Slice, now: Instant) {
        let id = owner.scope.tenant;
        self.shares.settle(&id, slice.cost());
        self.burn(id, slice.fuel, now);
        if let Some(tenant) = self.tenants.get_mut(&id) {
            tenant.shares.settle(owner, slice.cost());
            tenant.running -= 1;
        }
    }

    /// What the end of something took that was not popped.
    pub(crate) fn charge(&mut self, owner: &Arc<Owner>, slice: Slice, now: Instant) {
        let id = owner.scope.tenant;
        let weight = self.bounds.get(&id).map_or(DEFAULT_WEIGHT, |b| b.weight);
        self.shares.charge(&id, weight, slice.cost());
        self.burn(id, slice.fuel, now);
        let weight = self.weights.get(owner).copied();
        let tenant = self.tenants.entry(id).or_default();
        let weight = weight.unwrap_or(DEFAULT_WEIGHT);
        tenant.shares.charge(owner, weight, slice.cost());
        self.forget(id);
    }

    /// Until when a tenant's fuel is burnt, if it is.
    pub(crate) fn dry_until(&mut self, id: TenantId, now: Instant) -> Option<Instant> {
        let bucket = self.bounds.get_mut(&id)?.fuel.as_mut()?;
        bucket.dry_until(now)
    }

    fn burn(&mut self, id: TenantId, fuel: u64, now: Instant) {
        let bucket = self.bounds.get_mut(&id).and_then(|b| b.fuel.as_mut());
        if let Some(bucket) = bucket {
            bucket.flow(now);
            let most = DEBT_SECONDS * i128::from(bucket.per_second);
            bucket.level = (bucket.level - i128::from(fuel)).max(-most);
        }
    }

    /// Ends a tenant's rest; whether it rested.
    fn wake(&mut self, id: TenantId) -> bool {
        let tenant = self.tenants.get_mut(&id);
        let rested = tenant.and_then(|tenant| tenant.resting.take());
        rested.is_some_and(|until| self.resting.remove(&(until, id)))
    }

    /// Forgets a tenant that has nothing waiting and nothing running, and no function that is
    /// ahead of the others.
    pub(crate) fn forget(&mut self, id: TenantId) {
        let many = self.tenants.len() > REMEMBERED_TENANTS;
        let gone = |tenant: &Tenant<T>| {
            tenant.queued == 0 && tenant.running == 0 && (many || tenant.shares.is_empty())
        };
        if self.tenants.get(&id).is_some_and(gone) {
            self.wake(id);
            self.tenants.remove(&id);
        }
    }

    /// Takes something out before its turn.
    pub(crate) fn remove(&mut self, owner: &Arc<Owner>, is: impl Fn(&T) -> bool) -> Option<T> {
        let id = owner.scope.tenant;
        let tenant = self.tenants.get_mut(&id)?;
        let queue = tenant.queues.get_mut(owner)?;
        let item = queue.iter().position(is).and_then(|at| queue.remove(at));
        if item.is_some() {
            tenant.queued -= 1;
        }
        if queue.is_empty() {
            tenant.queues.remove(owner);
            tenant.shares.leave(owner);
        }
        if tenant.queued == 0 {
            self.shares.leave(&id);
            self.forget(id);
        }
        item
    }

    /// Whether nothing can be popped now.
    pub(crate) fn is_idle(&self) -> bool {
        self.shares.is_idle()
    }

    /// All that waits.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        let tenants = std::mem::take(&mut self.tenants).into_values();
        let queues = tenants.flat_map(|tenant| tenant.queues.into_values());
        self.shares = Fair::default();
        self.resting.clear();
        queues.flatten().collect()
    }

    fn want(&mut self, id: TenantId) {
        let weight = self.bounds.get(&id).map_or(DEFAULT_WEIGHT, |b| b.weight);
        if self
            .tenants
            .get(&id)
            .is_some_and(|tenant| tenant.queued > 0)
        {
            self.shares.want(&id, weight);
        }
    }
}

impl<T> Tenant<T> {
    fn pop(&mut self) -> Option<(Arc<Owner>, T)> {
        let owner = self.shares.next(SLICE_FUEL)?;
        let queue = self.queues.get_mut(&owner)?;
        let item = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&owner);
            self.shares.leave(&owner);
        }
        self.queued -= 1;
        self.running += 1;
        Some((owner, item))
    }
}

impl Bucket {
    fn flow(&mut self, now: Instant) {
        let span = now.saturating_duration_since(self.at).as_nanos();
        self.at = self.at.max(now);
        let flown = span.saturating_mul(u128::from(self.per_second)) / 1_000_000_000;
        let most = i128::from(self.per_second);
        self.level = most.min(self.level + i128::try_from(flown).unwrap_or(most));
    }

    /// When there is fuel again, if there is none now.
    fn dry_until(&mut self, now: Instant) -> Option<Instant> {
        self.flow(now);
        if self.level > 0 {
            return None;
        }
        let missing = (1 - self.level).unsigned_abs();
        let nanos = missing.saturating_mul(1_000_000_000) / u128::from(self.per_second.max(1)) + 1;
        let span = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // Fuel comes in spoonfuls: waking for each unit would cost more than it is worth.
        let span = span.clamp(Duration::from_millis(1), Duration::from_secs(60));
        Some(now + span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardmill_core::Scope;

    fn owner(tenant: u64, function: &str) -> Arc<Owner> {
        Arc::new(Owner {
            scope: Scope {
                tenant: TenantId::from_number(tenant).expect("a tenant"),
                ..Scope::default()
            },
            function: function.into(),
        })
    }

    /// Runs `turns` slices that cost what `slice` says; what each item got, in units of fuel.
    fn run(
        schedule: &mut Schedule<u32>,
        turns: usize,
        slice: impl Fn(u32) -> Slice,
    ) -> HashMap<u32, u64> {
        let (now, mut had) = (Instant::now(), HashMap::new());
        for _ in 0..turns {
            let Next::Run(owner, item) = schedule.pop(now) else {
                panic!("all of them always want")
            };
            *had.entry(item).or_default() += slice(item).cost();
            schedule.settle(&owner, slice(item), now);
            schedule.push(owner, item);
        }
        had
    }

    fn whole(_: u32) -> Slice {
        Slice {
            fuel: SLICE_FUEL,
            ran: Duration::ZERO,
        }
    }

    #[test]
    fn a_flood_gets_its_tenants_share_and_no_more() {
        let mut schedule = Schedule::default();
        for _ in 0..64 {
            schedule.push(owner(1, "flood"), 1);
        }
        schedule.push(owner(2, "good"), 2);
        schedule.push(owner(3, "good"), 3);
        let had = run(&mut schedule, 3_000, whole);
        for (item, had) in had {
            let due = 1_000 * SLICE_FUEL;
            assert!(
                had.abs_diff(due) <= 2 * SLICE_FUEL,
                "{item} had {had} of {due}"
            );
        }
    }

    #[test]
    fn functions_share_what_their_tenant_gets_by_weight() {
        let mut schedule = Schedule::default();
        schedule.set_weight(&owner(1, "b"), 300);
        schedule.set_quotas(
            TenantId::from_number(2).expect("a tenant"),
            &Quotas {
                weight: 400,
                ..Quotas::default()
            },
            Instant::now(),
        );
        for (tenant, function, item) in [(1, "a", 1), (1, "b", 2), (2, "a", 3)] {
            schedule.push(owner(tenant, function), item);
        }
        let had = run(&mut schedule, 10_000, whole);
        for (item, due) in [(1, 500), (2, 1_500), (3, 8_000)] {
            let due = due * SLICE_FUEL;
            let got = had[&item] as f64 / due as f64;
            assert!((0.99..1.01).contains(&got), "{item} had {got} of its due");
        }
    }

    #[test]
    fn time_that_burns_no_fuel_is_paid_for() {
        let mut schedule = Schedule::default();
        schedule.push(owner(1, "toucher"), 1);
        schedule.push(owner(2, "good"), 2);
        let slice = |item| match item {
            1 => Slice {
                fuel: 100_000,
                ran: Duration::from_millis(30),
            },
            _ => whole(item),
        };
        let had = run(&mut schedule, 10_000, slice);
        assert!(had[&1].abs_diff(had[&2]) <= 2 * slice(1).cost(), "{had:?}");
    }

    #[test]
    fn guests_get_equal_times_however_quickly_they_burn() {
        let mut schedule = Schedule::default();
        schedule.push(owner(1, "quick"), 1);
        schedule.push(owner(2, "slow"), 2);
        let slice = |item| Slice {
            fuel: SLICE_FUEL,
            ran: Duration::from_micros([0, 50, 500][item as usize]),
        };
        let had = run(&mut schedule, 10_000, slice);
        let time = |item| had[&item] / slice(item).cost() * slice(item).ran.as_micros() as u64;
        assert!(
            time(1).abs_diff(time(2)) <= 1_000,
            "{} and {} µs",
            time(1),
            time(2)
        );
    }

    #[test]
    fn burnt_fuel_makes_a_tenant_wait_and_nobody_else() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let quotas = Quotas {
            fuel_per_second: Some(50 * SLICE_FUEL),
            ..Quotas::default()
        };
        schedule.set_quotas(TenantId::from_number(1).expect("a tenant"), &quotas, start);
        schedule.push(owner(1, "f"), 1);
        schedule.push(owner(2, "f"), 2);
        let (mut now, mut slices) = (start, [0; 3]);
        while now < start + Duration::from_secs(10) {
            match schedule.pop(now) {
                Next::Run(owner, item) => {
                    slices[item as usize] += 1;
                    now += Duration::from_micros(100);
                    schedule.settle(&owner, whole(item), now);
                    schedule.push(owner, item);
                }
                Next::Wait(until) => now = until.expect("fuel comes"),
            }
        }
        // The first second's worth may be burnt at once.
        assert!((545..=555).contains(&slices[1]), "{slices:?}");
        assert!(slices[2] > 98_000, "{slices:?}");
    }

    #[test]
    fn nothing_is_kept_of_those_who_are_done() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        for tenant in 1..10_000 {
            schedule.push(owner(tenant, "f"), 7);
            let Next::Run(owner, 7) = schedule.pop(now) else {
                panic!("one waits")
            };
            schedule.settle(&owner, whole(7), now);
            schedule.forget(owner.scope.tenant);
        }
        assert!(schedule.tenants.len() <= REMEMBERED_TENANTS);
    }

    #[test]
    fn fuel_that_flowed_while_a_tenant_did_nothing_is_not_forgotten_by_new_quotas() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let id = TenantId::from_number(1).expect("a tenant");
        let quotas = Quotas {
            fuel_per_second: Some(SLICE_FUEL),
            ..Quotas::default()
        };
        schedule.set_quotas(id, &quotas, start);
        schedule.push(owner(1, "f"), 1);
        let Next::Run(owner, _) = schedule.pop(start) else {
            panic!("one waits")
        };
        let huge = Slice {
            fuel: 1_000 * SLICE_FUEL,
            ran: Duration::ZERO,
        };
        schedule.settle(&owner, huge, start);
        let debt = schedule.dry_until(id, start).expect("burnt") - start;
        assert!(debt <= Duration::from_secs(11), "{debt:?}");
        let later = start + Duration::from_secs(3_600);
        schedule.set_quotas(id, &quotas, later);
        assert_eq!(schedule.dry_until(id, later), None);
    }
}
