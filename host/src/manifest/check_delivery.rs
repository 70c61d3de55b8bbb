//! Checks of what has to do with on-failure destinations: `[delivery]`, `[s3]`, `[[queue]]`, and
//! a mapping's `on_failure`.

use std::ops::RangeInclusive;
use std::time::Duration;

use shardmill_core::Scope;

use super::QueueSpec;
use super::check::value::Table;
use super::error::BadKey;
use super::table::{DeliveryTable, MappingTable, QueueTable, S3Table};
use crate::delivery::{self, Destination, S3Settings, is_queue_name};

/// Age at which a delivery is given up, hours.
const MAXIMUM_AGE_HOURS: RangeInclusive<i64> = 1..=720;
/// Time that one attempt may take, seconds.
const TIMEOUT_SECONDS: RangeInclusive<i64> = 1..=300;
/// Deliveries that an account may keep: each is a few hundred bytes of memory while it waits.
const OUTBOX_ENTRIES: RangeInclusive<i64> = 1..=1_000_000;
/// Bytes of deliveries that an account may keep, MiB.
const OUTBOX_MIB: RangeInclusive<i64> = 1..=65_536;
/// CreateQueue, "VisibilityTimeout", seconds.
const VISIBILITY_SECONDS: RangeInclusive<i64> = 0..=43_200;
/// CreateQueue, "MessageRetentionPeriod", seconds.
const RETENTION_SECONDS: RangeInclusive<i64> = 60..=1_209_600;

/// What a mapping's table says of its destination: nothing, that there is none any more (the
/// empty text), or which.
pub(crate) fn check_on_failure(
    table: &MappingTable,
    here: &str,
) -> Result<Option<Option<Destination>>, BadKey> {
    match table.on_failure.as_deref() {
        None => Ok(None),
        Some("") => Ok(Some(None)),
        Some(text) => match text.parse() {
            Ok(destination) => Ok(Some(Some(destination))),
            Err(delivery::BadDestination { text, why }) => {
                Err(Table(here.into()).bad("on_failure", format!("{text:?}"), &why))
            }
        },
    }
}

pub(super) fn check_delivery(
    table: DeliveryTable,
    s3: S3Table,
) -> Result<delivery::Settings, BadKey> {
    let here = Table("delivery".into());
    let mut settings = delivery::Settings::default();
    if let Some(n) = table.maximum_age_hours {
        let hours = here.number("maximum_age_hours", n, MAXIMUM_AGE_HOURS, " hours")?;
        settings.maximum_age = Duration::from_secs(hours * 3600);
    }
    if let Some(n) = table.timeout_seconds {
        let seconds = here.number("timeout_seconds", n, TIMEOUT_SECONDS, " seconds")?;
        settings.timeout = Duration::from_secs(seconds);
    }
    if let Some(n) = table.outbox_entries {
        settings.bounds.entries = here.number("outbox_entries", n, OUTBOX_ENTRIES, "")?;
    }
    if let Some(n) = table.outbox_mib {
        settings.bounds.bytes = here.number("outbox_mib", n, OUTBOX_MIB, " MiB")? << 20;
    }
    if table.webhook_secret.as_deref() == Some("") {
        return Err(here.bad(
            "webhook_secret",
            "\"\"",
            "a secret expected, or no such key",
        ));
    }
    settings.webhook_secret = table.webhook_secret;
    let prefixes = table.allow.map(|prefixes| {
        let prefixes = prefixes.iter().map(|text| prefix(text, &here));
        prefixes.collect::<Result<Vec<_>, _>>()
    });
    settings.allowed.prefixes = prefixes.transpose()?;
    settings.s3 = check_s3(s3)?;
    Ok(settings)
}

/// The beginning of destinations that may be named.
fn prefix(text: &str, here: &Table) -> Result<Destination, BadKey> {
    let bad = |why: &str| here.bad("allow", format!("{text:?}"), why);
    let prefix: Destination = text
        .parse()
        .map_err(|error: delivery::BadDestination| bad(&error.why))?;
    match prefix.kind() {
        delivery::Kind::Queue { .. } => Err(bad("queues are always allowed")),
        _ => Ok(prefix),
    }
}

fn check_s3(table: S3Table) -> Result<S3Settings, BadKey> {
    let here = Table("s3".into());
    let S3Table {
        endpoint,
        region,
        access_key_id,
        secret_access_key,
    } = table;
    if let Some(text) = endpoint.as_deref()
        && !text.starts_with("https://")
        && !text.starts_with("http://")
    {
        let expected = "https://HOST:PORT or http://HOST:PORT expected";
        return Err(here.bad("endpoint", format!("{text:?}"), expected));
    }
    if access_key_id.is_some() != secret_access_key.is_some() {
        let missing = match access_key_id {
            Some(_) => "secret_access_key",
            None => "access_key_id",
        };
        return Err(here.missing(missing, "both keys, or neither and the environment's,"));
    }
    Ok(S3Settings {
        endpoint,
        region,
        access_key_id,
        secret_access_key,
    })
}

pub(super) fn check_queue(
    table: QueueTable,
    name: String,
    default: &Scope,
) -> Result<QueueSpec, BadKey> {
    let here = Table(format!("queue {name:?}"));
    if !is_queue_name(&name) {
        let expected = "1 to 80 of a-z A-Z 0-9 _ - expected; FIFO queues are not supported";
        return Err(here.bad("name", format!("{name:?}"), expected));
    }
    let seconds = |key, value: Option<i64>, range| {
        let checked = value.map(|n| here.number(key, n, range, " seconds"));
        Ok::<_, BadKey>(checked.transpose()?.map(|n| n as u32))
    };
    let (visibility, retention) = (
        table.visibility_timeout_seconds,
        table.message_retention_seconds,
    );
    Ok(QueueSpec {
        scope: here.scope(table.account, table.region, default)?,
        visibility_timeout_seconds: seconds(
            "visibility_timeout_seconds",
            visibility,
            VISIBILITY_SECONDS,
        )?,
        message_retention_seconds: seconds(
            "message_retention_seconds",
            retention,
            RETENTION_SECONDS,
        )?,
        name,
    })
}
