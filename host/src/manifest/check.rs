//! From what is written to what is meant: every value in its range, or a message with the value
//! and the range.

pub(super) mod value;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use shardmill_core::limits::{
    MAX_BATCH_BYTES, MAX_BATCH_SIZE, MAX_BATCHING_WINDOW, MAX_EFFECT_ITEMS, MAX_EVENT_BYTES,
    MAX_FUEL, MAX_MEMORY_BYTES, MAX_OUTPUT_BYTES, MAX_PARALLELIZATION_FACTOR, MAX_PARKED_KEYS,
    MAX_RETRY_ATTEMPTS, MAX_ROLL_BACK_BATCHES, MAX_TIMEOUT, MAX_TUMBLING_WINDOW, MIN_FUEL,
    MIN_MEMORY_BYTES, MIN_TIMEOUT,
};
use shardmill_core::mapping::{
    BadPolicy, OnExhausted, Policy, Shadow, StartingPosition, may_be_named,
};
use shardmill_core::quotas::{FunctionQuotas, MAX_RESERVED_CONCURRENCY, MAX_WEIGHT};
use shardmill_core::{Scope, Stream, UnixMillis};

use super::build::check_build;
use super::check_alias::check_named;
use super::check_delivery::{check_delivery, check_on_failure, check_queue};
use super::check_tenants::{check_tenants, check_tls};
use super::error::BadKey;
use super::table::{FunctionTable, Instant, MappingTable, RawManifest, ServerTable, StreamTable};
use super::{FunctionSpec, Manifest, MappingSpec, ServerSettings, StreamSpec};
use crate::functions::{FunctionRef, FunctionSettings};
use crate::mapping::FailureBounds;
use crate::server::Connections;
use crate::timestamp;
use value::Table;

/// The most shards that a manifest makes at once: enough for any host, small enough to notice a
/// slip of the keyboard.
const MAX_SHARDS: i64 = 10_000;
/// UpdateStreamRetention: `IncreaseStreamRetentionPeriod`, "RetentionPeriodHours".
const RETENTION_HOURS: RangeInclusive<i64> = 24..=8760;
/// CreateEventSourceMapping, "MaximumRecordAgeInSeconds"; −1 is without end.
const RECORD_AGE_SECONDS: RangeInclusive<i64> = 60..=604_800;
/// Standard output and error kept of an invocation, at most.
const MAX_OUTPUT_KIB: i64 = (MAX_OUTPUT_BYTES >> 10) as i64;
/// Parked records of a mapping, at most: 1 TiB.
const MAX_PARKED_MIB: i64 = 1 << 20;
/// Effects of a batch and packed bytes of a batch, at most.
const MAX_BATCH_MIB: i64 = (MAX_BATCH_BYTES >> 20) as i64;
/// Age of an entry of the failure store: a stream's longest retention.
const FAILURE_DAYS: RangeInclusive<i64> = 1..=365;
/// What a tenant may keep in the failure store: up to 1 TiB.
const FAILURE_MIB: RangeInclusive<i64> = 1..=1 << 20;
/// How far a signature's time may be from now. AWS's is 300; above an hour, a request that was
/// caught could be sent again for too long.
const CLOCK_SKEW_SECONDS: RangeInclusive<i64> = 1..=3_600;
/// Connections at one time: each costs a file descriptor and some KiB.
const CONNECTIONS: RangeInclusive<i64> = 1..=100_000;
/// How long a silent client is waited for.
const PATIENCE_SECONDS: RangeInclusive<i64> = 1..=3_600;
/// Effects of a batch, at most: items.
const MAX_EFFECTS: i64 = MAX_EFFECT_ITEMS as i64;
/// All environment variables of a function. Lambda quotas, "Environment variables".
const MAX_ENVIRONMENT_BYTES: usize = 4096;

