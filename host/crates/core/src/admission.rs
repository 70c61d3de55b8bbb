//! Who may run next: slots and memory of the host's guests, shared between tenants and their
//! functions.
//!
//! An attempt cannot be made to give back what it holds, so fairness is kept where it is taken:
//!
//! - The tenant that holds the least for its weight is next, of slots or memory whichever it holds
//!   more of (dominant resource fairness); of a tenant the function that runs the fewest.
//! - An eighth of both stays free for tenants that hold less than an equal share of the rest: who
//!   comes finds room, whatever the others hold.
//! - A request that does not fit yet is not passed by requests of tenants that hold more: small
//!   ones never starve a large one. One that its own tenant's quota or its own function's
//!   reserved concurrency holds back is passed by all others.
//!
//! Reserved concurrency is AWS's: a function's is its most and its least, taken out of what the
//! tenant's other functions may have (Lambda developer guide, "Configuring reserved concurrency").

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::quotas::{DEFAULT_WEIGHT, Quotas};
use crate::sandbox::Owner;
use crate::tenant::TenantId;

/// What part of slots and memory stays free for tenants that hold little.
const RESERVE: u64 = 8;

/// Slots and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Attempts.
    pub slots: u64,
    /// Memory, bytes.
    pub bytes: u64,
}

/// Why a request can never be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More memory than there is for guests.
    #[error(
        "the function's memory limit of {asked} bytes is above the sandbox's budget of {allowed} bytes"
    )]
    AboveBudget {
        /// What the function may use, bytes.
        asked: u64,
        /// What there is, bytes.
        allowed: u64,
    },
    /// More memory than the tenant may have.
    #[error(
        "the function's memory limit of {asked} bytes is above its tenant's quota of {allowed} bytes"
    )]
    AboveQuota {
        /// What the function may use, bytes.
        asked: u64,
        /// What the tenant may use, bytes.
        allowed: u64,
    },
    /// The function's reserved concurrency is 0.
    #[error("the function's reserved concurrency is 0")]
    Switched,
}

/// A request that waits, or what it was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    owner: Arc<Owner>,
    bytes: u64,
    number: u64,
}

/// What one tenant holds and waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What its attempts hold.
    pub held: Amount,
    /// Attempts that wait.
    pub waiting: u64,
    /// Requests that its own quotas or a reserved concurrency made wait.
    pub held_back: u64,
}

/// Hands out slots and memory. `W` is what is given back when a request is granted.
#[derive(Debug)]
pub struct Admission<W> {
    total: Amount,
    free: Amount,
    tenants: BTreeMap<TenantId, Tenant<W>>,
    /// Tenants with a request that nothing of their own holds back: share held, oldest request.
    next: BTreeSet<(u64, u64, TenantId)>,
    /// Of the tenants that hold or wait.
    weights: u64,
    requests: u64,
}

#[derive(Debug)]
struct Tenant<W> {
    weight: u64,
    allowed: Amount,
    standing: Standing,
    /// What its functions without reserved concurrency hold.
    unreserved: u64,
    /// Reserved by its functions together.
    reserved: u64,
    functions: HashMap<Arc<Owner>, Function<W>>,
    /// Functions with a request that their own limits do not hold back: running, oldest request.
    next: BTreeSet<(u64, u64, Arc<Owner>)>,
    /// Where it stands in the list of tenants.
    place: Option<(u64, u64)>,
    active: bool,
}

#[derive(Debug)]
struct Function<W> {
    running: u64,
    reserved: Option<u64>,
    waiting: VecDeque<(u64, u64, W)>,
    place: Option<(u64, u64)>,
}

impl<W> Default for Function<W> {
    fn default() -> Self {
        Self {
            running: 0,
            reserved: None,
            waiting: VecDeque::new(),
            place: None,
        }
    }
}

impl<W> Tenant<W> {
    fn new() -> Self {
        Self {
            weight: u64::from(DEFAULT_WEIGHT),
            allowed: Amount {
                slots: u64::MAX,
                bytes: u64::MAX,
            },
            standing: Standing::default(),
            unreserved: 0,
            reserved: 0,
            functions: HashMap::new(),
            next: BTreeSet::new(),
            place: None,
            active: false,
        }
    }

