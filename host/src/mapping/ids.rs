//! Ids of mappings and of their requests: random, or counted where a run must give the same
//! result every time (a guest's randomness is seeded with its mapping's id).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use shardmill_core::TenantId;
use uuid::{Builder, Uuid};

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
                let number = u128::from(tenant.number()) << 64 | u128::from(number);
                Builder::from_random_bytes(number.to_be_bytes()).into_uuid()
            }
        };
        id.to_string()
    }
}
