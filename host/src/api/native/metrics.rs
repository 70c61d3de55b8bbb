//! Prometheus' text format, under CloudWatch's names where AWS has them ("Monitoring metrics for
//! Lambda": invocation, performance and event source mapping metrics).
//!
//! Counters begin with the process; lag is read from the cursors and the store's index. What
//! belongs to a shard has the label `shard`; a sum over it is the mapping's. `docs/metrics.md`
//! lists them all.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use hyper::StatusCode;
use shardmill_core::Scope;
use shardmill_core::admission::Standing;
use shardmill_core::mapping::Circuit;
use shardmill_store::{Key, Stats, Table};

use super::error::Error;
use super::request::Call;
use super::{Answer, answer};
use crate::delivery::Delivery;
use crate::mapping::{Failures, Kept, MappingState, MappingView, ShardState, ShardView};
use crate::tenancy::{Quota, Tenant, Usage};

/// The media type that Prometheus asks for.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A figure of a `T`: its name, kind, help, and where it is. `None`: there is none now.
type Figure<T> = (
    &'static str,
    &'static str,
    &'static str,
    fn(&T) -> Option<f64>,
);

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

const OF_STORE: [Figure<Stats>; 7] = [
    ("incoming_records_total", COUNTER, "Records stored", |s| {
        Some(s.records as f64)
    }),
    (
        "store_transactions_total",
        COUNTER,
        "Transactions committed",
        |s| Some(s.transactions as f64),
    ),
    (
        "store_conflicts_total",
        COUNTER,
        "Transactions refused by a condition",
        |s| Some(s.conflicts as f64),
    ),
    ("store_groups_total", COUNTER, "Groups synced", |s| {
        Some(s.groups as f64)
    }),
    (
        "store_frame_bytes_total",
        COUNTER,
        "Bytes of frames written",
        |s| Some(s.frame_bytes as f64),
    ),
    ("store_disk_bytes", GAUGE, "Bytes of all files", |s| {
        Some(s.disk_bytes as f64)
    }),
    (
        "store_full",
        GAUGE,
        "1 while records are refused for want of disk",
        |s| Some(f64::from(u8::from(s.full))),
    ),
];

/// What an account keeps in the failure store, and how many bytes it may.
struct KeptFailures {
    kept: Kept,
    allowed_bytes: u64,
}

const OF_ACCOUNTS: [Figure<KeptFailures>; 3] = [
    (
        "failure_store_entries",
        GAUGE,
        "Entries of the failure store",
        |f| Some(f.kept.entries as f64),
    ),
    (
        "failure_store_bytes",
        GAUGE,
        "Bytes of the failure store's entries, records and inputs",
        |f| Some(f.kept.bytes as f64),
    ),
    (
        "failure_store_allowed_bytes",
        GAUGE,
        "Bytes of the failure store that an account may use",
        |f| Some(f.allowed_bytes as f64),
    ),
];

const OF_QUOTAS: [Figure<u64>; 1] = [(
    "quota_hits_total",
    COUNTER,
    "Requests and transactions that a tenant's quota refused",
    |count| Some(*count as f64),
)];

