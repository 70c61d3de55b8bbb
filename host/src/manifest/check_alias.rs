//! Aliases of functions, as they are written.

use shardmill_core::Scope;
use shardmill_core::mapping::Weight;

use super::AliasSpec;
use super::check::value::Table;
use super::error::BadKey;
use super::table::{AliasTable, VersionName};
use crate::functions::{self, LATEST, Qualifier};

const VERSION_EXPECTED: &str = "a version's number from 1, or \"$LATEST\"";

/// Checks an alias of the manifest.
pub(super) fn check_named(
    mut table: AliasTable,
    name: String,
    default: &Scope,
) -> Result<AliasSpec, BadKey> {
    let here = Table(format!("alias {name:?}"));
    let scope = here.scope(table.account.take(), table.region.take(), default)?;
    if !matches!(name.parse(), Ok(Qualifier::Alias(_))) {
        let expected = "1 to 128 of a-z A-Z 0-9 - _ expected, not a number";
        return Err(here.bad("name", format!("{name:?}"), expected));
    }
    let function = table.function.take();
    Ok(AliasSpec {
        scope,
        name,
        function: function.ok_or_else(|| here.missing("function", "a function's name"))?,
        spec: check_alias(table, &here.0)?,
    })
}

/// What an alias should be. Its name is the caller's business.
pub(crate) fn check_alias(table: AliasTable, here: &str) -> Result<functions::AliasSpec, BadKey> {
    let here = Table(here.into());
    let version = match table.version {
        None => return Err(here.missing("version", VERSION_EXPECTED)),
        Some(version) => check_version(version, &here)?,
    };
    let mut second = None;
    for (text, share) in table.routing.unwrap_or_default() {
        if second.is_some() {
            let expected = "at most one version beside the alias's own expected";
            return Err(here.bad("routing", "two versions", expected));
        }
        let number = text.parse().ok().filter(|n| *n > 0);
        let number = number.ok_or_else(|| {
            here.bad(
                "routing",
                format!("{text:?}"),
                "a version's number from 1 expected",
            )
        })?;
        let weight = Weight::try_from(share);
        let weight = weight.map_err(|_| here.bad("routing", share, "0.0 to 1.0 expected"))?;
        second = Some((number, weight));
    }
    Ok(functions::AliasSpec {
        version,
        second,
        description: table.description.unwrap_or_default(),
    })
}

fn check_version(version: VersionName, here: &Table) -> Result<u64, BadKey> {
    match version {
        VersionName::Number(number) if number > 0 => Ok(number as u64),
        VersionName::Number(number) => Err(here.bad("version", number, VERSION_EXPECTED)),
        VersionName::Text(text) if text == LATEST => Ok(0),
        VersionName::Text(text) => {
            let number = text.parse().ok().filter(|n| *n > 0);
            number.ok_or_else(|| here.bad("version", format!("{text:?}"), VERSION_EXPECTED))
        }
    }
}
