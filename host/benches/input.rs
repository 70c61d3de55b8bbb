//! What goes in: bytes that do not compress, and lines of an access log. The real log is taken
//! where there is one (`SHARDMILL_TEST_DATA`, else `../shared/data` beside the workspace), else
//! lines of the same shape and length; both the same on every run.

use std::path::{Path, PathBuf};

use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const SEED: u64 = 20_150_517;

/// A line of a log whose client is its partition key.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) client: String,
    pub(crate) text: String,
}

/// Bytes that do not compress; the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha8Rng::seed_from_u64(SEED ^ seed).fill_bytes(&mut bytes);
    bytes
}

/// A partition key of 8 bytes.
pub(crate) fn key(number: usize) -> String {
    format!("k{:07}", number % 10_000_000)
}

/// Lines of an access log that a handler gets through, as many as there are in the real one.
pub(crate) fn lines() -> Vec<Line> {
    let real = std::fs::read_to_string(folder().join("access.log"));
    let text = real.unwrap_or_else(|_| generated());
    text.lines()
        .filter(|line| line.contains(" HTTP/1.") && line.ends_with('"'))
        .map(|line| Line {
            client: line.split(' ').next().unwrap_or_default().to_owned(),
            text: line.to_owned(),
        })
        .collect()
}

fn folder() -> PathBuf {
    std::env::var_os("SHARDMILL_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    )
}

fn generated() -> String {
    const CLIENTS: u32 = 1_750;
    const PAGES: u32 = 1_500;
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut text = String::new();
    for number in 0..10_000u32 {
        // 26 seconds a line are three days; a line may be up to a minute late.
        let second = (number * 26).saturating_sub(random.random_range(0..60));
        let client = random.random_range(0..CLIENTS);
        let page = random
            .random_range(0..PAGES)
            .min(random.random_range(0..PAGES));
        let status = [200, 200, 200, 200, 200, 200, 200, 304, 404, 301][number as usize % 10];
        text += &format!(
            "83.149.{}.{} - - [{}/May/2015:{:02}:{:02}:{:02} +0000] \"GET /articles/{page}/dynamic-dns-with-dhcp/image-{page}.png HTTP/1.1\" {status} {} \"http://www.example.org/articles/{page}/\" \"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_9_1) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/32.0.1700.77 Safari/537.36\"\n",
            client / 200,
            client % 200,
            17 + second / 86_400,
            second / 3_600 % 24,
            second / 60 % 60,
            second % 60,
            random.random_range(100..200_000u32),
        );
    }
    text
}