const OF_TENANTS: [Figure<TenantFigures>; 10] = [
    (
        "tenant_stored_bytes",
        GAUGE,
        "Bytes of data and partition keys in a tenant's streams",
        |t| Some(t.usage.stored_bytes as f64),
    ),
    (
        "tenant_allowed_stored_bytes",
        GAUGE,
        "Bytes that a tenant may store",
        |t| t.tenant.quotas.stored_bytes.map(|n| n as f64),
    ),
    ("tenant_shards", GAUGE, "Open shards of a tenant", |t| {
        Some(f64::from(t.usage.shards))
    }),
    (
        "tenant_allowed_shards",
        GAUGE,
        "Open shards that a tenant may have",
        |t| t.tenant.quotas.shards.map(f64::from),
    ),
    ("tenant_functions", GAUGE, "Functions of a tenant", |t| {
        Some(f64::from(t.usage.functions))
    }),
    (
        "tenant_allowed_functions",
        GAUGE,
        "Functions that a tenant may have",
        |t| t.tenant.quotas.functions.map(f64::from),
    ),
    (
        "tenant_running_invocations",
        GAUGE,
        "Attempts of a tenant that hold a slot",
        |t| Some(t.standing.held.slots as f64),
    ),
    (
        "tenant_guest_memory_bytes",
        GAUGE,
        "Memory limits of the attempts of a tenant that hold a slot",
        |t| Some(t.standing.held.bytes as f64),
    ),
    (
        "tenant_waiting_invocations",
        GAUGE,
        "Attempts of a tenant that wait for a slot and memory",
        |t| Some(t.standing.waiting as f64),
    ),
    (
        "tenant_held_back_invocations_total",
        COUNTER,
        "Attempts that a tenant's quota or a reserved concurrency made wait",
        |t| Some(t.standing.held_back as f64),
    ),
];

/// A tenant of the manifest, and what it has.
struct TenantFigures {
    tenant: Arc<Tenant>,
    usage: Usage,
    standing: Standing,
}

const OF_OUTBOXES: [Figure<u64>; 1] = [(
    "undeliverable_deliveries",
    GAUGE,
    "Deliveries that are listed and not tried any more",
    |count| Some(*count as f64),
)];

