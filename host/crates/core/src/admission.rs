//! Who may run next: slots and memory of the host's guests, shared between tenants and their
//! functions.
//!
//! An attempt cannot be made to give back what it holds, so fairness is kept where it is taken:
//!
//! - The tenant that holds the least for its weight is next, of slots or memory whichever it holds
//!   more of (dominant resource fairness); of a tenant the function that runs the fewest.
//! - A tenant may hold at most twice what is then left free, by its weight. So one alone gets two
//!   thirds of a host, ten get a twenty-first of it left free between them, and who comes finds
//!   room that those who came before could not take.
//! - A request that does not fit yet is passed only by tenants that would then hold less than it
//!   asks for: flooders never starve a large request, and a large one holds up no small tenant.
//!   One that its own tenant's quota or its own function's reserved concurrency holds back is
//!   passed by all others.
//!
//! Reserved concurrency is AWS's: a function's is its most and its least, taken out of what the
//! tenant's other functions may have (Lambda developer guide, "Configuring reserved concurrency").

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::quotas::{DEFAULT_WEIGHT, Quotas};
use crate::sandbox::Owner;
use crate::tenant::TenantId;

/// How many times what is left free a tenant of the usual weight may hold.
const TIMES_FREE: u128 = 2;

/// Requests that do not fit which are passed when something becomes free.
const PASSED: usize = 64;

/// Slots and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Attempts.
    pub slots: u64,
    /// Memory, bytes.
    pub bytes: u64,
}

