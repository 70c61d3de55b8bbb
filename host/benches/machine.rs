//! What the figures were taken on, read from `/proc`, so that they can be judged later.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    disk: String,
    load_before: String,
    load_after: String,
}

impl Machine {
    /// Looks at it; what cannot be read is `?`.
    pub(crate) fn read(dir: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or_else(|| "?".to_owned(), |(_, value)| value.trim().to_owned())
        };
        let memory_kib = value(&text("/proc/meminfo"), "MemTotal")
            .trim_end_matches(" kB")
            .parse()
            .unwrap_or(0u64);
        Self {
            cpu: value(&text("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: (memory_kib + (1 << 19)) >> 20,
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            disk: mount_of(&text("/proc/self/mounts"), dir),
            load_before: load(),
            load_after: String::new(),
        }
    }

    /// Notes the load at the end of the run.
    pub(crate) fn note_end(&mut self) {
        self.load_after = load();
    }

    /// Everything, in words.
    pub(crate) fn facts(&self) -> [(&'static str, String); 3] {
        let machine = format!(
            "{} × {}, {} GiB, Linux {}",
            self.cores, self.cpu, self.memory_gib, self.kernel
        );
        let load = format!("{} before, {} after", self.load_before, self.load_after);
        [
            ("machine", machine),
            ("disk", self.disk.clone()),
            ("load (1, 5, 15 min)", load),
        ]
    }
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let three: Vec<&str> = text.split_whitespace().take(3).collect();
    three.join(" ")
}

/// File system and device below a folder: the longest mount point that it begins with.
fn mount_of(mounts: &str, dir: &Path) -> String {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let found = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            Some((fields.next()?, fields.next()?, fields.next()?))
        })
        .filter(|(_, point, _)| dir.starts_with(point))
        .max_by_key(|(_, point, _)| point.len());
    found.map_or_else(
        || "?".to_owned(),
        |(device, _, system)| format!("{system} on {device}"),
    )
}