const OF_SHARDS: [Figure<ShardView>; 33] = [
    (
        "invocations_total",
        COUNTER,
        "Invocations that ran a handler",
        |s| Some(s.metrics.invocations as f64),
    ),
    (
        "errors_total",
        COUNTER,
        "Invocations that ended in a function error",
        |s| Some(s.metrics.errors as f64),
    ),
    (
        "failed_invocations_total",
        COUNTER,
        "Invocations taken for failed: errors, malformed answers, refused effects",
        |s| Some(s.metrics.failed_invocations as f64),
    ),
    (
        "windows_closed_total",
        COUNTER,
        "Tumbling windows whose final invocation succeeded",
        |s| Some(s.metrics.windows_closed as f64),
    ),
    (
        "roll_backs_total",
        COUNTER,
        "Times that the mapping went back to an earlier version of its function",
        |s| Some(s.metrics.roll_backs as f64),
    ),
    (
        "throttles_total",
        COUNTER,
        "Attempts that the host could not run",
        |s| Some(s.metrics.throttles as f64),
    ),
    ("duration_seconds_total", COUNTER, "Time in handlers", |s| {
        Some(s.metrics.duration_micros as f64 / 1e6)
    }),
    ("fuel_total", COUNTER, "Fuel used, units", |s| {
        Some(s.metrics.fuel as f64)
    }),
    (
        "polled_event_count_total",
        COUNTER,
        "Records read, each once",
        |s| Some(s.metrics.polled as f64),
    ),
    (
        "filtered_out_event_count_total",
        COUNTER,
        "Records that the filter criteria left out",
        |s| Some(s.metrics.filtered_out as f64),
    ),
    (
        "not_json_event_count_total",
        COUNTER,
        "Records among those that are not JSON",
        |s| Some(s.metrics.not_json as f64),
    ),
    (
        "invoked_event_count_total",
        COUNTER,
        "Records sent to the function; retries count again",
        |s| Some(s.metrics.invoked as f64),
    ),
    (
        "first_invoked_event_count_total",
        COUNTER,
        "Records sent to the function for the first time",
        |s| Some(s.metrics.first_invoked as f64),
    ),
    (
        "failed_invoke_event_count_total",
        COUNTER,
        "Records in failed invocations or in the failed part of one",
        |s| Some(s.metrics.failed_records as f64),
    ),
    (
        "dropped_event_count_total",
        COUNTER,
        "Records that were given up, reported to a destination or not",
        |s| Some(s.metrics.given_up as f64),
    ),
    (
        "failures_dropped_total",
        COUNTER,
        "Failures that left no entry because the failure store was full",
        |s| Some(s.metrics.failures_dropped as f64),
    ),
    (
        "unsent_event_count_total",
        COUNTER,
        "Records given up or parked that were never sent",
        |s| Some(s.metrics.unsent as f64),
    ),
    (
        "put_back_event_count_total",
        COUNTER,
        "Records that were read and are read again because their poller ended",
        |s| Some(s.metrics.put_back as f64),
    ),
    (
        "expired_event_count_total",
        COUNTER,
        "Records trimmed before they were delivered",
        |s| Some(s.metrics.expired as f64),
    ),
    (
        "parked_event_count_total",
        COUNTER,
        "Records that were parked",
        |s| Some(s.metrics.parked as f64),
    ),
    (
        "processed_event_count_total",
        COUNTER,
        "Records that are done",
        |s| Some(s.metrics.processed as f64),
    ),
    (
        "first_invoked_age_seconds_total",
        COUNTER,
        "Age of records when they were first sent, summed up over records",
        |s| Some(s.metrics.waited_millis as f64 / 1e3),
    ),
    (
        "retries_total",
        COUNTER,
        "Parts that were put back for another attempt",
        |s| Some(s.metrics.retried as f64),
    ),
    ("splits_total", COUNTER, "Batches that were split", |s| {
        Some(s.metrics.split as f64)
    }),
    (
        "conflicts_total",
        COUNTER,
        "Commits that met a changed value and were run again",
        |s| Some(s.metrics.conflicts as f64),
    ),
    (
        "iterator_age_milliseconds",
        GAUGE,
        "Age of the oldest record that is not done; 0 when all are",
        |s| Some(s.iterator_age_ms as f64),
    ),
    ("records_behind", GAUGE, "Records that are not done", |s| {
        Some(s.records_behind as f64)
    }),
    (
        "bytes_behind",
        GAUGE,
        "Bytes of keys and data that are not done",
        |s| Some(s.bytes_behind as f64),
    ),
    (
        "waiting_records",
        GAUGE,
        "Records that were read and wait for their first invocation",
        |s| Some(s.waiting_records as f64),
    ),
    (
        "oldest_record_expires_in_milliseconds",
        GAUGE,
        "Until retention or the age limit ends the oldest record that is not done",
        |s| s.expires_in_ms.map(|ms| ms as f64),
    ),
    (
        "failed_attempts",
        GAUGE,
        "Failed attempts of the batch that is next",
        |s| Some(f64::from(s.attempts)),
    ),
    (
        "next_try_timestamp_seconds",
        GAUGE,
        "When the batch that failed is tried again",
        |s| s.not_before.map(|at| at.0 as f64 / 1e3),
    ),
    (
        "shard_paused",
        GAUGE,
        "1 while the shard stands still",
        |s| Some(f64::from(u8::from(s.state == ShardState::Paused))),
    ),
];

