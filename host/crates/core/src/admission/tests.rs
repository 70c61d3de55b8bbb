use super::*;
use crate::tenant::Scope;

const MIB: u64 = 1 << 20;

fn owner(tenant: u64, function: &str) -> Arc<Owner> {
    Arc::new(Owner {
        scope: Scope {
            tenant: TenantId::from_number(tenant).expect("a tenant"),
            ..Scope::default()
        },
        function: function.into(),
    })
}

/// Requests are named by numbers; what was granted is remembered by them.
struct Host {
    admission: Admission<u32>,
    claims: HashMap<u32, Claim>,
    granted: Vec<u32>,
}

impl Host {
    fn new(slots: u64, mib: u64) -> Self {
        let total = Amount {
            slots,
            bytes: mib * MIB,
        };
        Self {
            admission: Admission::new(total),
            claims: HashMap::new(),
            granted: Vec::new(),
        }
    }

    fn ask(&mut self, name: u32, owner: &Arc<Owner>, mib: u64) {
        let asked = self.admission.request(owner, mib * MIB, name);
        let asked = asked.expect("a request that can be granted");
        self.claims.insert(name, asked.claim);
        self.note(asked.granted);
    }

    fn note(&mut self, granted: Vec<(Claim, u32)>) {
        self.granted.extend(granted.iter().map(|(_, name)| name));
    }

    fn release(&mut self, name: u32) {
        assert!(self.granted.contains(&name), "{name} holds nothing");
        self.granted.retain(|n| *n != name);
        let granted = self.admission.release(&self.claims[&name]);
        self.note(granted);
    }

    fn withdraw(&mut self, name: u32) {
        assert!(!self.granted.contains(&name), "{name} waits no more");
        let granted = self.admission.withdraw(&self.claims[&name]);
        self.note(granted);
    }

    /// What is held is what was granted, and nothing waits that could be granted.
    fn check(&self, seed: u64) {
        let admission = &self.admission;
        for (id, tenant) in &admission.tenants {
            let own = self.granted.iter().map(|name| &self.claims[name]);
            let own: Vec<&Claim> = own.filter(|c| c.owner.scope.tenant == *id).collect();
            assert_eq!(own.len() as u64, tenant.standing.held.slots, "seed {seed}");
            let plain = |c: &&&Claim| tenant.functions[&c.owner].reserved.is_none();
            assert_eq!(
                own.iter().filter(plain).count() as u64,
                tenant.unreserved,
                "seed {seed}"
            );
            let reserved: u64 = tenant.functions.values().filter_map(|f| f.reserved).sum();
            assert_eq!(reserved, tenant.reserved, "seed {seed}");
            let waiting: usize = tenant.functions.values().map(|f| f.waiting.len()).sum();
            assert_eq!(waiting as u64, tenant.standing.waiting, "seed {seed}");
        }
        assert!(
            admission.next_that_fits().is_none(),
            "seed {seed}: somebody waits for nothing"
        );
    }

    fn quotas(&mut self, tenant: u64, quotas: &Quotas) {
        let id = TenantId::from_number(tenant).expect("a tenant");
        let granted = self.admission.set_quotas(id, quotas);
        self.note(granted);
    }
}

#[test]
fn who_comes_finds_room_that_a_flood_could_not_take() {
    let mut host = Host::new(96, 96);
    for name in 0..200 {
        host.ask(name, &owner(1, "flood"), 1);
    }
    assert_eq!(host.granted.len(), 64, "two thirds");
    for name in 0..200 {
        host.ask(1_000 + name, &owner(2, "flood"), 1);
    }
    let second = host.granted.iter().filter(|n| **n >= 1_000).count();
    assert_eq!(second, 21, "twice what it leaves free");
    for tenant in 3..14 {
        host.ask(10_000 + tenant, &owner(u64::from(tenant), "f"), 1);
        assert!(host.granted.contains(&(10_000 + tenant)), "tenant {tenant}");
    }
    // What the first gives back goes to those who hold less.
    for name in 0..20 {
        host.release(name);
    }
    let first = host.granted.iter().filter(|n| **n < 1_000).count();
    assert_eq!(first, 44, "nothing for who holds the most");
}

#[test]
fn who_holds_the_least_for_its_weight_is_next() {
    let mut host = Host::new(28, 28);
    let (light, heavy) = (owner(1, "f"), owner(2, "f"));
    let quotas = Quotas {
        weight: 300,
        ..Quotas::default()
    };
    host.quotas(2, &quotas);
    for name in 0..200 {
        host.ask(name, &light, 1);
        host.ask(1_000 + name, &heavy, 1);
    }
    // Let everything turn over a few times.
    for _ in 0..60 {
        let oldest = host.granted[0];
        host.release(oldest);
    }
    let heavies = host.granted.iter().filter(|n| **n >= 1_000).count();
    let lights = host.granted.len() - heavies;
    assert!(
        (5..=7).contains(&lights) && (17..=21).contains(&heavies),
        "{lights} to {heavies}"
    );
}

#[test]
fn a_flood_does_not_pass_a_large_request() {
    let mut host = Host::new(64, 64);
    for name in 0..200 {
        host.ask(name, &owner(1, "small"), 1);
    }
    assert_eq!(host.granted.len(), 42);
    host.ask(1_000, &owner(2, "large"), 32);
    for name in 0..9 {
        host.release(name);
        assert!(!host.granted.contains(&1_000));
    }
    host.release(9);
    assert!(host.granted.contains(&1_000), "its 32 MiB came together");
}

