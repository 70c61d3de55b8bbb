//! What the host keeps beside a running guest, and the two things every host call does with it:
//! charge fuel and find bytes in the guest's memory.
//!
//! **The ledger.** Setting a store's fuel restarts the count to its next yield, so a guest that
//! calls the host often would never yield if each call did it. Prices are therefore noted beside
//! the store and settled from time to time; a call that the rest of the fuel does not cover ends
//! the attempt, as does an end with less fuel left than was noted. When a settled slice is
//! overdue all the same, the yield interval is halved until the guest yields.

use std::sync::Arc;

use shardmill_core::sandbox::StateView;
use wasmtime::{AsContextMut, Caller, Error, Extern, Memory, Result, StoreContextMut, Trap};

use crate::effects::EffectBuffer;
use crate::limiter::Limiter;
use crate::meter::{SLICE_FUEL, Signals};
use crate::output::Output;
use crate::trap::Stop;
use crate::wasi::Wasi;

/// Prices that may stand unsettled, units of fuel: a tenth of a slice.
const SETTLE_FUEL: u64 = SLICE_FUEL / 10;

/// A store's data.
pub(crate) struct Guest {
    pub(crate) signals: Arc<Signals>,
    pub(crate) limiter: Limiter,
    pub(crate) ledger: Ledger,
    pub(crate) effects: EffectBuffer,
    pub(crate) state: Arc<dyn StateView>,
    pub(crate) output: Output,
    pub(crate) wasi: Wasi,
    /// The guest's memory, once a host call has looked for it.
    pub(crate) memory: Option<Memory>,
}

/// Prices of host calls that the store has not been charged yet.
#[derive(Default)]
pub(crate) struct Ledger {
    allowed: u64,
    unsettled: u64,
    /// What was left of the fuel when each record became current, in record mode.
    marks: Vec<u64>,
    slice: u64,
    slice_start: u64,
    interval: u64,
}

impl Ledger {
    /// Fuel noted here but not taken from the store.
    pub(crate) fn unsettled(&self) -> u64 {
        self.unsettled
    }

    /// That of an attempt that may burn so much.
    pub(crate) fn new(allowed: u64) -> Self {
        Self {
            allowed,
            ..Self::default()
        }
    }

    /// Fuel that was burnt when each record became current.
    pub(crate) fn take_marks(&mut self) -> Vec<u64> {
        let mut marks = std::mem::take(&mut self.marks);
        for mark in &mut marks {
            *mark = self.allowed.saturating_sub(*mark);
        }
        marks
    }

    /// The yield interval after a settlement that leaves `left`.
    fn next_interval(&mut self, slice: u64, left: u64) -> u64 {
        if slice != self.slice {
            (self.slice, self.slice_start, self.interval) = (slice, left, SLICE_FUEL);
        } else if self.slice_start.saturating_sub(left) >= SLICE_FUEL {
            self.interval = (self.interval / 2).max(1);
        }
        self.interval
    }
}

/// Takes the price of a host call, before it acts.
///
/// # Errors
/// [`Stop::OutOfFuel`].
pub(crate) fn charge(mut caller: impl AsContextMut<Data = Guest>, price: u64) -> Result<()> {
    let mut store = caller.as_context_mut();
    let left = store.get_fuel()?;
    let guest = store.data_mut();
    guest.ledger.unsettled = guest.ledger.unsettled.saturating_add(price);
    if guest.ledger.unsettled > left {
        return Err(Stop::OutOfFuel.into());
    }
    if guest.ledger.unsettled >= SETTLE_FUEL {
        return settle(store, left);
    }
    Ok(())
}

/// Tells the invoker what the guest has burnt, before it goes to sleep.
pub(crate) fn tell_burnt(mut caller: impl AsContextMut<Data = Guest>) -> Result<()> {
    let store = caller.as_context_mut();
    let left = store.get_fuel()?;
    let Guest {
        signals, ledger, ..
    } = store.data();
    let left = left.saturating_sub(ledger.unsettled);
    signals.spent(ledger.allowed.saturating_sub(left));
    Ok(())
}

/// Notes that a record has become current.
pub(crate) fn mark(mut caller: impl AsContextMut<Data = Guest>) -> Result<()> {
    let mut store = caller.as_context_mut();
    let left = store.get_fuel()?;
    let ledger = &mut store.data_mut().ledger;
    ledger.marks.push(left.saturating_sub(ledger.unsettled));
    Ok(())
}

fn settle(mut store: StoreContextMut<'_, Guest>, left: u64) -> Result<()> {
    let guest = store.data_mut();
    let left = left - std::mem::take(&mut guest.ledger.unsettled);
    let before = guest.ledger.interval;
    let interval = guest.ledger.next_interval(guest.signals.slice(), left);
    if interval != before {
        store.fuel_async_yield_interval(Some(interval))?;
    }
    store.set_fuel(left)
}

/// The guest's memory.
///
/// # Errors
/// A trap when it exports none.
pub(crate) fn memory(caller: &mut Caller<'_, Guest>) -> Result<Memory> {
    if let Some(memory) = caller.data().memory {
        return Ok(memory);
    }
    let memory = caller.get_export("memory").and_then(Extern::into_memory);
    caller.data_mut().memory = memory;
    memory.ok_or_else(|| Trap::MemoryOutOfBounds.into())
}

/// `len` bytes of memory at `ptr`, both unsigned.
pub(crate) fn range(memory: &[u8], ptr: i32, len: i32) -> Option<&[u8]> {
    let start = ptr.cast_unsigned() as usize;
    memory.get(start..start.checked_add(len.cast_unsigned() as usize)?)
}

/// The same, to be written.
pub(crate) fn range_mut(memory: &mut [u8], ptr: i32, len: i32) -> Option<&mut [u8]> {
    let start = ptr.cast_unsigned() as usize;
    memory.get_mut(start..start.checked_add(len.cast_unsigned() as usize)?)
}

/// What a pointer outside memory ends in.
pub(crate) fn out_of_bounds() -> Error {
    Trap::MemoryOutOfBounds.into()
}