const OF_MAPPINGS: [Figure<MappingView>; 16] = [
    (
        "on_failure_destination_delivered_event_count_total",
        COUNTER,
        "Records that were reported to the on-failure destination",
        |m| Some(m.delivery.delivered as f64),
    ),
    (
        "destination_delivery_failures_total",
        COUNTER,
        "Deliveries to the on-failure destination that were given up",
        |m| Some(m.delivery.delivery_failures as f64),
    ),
    (
        "deliveries_pending",
        GAUGE,
        "Deliveries to the on-failure destination that wait",
        |m| Some(m.delivery.deliveries_pending as f64),
    ),
    (
        "parked_keys",
        GAUGE,
        "Partition keys that are parked",
        |m| Some(m.parked_keys as f64),
    ),
    ("parked_records", GAUGE, "Records of parked keys", |m| {
        Some(m.parked_records as f64)
    }),
    (
        "parked_bytes",
        GAUGE,
        "Bytes of records of parked keys",
        |m| Some(m.parked_bytes as f64),
    ),
    (
        "circuit_breaker_state",
        GAUGE,
        "0 closed: batches run; 1 half open: one tries; 2 open: batches wait",
        |m| {
            Some(match m.circuit {
                Circuit::Closed => 0.0,
                Circuit::HalfOpen => 1.0,
                Circuit::Open => 2.0,
            })
        },
    ),
    (
        "mapping_running",
        GAUGE,
        "1 while the mapping is enabled and no shard is paused",
        |m| {
            let runs = matches!(m.state, MappingState::Enabled | MappingState::Updating);
            Some(f64::from(u8::from(runs)))
        },
    ),
    (
        "shadow_compared_batches_total",
        COUNTER,
        "Batches that were compared with the shadow",
        |m| m.shadow.as_ref().map(|s| s.compared as f64),
    ),
    (
        "shadow_different_batches_total",
        COUNTER,
        "Batches of which the shadow made something else",
        |m| m.shadow.as_ref().map(|s| s.different as f64),
    ),
    (
        "shadow_uncertain_batches_total",
        COUNTER,
        "Batches for which the shadow read keyed state that may have changed",
        |m| m.shadow.as_ref().map(|s| s.uncertain as f64),
    ),
    (
        "shadow_only_failed_batches_total",
        COUNTER,
        "Batches that failed with the shadow alone",
        |m| m.shadow.as_ref().map(|s| s.failed_only_in_shadow as f64),
    ),
    (
        "shadow_mended_batches_total",
        COUNTER,
        "Batches that failed with the mapping's own version alone",
        |m| m.shadow.as_ref().map(|s| s.failed_only_in_primary as f64),
    ),
    (
        "shadow_dropped_batches_total",
        COUNTER,
        "Batches that were shown to the shadow and not compared",
        |m| m.shadow.as_ref().map(|s| s.dropped as f64),
    ),
    (
        "shadow_fuel_total",
        COUNTER,
        "Fuel of the shadow on the batches that were compared, units",
        |m| m.shadow.as_ref().map(|s| s.fuel as f64),
    ),
    (
        "shadow_primary_fuel_total",
        COUNTER,
        "Fuel of the mapping's own version on those batches, units",
        |m| m.shadow.as_ref().map(|s| s.primary_fuel as f64),
    ),
];

