//! Prometheus' text format, under CloudWatch's names.
//!
//! Counters begin with the process; iterator age and records behind are read from the cursors.

use std::collections::BTreeSet;
use std::fmt::Write;

use hyper::StatusCode;
use shardmill_core::Scope;
use shardmill_store::{Key, Table};

use super::error::Error;
use super::request::Call;
use super::{Answer, answer};
use crate::mapping::MappingView;

/// The media type that Prometheus asks for.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A figure of a mapping: its name, kind, help, and where it is.
type Figure = (
    &'static str,
    &'static str,
    &'static str,
    fn(&MappingView) -> f64,
);

const FIGURES: [Figure; 14] = [
    (
        "invocations_total",
        "counter",
        "Invocations that ran a handler",
        |v| v.metrics.invocations as f64,
    ),
    (
        "errors_total",
        "counter",
        "Invocations that ended in a function error",
        |v| v.metrics.errors as f64,
    ),
    (
        "throttles_total",
        "counter",
        "Attempts that the host could not run",
        |v| v.metrics.throttles as f64,
    ),
    (
        "duration_seconds_total",
        "counter",
        "Time in handlers",
        |v| v.metrics.duration_micros as f64 / 1e6,
    ),
    ("fuel_total", "counter", "Fuel used, units", |v| {
        v.metrics.fuel as f64
    }),
    (
        "processed_records_total",
        "counter",
        "Records that are done",
        |v| v.metrics.processed as f64,
    ),
    (
        "dropped_records_total",
        "counter",
        "Records that were given up",
        |v| v.metrics.given_up as f64,
    ),
    (
        "expired_records_total",
        "counter",
        "Records trimmed before they were delivered",
        |v| v.metrics.expired as f64,
    ),
    (
        "retries_total",
        "counter",
        "Parts that were put back for another attempt",
        |v| v.metrics.retried as f64,
    ),
    (
        "conflicts_total",
        "counter",
        "Commits that met a changed value and were run again",
        |v| v.metrics.conflicts as f64,
    ),
    (
        "on_failure_destination_delivered_records_total",
        "counter",
        "Records that were reported to the on-failure destination",
        |v| v.delivery.delivered as f64,
    ),
    (
        "destination_delivery_failures_total",
        "counter",
        "Deliveries to the on-failure destination that were given up",
        |v| v.delivery.delivery_failures as f64,
    ),
    (
        "deliveries_pending",
        "gauge",
        "Deliveries to the on-failure destination that wait",
        |v| v.delivery.deliveries_pending as f64,
    ),
    (
        "records_behind",
        "gauge",
        "Records that are not done",
        |v| v.shards.iter().map(|s| s.records_behind).sum::<u64>() as f64,
    ),
];

/// All metrics, of every account and region.
pub(super) async fn show(call: &Call<'_>) -> Result<Answer, Error> {
    let mut out = String::new();
    store(call, &mut out);
    if let Some(workloads) = &call.host.workloads {
        let mappings = &workloads.mappings;
        let mut views = Vec::new();
        for scope in scopes(call)? {
            for mapping in mappings.list(&scope)? {
                views.push(mappings.view(mapping).await?);
            }
        }
        of_mappings(&views, &mut out);
    }
    Ok(answer(StatusCode::OK, TEXT, out))
}

/// Writing to a `String` cannot fail, so results of `write!` are dropped here.
fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(
        out,
        "# HELP shardmill_{name} {help}\n# TYPE shardmill_{name} {kind}"
    );
}

fn store(call: &Call<'_>, out: &mut String) {
    let stats = call.host.store.stats();
    for (name, kind, help, value) in [
        (
            "incoming_records_total",
            "counter",
            "Records stored",
            stats.records,
        ),
        (
            "store_transactions_total",
            "counter",
            "Transactions committed",
            stats.transactions,
        ),
        (
            "store_conflicts_total",
            "counter",
            "Transactions refused by a condition",
            stats.conflicts,
        ),
        (
            "store_groups_total",
            "counter",
            "Groups synced",
            stats.groups,
        ),
        (
            "store_frame_bytes_total",
            "counter",
            "Bytes of frames written",
            stats.frame_bytes,
        ),
        (
            "store_disk_bytes",
            "gauge",
            "Bytes of all files",
            stats.disk_bytes,
        ),
        (
            "store_full",
            "gauge",
            "1 while records are refused for want of disk",
            stats.full.into(),
        ),
    ] {
        head(out, name, kind, help);
        let _ = writeln!(out, "shardmill_{name} {value}");
    }
}

fn scopes(call: &Call<'_>) -> Result<BTreeSet<Scope>, Error> {
    let prefix = Key::table_prefix(Table::Mapping);
    let stored = call.host.store.scan(&prefix, None, usize::MAX)?;
    Ok(stored
        .iter()
        .filter_map(|(key, _)| key.split())
        .map(|(scope, _)| scope)
        .collect())
}

fn of_mappings(views: &[MappingView], out: &mut String) {
    for (name, kind, help, figure) in FIGURES {
        head(out, name, kind, help);
        for view in views {
            let _ = writeln!(out, "shardmill_{name}{{{}}} {}", labels(view), figure(view));
        }
    }
    let name = "iterator_age_milliseconds";
    head(
        out,
        name,
        "gauge",
        "Age of the oldest record that is not done",
    );
    for view in views {
        for shard in &view.shards {
            let (labels, age, shard) = (labels(view), shard.iterator_age_ms, &shard.shard);
            let _ = writeln!(out, "shardmill_{name}{{{labels},shard=\"{shard}\"}} {age}");
        }
    }
}

fn labels(view: &MappingView) -> String {
    let mapping = &view.mapping;
    let label = |(name, value): (&str, String)| {
        format!(
            "{name}=\"{}\"",
            value.replace('\\', "\\\\").replace('"', "\\\"")
        )
    };
    [
        ("account", mapping.scope.tenant.to_string()),
        ("region", mapping.scope.region.to_string()),
        ("stream", mapping.stream.to_string()),
        ("function", mapping.function.clone()),
        ("mapping", mapping.name.clone()),
    ]
    .map(label)
    .join(",")
}