#[test]
fn large_requests_that_do_not_fit_hold_up_no_small_tenant() {
    let mut host = Host::new(64, 64);
    for name in 0..100 {
        host.ask(name, &owner(1, "sleep"), 1);
    }
    for name in 100..110 {
        host.ask(name, &owner(2, "large"), 60);
    }
    for tenant in 3..20 {
        host.ask(1_000 + tenant, &owner(u64::from(tenant), "f"), 1);
        assert!(host.granted.contains(&(1_000 + tenant)), "tenant {tenant}");
    }
}

#[test]
fn a_quota_holds_back_its_tenant_alone() {
    let mut host = Host::new(64, 640);
    host.quotas(
        1,
        &Quotas {
            concurrent_invocations: Some(2),
            guest_memory_bytes: Some(30 * MIB),
            ..Quotas::default()
        },
    );
    let (bound, free) = (owner(1, "f"), owner(2, "f"));
    for name in 0..4 {
        host.ask(name, &bound, 10);
        host.ask(100 + name, &free, 10);
    }
    assert_eq!(host.granted, [0, 100, 1, 101, 102, 103]);
    assert_eq!(host.admission.standing(bound.scope.tenant).held_back, 2);
    host.release(0);
    assert!(host.granted.contains(&2));
    host.withdraw(3);
    host.release(1);
    host.ask(4, &bound, 25);
    assert!(!host.granted.contains(&4), "35 of 30 MiB");
    host.release(2);
    assert!(host.granted.contains(&4));
    let refused = host.admission.request(&bound, 31 * MIB, 9);
    assert!(matches!(refused, Err(Refusal::AboveQuota { .. })));
    let refused = host.admission.request(&free, 641 * MIB, 9);
    assert!(matches!(refused, Err(Refusal::AboveBudget { .. })));
}

#[test]
fn reserved_concurrency_is_the_most_and_the_least_of_a_function() {
    let mut host = Host::new(64, 640);
    host.quotas(
        1,
        &Quotas {
            concurrent_invocations: Some(10),
            ..Quotas::default()
        },
    );
    let (reserved, other) = (owner(1, "reserved"), owner(1, "other"));
    assert!(host.admission.set_reserved(&reserved, Some(3)).is_empty());
    for name in 0..20 {
        host.ask(name, &other, 1);
    }
    assert_eq!(
        host.granted.len(),
        7,
        "three are kept for the other function"
    );
    for name in 100..105 {
        host.ask(name, &reserved, 1);
    }
    assert_eq!(host.granted.len(), 10, "and no more than three");
    let granted = host.admission.set_reserved(&reserved, None);
    host.note(granted);
    assert_eq!(host.granted.len(), 10, "the quota is used up");
    host.release(100);
    host.release(101);
    assert_eq!(host.granted.len(), 10);
    host.admission.set_reserved(&reserved, Some(0));
    let refused = host.admission.request(&reserved, 1, 9);
    assert!(matches!(refused, Err(Refusal::SwitchedOff)));
}

#[test]
fn whatever_happens_the_sums_are_right_and_nobody_is_forgotten() {
    for seed in 0..200u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut host = Host::new(1 + random(12), 16 + random(64));
        let mut waiting: Vec<u32> = Vec::new();
        for name in 0..600u32 {
            match random(10) {
                0..5 => {
                    let owner = owner(1 + random(4), ["a", "b"][random(2) as usize]);
                    let bytes = (1 + random(16)) * MIB;
                    if let Ok(asked) = host.admission.request(&owner, bytes, name) {
                        host.claims.insert(name, asked.claim);
                        waiting.push(name);
                        host.note(asked.granted);
                    }
                }
                5 if !waiting.is_empty() => {
                    let at = random(waiting.len() as u64) as usize;
                    host.withdraw(waiting.swap_remove(at));
                }
                6 | 7 if !host.granted.is_empty() => {
                    let at = random(host.granted.len() as u64) as usize;
                    host.release(host.granted[at]);
                }
                8 => {
                    let reserved = [None, Some(0), Some(1), Some(3)][random(4) as usize];
                    let owner = owner(1 + random(4), "a");
                    let granted = host.admission.set_reserved(&owner, reserved);
                    host.note(granted);
                }
                _ => {
                    let quotas = Quotas {
                        weight: 1 + random(300) as u32,
                        concurrent_invocations: (random(2) == 0).then(|| 1 + random(6) as u32),
                        guest_memory_bytes: (random(2) == 0).then(|| (16 + random(32)) * MIB),
                        ..Quotas::default()
                    };
                    host.quotas(1 + random(4), &quotas);
                }
            }
            waiting.retain(|name| !host.granted.contains(name));
            host.check(seed);
            let held: u64 = host.granted.iter().map(|n| host.claims[n].bytes).sum();
            let free = host.admission.free();
            assert_eq!(free.bytes + held, host.admission.total.bytes, "seed {seed}");
            let slots = free.slots + host.granted.len() as u64;
            assert_eq!(slots, host.admission.total.slots, "seed {seed}");
        }
        // With all bounds gone, everything that waits gets its turn.
        for tenant in 1..5 {
            host.quotas(tenant, &Quotas::default());
            let granted = host.admission.set_reserved(&owner(tenant, "a"), None);
            host.note(granted);
        }
        while let Some(name) = host.granted.first() {
            host.release(*name);
        }
        let left: u64 = host.admission.standings().map(|(_, s)| s.waiting).sum();
        assert_eq!(left, 0, "seed {seed}");
        assert!(
            host.admission.tenants.is_empty(),
            "seed {seed}: nobody is remembered"
        );
    }
}
