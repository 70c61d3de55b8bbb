//! Keys of the tables: table, tenant, region, then parts. A part is length-prefixed, so that no
//! choice of names can make two keys meet, and a prefix of parts is a prefix of the bytes.

use shardmill_core::{Scope, TenantId};

/// A table. The numbers are part of the format on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Functions, by name: JSON.
    Function = 1,
    /// Modules, by digest: a blob.
    Module = 2,
    /// Event source mappings, by id: JSON.
    Mapping = 3,
    /// Progress and retry state, by mapping, stream id and shard: JSON.
    Cursor = 4,
    /// Keyed state, by function, partition key and name.
    State = 5,
    /// Failure entries, by id: JSON.
    Failure = 6,
    /// Payloads of failure entries, by id: a blob.
    FailurePayload = 7,
    /// A producer's last number and answer, by producer id. The store's own.
    Producer = 8,
    /// Counters, by function and name. The store's own.
    Counter = 9,
    /// Host-wide settings such as the key that signs iterators.
    Host = 10,
    /// Parked partition keys, by mapping and key: JSON.
    ParkedKey = 11,
    /// Records of parked keys, by mapping, key and run: a blob.
    Parked = 12,
    /// Deliveries to on-failure destinations that have not been made, by id: JSON.
    Outbox = 16,
    /// Records that go with a delivery, by the delivery's id: a blob.
    OutboxPayload = 17,
    /// Queues, by name: JSON.
    Queue = 18,
    /// Messages of queues, by the queue's id and the message's: JSON.
    QueueMessage = 19,
    /// Published versions of functions, by function and number: JSON.
    Version = 20,
    /// Aliases of functions, by function and name: JSON.
    Alias = 21,
    /// What functions used, by day, function and mapping: JSON.
    Usage = 22,
    /// Which versions a mapping trusts and what it went back from, by mapping: JSON.
    Rollout = 28,
}

impl Table {
    /// The table with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Function,
            2 => Self::Module,
            3 => Self::Mapping,
            4 => Self::Cursor,
            5 => Self::State,
            6 => Self::Failure,
            7 => Self::FailurePayload,
            8 => Self::Producer,
            9 => Self::Counter,
            10 => Self::Host,
            11 => Self::ParkedKey,
            12 => Self::Parked,
            16 => Self::Outbox,
            17 => Self::OutboxPayload,
            18 => Self::Queue,
            19 => Self::QueueMessage,
            20 => Self::Version,
            21 => Self::Alias,
            22 => Self::Usage,
            28 => Self::Rollout,
            _ => return None,
        })
    }
}

/// A key, or the prefix of keys.
///
/// ```text
/// table u8 │ tenant u64 BE │ region: len u8, bytes │ parts: (len u32 BE, bytes)*
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// The key without parts: the prefix of all keys of a scope in a table.
    pub fn new(table: Table, scope: &Scope) -> Self {
        let region = scope.region.as_str().as_bytes();
        let mut bytes = Vec::with_capacity(64);
        bytes.push(table as u8);
        bytes.extend_from_slice(&scope.tenant.number().to_be_bytes());
        bytes.push(region.len() as u8);
        bytes.extend_from_slice(region);
        Self(bytes)
    }

    /// The prefix of all keys of a table, of every scope.
    pub fn table_prefix(table: Table) -> Self {
        Self(vec![table as u8])
    }

    /// The key with one more part.
    #[must_use]
    pub fn part(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.0.extend_from_slice(&(part.len() as u32).to_be_bytes());
        self.0.extend_from_slice(part);
        self
    }

    /// The key with one more part: a number that sorts as numbers do.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        self.part(number.to_be_bytes())
    }

    /// The key of these bytes, as they came from [`Key::as_bytes`].
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The least key above all that begin with this one.
    pub(crate) fn end(&self) -> Self {
        let mut bytes = self.0.clone();
        while let Some(last) = bytes.pop() {
            if let Some(next) = last.checked_add(1) {
                bytes.push(next);
                return Self(bytes);
            }
        }
        // No table has this number.
        Self(vec![u8::MAX])
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The table.
    pub fn table(&self) -> Option<Table> {
        self.0.first().and_then(|n| Table::from_number(*n))
    }

    /// The account and region, and the parts. `None` for a prefix of a whole table.
    pub fn split(&self) -> Option<(Scope, Vec<&[u8]>)> {
        let rest = self.0.get(1..)?;
        let (tenant, rest) = rest.split_first_chunk::<8>()?;
        let (len, rest) = rest.split_first()?;
        let (region, mut rest) = rest.split_at_checked(usize::from(*len))?;
        let scope = Scope {
            tenant: TenantId::from_number(u64::from_be_bytes(*tenant))?,
            region: std::str::from_utf8(region).ok()?.parse().ok()?,
        };
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (len, after) = rest.split_first_chunk::<4>()?;
            let (part, after) = after.split_at_checked(u32::from_be_bytes(*len) as usize)?;
            parts.push(part);
            rest = after;
        }
        Some((scope, parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cannot_run_into_each_other() {
        let base = || Key::new(Table::State, &Scope::default());
        assert_ne!(base().part("ab").part("c"), base().part("a").part("bc"));
        let key = base().part("f").number(7);
        let (scope, parts) = key.split().expect("a whole key");
        assert_eq!(scope, Scope::default());
        assert_eq!(parts, [b"f".as_slice(), &7u64.to_be_bytes()]);
        assert!(key.as_bytes().starts_with(base().part("f").as_bytes()));
    }

    #[test]
    fn a_prefix_ends_above_all_its_keys_and_below_all_others() {
        for (prefix, end) in [
            (&[1, 2][..], &[1, 3][..]),
            (&[1, 255, 255], &[2]),
            (&[255, 255], &[255]),
        ] {
            let prefix = Key::from_bytes(prefix.to_vec());
            assert_eq!(prefix.end(), Key::from_bytes(end.to_vec()), "{prefix:?}");
        }
    }
}
