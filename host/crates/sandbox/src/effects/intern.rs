//! Names by number: a name that was seen before is found without an allocation.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// A map whose hash is fast and seeded by chance, so that a guest cannot make names collide.
pub(super) type FastMap<K, V> = HashMap<K, V, RandomState>;

/// Names, numbered in the order in which they came.
#[derive(Default)]
pub(super) struct Interner {
    numbers: FastMap<Box<[u8]>, u32>,
    names: Vec<Box<str>>,
}

impl Interner {
    /// The number of a name that was seen before.
    pub(super) fn find(&self, name: &[u8]) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// A new name's number.
    pub(super) fn add(&mut self, name: &str) -> u32 {
        let number = self.names.len() as u32;
        self.numbers.insert(name.as_bytes().into(), number);
        self.names.push(name.into());
        number
    }

    /// The name with this number, which this interner gave.
    pub(super) fn name(&self, number: u32) -> &str {
        &self.names[number as usize]
    }
}
