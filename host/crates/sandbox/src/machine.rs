//! What the machine gives this process.

use std::fs::read_to_string;

/// What is assumed where the system does not say, bytes.
const ASSUMED_BYTES: u64 = 8 << 30;

/// Memory that this process may have, bytes: the machine's, or its control group's if that is less.
pub(crate) fn memory_bytes() -> u64 {
    let total = read_to_string("/proc/meminfo").ok();
    let total = total.as_deref().and_then(total_of);
    let group = read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse().ok());
    total
        .into_iter()
        .chain(group)
        .min()
        .unwrap_or(ASSUMED_BYTES)
}

/// Reads `MemTotal:  16384 kB`.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_in_bytes() {
        let text = "MemFree: 1 kB\nMemTotal:       24689764 kB\n";
        assert_eq!(total_of(text), Some(24_689_764 * 1024));
        assert_eq!(total_of("MemTotal: many\n"), None);
        assert!(memory_bytes() > 64 << 20);
    }
}