impl Amount {
    /// The larger of its parts of `total`, for a weight.
    fn share_of(self, total: Self, weight: u64) -> u64 {
        let part = |held: u64, total: u64| (u128::from(held) << 32) / u128::from(total.max(1));
        let most = part(self.slots, total.slots).max(part(self.bytes, total.bytes));
        u64::try_from(most * 1_000 / u128::from(weight.max(1))).unwrap_or(u64::MAX)
    }
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
    #[error("the function's reserved concurrency is 0: nothing of it runs until it is changed")]
    SwitchedOff,
    /// The tenant may run nothing that is not reserved.
    #[error(
        "the tenant's quota of {quota} concurrent invocations leaves none for functions without \
         reserved concurrency: {reserved} are reserved"
    )]
    NothingLeft {
        /// The tenant's quota, or what the host has.
        quota: u64,
        /// Reserved by its functions.
        reserved: u64,
    },
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
    /// Functions without reserved concurrency that wait: running, oldest request.
    waiting: BTreeSet<(u64, u64, Arc<Owner>)>,
    /// Functions with reserved concurrency that wait and have some of it left.
    waiting_reserved: BTreeSet<(u64, u64, Arc<Owner>)>,
    /// Where it stands in the list of tenants.
    place: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Function<W> {
    running: u64,
    reserved: Option<u64>,
    waiting: VecDeque<(u64, u64, W)>,
    /// Where it stands in its tenant's list, and in which.
    place: Option<(u64, u64, bool)>,
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
            waiting: BTreeSet::new(),
            waiting_reserved: BTreeSet::new(),
            place: None,
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

    /// Puts a function where it belongs among those that wait.
    fn place(&mut self, owner: &Arc<Owner>) {
        let Some(function) = self.functions.get_mut(owner) else {
            return;
        };
        let open = function.reserved.is_none_or(|most| function.running < most);
        let place = function
            .waiting
            .front()
            .filter(|_| open)
            .map(|(number, ..)| (function.running, *number, function.reserved.is_some()));
        if place == function.place {
            return;
        }
        if let Some((running, number, reserved)) = std::mem::replace(&mut function.place, place) {
            let list = [&mut self.waiting, &mut self.waiting_reserved];
            list[usize::from(reserved)].remove(&(running, number, Arc::clone(owner)));
        }
        if let Some((running, number, reserved)) = place {
            let list = [&mut self.waiting, &mut self.waiting_reserved];
            list[usize::from(reserved)].insert((running, number, Arc::clone(owner)));
        }
    }

    /// Which of its functions is next, as far as its own quotas go: the number of the request, and
    /// the memory that it asks for.
    fn first(&self, total: u64) -> Option<(Arc<Owner>, u64, u64)> {
        if self.standing.held.slots >= self.allowed.slots {
            return None;
        }
        let room = self.unreserved < self.unreserved_allowed(total);
        let plain = self.waiting.first().filter(|_| room);
        let mut both = [plain, self.waiting_reserved.first()];
        both.sort_by_key(|first| first.map_or((u64::MAX, u64::MAX), |(r, n, _)| (*r, *n)));
        both.into_iter().flatten().find_map(|(_, number, owner)| {
            let (_, bytes, _) = self.functions.get(owner)?.waiting.front()?;
            let fits = self.standing.held.bytes.saturating_add(*bytes) <= self.allowed.bytes;
            fits.then(|| (Arc::clone(owner), *number, *bytes))
        })
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
            requests: 0,
        }
    }

    /// What nobody holds.
    pub fn free(&self) -> Amount {
        self.free
    }

    /// What a tenant may hold from now on. What it holds already it keeps.
    pub fn set_quotas(&mut self, id: TenantId, quotas: &Quotas) -> Vec<(Claim, W)> {
        let tenant = self.tenants.entry(id).or_insert_with(Tenant::new);
        tenant.weight = u64::from(quotas.weight.max(1));
        tenant.allowed = Amount {
            slots: quotas.concurrent_invocations.map_or(u64::MAX, u64::from),
            bytes: quotas.guest_memory_bytes.unwrap_or(u64::MAX),
        };
        self.place(id);
        self.forget_tenant(id);
        self.grant()
    }

    /// What is reserved for a function from now on; `None`: nothing.
    pub fn set_reserved(&mut self, owner: &Arc<Owner>, most: Option<u32>) -> Vec<(Claim, W)> {
        let id = owner.scope.tenant;
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
        tenant.place(owner);
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
        let reserved = function.and_then(|function| function.reserved);
        if reserved == Some(0) {
            return Err(Refusal::SwitchedOff);
        }
        if let Some(tenant) = tenant
            && reserved.is_none()
            && tenant.unreserved_allowed(total.slots) == 0
        {
            return Err(Refusal::NothingLeft {
                quota: tenant.allowed.slots.min(total.slots),
                reserved: tenant.reserved,
            });
        }
        let number = self.requests;
        self.requests += 1;
        let tenant = self.tenants.entry(id).or_insert_with(Tenant::new);
        let function = tenant.functions.entry(Arc::clone(owner)).or_default();
        function.waiting.push_back((number, bytes, waiter));
        tenant.standing.waiting += 1;
        tenant.place(owner);
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
        let at = function
            .waiting
            .binary_search_by_key(&claim.number, |waiting| waiting.0);
        if at.ok().and_then(|at| function.waiting.remove(at)).is_none() {
            return Vec::new();
        }
        tenant.standing.waiting -= 1;
        tenant.place(&claim.owner);
        self.place(id);
        self.forget(&claim.owner);
        self.grant()
    }

    /// Gives back what was granted.
    pub fn release(&mut self, claim: &Claim) -> Vec<(Claim, W)> {
        let id = claim.owner.scope.tenant;
        self.free.slots += 1;
        self.free.bytes += claim.bytes;
        if let Some(tenant) = self.tenants.get_mut(&id) {
            tenant.standing.held.slots -= 1;
            tenant.standing.held.bytes -= claim.bytes;
            if let Some(function) = tenant.functions.get_mut(&claim.owner) {
                function.running -= 1;
                tenant.unreserved -= u64::from(function.reserved.is_none());
            }
            tenant.place(&claim.owner);
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
        while let Some((id, ask)) = self.next_that_fits() {
            let Some(one) = self.grant_to(id, ask) else {
                return granted;
            };
            granted.push(one);
        }
        granted
    }

    /// The first tenant with a request that there is room for.
    fn next_that_fits(&self) -> Option<(TenantId, Ask)> {
        if self.free.slots == 0 {
            return None;
        }
        // What those who pass may hold then at the most.
        let mut bound = u64::MAX;
        for (share, _, id) in self.next.iter().take(PASSED) {
            if *share >= bound {
                return None;
            }
            let Some(tenant) = self.tenants.get(id) else {
                continue;
            };
            let Some((owner, number, bytes)) = tenant.first(self.total.slots) else {
                continue;
            };
            let then = self.share(tenant, bytes);
            if then > bound {
                continue;
            }
            if self.has_room(tenant, bytes) {
                return Some((
                    *id,
                    Ask {
                        owner,
                        number,
                        bytes,
                    },
                ));
            }
            bound = bound.min(then);
        }
        None
    }

    /// Whether a tenant may take a slot with so much memory.
    fn has_room(&self, tenant: &Tenant<W>, bytes: u64) -> bool {
        let held = tenant.standing.held;
        let (Some(slots), Some(left)) = (
            self.free.slots.checked_sub(1),
            self.free.bytes.checked_sub(bytes),
        ) else {
            return false;
        };
        let may_hold = |then: u64, left: u64| {
            let weight = u128::from(tenant.weight);
            let most = TIMES_FREE * u128::from(left) * weight / u128::from(DEFAULT_WEIGHT);
            u128::from(then) <= most
        };
        // Who holds nothing may have one, if there is one.
        held.slots == 0 || (may_hold(held.slots + 1, slots) && may_hold(held.bytes + bytes, left))
    }

    /// The share that a tenant holds for its weight, once it has one more with so much memory.
    fn share(&self, tenant: &Tenant<W>, bytes: u64) -> u64 {
        let held = tenant.standing.held;
        let then = Amount {
            slots: held.slots + 1,
            bytes: held.bytes.saturating_add(bytes),
        };
        then.share_of(self.total, tenant.weight)
    }

    fn grant_to(&mut self, id: TenantId, ask: Ask) -> Option<(Claim, W)> {
        let Ask {
            owner,
            number,
            bytes,
        } = ask;
        let tenant = self.tenants.get_mut(&id)?;
        let function = tenant.functions.get_mut(&owner)?;
        let (_, _, waiter) = function.waiting.pop_front()?;
        function.running += 1;
        tenant.unreserved += u64::from(function.reserved.is_none());
        tenant.standing.waiting -= 1;
        tenant.standing.held.slots += 1;
        tenant.standing.held.bytes += bytes;
        self.free.slots -= 1;
        self.free.bytes -= bytes;
        tenant.place(&owner);
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
        let Some(tenant) = self.tenants.get(&id) else {
            return;
        };
        let first = tenant.first(self.total.slots);
        let place = first.map(|(_, number, _)| {
            let held = tenant.standing.held;
            (held.share_of(self.total, tenant.weight), number)
        });
        if place == tenant.place {
            return;
        }
        let Some(tenant) = self.tenants.get_mut(&id) else {
            return;
        };
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
        self.forget_tenant(id);
    }

    /// Drops a tenant that runs nothing and has no quotas.
    fn forget_tenant(&mut self, id: TenantId) {
        if self.tenants.get(&id).is_some_and(Tenant::is_plain) {
            self.tenants.remove(&id);
        }
    }
}

/// A request that is next.
struct Ask {
    owner: Arc<Owner>,
    number: u64,
    bytes: u64,
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