/// All metrics, of every account and region.
pub(super) async fn show(call: &Call<'_>) -> Result<Answer, Error> {
    let mut out = String::new();
    let stats = call.host.store.stats();
    for figure in &OF_STORE {
        family(&mut out, figure, &[(String::new(), &stats)]);
    }
    of_tenants(call, &mut out).await?;
    if let Some(workloads) = &call.host.workloads {
        let mappings = &workloads.mappings;
        let mut views = Vec::new();
        for scope in scopes(call)? {
            for mapping in mappings.list(&scope)? {
                views.push(mappings.view(mapping).await?);
            }
        }
        of_mappings(&views, &mut out);
        of_accounts(&workloads.failures, &mut out);
        of_outboxes(mappings.delivery(), &mut out);
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
    let mappings: Vec<(String, &MappingView)> = views.iter().map(|v| (labels(v), v)).collect();
    let mut shards = Vec::new();
    for (labels, view) in &mappings {
        for shard in &view.shards {
            shards.push((format!("{labels},shard=\"{}\"", shard.shard), shard));
        }
    }
    for figure in &OF_SHARDS {
        family(out, figure, &shards);
    }
    for figure in &OF_MAPPINGS {
        family(out, figure, &mappings);
    }
}

async fn of_tenants(call: &Call<'_>, out: &mut String) -> Result<(), Error> {
    let (mut figures, mut hits) = (Vec::new(), Vec::new());
    let standings = call.host.workloads.as_ref();
    let standings = standings.map_or_else(Vec::new, |w| w.sandbox.standings());
    let standings: HashMap<_, _> = standings.into_iter().collect();
    for tenant in call.host.tenancy.tenants() {
        let store = call.host.store.as_ref();
        let usage = call.host.tenancy.usage(tenant.account, store).await?;
        let label = format!("account=\"{}\"", tenant.account);
        for (quota, count) in Quota::ALL.into_iter().zip(tenant.meter.hits()) {
            hits.push((format!("{label},quota=\"{}\"", quota.name()), count));
        }
        let standing = standings.get(&tenant.account).copied().unwrap_or_default();
        let figure = TenantFigures {
            tenant,
            usage,
            standing,
        };
        figures.push((label, figure));
    }
    let hits: Vec<_> = hits.iter().map(|(l, n)| (l.clone(), n)).collect();
    for figure in &OF_QUOTAS {
        family(out, figure, &hits);
    }
    let all: Vec<_> = figures.iter().map(|(l, t)| (l.clone(), t)).collect();
    for figure in &OF_TENANTS {
        family(out, figure, &all);
    }
    Ok(())
}

fn of_accounts(failures: &Failures, out: &mut String) {
    let (accounts, allowed_bytes) = failures.kept();
    let figures = accounts.into_iter().map(|(account, kept)| {
        let figure = KeptFailures {
            kept,
            allowed_bytes,
        };
        (format!("account=\"{account}\""), figure)
    });
    let figures: Vec<_> = figures.collect();
    let all: Vec<_> = figures.iter().map(|(l, f)| (l.clone(), f)).collect();
    for figure in &OF_ACCOUNTS {
        family(out, figure, &all);
    }
}

fn of_outboxes(delivery: &Delivery, out: &mut String) {
    let label = |scope: &Scope| {
        let Scope { tenant, region } = scope;
        format!("account=\"{tenant}\",region=\"{region}\"")
    };
    let counts = delivery.undeliverable();
    let all: Vec<_> = counts.iter().map(|(s, n)| (label(s), n)).collect();
    for figure in &OF_OUTBOXES {
        family(out, figure, &all);
    }
}

fn family<T>(out: &mut String, (name, kind, help, figure): &Figure<T>, all: &[(String, &T)]) {
    head(out, name, kind, help);
    for (labels, of) in all {
        match figure(of) {
            Some(value) if labels.is_empty() => {
                let _ = writeln!(out, "shardmill_{name} {value}");
            }
            Some(value) => {
                let _ = writeln!(out, "shardmill_{name}{{{labels}}} {value}");
            }
            None => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The document, row by row: name, kind.
    fn documented() -> BTreeSet<(String, String)> {
        let text = include_str!("../../../../docs/metrics.md");
        let rows = text.lines().filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            let kind = cells.next()?;
            [COUNTER, GAUGE]
                .contains(&kind)
                .then(|| (name.to_owned(), kind.to_owned()))
        });
        rows.collect()
    }

    fn exposed<T>(figures: &[Figure<T>]) -> impl Iterator<Item = (String, String)> {
        let named = |figure: &Figure<T>| (format!("shardmill_{}", figure.0), figure.1.to_owned());
        figures.iter().map(named)
    }

    #[test]
    fn every_metric_is_documented_and_no_other_is() {
        let all: BTreeSet<_> = exposed(&OF_STORE)
            .chain(exposed(&OF_QUOTAS))
            .chain(exposed(&OF_TENANTS))
            .chain(exposed(&OF_ACCOUNTS))
            .chain(exposed(&OF_OUTBOXES))
            .chain(exposed(&OF_SHARDS))
            .chain(exposed(&OF_MAPPINGS))
            .collect();
        let documented = documented();
        let missing: Vec<_> = all.difference(&documented).collect();
        assert!(missing.is_empty(), "docs/metrics.md lacks {missing:?}");
        let unknown: Vec<_> = documented.difference(&all).collect();
        assert!(unknown.is_empty(), "docs/metrics.md invents {unknown:?}");
    }
}
