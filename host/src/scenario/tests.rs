//! Scenarios against a scripted sandbox: what they find, and what they say.

mod files;
mod script;
mod steps;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Report, Scenario};
use script::Script;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/scenario");

/// Runs a scenario whose modules are `record.wasm`, `batch.wasm` and `mended.wasm`; see [`Script`].
fn run(text: &str) -> Report {
    let folder = tempfile::tempdir().unwrap();
    for module in ["record", "batch", "mended"] {
        std::fs::write(folder.path().join(format!("{module}.wasm")), module).unwrap();
    }
    std::fs::write(folder.path().join("lines"), "ok ann\n\nok bob\r\nerror bob").unwrap();
    let scenario = Scenario::parse(text, Path::new("s.toml"), folder.path(), None).unwrap();
    let mut report = scenario.run(Arc::new(Script)).unwrap();
    report.took = Duration::ZERO;
    report
}

/// Runs a scenario that must find everything as it expects it.
#[track_caller]
fn passes(text: &str) -> Report {
    let report = run(text);
    assert!(report.passed(), "{}", report.text());
    report
}

#[test]
fn every_expectation_that_fails_says_its_line_and_what_was_found() {
    let text = std::fs::read_to_string(format!("{GOLDEN}/every-expectation.toml")).unwrap();
    let found = run(&text).text();
    let path = format!("{GOLDEN}/every-expectation.txt");
    if std::env::var_os("SHARDMILL_REWRITE_GOLDEN").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, golden, "SHARDMILL_REWRITE_GOLDEN=1 rewrites {path}");
}

#[test]
fn a_day_of_retries_ends_when_the_record_is_too_old() {
    let report = passes(
        r#"
        [function]
        wasm = "record.wasm"
        [[stream]]
        name = "in"
        shards = 1
        retention_hours = 48
        [mapping]
        maximum_retry_attempts = -1
        maximum_record_age_seconds = 86_400
        [[step]]
        put = [{ name = "never", key = "a", data = "error" }]
        [[step]]
        at = "23h59m"
        expect = { records = { never = "waiting" } }
        [[step]]
        drain = "5m"
        [expect]
        records = { never = "given_up: RecordAgeExceeded" }
        invocations = { at_least = 1440, at_most = 1460 }
        "#,
    );
    let day = Duration::from_secs(86_400);
    let simulated = report.figures.simulated;
    assert!(
        simulated > day && simulated < day + Duration::from_secs(2),
        "{simulated:?}"
    );
}

#[test]
fn two_runs_are_alike_to_the_unit_of_fuel() {
    let text = r#"
        [function]
        wasm = "record.wasm"
        [[stream]]
        name = "in"
        shards = 8
        [[stream]]
        name = "out"
        shards = 1
        [mapping]
        batch_size = 3
        parallelization_factor = 2
        [[step]]
        put = [
            { key = "a", data = "random", repeat = 5 },
            { key = "b", data = "emit out b", repeat = 5 },
            { key = "c", data = "error" },
            { key = "d", data = "state n", repeat = 5 },
            { key = "e", data = "random", repeat = 5 },
        ]
        [[step]]
        drain = "1m"
        [expect]
        invocations = 0
        failures = []
        emitted = { out = [] }
        counters = { random = 0 }
    "#;
    let first = run(text);
    assert_eq!(first.mismatches.len(), 4, "{}", first.text());
    let second = run(text);
    assert_eq!(first.json(), second.json());
}
