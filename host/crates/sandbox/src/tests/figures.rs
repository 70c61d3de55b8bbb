//! A guard against accidents of another order of magnitude; the benchmarks measure.

use super::*;

#[tokio::test]
async fn a_fresh_instance_costs_microseconds() {
    let host = Host::start();
    let module = host.load(&handler(RECORD, &each(""))).await;
    let mut spans = Vec::new();
    for _ in 0..200 {
        let report = host.invoke(invocation(&module, 1)).await;
        assert_ok(&report);
        spans.push(report.usage.duration);
    }
    spans.sort();
    let median = spans[spans.len() / 2];
    println!("one record: {median:?} running");
    assert!(median < Duration::from_millis(5), "{median:?}");
}
