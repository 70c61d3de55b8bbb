//! Checks of what says who may call: `[[tenant]]`, `[[operator]]`, `[tls]`.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

use shardmill_core::quotas::{MAX_WEIGHT, Quotas};

use super::check::value::Table;
use super::error::BadKey;
use super::table::{AccessKeyTable, OperatorTable, TenantTable, TlsTable};
use crate::server::TlsFiles;
use crate::tenancy::{AccessKeySpec, MIN_SECRET_CHARS, OperatorSpec, SecretSource, TenantSpec};

/// Up to a pebibyte.
const STORED_MIB: RangeInclusive<i64> = 0..=1 << 30;
const SHARDS: RangeInclusive<i64> = 0..=1_000_000;
const FUNCTIONS: RangeInclusive<i64> = 0..=1_000_000;
const REQUESTS: RangeInclusive<i64> = 1..=1_000_000;
const INVOCATIONS: RangeInclusive<i64> = 1..=1_000_000;
/// At least the memory that an attempt has by default; up to a tebibyte.
const GUEST_MEMORY_MIB: RangeInclusive<i64> = 1..=1 << 20;
/// At least the least fuel of an invocation.
const FUEL: RangeInclusive<i64> = 1_000_000..=1_000_000_000_000_000;
/// Characters of an access key's id; IAM's have 16 to 128.
const ID_CHARS: RangeInclusive<usize> = 4..=128;
/// Characters of a tenant's or an operator's name.
const MAX_NAME_CHARS: usize = 128;

pub(super) fn check_tls(table: TlsTable, base: &Path) -> Result<TlsFiles, BadKey> {
    let here = Table("tls".into());
    let file = |key, path: Option<std::path::PathBuf>, what| {
        let path = path.ok_or_else(|| here.missing(key, what))?;
        Ok::<_, BadKey>(base.join(path))
    };
    Ok(TlsFiles {
        certificate: file("certificate", table.certificate, "a PEM file")?,
        key: file("key", table.key, "a PEM file")?,
    })
}

pub(super) fn check_tenants(
    tenants: Vec<TenantTable>,
    operators: Vec<OperatorTable>,
    base: &Path,
) -> Result<(Vec<TenantSpec>, Vec<OperatorSpec>), BadKey> {
    let (mut accounts, mut ids) = (BTreeSet::new(), BTreeSet::new());
    let tenants = tenants.into_iter().enumerate().map(|(at, table)| {
        let tenant = check_tenant(table, at, base, &mut ids)?;
        if accounts.insert(tenant.account) {
            return Ok(tenant);
        }
        let here = Table("tenant".into());
        let account = format!("\"{}\"", tenant.account);
        Err(here.bad("account", account, "two tenants have this account"))
    });
    let tenants = tenants.collect::<Result<_, BadKey>>()?;
    let operators = operators.into_iter().enumerate().map(|(at, table)| {
        let name = table.name.filter(|name| !name.is_empty());
        let number = Table(format!("operator number {}", at + 1));
        let name = name.ok_or_else(|| number.missing("name", "a name"))?;
        let here = Table(format!("operator {name:?}"));
        check_name(&here, &name)?;
        if table.access_key.is_empty() {
            return Err(here.missing("access_key", "at least one [[operator.access_key]]"));
        }
        let access_keys = check_keys(&here, table.access_key, base, &mut ids)?;
        Ok(OperatorSpec { name, access_keys })
    });
    let operators = operators.collect::<Result<_, BadKey>>()?;
    Ok((tenants, operators))
}

fn check_tenant(
    table: TenantTable,
    at: usize,
    base: &Path,
    ids: &mut BTreeSet<String>,
) -> Result<TenantSpec, BadKey> {
    let number = Table(format!("tenant number {}", at + 1));
    let account = table.account.as_deref();
    let account = account.ok_or_else(|| number.missing("account", "12 digits"))?;
    let here = Table(format!("tenant {account:?}"));
    let account = account
        .parse()
        .map_err(|_| here.bad("account", format!("{account:?}"), "12 digits expected"))?;
    let name = table.name.unwrap_or_default();
    check_name(&here, &name)?;
    let number = |key, value: Option<i64>, range, unit| {
        let checked = value.map(|n| here.number(key, n, range, unit));
        checked.transpose()
    };
    let small = |key, value, range| {
        let checked = number(key, value, range, "")?;
        Ok::<_, BadKey>(checked.map(|n| n as u32))
    };
    let mib = |key, value, range| {
        let checked = number(key, value, range, " MiB")?;
        Ok::<_, BadKey>(checked.map(|n| n << 20))
    };
    let default = Quotas::default();
    let weight = small("weight", table.weight, 1..=i64::from(MAX_WEIGHT))?;
    Ok(TenantSpec {
        account,
        quotas: Quotas {
            weight: weight.unwrap_or(default.weight),
            stored_bytes: mib("stored_mib", table.stored_mib, STORED_MIB)?,
            shards: small("shards", table.shards, SHARDS)?,
            functions: small("functions", table.functions, FUNCTIONS)?,
            requests_per_second: small("requests_per_second", table.requests_per_second, REQUESTS)?,
            concurrent_invocations: small(
                "concurrent_invocations",
                table.concurrent_invocations,
                INVOCATIONS,
            )?,
            guest_memory_bytes: mib("guest_memory_mib", table.guest_memory_mib, GUEST_MEMORY_MIB)?,
            fuel_per_second: number("fuel_per_second", table.fuel_per_second, FUEL, "")?,
        },
        access_keys: check_keys(&here, table.access_key, base, ids)?,
        name,
    })
}

fn check_name(here: &Table, name: &str) -> Result<(), BadKey> {
    if name.chars().count() <= MAX_NAME_CHARS && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let expected = format!("at most {MAX_NAME_CHARS} characters, none of them control characters,");
    Err(here.bad("name", format!("{name:?}"), &format!("{expected} expected")))
}

fn check_keys(
    owner: &Table,
    tables: Vec<AccessKeyTable>,
    base: &Path,
    ids: &mut BTreeSet<String>,
) -> Result<Vec<AccessKeySpec>, BadKey> {
    let check = |(at, table): (usize, AccessKeyTable)| {
        let number = Table(format!("{}: access_key number {}", owner.0, at + 1));
        let id = table.id.ok_or_else(|| number.missing("id", "a key's id"))?;
        let here = Table(format!("{}: access_key {id:?}", owner.0));
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if !ID_CHARS.contains(&id.len()) || !id.bytes().all(good) {
            let expected = "4 to 128 of a-z A-Z 0-9 _ expected";
            return Err(here.bad("id", format!("{id:?}"), expected));
        }
        if !ids.insert(id.clone()) {
            return Err(here.bad("id", format!("{id:?}"), "two access keys have this id"));
        }
        let one = "one of secret, secret_file and secret_env";
        let secret = match (table.secret, table.secret_file, table.secret_env) {
            (Some(secret), None, None) => {
                let length = secret.reveal().chars().count();
                if length < MIN_SECRET_CHARS {
                    let told = format!("{length} characters");
                    let expected = format!("{MIN_SECRET_CHARS} characters at least expected");
                    return Err(here.bad("secret", told, &expected));
                }
                SecretSource::Inline(secret)
            }
            (None, Some(path), None) => SecretSource::File(base.join(path)),
            (None, None, Some(name)) => SecretSource::Variable(name),
            (None, None, None) => return Err(here.missing("secret", one)),
            _ => return Err(here.bad("secret", "given twice", &format!("{one} expected"))),
        };
        Ok(AccessKeySpec { id, secret })
    };
    tables.into_iter().enumerate().map(check).collect()
}
