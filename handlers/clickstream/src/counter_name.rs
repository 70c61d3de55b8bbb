//! Names of counters, put together on the stack: at most 128 bytes, the host's limit.

use crate::time;

const NAME_BYTES: usize = 128;

/// Room for one name; each method gives the whole of one and forgets the one before.
pub(crate) struct CounterName {
    bytes: [u8; NAME_BYTES],
    len: usize,
}

impl CounterName {
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; NAME_BYTES],
            len: 0,
        }
    }

    /// `status:404`
    pub(crate) fn status(&mut self, status: u16) -> &str {
        self.start("status:");
        self.push_number(status.into(), 3);
        self.as_str()
    }

    /// `method:GET`. The method has at most 32 bytes.
    pub(crate) fn method(&mut self, method: &str) -> &str {
        self.start("method:");
        self.push(method);
        self.as_str()
    }

    /// `day:2015-05-17`, the day in UTC.
    pub(crate) fn day(&mut self, at_ms: i64) -> &str {
        let (year, month, day) = time::utc_date(at_ms);
        self.start("day:");
        self.push_number(year, 4);
        self.push("-");
        self.push_number(month, 2);
        self.push("-");
        self.push_number(day, 2);
        self.as_str()
    }

    /// `page:/projects/`. A path that does not fit keeps its beginning, up to the last whole
    /// character, then `~` and its 64-bit FNV-1a hash in 16 hexadecimal digits: the same path has
    /// the same name always, and different ones practically never.
    pub(crate) fn page(&mut self, path: &str) -> &str {
        const PREFIX: &str = "page:";
        const HASH_BYTES: usize = "~0123456789abcdef".len();

        self.start(PREFIX);
        if PREFIX.len() + path.len() <= NAME_BYTES {
            self.push(path);
        } else {
            self.push(&path[..path.floor_char_boundary(NAME_BYTES - PREFIX.len() - HASH_BYTES)]);
            self.push("~");
            let hash = fnv1a(path);
            for shift in (0..16).rev() {
                let digit = (hash >> (4 * shift)) as usize & 15;
                self.push(&"0123456789abcdef"[digit..=digit]);
            }
        }
        self.as_str()
    }

    fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).expect("it was put together from texts")
    }

    fn start(&mut self, prefix: &str) {
        self.len = 0;
        self.push(prefix);
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
        let mut name = CounterName::new();
        assert_eq!(name.page("/"), "page:/");
        assert_eq!(name.status(404), "status:404");
        assert_eq!(name.day(-1), "day:1969-12-31");

        let fits = format!("/{}", "a".repeat(122));
        assert_eq!(name.page(&fits), format!("page:{fits}"));
        let longer = format!("{fits}b");
        let expected = format!("page:/{}~49cc6f3f268d234a", "a".repeat(105));
        assert_eq!(name.page(&longer), expected);
        let wide = name.page(&format!("/{}", "ü".repeat(100))).to_owned();
        assert_eq!(wide.len(), NAME_BYTES - 1, "no half character");
        assert_ne!(name.page(&format!("/{}", "ü".repeat(101))), wide);
    }
}
