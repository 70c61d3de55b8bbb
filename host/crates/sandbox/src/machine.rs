//! What the machine gives this process.

use std::fs::read_to_string;
use std::path::Path;

/// What is assumed where the system does not say, bytes.
const ASSUMED_BYTES: u64 = 8 << 30;

/// Memory that this process may have, bytes: the machine's, or its control group's if that is less.
pub(crate) fn memory_bytes() -> u64 {
    let total = read_to_string("/proc/meminfo").ok();
    let total = total.as_deref().and_then(total_of);
    let own = read_to_string("/proc/self/cgroup").ok();
    let own = own.as_deref().map_or("", group_of);
    // A group is bounded by those above it, too; in a container its own is at the root.
    let groups = Path::new(own).ancestors().chain([Path::new("/")]);
    let groups = groups.filter_map(|group| {
        let group = group.strip_prefix("/").unwrap_or(group);
        let file = Path::new("/sys/fs/cgroup").join(group).join("memory.max");
        read_to_string(file).ok()?.trim().parse().ok()
    });
    total
        .into_iter()
        .chain(groups)
        .min()
        .unwrap_or(ASSUMED_BYTES)
}

/// Reads the path of the unified hierarchy: `0::/user.slice`.
fn group_of(cgroup: &str) -> &str {
    let unified = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    unified.unwrap_or_default()
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
        assert_eq!(group_of("1:cpu:/a\n0::/b/c\n"), "/b/c");
        assert!(memory_bytes() > 64 << 20);
    }
}
