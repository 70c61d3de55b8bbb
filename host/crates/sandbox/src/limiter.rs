//! Decides whether a memory or a table may grow, and remembers what it refused: a guest's abort
//! after a refused grow looks like any other trap.

use wasmtime::{ResourceLimiter, Result};

/// Elements of a table. The pool's slots have this size.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 20_000;
/// Tables of one guest: Rust's has one; a component has one more.
pub(crate) const MAX_TABLES: u32 = 4;
/// Memories of one guest: a component may hold two modules with one each.
pub(crate) const MAX_MEMORIES: u32 = 2;
/// Core instances of one component: Python's has 14.
pub(crate) const MAX_CORE_INSTANCES: u32 = 32;

/// One instance's growth.
pub(crate) struct Limiter {
    memory_allowed: usize,
    memory: usize,
    memory_peak: usize,
    refused: Option<Refused>,
}

/// A growth that was refused: bytes of memory, or elements of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) asked: u64,
    pub(crate) allowed: u64,
}

impl Limiter {
    /// `memory_allowed` in bytes.
    pub(crate) fn new(memory_allowed: u64) -> Self {
        let memory_allowed = usize::try_from(memory_allowed).unwrap_or(usize::MAX);
        Self {
            memory_allowed,
            memory: 0,
            memory_peak: 0,
            refused: None,
        }
    }

    /// Highest size of linear memory, all of a guest's together, bytes.
    pub(crate) fn memory_peak(&self) -> u64 {
        self.memory_peak as u64
    }

    /// The last growth that was refused.
    pub(crate) fn refused(&self) -> Option<Refused> {
        self.refused
    }

    fn allow(&mut self, desired: usize, allowed: usize) -> bool {
        let fits = desired <= allowed;
        if !fits {
            self.refused = Some(Refused {
                asked: desired as u64,
                allowed: allowed as u64,
            });
        }
        fits
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        // The limit is of all memories together, a memory's own maximum of it alone.
        let others = self.memory.saturating_sub(current);
        let own = maximum.unwrap_or(usize::MAX).saturating_add(others);
        let fits = self.allow(others.saturating_add(desired), self.memory_allowed.min(own));
        if fits {
            self.memory = others + desired;
            self.memory_peak = self.memory_peak.max(self.memory);
        }
        Ok(fits)
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        Ok(self.allow(
            desired,
            MAX_TABLE_ELEMENTS.min(maximum.unwrap_or(usize::MAX)),
        ))
    }
}
