//! Aliases: names for a version, or for two that share the requests.

use serde_json::{Value, json};

use super::error::Error;
use super::request::Call;
use super::{Answer, ok};
use crate::functions::{Alias, LATEST};
use crate::manifest::{AliasTable, check_alias};

/// The aliases of a function.
pub(super) fn list(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let functions = &call.workloads()?.functions;
    functions.describe(&call.scope, name)?;
    let aliases = functions.aliases(&call.scope, name)?;
    let views: Vec<_> = aliases.iter().map(|alias| view(name, alias)).collect();
    ok(&json!({ "function": name, "aliases": views }))
}

/// One alias.
pub(super) fn get(call: &Call<'_>, name: &str, alias: &str) -> Result<Answer, Error> {
    let found = call
        .workloads()?
        .functions
        .alias(&call.scope, name, alias)?;
    ok(&view(name, &found))
}

/// Makes an alias, or changes it; with `create`, only makes one.
pub(super) async fn put(call: &Call<'_>, name: &str, alias: &str) -> Result<Answer, Error> {
    let table: AliasTable = call.json()?;
    if table.names_itself() {
        return Err(Error::bad_request(
            "body: name, function, account and region are not for here",
        )
        .hint("the path names the alias, the signature the account and the region"));
    }
    let spec = check_alias(table, "body")?;
    let create = call.flag("create")?;
    let functions = &call.workloads()?.functions;
    let made = functions.set_alias(&call.scope, (name, alias), spec, create);
    ok(&view(name, &made.await?))
}

/// Deletes an alias.
pub(super) async fn delete(call: &Call<'_>, name: &str, alias: &str) -> Result<Answer, Error> {
    let functions = &call.workloads()?.functions;
    functions.delete_alias(&call.scope, name, alias).await?;
    ok(&json!({ "function": name, "name": alias }))
}

fn view(function: &str, alias: &Alias) -> Value {
    let version: Value = match alias.version {
        0 => LATEST.into(),
        version => version.into(),
    };
    let second = alias.second.iter();
    let routing: serde_json::Map<_, _> = second
        .map(|second| (second.version.to_string(), json!(second.weight)))
        .collect();
    json!({
        "function": function,
        "name": alias.name,
        "version": version,
        "routing": routing,
        "description": alias.description,
        "revision": alias.revision,
        "last_modified": alias.last_modified,
    })
}