/// Checks a whole manifest; files are relative to `base`.
pub(super) fn check(raw: RawManifest, base: &Path) -> Result<Manifest, BadKey> {
    let mut server = check_server(raw.server, base)?;
    server.tls = raw.tls.map(|table| check_tls(table, base)).transpose()?;
    let (tenants, operators) = check_tenants(raw.tenant, raw.operator, base)?;
    let default = server.scope.clone();
    let mut manifest = Manifest {
        server,
        prune: raw.prune,
        build: raw
            .build
            .map(|build| check_build(build, base))
            .transpose()?,
        delivery: check_delivery(raw.delivery, raw.s3)?,
        tenants,
        operators,
        ..Manifest::default()
    };
    let mut names = BTreeSet::new();
    for (at, table) in raw.stream.into_iter().enumerate() {
        let stream = check_stream(table, at, &default)?;
        unique(&mut names, "stream", stream.name.as_str(), &stream.scope)?;
        manifest.streams.push(stream);
    }
    for (at, mut table) in raw.function.into_iter().enumerate() {
        let name = named("function", at, table.name.take())?;
        let here = Table(format!("function {name:?}"));
        let scope = here.scope(table.account.take(), table.region.take(), &default)?;
        unique(&mut names, "function", &name, &scope)?;
        let wasm = table
            .wasm
            .take()
            .ok_or_else(|| here.missing("wasm", "the module's file"))?;
        let quotas = check_quotas(&table, &here.0)?;
        let settings = check_function(table, FunctionSettings::default(), &here.0)?;
        manifest.functions.push(FunctionSpec {
            scope,
            name,
            wasm: base.join(wasm),
            settings,
            quotas,
        });
    }
    for (at, mut table) in raw.alias.into_iter().enumerate() {
        let name = named("alias", at, table.name.take())?;
        let alias = check_named(table, name, &default)?;
        let whole = format!("{}:{}", alias.function, alias.name);
        unique(&mut names, "alias", &whole, &alias.scope)?;
        manifest.aliases.push(alias);
    }
    for (at, table) in raw.queue.into_iter().enumerate() {
        let name = named("queue", at, table.name.clone())?;
        let queue = check_queue(table, name, &default)?;
        unique(&mut names, "queue", &queue.name, &queue.scope)?;
        manifest.queues.push(queue);
    }
    for (at, mut table) in raw.mapping.into_iter().enumerate() {
        let name = named("mapping", at, table.name.take())?;
        let here = Table(format!("mapping {name:?}"));
        let scope = here.scope(table.account.take(), table.region.take(), &default)?;
        unique(&mut names, "mapping", &name, &scope)?;
        let stream = here.stream(table.stream.take())?;
        let function = table.function.take();
        let function = function.ok_or_else(|| here.missing("function", "a function's name"))?;
        let parsed = function.parse::<FunctionRef>();
        parsed.map_err(|bad| here.bad("function", format!("{function:?}"), &bad.to_string()))?;
        let (policy, position) = check_mapping(&table, Policy::manifest(), &here.0)?;
        manifest.mappings.push(MappingSpec {
            scope,
            name,
            stream,
            function,
            starting_position: position.unwrap_or(StartingPosition::TrimHorizon),
            policy,
            enabled: table.enabled,
            on_failure: check_on_failure(&table, &here.0)?.flatten(),
        });
    }
    Ok(manifest)
}

