//! A made-up clickstream in the combined log format: the same lines on every run, nearly in
//! order of time, a few of them cut off as by a crash of the server that wrote them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// How many lines.
const LINE_COUNT: u64 = 5_000;

/// Every so many-th line is cut off in the middle of its request.
const BROKEN_EVERY: u64 = 1_700;

/// How many clients there are.
const CLIENT_COUNT: u64 = 240;

/// What the sequence of random numbers starts from.
const SEED: u64 = 20_150_517;

const PAGES: [&str; 8] = [
    "/",
    "/pricing",
    "/docs/start",
    "/docs/handlers",
    "/blog/exactly-once",
    "/signup",
    "/favicon.ico",
    "/images/logo.png",
];

const STATUSES: [u16; 8] = [200, 200, 200, 200, 200, 304, 404, 301];

/// Writes the lines to `clickstream.log` in `dir`.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("clickstream.log");
    fs::write(&path, lines()).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn lines() -> String {
    let mut random = SplitMix64(SEED);
    let mut text = String::new();
    for number in 1..=LINE_COUNT {
        // Seventeen seconds a line is about one day; a line may be up to a minute late.
        let second = (number * 17).saturating_sub(random.below(60));
        let (day, rest) = (17 + second / 86_400, second % 86_400);
        let client = random.below(CLIENT_COUNT);
        let line = format!(
            "10.{}.{}.{} - - [{day}/May/2015:{:02}:{:02}:{:02} +0000] \"{} {} HTTP/1.1\" {} {} \"-\" \"Mozilla/5.0\"",
            client / 100,
            client % 100,
            1 + client % 250,
            rest / 3_600,
            rest / 60 % 60,
            rest % 60,
            if random.below(20) == 0 { "POST" } else { "GET" },
            random.pick(&PAGES),
            random.pick(&STATUSES),
            random.below(40_000),
        );
        let broken = number % BROKEN_EVERY == 0;
        let length = if broken { 60 } else { line.len() };
        let _ = writeln!(text, "{}", &line[..length]);
    }
    text
}

/// Sebastiano Vigna's splitmix64: small, and the same everywhere.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is small enough for the remainder to be fair.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_lines_every_time_and_two_of_them_broken() {
        let text = lines();
        assert_eq!(text, lines());
        assert_eq!(text.lines().count() as u64, LINE_COUNT);
        let broken = text.lines().filter(|line| !line.ends_with('"')).count();
        assert_eq!(broken as u64, LINE_COUNT / BROKEN_EVERY);
    }
}
