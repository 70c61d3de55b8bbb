//! Ids of mappings and of their requests: random, or counted where a run must give the same
//! result every time (a guest's randomness is seeded with its mapping's id).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use uuid::{Builder, Uuid};

/// Where ids come from.
#[derive(Debug, Default)]
pub enum Ids {
    /// Random ones.
    #[default]
    Random,
    /// The numbers from this one on, in the form of a random UUID.
    Counted(AtomicU64),
}

impl Ids {
    /// An id that was not given before.
    pub(super) fn next(&self) -> String {
        let id = match self {
            Self::Random => Uuid::new_v4(),
            Self::Counted(next) => {
                let number = u128::from(next.fetch_add(1, Relaxed));
                Builder::from_random_bytes(number.to_be_bytes()).into_uuid()
            }
        };
        id.to_string()
    }
}