fn check_server(table: ServerTable, base: &Path) -> Result<ServerSettings, BadKey> {
    let here = Table("server".into());
    let listen = table.listen.map(|text| {
        text.parse()
            .map_err(|_| here.bad("listen", &text, "an address and port, as 127.0.0.1:4566"))
    });
    let scope = here.scope(table.account, table.region, &Scope::default())?;
    let mut failures = FailureBounds::default();
    if let Some(days) = table.failures_max_age_days {
        let days = here.number("failures_max_age_days", days, FAILURE_DAYS, " days")?;
        failures.age = Duration::from_secs(days * 86_400);
    }
    if let Some(mib) = table.failures_max_mib {
        failures.bytes = here.number("failures_max_mib", mib, FAILURE_MIB, " MiB")? << 20;
    }
    let closed = match table.access.as_deref() {
        None | Some("open") => false,
        Some("closed") => true,
        Some(other) => return Err(here.word("access", other, &["open", "closed"])),
    };
    let skew = table.clock_skew_seconds.map(|n| {
        let seconds = here.number("clock_skew_seconds", n, CLOCK_SKEW_SECONDS, " seconds");
        seconds.map(Duration::from_secs)
    });
    let mut connections = Connections::default();
    if let Some(n) = table.max_connections {
        connections.most = here.number("max_connections", n, CONNECTIONS, "")? as usize;
    }
    if let Some(n) = table.patience_seconds {
        let seconds = here.number("patience_seconds", n, PATIENCE_SECONDS, " seconds")?;
        connections.patience = Duration::from_secs(seconds);
    }
    if let Some(n) = table.body_grace_seconds {
        let seconds = here.number("body_grace_seconds", n, PATIENCE_SECONDS, " seconds")?;
        connections.body_grace = Duration::from_secs(seconds);
    }
    Ok(ServerSettings {
        failures,
        closed,
        secret_key_file: table.secret_key_file.map(|file| base.join(file)),
        connections,
        clock_skew: skew.transpose()?,
        tls: None,
        listen: listen.transpose()?,
        data_dir: table.data_dir.map(|dir| base.join(dir)),
        scope,
    })
}

fn check_stream(table: StreamTable, at: usize, default: &Scope) -> Result<StreamSpec, BadKey> {
    let name = named("stream", at, table.name)?;
    let here = Table(format!("stream {name:?}"));
    let shards = table
        .shards
        .ok_or_else(|| here.missing("shards", "1 to 10000"))?;
    let retention = table
        .retention_hours
        .unwrap_or(i64::from(Stream::DEFAULT_RETENTION_HOURS));
    Ok(StreamSpec {
        scope: here.scope(table.account, table.region, default)?,
        name: here.stream_name("name", name)?,
        shards: here.number("shards", shards, 1..=MAX_SHARDS, "")? as u32,
        retention_hours: here.number("retention_hours", retention, RETENTION_HOURS, " hours")?
            as u32,
    })
}

/// What a function is due; none where neither key is given.
pub(crate) fn check_quotas(
    table: &FunctionTable,
    here: &str,
) -> Result<Option<FunctionQuotas>, BadKey> {
    let here = Table(here.into());
    if table.weight.is_none() && table.reserved_concurrency.is_none() {
        return Ok(None);
    }
    let mut quotas = FunctionQuotas::default();
    if let Some(n) = table.weight {
        let weight = here.number("weight", n, 1..=i64::from(MAX_WEIGHT), "")?;
        quotas.weight = u32::try_from(weight).unwrap_or(MAX_WEIGHT);
    }
    if let Some(n) = table.reserved_concurrency {
        let most = i64::from(MAX_RESERVED_CONCURRENCY);
        let reserved = here.number("reserved_concurrency", n, 0..=most, "")?;
        quotas.reserved_concurrency = u32::try_from(reserved).ok();
    }
    Ok(Some(quotas))
}