    /// Whether there is nothing to remember of it.
    fn is_plain(&self) -> bool {
        let Amount { slots, bytes } = self.allowed;
        let unbounded = slots == u64::MAX && bytes == u64::MAX;
        unbounded && self.weight == u64::from(DEFAULT_WEIGHT) && self.functions.is_empty()
    }

    /// What its functions without reserved concurrency may hold together.
    fn unreserved_allowed(&self, total: u64) -> u64 {
        self.allowed.slots.min(total).saturating_sub(self.reserved)
    }

    /// Puts a function where it belongs among those that may go next, or takes it out.
    fn place(&mut self, owner: &Arc<Owner>, total: u64) {
        let room = self.unreserved < self.unreserved_allowed(total);
        let Some(function) = self.functions.get_mut(owner) else {
            return;
        };
        let open = function
            .reserved
            .map_or(room, |most| function.running < most);
        let place = function
            .waiting
            .front()
            .filter(|_| open)
            .map(|(number, ..)| (function.running, *number));
        if place == function.place {
            return;
        }
        if let Some((running, number)) = function.place {
            self.next.remove(&(running, number, Arc::clone(owner)));
        }
        function.place = place;
        if let Some((running, number)) = place {
            self.next.insert((running, number, Arc::clone(owner)));
        }
    }

    /// The same for all functions without reserved concurrency, when their common room changed.
    fn place_unreserved(&mut self, total: u64) {
        let all = self.functions.iter();
        let waiting = all.filter(|(_, f)| f.reserved.is_none() && !f.waiting.is_empty());
        for owner in waiting
            .map(|(owner, _)| Arc::clone(owner))
            .collect::<Vec<_>>()
        {
            self.place(&owner, total);
        }
    }
}

impl<W> Admission<W> {
    /// Over this much.
    pub fn new(total: Amount) -> Self {
        Self {
            total,
            free: total,
            tenants: BTreeMap::new(),
            next: BTreeSet::new(),
            weights: 0,
            requests: 0,
        }
    }

    /// What nobody holds.
    pub fn free(&self) -> Amount {
        self.free
    }

    /// What a tenant may hold from now on. What it holds already it keeps.
    pub fn set_quotas(&mut self, id: TenantId, quotas: &Quotas) -> Vec<(Claim, W)> {
        let total = self.total.slots;
        let tenant = self.tenants.entry(id).or_insert_with(Tenant::new);
        let weight = u64::from(quotas.weight.max(1));
        if tenant.active {
            self.weights = self.weights - tenant.weight + weight;
        }
        tenant.weight = weight;
        tenant.allowed = Amount {
            slots: quotas.concurrent_invocations.map_or(u64::MAX, u64::from),
            bytes: quotas.guest_memory_bytes.unwrap_or(u64::MAX),
        };
        tenant.place_unreserved(total);
        self.place(id);
        self.grant()
    }

    /// What is reserved for a function from now on; `None`: nothing.
    pub fn set_reserved(&mut self, owner: &Arc<Owner>, most: Option<u32>) -> Vec<(Claim, W)> {
        let (id, total) = (owner.scope.tenant, self.total.slots);
        let tenant = self.tenants.entry(id).or_insert_with(Tenant::new);
        let function = tenant.functions.entry(Arc::clone(owner)).or_default();
        let most = most.map(u64::from);
        let before = std::mem::replace(&mut function.reserved, most);
        let running = function.running;
        tenant.reserved = tenant.reserved - before.unwrap_or(0) + most.unwrap_or(0);
        match (before, most) {
            (None, Some(_)) => tenant.unreserved -= running,
            (Some(_), None) => tenant.unreserved += running,
            _ => {}
        }
        tenant.place(owner, total);
        tenant.place_unreserved(total);
        self.place(id);
        self.forget(owner);
        self.grant()
    }

