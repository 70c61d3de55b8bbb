//! How much work a record may make. Whoever writes a filter chooses how many rules look at a
//! field, and whoever puts a record how many values the field has; only together is it a lot.
//!
//! A step is a rule that looks at a value, 32 bytes that it looks at, or an element that is
//! visited. What is linear in the payload alone is not counted: stepping over what no rule asks
//! about, and checking that it is JSON.

/// Steps that one record may take, in all filters of a mapping together: some ten milliseconds.
/// Room for 40 rules about each of 100,000 values.
pub const MAX_FILTER_STEPS: u64 = 1 << 22;

/// Bytes that a rule looks at in one step.
const BYTES_PER_STEP: u64 = 32;

/// Steps that are left.
#[derive(Debug)]
pub(super) struct Budget(u64);

/// No steps are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spent;

impl Budget {
    /// Whole.
    pub(super) fn new() -> Self {
        Self(MAX_FILTER_STEPS)
    }

    /// Steps that were taken, but for those that there were no more of.
    pub(super) fn spent(&self) -> u64 {
        MAX_FILTER_STEPS - self.0
    }

    /// Takes steps.
    #[inline]
    pub(super) fn spend(&mut self, steps: u64) -> Result<(), Spent> {
        self.0 = self.0.checked_sub(steps).ok_or(Spent)?;
        Ok(())
    }
}

/// What it takes to look at a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// Steps, whatever the value is.
    pub(super) steps: u64,
    /// Bytes of a value that are looked at, at the most, where the rules' own length bounds them.
    pub(super) bytes: u64,
    /// How often a value is looked at as a whole.
    pub(super) whole: u64,
}

impl Weight {
    /// Steps for a value of so many bytes.
    #[inline]
    pub(super) fn steps(self, value_bytes: usize) -> u64 {
        let value = value_bytes as u64;
        let bytes = self.bytes.min(value * self.steps) + value * self.whole;
        self.steps + bytes / BYTES_PER_STEP
    }

    pub(super) fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.bytes += other.bytes;
        self.whole += other.whole;
    }
}
