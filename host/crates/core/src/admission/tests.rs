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

    fn quotas(&mut self, tenant: u64, quotas: &Quotas) {
        let id = TenantId::from_number(tenant).expect("a tenant");
        let granted = self.admission.set_quotas(id, quotas);
        self.note(granted);
    }
}

#[test]
fn a_tenant_alone_leaves_an_eighth_free_and_newcomers_find_room_at_once() {
    let mut host = Host::new(64, 64);
    let flood = owner(1, "flood");
    for name in 0..100 {
        host.ask(name, &flood, 1);
    }
    assert_eq!(host.granted.len(), 56);
    for tenant in 2..10 {
        host.ask(100 + tenant, &owner(u64::from(tenant), "f"), 1);
        assert!(host.granted.contains(&(100 + tenant)), "tenant {tenant}");
    }
    assert_eq!(host.granted.len(), 64, "the reserve is for newcomers");
    // What the flood gives back goes to those who hold less, until all hold the same.
    for name in 0..20 {
        host.ask(200 + name, &owner(2, "f"), 1);
    }
    for name in 0..6 {
        host.release(name);
    }
    let seconds = host.granted.iter().filter(|n| **n >= 200).count();
    assert_eq!(seconds, 5, "with the one before six, of 56 / 9");
    host.release(6);
    let seconds = host.granted.iter().filter(|n| **n >= 200).count();
    assert_eq!(seconds, 5, "above an equal share the reserve stays free");
}

#[test]
fn who_holds_the_least_for_its_weight_is_next() {
    let mut host = Host::new(8, 8);
    let (light, heavy) = (owner(1, "f"), owner(2, "f"));
    host.quotas(
        2,
        &Quotas {
            weight: 300,
            ..Quotas::default()
        },
    );
    for name in 0..20 {
        host.ask(name, &light, 1);
        host.ask(100 + name, &heavy, 1);
    }
    // Let everything turn over a few times; the shares settle at 1 to 3 of the seven.
    for _ in 0..6 {
        let oldest = host.granted[0];
        host.release(oldest);
    }
    let heavies = host.granted.iter().filter(|n| **n >= 100).count();
    assert_eq!((heavies, host.granted.len()), (5, 7));
}

#[test]
fn small_requests_do_not_pass_a_large_one_of_a_tenant_that_holds_less() {
    let mut host = Host::new(64, 64);
    let (small, large) = (owner(1, "small"), owner(2, "large"));
    for name in 0..100 {
        host.ask(name, &small, 1);
    }
    host.ask(200, &large, 40);
    for name in 0..31 {
        host.release(name);
        assert!(!host.granted.contains(&200));
    }
    host.release(31);
    assert!(host.granted.contains(&200), "its 40 MiB came together");
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
    assert!(matches!(refused, Err(Refusal::Switched)));
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
                5..8 if !host.granted.is_empty() => {
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
        assert_eq!(host.admission.weights, 0, "seed {seed}");
    }
}