    /// Asks for a slot and memory for one attempt.
    ///
    /// # Errors
    /// It could never be granted.
    pub fn request(
        &mut self,
        owner: &Arc<Owner>,
        bytes: u64,
        waiter: W,
    ) -> Result<Asked<W>, Refusal> {
        let (id, total) = (owner.scope.tenant, self.total);
        let tenant = self.tenants.get(&id);
        let function = tenant.and_then(|t| t.functions.get(owner));
        let allowed = tenant.map_or(u64::MAX, |t| t.allowed.bytes);
        if bytes > total.bytes {
            let allowed = total.bytes;
            return Err(Refusal::AboveBudget {
                asked: bytes,
                allowed,
            });
        }
        if bytes > allowed {
            return Err(Refusal::AboveQuota {
                asked: bytes,
                allowed,
            });
        }
        if function.is_some_and(|f| f.reserved == Some(0)) {
            return Err(Refusal::Switched);
        }
        let number = self.requests;
        self.requests += 1;
        let tenant = self.tenants.entry(id).or_insert_with(Tenant::new);
        let function = tenant.functions.entry(Arc::clone(owner)).or_default();
        function.waiting.push_back((number, bytes, waiter));
        tenant.standing.waiting += 1;
        tenant.place(owner, total.slots);
        self.place(id);
        if let Some(tenant) = self.tenants.get_mut(&id) {
            let stopped = tenant
                .functions
                .get(owner)
                .is_some_and(|f| f.place.is_none());
            if stopped || tenant.place.is_none() {
                tenant.standing.held_back += 1;
            }
        }
        Ok(Asked {
            claim: Claim {
                owner: Arc::clone(owner),
                bytes,
                number,
            },
            granted: self.grant(),
        })
    }

    /// Takes a request back that was not granted. Those that it held up may be granted now.
    pub fn withdraw(&mut self, claim: &Claim) -> Vec<(Claim, W)> {
        let id = claim.owner.scope.tenant;
        let Some(tenant) = self.tenants.get_mut(&id) else {
            return Vec::new();
        };
        let Some(function) = tenant.functions.get_mut(&claim.owner) else {
            return Vec::new();
        };
        let at = function.waiting.iter().position(|w| w.0 == claim.number);
        if at.and_then(|at| function.waiting.remove(at)).is_none() {
            return Vec::new();
        }
        tenant.standing.waiting -= 1;
        tenant.place(&claim.owner, self.total.slots);
        self.place(id);
        self.forget(&claim.owner);
        self.grant()
    }

    /// Gives back what was granted.
    pub fn release(&mut self, claim: &Claim) -> Vec<(Claim, W)> {
        let (id, total) = (claim.owner.scope.tenant, self.total.slots);
        self.free.slots += 1;
        self.free.bytes += claim.bytes;
        if let Some(tenant) = self.tenants.get_mut(&id) {
            tenant.standing.held.slots -= 1;
            tenant.standing.held.bytes -= claim.bytes;
            let mut full = false;
            if let Some(function) = tenant.functions.get_mut(&claim.owner) {
                function.running -= 1;
                if function.reserved.is_none() {
                    full = tenant.unreserved >= tenant.unreserved_allowed(total);
                    tenant.unreserved -= 1;
                }
            }
            tenant.place(&claim.owner, total);
            if full {
                tenant.place_unreserved(total);
            }
        }
        self.place(id);
        self.forget(&claim.owner);
        self.grant()
    }

    /// What a tenant holds and waits for.
    pub fn standing(&self, id: TenantId) -> Standing {
        self.tenants
            .get(&id)
            .map_or_else(Standing::default, |t| t.standing)
    }

    /// The same of all that are remembered: who holds, waits, or has quotas.
    pub fn standings(&self) -> impl Iterator<Item = (TenantId, Standing)> {
        self.tenants
            .iter()
            .map(|(id, tenant)| (*id, tenant.standing))
    }

    /// Grants what can be granted, in order.
    fn grant(&mut self) -> Vec<(Claim, W)> {
        let mut granted = Vec::new();
        while let Some(&(_, _, id)) = self.next.first()
            && let Some((claim, waiter)) = self.grant_to(id)
        {
            granted.push((claim, waiter));
        }
        granted
    }

