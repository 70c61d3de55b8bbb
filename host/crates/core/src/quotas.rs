//! What a tenant may use, and how much of what is contended is its due.
//!
//! A quota that is hit costs time, never a record: requests are answered with AWS's throttling
//! error, and mappings wait.

use serde::{Deserialize, Serialize};

/// What one tenant may use at the most. `None`: as much as the host has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Its share of the fuel where tenants compete, 1 … 1,000 against the others' weights.
    /// Default 100.
    pub weight: u32,
    /// Records that its streams hold, bytes of data and partition keys as they are billed by AWS.
    pub stored_bytes: Option<u64>,
    /// Open shards, in all regions.
    pub shards: Option<u32>,
    /// Functions, in all regions.
    pub functions: Option<u32>,
    /// Requests of AWS's APIs and the native one, 1/s; a second's worth may come at once.
    pub requests_per_second: Option<u32>,
    /// Attempts that run at a time.
    pub concurrent_invocations: Option<u32>,
    /// Memory limits of the attempts that run at a time together, bytes.
    pub guest_memory_bytes: Option<u64>,
    /// Fuel of its functions, units/s; a second's worth may be burnt at once.
    pub fuel_per_second: Option<u64>,
}

/// What one function is due among its tenant's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FunctionQuotas {
    /// Its share of its tenant's fuel, 1 … 1,000 against the weights of the tenant's other
    /// functions. Default 100.
    pub weight: u32,
    /// Attempts that run at a time, at the most, and kept for it from what the tenant may have.
    /// `None`: what the others leave. Lambda's `ReservedConcurrentExecutions`.
    pub reserved_concurrency: Option<u32>,
}

impl Default for FunctionQuotas {
    fn default() -> Self {
        Self {
            weight: DEFAULT_WEIGHT,
            reserved_concurrency: None,
        }
    }
}

/// The weight of a tenant, or of a function among its tenant's, that names none.
pub const DEFAULT_WEIGHT: u32 = 100;
/// The most concurrency that a function can reserve: what a host runs at a time.
pub const MAX_RESERVED_CONCURRENCY: u32 = 1_000;
/// The highest weight.
pub const MAX_WEIGHT: u32 = 1_000;

impl Default for Quotas {
    fn default() -> Self {
        Self {
            weight: DEFAULT_WEIGHT,
            stored_bytes: None,
            shards: None,
            functions: None,
            requests_per_second: None,
            concurrent_invocations: None,
            guest_memory_bytes: None,
            fuel_per_second: None,
        }
    }
}
