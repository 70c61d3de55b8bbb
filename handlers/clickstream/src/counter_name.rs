//! Names of counters, put together on the stack: at most 128 bytes, the host's limit.

use crate::time;

const NAME_BYTES: usize = 128;

/// A counter's name.
pub(crate) struct CounterName {
    bytes: [u8; NAME_BYTES],
    len: usize,
}

impl CounterName {
    /// `status:404`
    pub(crate) fn status(status: u16) -> Self {
        let mut name = Self::new("status:");
        name.push_number(status.into(), 3);
        name
    }

    /// `method:GET`. The method has at most 32 bytes.
    pub(crate) fn method(method: &str) -> Self {
        let mut name = Self::new("method:");
        name.push(method);
        name
    }

    /// `day:2015-05-17`, the day in UTC.
    pub(crate) fn day(at_ms: i64) -> Self {
        let (year, month, day) = time::utc_date(at_ms);
        let mut name = Self::new("day:");
        name.push_number(year, 4);
        name.push("-");
        name.push_number(month, 2);
        name.push("-");
        name.push_number(day, 2);
        name
    }

    /// `page:/projects/`. A path that does not fit keeps its beginning, up to the last whole
    /// character, then `~` and its 64-bit FNV-1a hash in 16 hexadecimal digits: the same path has
    /// the same name always, and different ones practically never.
    pub(crate) fn page(path: &str) -> Self {
        const PREFIX: &str = "page:";
        const HASH_BYTES: usize = "~0123456789abcdef".len();

        let mut name = Self::new(PREFIX);
        if PREFIX.len() + path.len() <= NAME_BYTES {
            name.push(path);
        } else {
            name.push(&path[..path.floor_char_boundary(NAME_BYTES - PREFIX.len() - HASH_BYTES)]);
            name.push("~");
            let hash = fnv1a(path);
            for shift in (0..16).rev() {
                let digit = (hash >> (4 * shift)) as usize & 15;
                name.push(&"0123456789abcdef"[digit..=digit]);
            }
        }
        name
    }

    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).expect("it was put together from texts")
    }

    fn new(prefix: &str) -> Self {
        let mut name = Self {
            bytes: [0; NAME_BYTES],
            len: 0,
        };
        name.push(prefix);
        name
    }

    /// The callers keep to the length.
    fn push(&mut self, text: &str) {
        self.bytes[self.len..][..text.len()].copy_from_slice(text.as_bytes());
        self.len += text.len();
    }

    /// In decimal, with leading zeros; `number` has at most `digits` digits.
    fn push_number(&mut self, mut number: i64, digits: usize) {
        for place in self.bytes[self.len..][..digits].iter_mut().rev() {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.len += digits;
    }
}

/// The 64-bit FNV-1a hash: public, simple, and the same everywhere.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_exceeds_the_hosts_limit() {
        assert_eq!(CounterName::page("/").as_str(), "page:/");
        assert_eq!(CounterName::status(404).as_str(), "status:404");
        assert_eq!(CounterName::day(-1).as_str(), "day:1969-12-31");

        let fits = format!("/{}", "a".repeat(122));
        assert_eq!(CounterName::page(&fits).as_str(), format!("page:{fits}"));
        let longer = format!("{fits}b");
        let expected = format!("page:/{}~49cc6f3f268d234a", "a".repeat(105));
        assert_eq!(CounterName::page(&longer).as_str(), expected);
        let wide = "ü".repeat(100);
        assert_eq!(CounterName::page(&wide).as_str().len(), NAME_BYTES);
        assert_ne!(
            CounterName::page(&wide).as_str(),
            CounterName::page(&"ü".repeat(101)).as_str()
        );
    }
}