    /// Grants the first request of a tenant, if there is room for it.
    fn grant_to(&mut self, id: TenantId) -> Option<(Claim, W)> {
        let (total, free, weights) = (self.total, self.free, self.weights.max(1));
        let tenant = self.tenants.get_mut(&id)?;
        let (_, _, owner) = tenant.next.first()?;
        let owner = Arc::clone(owner);
        let function = tenant.functions.get_mut(&owner)?;
        let (number, bytes, _) = function.waiting.front()?;
        let (number, bytes) = (*number, *bytes);
        let after = Amount {
            slots: free.slots.checked_sub(1)?,
            bytes: free.bytes.checked_sub(bytes)?,
        };
        let held = &tenant.standing.held;
        // More than an equal share leaves the reserve alone; who has nothing may always have one.
        let open = |total: u64, after: u64, mine: u64| {
            let reserve = total / RESERVE;
            let due = u128::from(total - reserve) * u128::from(tenant.weight) / u128::from(weights);
            after >= reserve || u128::from(mine) <= due
        };
        let fits = held.slots == 0
            || (open(total.slots, after.slots, held.slots + 1)
                && open(total.bytes, after.bytes, held.bytes + bytes));
        if !fits {
            return None;
        }
        let (_, _, waiter) = function.waiting.pop_front()?;
        function.running += 1;
        if function.reserved.is_none() {
            tenant.unreserved += 1;
        }
        tenant.standing.waiting -= 1;
        tenant.standing.held.slots += 1;
        tenant.standing.held.bytes += bytes;
        self.free = after;
        let full = tenant.unreserved >= tenant.unreserved_allowed(total.slots);
        tenant.place(&owner, total.slots);
        if full {
            tenant.place_unreserved(total.slots);
        }
        self.place(id);
        let claim = Claim {
            owner,
            bytes,
            number,
        };
        Some((claim, waiter))
    }

    /// Puts a tenant where it belongs among those that may go next, or takes it out.
    fn place(&mut self, id: TenantId) {
        let total = self.total;
        let Some(tenant) = self.tenants.get_mut(&id) else {
            return;
        };
        let active = tenant.standing.held.slots > 0 || tenant.standing.waiting > 0;
        match (tenant.active, active) {
            (false, true) => self.weights += tenant.weight,
            (true, false) => self.weights -= tenant.weight,
            _ => {}
        }
        tenant.active = active;
        let held = tenant.standing.held;
        let first = tenant.next.first().filter(|(_, _, owner)| {
            let head = tenant.functions.get(owner).and_then(|f| f.waiting.front());
            let bytes = head.map_or(0, |(_, bytes, _)| *bytes);
            held.slots < tenant.allowed.slots && held.bytes + bytes <= tenant.allowed.bytes
        });
        let place = first.map(|(_, number, _)| {
            let part = |held: u64, total: u64| (u128::from(held) << 32) / u128::from(total.max(1));
            let most = part(held.slots, total.slots).max(part(held.bytes, total.bytes));
            ((most * 1_000 / u128::from(tenant.weight)) as u64, *number)
        });
        if place == tenant.place {
            return;
        }
        if let Some((share, number)) = std::mem::replace(&mut tenant.place, place) {
            self.next.remove(&(share, number, id));
        }
        if let Some((share, number)) = place {
            self.next.insert((share, number, id));
        }
    }

    /// Drops what need not be remembered of a function, and of its tenant.
    fn forget(&mut self, owner: &Arc<Owner>) {
        let id = owner.scope.tenant;
        let Some(tenant) = self.tenants.get_mut(&id) else {
            return;
        };
        let idle = |f: &Function<W>| f.running == 0 && f.waiting.is_empty() && f.reserved.is_none();
        if tenant.functions.get(owner).is_some_and(idle) {
            tenant.functions.remove(owner);
        }
        if tenant.is_plain() && tenant.standing.held_back == 0 {
            self.tenants.remove(&id);
        }
    }
}

/// What came of a request.
#[derive(Debug)]
pub struct Asked<W> {
    /// The request, to be withdrawn or released by.
    pub claim: Claim,
    /// What was granted meanwhile: this request, if there is room.
    pub granted: Vec<(Claim, W)>,
}

#[cfg(test)]
mod tests;
