//! Scenarios against a scripted sandbox: what they find, and what they say.

mod files;
mod script;
mod steps;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::sandbox::{self, BoxFuture, Invocation, LoadError, Module};
use shardmill_core::{Sandbox, TenantId};

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

const SHARED: &str = r#"
    [function]
    wasm = "record.wasm"
    [[stream]]
    name = "in"
    shards = 2
    [mapping]
    maximum_retry_attempts = 2
    [[step]]
    put = [{ key = "a", data = "ok" }, { name = "bad", key = "b", data = "error" }]
    [[step]]
    do = "restart"
    [[step]]
    put = [{ key = "c", data = "ok" }]
    [[step]]
    drain = "1m"
    [expect]
    records = { bad = "given_up: RetryAttemptsExhausted" }
    "#;

/// A scenario, in a folder that goes when it is dropped.
fn scenario(text: &str) -> (tempfile::TempDir, Scenario) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("record.wasm"), "record").unwrap();
    let scenario = Scenario::parse(text, Path::new("s.toml"), folder.path(), None).unwrap();
    (folder, scenario)
}

fn run_for(text: &str, tenants: u32, sandbox: Arc<dyn Sandbox>) -> Report {
    let (_folder, scenario) = scenario(text);
    scenario.run_for(&sandbox, tenants).unwrap()
}

/// [`Script`], and something else about what it reports.
struct Changed<F>(F);

impl<F: Fn(&Told, &mut sandbox::Report) + Send + Sync> Sandbox for Changed<F> {
    fn load(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        Sandbox::load(&Script, wasm)
    }
    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, sandbox::Report> {
        let told = Told {
            tenant: invocation.owner.scope.tenant.number(),
        };
        Box::pin(async move {
            let mut report = Sandbox::invoke(&Script, invocation).await;
            (self.0)(&told, &mut report);
            report
        })
    }
}

/// Whose invocation it was.
struct Told {
    tenant: u64,
}

#[test]
fn each_tenants_own_failures_are_told_once_and_figures_are_the_first_ones() {
    let text = SHARED.replace("[expect]", "[expect]\nmax_fuel_per_record = 1_001");
    // Tenants 2, 3 and 5 burn 5 too many, tenant 4 burns 9 too many.
    let report = run_for(
        &text,
        5,
        Arc::new(Changed(|told: &Told, report: &mut sandbox::Report| {
            report.usage.fuel += [1, 6, 6, 10, 6][told.tenant as usize - 1];
        })),
    );
    let told: Vec<&str> = report.mismatches.iter().map(|m| &*m.expectation).collect();
    assert_eq!(told.len(), 2, "{}", report.text());
    assert!(
        told[0].starts_with("tenant 000000000002 alone: "),
        "{told:?}"
    );
    assert!(
        told[1].starts_with("tenant 000000000004 alone: "),
        "{told:?}"
    );
    let first = run_for(
        &text,
        1,
        Arc::new(Changed(|_: &Told, report: &mut sandbox::Report| {
            report.usage.fuel += 1;
        })),
    );
    assert_eq!(report.figures.fuel, first.figures.fuel);
}

#[test]
fn a_sandbox_that_does_not_answer_ends_the_run() {
    let never = Arc::new(crate::usage::tests::Never);
    let sandbox = super::simulated::Simulated::new(never, Duration::from_millis(300));
    let (_folder, scenario) = scenario(SHARED);
    let played = scenario.play_on(sandbox, &[TenantId::DEFAULT], false);
    let mismatches = &played.unwrap()[0].mismatches;
    assert!(
        mismatches[0].found.contains("did not answer any more"),
        "{mismatches:?}"
    );
}

#[test]
fn tenants_on_one_host_get_what_they_get_alone() {
    let report = run_for(SHARED, 5, Arc::new(Script));
    assert!(report.passed(), "{}", report.text());
    assert!(report.text().contains(", 5 tenants\n"), "{}", report.text());
}

#[test]
fn a_neighbour_that_can_be_noticed_is_a_difference() {
    /// Burns a unit more for each other tenant that has run since the last deploy.
    #[derive(Default)]
    struct Leaky(std::sync::Mutex<std::collections::BTreeSet<TenantId>>);
    impl Sandbox for Leaky {
        fn load(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
            Sandbox::load(&Script, wasm)
        }
        fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, sandbox::Report> {
            let mut seen = self.0.lock().unwrap();
            if invocation.context.stream.is_empty() {
                seen.clear();
            } else {
                seen.insert(invocation.owner.scope.tenant);
            }
            let others = seen.len().saturating_sub(1) as u64;
            Box::pin(async move {
                let mut report = Sandbox::invoke(&Script, invocation).await;
                report.usage.fuel += others;
                report
            })
        }
    }
    let report = run_for(SHARED, 3, Arc::new(Leaky::default()));
    assert!(!report.passed());
    let text = report.text();
    assert!(text.contains("tenant 000000000002: invocation 1"), "{text}");
    assert!(text.contains("as alone"), "{text}");
}
