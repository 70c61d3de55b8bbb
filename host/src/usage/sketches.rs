//! The keys of all functions, in bounded memory: who is not run any more makes room for who is.
//!
//! A tenant has at most [`FUNCTIONS_OF_A_TENANT`]; beyond [`MAX_BYTES`] the tenant that holds the
//! most gives up the function that was not run for the longest. So nobody's functions push out
//! those of a tenant that holds less.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use shardmill_core::sandbox::{Owner, Report};
use shardmill_core::{Batch, TenantId};

use super::held;
use super::keys::Keys;

/// Functions of a tenant whose partition keys are estimated at a time.
const FUNCTIONS_OF_A_TENANT: usize = 64;
/// What all estimates may take together, bytes.
const MAX_BYTES: usize = 16 << 20;
/// What a function takes beside its keys, bytes.
const FUNCTION_BYTES: usize = 512;

/// The keys of functions.
#[derive(Default)]
pub(super) struct Sketches {
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    functions: HashMap<Arc<Owner>, Sketch>,
    tenants: HashMap<TenantId, Tenant>,
    /// Who holds the most comes last.
    by_bytes: BTreeSet<(usize, TenantId)>,
    bytes: usize,
    /// Counts attempts.
    turn: u64,
}

struct Sketch {
    /// Has a lock of its own, as what is done below it takes a while.
    keys: Arc<Mutex<Keys>>,
    bytes: usize,
    /// When it was run last.
    turn: u64,
}

#[derive(Default)]
struct Tenant {
    bytes: usize,
    /// Its functions, by when they were run last.
    by_turn: BTreeMap<u64, Arc<Owner>>,
}

impl Sketches {
    /// Notes which keys an attempt in record mode burnt its fuel for.
    pub(super) fn note(&self, owner: &Arc<Owner>, batch: &Batch, report: &Report) {
        if report.record_fuel.is_empty() {
            return;
        }
        let keys = held(&self.all).touch(owner);
        let mut own = held(&keys);
        own.note(batch, &report.record_fuel, report.usage.fuel);
        let bytes = FUNCTION_BYTES + own.bytes();
        drop(own);
        held(&self.all).settle(owner, &keys, bytes);
    }

    /// See [`Keys::top`].
    pub(super) fn top(&self, owner: &Owner, count: usize) -> Vec<(String, u64, u64)> {
        let keys = held(&self.all)
            .functions
            .get(owner)
            .map(|sketch| Arc::clone(&sketch.keys));
        keys.map_or_else(Vec::new, |keys| held(&keys).top(count))
    }
}

impl All {
    /// The function's keys, which are now the last that were asked for.
    fn touch(&mut self, owner: &Arc<Owner>) -> Arc<Mutex<Keys>> {
        self.turn += 1;
        let tenant = self.tenants.entry(owner.scope.tenant).or_default();
        if let Some(sketch) = self.functions.get_mut(owner) {
            tenant.by_turn.remove(&sketch.turn);
            tenant.by_turn.insert(self.turn, Arc::clone(owner));
            sketch.turn = self.turn;
            return Arc::clone(&sketch.keys);
        }
        if tenant.by_turn.len() >= FUNCTIONS_OF_A_TENANT {
            self.forget_oldest(owner.scope.tenant);
        }
        let tenant = self.tenants.entry(owner.scope.tenant).or_default();
        tenant.by_turn.insert(self.turn, Arc::clone(owner));
        let keys = Arc::<Mutex<Keys>>::default();
        let sketch = Sketch {
            keys: Arc::clone(&keys),
            bytes: 0,
            turn: self.turn,
        };
        self.functions.insert(Arc::clone(owner), sketch);
        keys
    }

