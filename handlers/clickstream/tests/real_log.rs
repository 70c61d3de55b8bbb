//! The handler on a real web server's log, against figures that were computed without it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clickstream::on_hit;
use serde::Deserialize;
use shardmill_guest::testing::{TestHost, TestRecord, record};

/// `access-expected.json`, as far as counters can say it.
#[derive(Deserialize)]
struct Expected {
    lines: usize,
    parsed: i64,
    malformed_lines: Vec<usize>,
    unique_clients: i64,
    bytes_sent: i64,
    status: BTreeMap<String, i64>,
    methods: BTreeMap<String, i64>,
    top_pages_get_200: Vec<(String, i64)>,
    sessions_30min_gap: i64,
    hits_per_day_utc: BTreeMap<String, i64>,
}

#[test]
fn the_real_log_gives_exactly_the_independent_figures() {
    let test = "the_real_log_gives_exactly_the_independent_figures";
    let Some((log, expected)) = read_data() else {
        println!("skipped: {test} (no access.log in SHARDMILL_TEST_DATA or ../shared/data)");
        return;
    };
    let records: Vec<_> = log.lines().map(|line| record(client(line), line)).collect();
    assert_eq!(records.len(), expected.lines);

    // However the log is cut into batches, and whatever a bad record leaves undone, the sums are
    // the same.
    for batch_size in [10_000, 100, 7] {
        let (counters, refused) = deliver(&records, batch_size);
        check(&counters, &expected);
        let lines: Vec<_> = refused.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, expected.malformed_lines);
        let (_, why) = &refused[0];
        assert!(
            why.starts_with("MalformedRecord: the user agent is not closed"),
            "{why}"
        );
    }
}

/// As a mapping does it: a batch is retried from the record that failed, and this one, which
/// fails always, is given up. Gives the counters, and line numbers with the reasons.
fn deliver(
    records: &[TestRecord],
    batch_size: usize,
) -> (BTreeMap<String, i64>, Vec<(usize, String)>) {
    let mut host = TestHost::default();
    let mut counters = BTreeMap::new();
    let mut refused = Vec::new();
    let mut at = 0;
    while at < records.len() {
        let batch = &records[at..records.len().min(at + batch_size)];
        let outcome = host.run_record(on_hit, batch);
        for (name, n) in outcome.counters {
            *counters.entry(name).or_default() += n;
        }
        at += outcome.failed_at.unwrap_or(batch.len());
        if let Some(error) = outcome.error {
            at += 1;
            refused.push((at, error.to_string()));
        }
    }
    (counters, refused)
}

fn check(counters: &BTreeMap<String, i64>, expected: &Expected) {
    let named = |prefix: &str| -> BTreeMap<String, i64> {
        let of_prefix = |(name, &n): (&String, _)| Some((name.strip_prefix(prefix)?.to_owned(), n));
        counters.iter().filter_map(of_prefix).collect()
    };
    assert_eq!(counters["hits"], expected.parsed);
    assert_eq!(counters["bytes"], expected.bytes_sent);
    assert_eq!(counters["clients"], expected.unique_clients);
    assert_eq!(counters["sessions"], expected.sessions_30min_gap);
    assert_eq!(named("status:"), expected.status);
    assert_eq!(named("method:"), expected.methods);
    assert_eq!(named("day:"), expected.hits_per_day_utc);
    let mut pages: Vec<_> = named("page:").into_iter().collect();
    pages.sort_by(|(a_page, a), (b_page, b)| b.cmp(a).then(a_page.cmp(b_page)));
    pages.truncate(expected.top_pages_get_200.len());
    assert_eq!(pages, expected.top_pages_get_200);
    // The host keeps 10,000 names for each function.
    assert!(counters.len() < 2_000, "{} names", counters.len());
}

/// The client stands first in a line.
fn client(line: &str) -> &str {
    line.split(' ').next().unwrap_or(line)
}

fn read_data() -> Option<(String, Expected)> {
    let folder = std::env::var_os("SHARDMILL_TEST_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
        PathBuf::from,
    );
    let log = std::fs::read_to_string(folder.join("access.log")).ok()?;
    let expected = std::fs::read(folder.join("access-expected.json")).expect("beside the log");
    Some((
        log,
        serde_json::from_slice(&expected).expect("figures as documented"),
    ))
}
