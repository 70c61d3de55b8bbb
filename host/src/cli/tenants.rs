//! `shardmill tenants`: who the tenants are, their quotas, and what they use of them.

use serde_json::Value;

use super::client::escaped;
use super::{Connection, print};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only the tenant with this account, 12 digits, in full
    #[arg(value_name = "ACCOUNT")]
    tenant: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let client = arguments.connection.client()?;
    let json = arguments.connection.json;
    let Some(account) = &arguments.tenant else {
        let answer = client.get("tenants").await?;
        return if json {
            print::line(answer)
        } else {
            list(answer["tenants"].as_array().map_or(&[], Vec::as_slice))
        };
    };
    let tenant = client.get(&format!("tenants/{}", escaped(account))).await?;
    if json {
        print::line(tenant)
    } else {
        show(&tenant)
    }
}

fn list(tenants: &[Value]) -> anyhow::Result<()> {
    let mut table = print::table(&[
        "account",
        "name",
        "weight",
        "stored MiB",
        "shards",
        "functions",
        "quotas hit",
    ]);
    for tenant in tenants {
        let (quotas, usage) = (&tenant["quotas"], &tenant["usage"]);
        table.add_row([
            print::cell(&tenant["account"]),
            print::cell(&tenant["name"]),
            print::cell(&tenant["weight"]),
            of(&mib(&usage["stored_bytes"]), &quotas["stored_mib"]),
            of(&usage["shards"].to_string(), &quotas["shards"]),
            of(&usage["functions"].to_string(), &quotas["functions"]),
            hits(&tenant["hits"]),
        ]);
    }
    print::rows(&table, "no tenants: [[tenant]] in the manifest names them")
}

fn show(tenant: &Value) -> anyhow::Result<()> {
    let (quotas, usage) = (&tenant["quotas"], &tenant["usage"]);
    let limit = |name: &str| match &quotas[name] {
        Value::Null => "no limit".to_owned(),
        limit => limit.to_string(),
    };
    let keys = tenant["access_keys"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let keys: Vec<_> = keys.iter().filter_map(Value::as_str).collect();
    let rows = [
        ("account", print::cell(&tenant["account"])),
        ("name", print::cell(&tenant["name"])),
        ("weight", print::cell(&tenant["weight"])),
        (
            "stored MiB",
            of(&mib(&usage["stored_bytes"]), &quotas["stored_mib"]),
        ),
        (
            "shards",
            of(&usage["shards"].to_string(), &quotas["shards"]),
        ),
        (
            "functions",
            of(&usage["functions"].to_string(), &quotas["functions"]),
        ),
        ("requests a second", limit("requests_per_second")),
        ("concurrent invocations", limit("concurrent_invocations")),
        ("guest memory MiB", limit("guest_memory_mib")),
        ("fuel a second", limit("fuel_per_second")),
        ("quotas hit", hits(&tenant["hits"])),
        ("access keys", keys.join(", ")),
    ];
    let mut table = print::table(&["", ""]);
    table.set_header(Vec::<String>::new());
    for (name, value) in rows {
        table.add_row([name.to_owned(), value]);
    }
    print::rows(&table, "")
}

/// What is used, of how much.
fn of(used: &str, allowed: &Value) -> String {
    match allowed {
        Value::Null => used.to_owned(),
        allowed => format!("{used} of {allowed}"),
    }
}

fn mib(bytes: &Value) -> String {
    let bytes = bytes.as_u64().unwrap_or_default();
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

fn hits(hits: &Value) -> String {
    let hits = hits.as_object().into_iter().flatten();
    let hits: Vec<_> = hits
        .map(|(quota, count)| format!("{quota} {count}"))
        .collect();
    hits.join(", ")
}
