//! Ids of mappings and of their requests: random, or counted where a run must give the same
//! result every time (a guest's randomness is seeded with its mapping's id).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use shardmill_core::TenantId;
use uuid::{Builder, Uuid};

/// The lowest bit of a tenant's number, of which there are 40, in a counted id. A random UUID keeps
/// bits 76 to 79 for its version, and 62 and 63 for its variant; the tenant stands above both, its
/// number of the id below.
const TENANT_SHIFT: u32 = 80;

/// Where ids come from.
#[derive(Debug, Default)]
pub enum Ids {
    /// Random ones.
    #[default]
    Random,
    /// Each tenant's own numbers, in the form of a random UUID.
    Counted(Numbers),
}

/// Numbers that each tenant gets in order, whatever others get.
#[derive(Debug)]
pub struct Numbers {
    first: u64,
    next: Mutex<HashMap<TenantId, u64>>,
}

impl Numbers {
    /// The numbers from `first` on.
    pub fn from(first: u64) -> Self {
        Self {
            first,
            next: Mutex::default(),
        }
    }

    fn next(&self, tenant: TenantId) -> u64 {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let next = next.entry(tenant).or_insert(self.first);
        *next += 1;
        *next - 1
    }
}

impl Ids {
    /// An id that was not given before.
    pub(super) fn next(&self, tenant: TenantId) -> String {
        let id = match self {
            Self::Random => Uuid::new_v4(),
            Self::Counted(next) => {
                let number = next.next(tenant);
                let number = u128::from(tenant.number()) << TENANT_SHIFT | u128::from(number);
                Builder::from_random_bytes(number.to_be_bytes()).into_uuid()
            }
        };
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Bits of the tenant once stood where the version does: tenants 1 and 4097 had the same ids.
    #[test]
    fn counted_ids_of_all_tenants_and_hosts_differ() {
        let powers = (0..40).flat_map(|bit| [1_u64 << bit, (1 << bit) + 1]);
        let tenants: HashSet<u64> = (0..5_000)
            .chain(powers)
            .filter(|n| *n < 1_000_000_000_000)
            .collect();
        let mut seen = HashSet::new();
        for host in [0_u64, 1, 2, 1_000_000] {
            let ids = Ids::Counted(Numbers::from((host << 40) + 1));
            for tenant in &tenants {
                let tenant = TenantId::from_number(*tenant).expect("a tenant");
                for _ in 0..3 {
                    let id = ids.next(tenant);
                    assert!(seen.insert(id.clone()), "{tenant}: {id} is there already");
                }
            }
        }
    }

    #[test]
    fn counted_ids_of_the_default_tenant_are_its_numbers() {
        let ids = Ids::Counted(Numbers::from((1 << 40) + 1));
        let id = || ids.next(TenantId::DEFAULT);
        assert_eq!(id(), "00000000-0000-4000-8000-010000000001");
        assert_eq!(id(), "00000000-0000-4000-8000-010000000002");
    }
}