/// Lays a table's settings over `base`. Its name and file are the caller's business.
pub(crate) fn check_function(
    table: FunctionTable,
    base: FunctionSettings,
    here: &str,
) -> Result<FunctionSettings, BadKey> {
    let here = Table(here.into());
    let mut settings = base;
    let limits = &mut settings.limits;
    let timeouts = MIN_TIMEOUT.as_secs() as i64..=MAX_TIMEOUT.as_secs() as i64;
    let memory = (MIN_MEMORY_BYTES >> 20) as i64..=(MAX_MEMORY_BYTES >> 20) as i64;
    let (fuel, per_record) = (MIN_FUEL as i64..=MAX_FUEL as i64, 0..=MAX_FUEL as i64);
    let answer = 1..=(MAX_EVENT_BYTES >> 10) as i64;
    if let Some(n) = table.timeout_seconds {
        let seconds = here.number("timeout_seconds", n, timeouts, " seconds")?;
        limits.timeout = Duration::from_secs(seconds);
    }
    if let Some(n) = table.memory_mib {
        limits.memory_bytes = here.number("memory_mib", n, memory, " MiB")? << 20;
    }
    if let Some(n) = table.fuel {
        limits.fuel_base = here.number("fuel", n, fuel, " units")?;
    }
    if let Some(n) = table.fuel_per_record {
        limits.fuel_per_record = here.number("fuel_per_record", n, per_record, " units")?;
    }
    if let Some(n) = table.answer_kib {
        limits.answer_bytes = here.bytes("answer_kib", n, answer, (" KiB", 10))?;
    }
    if let Some(n) = table.output_kib {
        limits.output_bytes = here.bytes("output_kib", n, 0..=MAX_OUTPUT_KIB, (" KiB", 10))?;
    }
    if let Some(n) = table.effects_mib {
        limits.effect_bytes = here.bytes("effects_mib", n, 1..=MAX_BATCH_MIB, (" MiB", 20))?;
    }
    if let Some(n) = table.effects {
        limits.effect_items = here.bytes("effects", n, 1..=MAX_EFFECTS, ("", 0))?;
    }
    if let Some(n) = table.batch_mib {
        limits.batch_bytes = here.bytes("batch_mib", n, 1..=MAX_BATCH_MIB, (" MiB", 20))?;
    }
    if let Some(environment) = table.environment {
        let size: usize = environment
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if size > MAX_ENVIRONMENT_BYTES {
            let expected =
                format!("at most {MAX_ENVIRONMENT_BYTES} bytes of names and values expected");
            return Err(here.bad("environment", format!("{size} bytes"), &expected));
        }
        let broken = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
        if let Some(name) = environment.keys().find(broken) {
            return Err(here.bad(
                "environment",
                format!("{name:?}"),
                "names without `=` expected",
            ));
        }
        settings.environment = environment;
    }
    if let Some(n) = table.state_format {
        let range = 0..=i64::from(u32::MAX);
        settings.state_format = here.number("state_format", n, range, "")? as u32;
    }
    Ok(settings)
}