    /// Takes over how much the function's keys take now, and keeps to the bound.
    fn settle(&mut self, owner: &Arc<Owner>, keys: &Arc<Mutex<Keys>>, bytes: usize) {
        let Some(sketch) = self.functions.get_mut(owner) else {
            return;
        };
        // It may have been forgotten and made anew meanwhile.
        if !Arc::ptr_eq(&sketch.keys, keys) {
            return;
        }
        let before = std::mem::replace(&mut sketch.bytes, bytes);
        self.weigh(owner.scope.tenant, before, bytes);
        while self.bytes > MAX_BYTES
            && let Some((_, tenant)) = self.by_bytes.last().copied()
        {
            self.forget_oldest(tenant);
        }
    }

    fn weigh(&mut self, id: TenantId, before: usize, after: usize) {
        let tenant = self.tenants.entry(id).or_default();
        self.by_bytes.remove(&(tenant.bytes, id));
        tenant.bytes = tenant.bytes - before + after;
        self.bytes = self.bytes - before + after;
        if tenant.by_turn.is_empty() {
            self.tenants.remove(&id);
        } else {
            self.by_bytes.insert((tenant.bytes, id));
        }
    }

    fn forget_oldest(&mut self, id: TenantId) {
        let tenant = self.tenants.entry(id).or_default();
        let oldest = tenant.by_turn.pop_first();
        let sketch = oldest.and_then(|(_, owner)| self.functions.remove(&owner));
        self.weigh(id, sketch.map_or(0, |sketch| sketch.bytes), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::ledger::tests::{batch, owner, report};

    fn note(sketches: &Sketches, owner: &Arc<Owner>, attempts: usize) {
        let names: Vec<String> = (0..128).map(|n| format!("{n:0>200}")).collect();
        let batch = batch(&names);
        let mut report = report(128_000);
        report.record_fuel = (0..128).map(|n| n * 1_000).collect();
        for _ in 0..attempts {
            sketches.note(owner, &batch, &report);
        }
    }

    fn is_kept(sketches: &Sketches, owner: &Arc<Owner>) -> bool {
        !sketches.top(owner, 1).is_empty()
    }

    fn checked(sketches: &Sketches) -> usize {
        let all = held(&sketches.all);
        let by_function: usize = all.functions.values().map(|sketch| sketch.bytes).sum();
        let by_tenant: usize = all.tenants.values().map(|tenant| tenant.bytes).sum();
        let indexed: usize = all.by_bytes.iter().map(|(bytes, _)| bytes).sum();
        assert_eq!(
            [all.bytes, by_tenant, indexed],
            [by_function; 3],
            "the sums agree"
        );
        all.bytes
    }

    #[test]
    fn a_tenant_with_many_functions_pushes_out_its_own_only() {
        let sketches = Sketches::default();
        let modest = owner(1, "modest");
        note(&sketches, &modest, 1);
        for n in 0..1_000 {
            note(&sketches, &owner(2, &format!("f{n}")), 1);
            if n % 10 == 0 {
                note(&sketches, &owner(2, "busy"), 1);
            }
        }
        assert!(is_kept(&sketches, &modest));
        assert!(is_kept(&sketches, &owner(2, "busy")), "it is still run");
        assert!(is_kept(&sketches, &owner(2, "f999")));
        assert!(!is_kept(&sketches, &owner(2, "f900")));
        let all = held(&sketches.all).functions.len();
        assert_eq!(all, 1 + FUNCTIONS_OF_A_TENANT);
        checked(&sketches);
    }

    #[test]
    fn all_of_them_keep_to_the_bound_of_bytes_and_who_holds_most_gives_way() {
        let sketches = Sketches::default();
        let modest = owner(1, "modest");
        note(&sketches, &modest, 4);
        for tenant in 2..12 {
            for n in 0..FUNCTIONS_OF_A_TENANT {
                note(&sketches, &owner(tenant, &format!("f{n}")), 4);
                assert!(checked(&sketches) <= MAX_BYTES);
            }
        }
        assert!(checked(&sketches) > MAX_BYTES / 2, "the bound was reached");
        assert!(is_kept(&sketches, &modest));
        for tenant in 2..12 {
            let last = owner(tenant, &format!("f{}", FUNCTIONS_OF_A_TENANT - 1));
            assert!(is_kept(&sketches, &last), "tenant {tenant}");
        }
    }
}