/// Lays a table's settings over `base`; the starting position where one is given. Names are the
/// caller's business.
pub(crate) fn check_mapping(
    table: &MappingTable,
    base: Policy,
    here: &str,
) -> Result<(Policy, Option<StartingPosition>), BadKey> {
    let here = Table(here.into());
    let mut policy = base;
    if let Some(n) = table.batch_size {
        let range = 1..=i64::from(MAX_BATCH_SIZE);
        policy.batch_size = here.number("batch_size", n, range, " records")? as u32;
    }
    if let Some(n) = table.batching_window_seconds {
        let range = 0..=MAX_BATCHING_WINDOW.as_secs() as i64;
        let seconds = here.number("batching_window_seconds", n, range, " seconds")?;
        policy.batching_window = Duration::from_secs(seconds);
    }
    if let Some(n) = table.maximum_retry_attempts {
        let (key, range) = ("maximum_retry_attempts", 0..=i64::from(MAX_RETRY_ATTEMPTS));
        let retries = here.unless_endless(key, n, range, "")?;
        policy.maximum_retry_attempts = retries.map(|n| n as u32);
    }
    if let Some(n) = table.maximum_record_age_seconds {
        let (key, range) = ("maximum_record_age_seconds", RECORD_AGE_SECONDS);
        let seconds = here.unless_endless(key, n, range, " seconds")?;
        policy.maximum_record_age = seconds.map(Duration::from_secs);
    }
    let bisect = table.bisect_batch_on_function_error;
    policy.bisect_batch_on_function_error = bisect.unwrap_or(policy.bisect_batch_on_function_error);
    let report = table.report_batch_item_failures;
    policy.report_batch_item_failures = report.unwrap_or(policy.report_batch_item_failures);
    if let Some(text) = &table.on_exhausted {
        policy.on_exhausted = match text.as_str() {
            "discard" => OnExhausted::Discard,
            "pause" => OnExhausted::Pause,
            "park" => OnExhausted::Park,
            _ => return Err(here.word("on_exhausted", text, &["discard", "pause", "park"])),
        };
    }
    if let Some(n) = table.parallelization_factor {
        let range = 1..=i64::from(MAX_PARALLELIZATION_FACTOR);
        policy.parallelization_factor = here.number("parallelization_factor", n, range, "")? as u32;
    }
    if let Some(n) = table.tumbling_window_seconds {
        let range = 0..=MAX_TUMBLING_WINDOW.as_secs() as i64;
        let seconds = here.number("tumbling_window_seconds", n, range, " seconds")?;
        policy.tumbling_window = Duration::from_secs(seconds);
    }
    if let Some(filters) = &table.filters {
        policy.filter_criteria.clone_from(filters);
    }
    policy.deaggregate = table.deaggregate.unwrap_or(policy.deaggregate);
    if let Some(n) = table.circuit_breaker {
        let range = 0..=i64::from(MAX_RETRY_ATTEMPTS);
        policy.circuit_breaker =
            here.number("circuit_breaker", n, range, " failed batches")? as u32;
    }
    if let Some(n) = table.max_parked_keys {
        let range = 1..=i64::from(MAX_PARKED_KEYS);
        policy.max_parked_keys = here.number("max_parked_keys", n, range, "")? as u32;
    }
    if let Some(n) = table.max_parked_mib {
        let range = 1..=MAX_PARKED_MIB;
        policy.max_parked_bytes = here.number("max_parked_mib", n, range, " MiB")? << 20;
    }
    if let Some(n) = table.roll_back_failure_percent {
        let (key, range) = ("roll_back_failure_percent", 0..=100);
        policy.roll_back_failure_percent = here.number(key, n, range, " percent")? as u32;
    }
    if let Some(n) = table.roll_back_batches {
        let range = 1..=i64::from(MAX_ROLL_BACK_BATCHES);
        policy.roll_back_batches = here.number("roll_back_batches", n, range, " batches")? as u32;
    }
    check_shadow(table, &mut policy, &here)?;
    check_together(&policy, &here)?;
    Ok((policy, check_position(table, &here)?))
}

/// What runs beside the mapping: an empty text takes it away, and its bounds with it.
fn check_shadow(table: &MappingTable, policy: &mut Policy, here: &Table) -> Result<(), BadKey> {
    const KEY: &str = "shadow";
    const EXPECTED: &str = "\":VERSION\", \":ALIAS\" or \"FUNCTION:VERSION\"";
    if let Some(text) = &table.shadow {
        if !text.is_empty() {
            let named = FunctionRef::beside("f", text);
            named.map_err(|error| here.bad(KEY, format!("{text:?}"), &error.to_string()))?;
        }
        let before = policy.shadow.take();
        policy.shadow = (!text.is_empty()).then(|| Shadow {
            function: text.clone(),
            ..before.unwrap_or_else(|| Shadow::of(""))
        });
    }
    if let Some(n) = table.shadow_percent {
        let percent = here.number("shadow_percent", n, 1..=100, " percent")? as u32;
        let shadow = policy.shadow.as_mut();
        shadow.ok_or_else(|| here.missing(KEY, EXPECTED))?.percent = percent;
    }
    if let Some(n) = table.shadow_fuel_per_second {
        let range = MIN_FUEL as i64..=MAX_FUEL as i64;
        let fuel = here.number("shadow_fuel_per_second", n, range, " units per second")?;
        let shadow = policy.shadow.as_mut();
        shadow
            .ok_or_else(|| here.missing(KEY, EXPECTED))?
            .fuel_per_second = fuel;
    }
    Ok(())
}

/// Settings that exclude each other, and patterns that are none.
fn check_together(policy: &Policy, here: &Table) -> Result<(), BadKey> {
    let bad = match policy.check() {
        Ok(()) => return Ok(()),
        Err(bad) => bad,
    };
    let window = format!("{} seconds", policy.tumbling_window.as_secs());
    Err(match &bad {
        BadPolicy::Window(_) => here.bad("tumbling_window_seconds", window, &bad.to_string()),
        BadPolicy::Filter(_) => {
            let patterns = format!("{:?}", policy.filter_criteria);
            here.bad("filters", patterns, &bad.to_string())
        }
        BadPolicy::Range { value, .. } => here.bad("mapping", value, &bad.to_string()),
    })
}

/// What is possible for a point in time.
const INSTANT_EXPECTED: &str =
    "a date and time with offset, as 2026-01-31T12:00:00Z, or seconds since 1970";

/// A point in time, however it is written.
///
/// # Errors
/// Any other text, a date without a time, a negative number; the key is the one that is given.
pub(crate) fn instant(key: &'static str, at: &Instant, here: &str) -> Result<UnixMillis, BadKey> {
    let here = Table(here.into());
    let (shown, parsed) = match at {
        Instant::Seconds(seconds) => {
            let good = *seconds >= 0.0 && seconds.is_finite();
            let at = good.then_some(UnixMillis((seconds * 1000.0) as u64));
            (seconds.to_string(), at)
        }
        Instant::Text(text) => (format!("{text:?}"), timestamp::parse(text)),
        Instant::Toml(date) => (date.to_string(), timestamp::parse(&date.to_string())),
    };
    parsed.ok_or_else(|| here.bad(key, shown, INSTANT_EXPECTED))
}

fn check_position(table: &MappingTable, here: &Table) -> Result<Option<StartingPosition>, BadKey> {
    const KEY: &str = "starting_position_timestamp";
    const EXPECTED: &str = INSTANT_EXPECTED;
    let at = table.starting_position_timestamp.as_ref();
    let at = at.map(|at| instant(KEY, at, &here.0)).transpose()?;
    const WORDS: [&str; 3] = ["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"];
    match (table.starting_position.as_deref(), at) {
        (None, None) => Ok(None),
        (Some("TRIM_HORIZON"), None) => Ok(Some(StartingPosition::TrimHorizon)),
        (Some("LATEST"), None) => Ok(Some(StartingPosition::Latest)),
        (None | Some("AT_TIMESTAMP"), Some(at)) => Ok(Some(StartingPosition::AtTimestamp(at))),
        (Some("AT_TIMESTAMP"), None) => Err(here.missing(KEY, EXPECTED)),
        (Some(text), Some(_)) if WORDS.contains(&text) => Err(here.bad(
            "starting_position",
            format!("{text:?}"),
            "AT_TIMESTAMP expected with a timestamp",
        )),
        (Some(text), _) => Err(here.word("starting_position", text, &WORDS)),
    }
}

fn named(kind: &str, at: usize, name: Option<String>) -> Result<String, BadKey> {
    let here = Table(format!("{kind} number {}", at + 1));
    let name = name.ok_or_else(|| here.missing("name", "a name"))?;
    if !may_be_named(&name) {
        let expected = "1 to 128 characters expected, none of them control characters";
        return Err(here.bad("name", format!("{name:?}"), expected));
    }
    Ok(name)
}

fn unique(
    seen: &mut BTreeSet<(&'static str, String, Scope)>,
    kind: &'static str,
    name: &str,
    scope: &Scope,
) -> Result<(), BadKey> {
    if seen.insert((kind, name.into(), scope.clone())) {
        return Ok(());
    }
    let expected = "it is named twice".into();
    Err(BadKey {
        table: kind.into(),
        key: "name",
        value: Some(format!("{name:?}")),
        expected,
    })
}
