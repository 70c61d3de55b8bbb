//! `shardmill functions`: list, deploy, publish, versions, delete, describe.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Subcommand;
use hyper::Method;
use serde_json::{Map, Value};

use super::client::escaped;
use super::{Connection, print};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the functions (the default)
    List,
    /// Deploy a module; settings that are not given stay as they are
    Deploy {
        /// The function's name
        name: String,
        /// The module
        wasm: PathBuf,
        /// Change $LATEST alone; `publish` makes a version of it
        #[arg(long)]
        latest_only: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Make a version of what $LATEST is
    Publish {
        /// The function's name
        name: String,
        /// What to say of the version
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Set what a function is due among its tenant's
    Quotas {
        /// The function's name
        name: String,
        /// Its share of the tenant's fuel against the other functions' weights, 1 to 1,000; the
        /// usual one is 100
        #[arg(long, value_name = "N", default_value_t = 100)]
        weight: u32,
        /// Attempts that run at a time, at the most, and kept for it: 0 to 1,000; without this
        /// nothing is reserved
        #[arg(long, value_name = "N")]
        reserved_concurrency: Option<u32>,
    },
    /// List the versions of a function
    Versions {
        /// The function's name
        name: String,
    },
    /// Delete a function with its versions and aliases, or one version
    Delete {
        /// NAME, or NAME:VERSION
        name: String,
    },
    /// Show a function with its limits and environment, and why its last deploy failed
    #[command(visible_alias = "show")]
    Describe {
        /// NAME, NAME:VERSION or NAME:ALIAS
        name: String,
    },
}

/// What a function runs with: the manifest's keys.
#[derive(Debug, clap::Args)]
struct Settings {
    /// Wall clock of an invocation, 1 to 900 s
    #[arg(long, value_name = "N")]
    timeout_seconds: Option<u64>,
    /// Memory of an invocation, 1 to 1024 MiB
    #[arg(long, value_name = "N")]
    memory_mib: Option<u64>,
    /// Fuel of an invocation before records are counted
    #[arg(long, value_name = "N")]
    fuel: Option<u64>,
    /// Fuel added per record
    #[arg(long, value_name = "N")]
    fuel_per_record: Option<u64>,
    /// The form of its state; a roll-back to a version with another one pauses the mapping
    #[arg(long, value_name = "N")]
    state_format: Option<u64>,
    /// An environment variable; all of them are replaced when any is given
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    environment: Vec<(String, String)>,
}

fn variable(text: &str) -> Result<(String, String), anyhow::Error> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| anyhow!("NAME=VALUE expected"))?;
    Ok((name.into(), value.into()))
}

impl Settings {
    fn json(self) -> Value {
        let mut settings = Map::new();
        for (key, value) in [
            ("timeout_seconds", self.timeout_seconds),
            ("memory_mib", self.memory_mib),
            ("fuel", self.fuel),
            ("fuel_per_record", self.fuel_per_record),
            ("state_format", self.state_format),
        ] {
            settings.extend(value.map(|value| (key.into(), value.into())));
        }
        if !self.environment.is_empty() {
            let variables = self
                .environment
                .into_iter()
                .map(|(name, value)| (name, value.into()));
            settings.insert("environment".into(), Value::Object(variables.collect()));
        }
        settings.into()
    }
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        command,
        connection,
    } = arguments;
    let client = connection.client()?;
    let path = |name: &str| format!("functions/{}", escaped(name));
    match command.unwrap_or(Command::List) {
        Command::List => {
            let answer = client.get("functions").await?;
            if connection.json {
                return print::line(answer);
            }
            let mut table = print::table(&[
                "function",
                "version",
                "size",
                "digest",
                "deployed",
                "last deploy failed",
            ]);
            for function in answer["functions"].as_array().into_iter().flatten() {
                let digest = print::cell(&function["digest"]);
                table.add_row([
                    print::cell(&function["name"]),
                    print::cell(&function["version"]),
                    print::size(function["code_size"].as_u64().unwrap_or(0)),
                    digest.chars().take(12).collect(),
                    print::time(&function["last_modified"]),
                    print::one_line(function["failed_deploy"]["reason"].as_str().unwrap_or("")),
                ]);
            }
            print::rows(
                &table,
                "no functions: `shardmill functions deploy NAME WASM` deploys one",
            )
        }
        Command::Deploy {
            name,
            wasm,
            latest_only,
            settings,
        } => {
            let module =
                std::fs::read(&wasm).with_context(|| format!("read {}", wasm.display()))?;
            let settings = escaped(&settings.json().to_string());
            let path = format!(
                "{}?settings={settings}&latest_only={latest_only}",
                path(&name)
            );
            let body = Some(("application/wasm", module.into()));
            let answer = client.patient().native(Method::PUT, &path, body).await?;
            let version = print::cell(&answer["version"]);
            let text = format!("function {name} deployed, version {version}");
            print::done(connection.json, &answer, &text)
        }
        Command::Publish { name, description } => {
            let body = serde_json::json!({ "description": description });
            let path = format!("{}/versions", path(&name));
            let answer = client.send(Method::POST, &path, &body).await?;
            let version = print::cell(&answer["version"]);
            let text = format!("function {name} published as version {version}");
            print::done(connection.json, &answer, &text)
        }
        Command::Quotas {
            name,
            weight,
            reserved_concurrency,
        } => {
            let body = serde_json::json!({
                "weight": weight, "reserved_concurrency": reserved_concurrency,
            });
            let path = format!("{}/quotas", path(&name));
            let answer = client.send(Method::PUT, &path, &body).await?;
            let reserved = reserved_concurrency.map_or("nothing reserved".into(), |n| {
                format!("{n} attempts reserved")
            });
            let text = format!("function {name}: weight {weight}, {reserved}");
            print::done(connection.json, &answer, &text)
        }
        Command::Versions { name } => {
            let answer = client.get(&format!("{}/versions", path(&name))).await?;
            if connection.json {
                return print::line(answer);
            }
            versions(&answer)
        }
        Command::Delete { name } => {
            let answer = client.native(Method::DELETE, &path(&name), None).await?;
            print::done(
                connection.json,
                &answer,
                &format!("function {name} deleted"),
            )
        }
        Command::Describe { name } => {
            let answer = client.get(&path(&name)).await?;
            if connection.json {
                print::line(answer)
            } else {
                describe(&answer)
            }
        }
    }
}

fn versions(answer: &Value) -> anyhow::Result<()> {
    let mut table = print::table(&["version", "size", "digest", "published", "description"]);
    let versions = answer["versions"].as_array().into_iter().flatten();
    // What is not published stands behind all that is.
    let latest = Some(&answer["latest"]).filter(|latest| latest["version"].is_string());
    for version in versions.chain(latest) {
        let digest = print::cell(&version["digest"]);
        table.add_row([
            print::cell(&version["version"]),
            print::size(version["code_size"].as_u64().unwrap_or(0)),
            digest.chars().take(12).collect(),
            print::time(&version["last_modified"]),
            print::cell(&version["description"]),
        ]);
    }
    print::rows(
        &table,
        "no versions: `shardmill functions publish NAME` makes one",
    )
}

fn describe(function: &Value) -> anyhow::Result<()> {
    for key in [
        "name",
        "version",
        "digest",
        "code_size",
        "timeout_seconds",
        "memory_mib",
        "fuel",
        "fuel_per_record",
        "state_format",
    ] {
        print::line(format!(
            "{:<16} {}",
            key.replace('_', " "),
            print::cell(&function[key])
        ))?;
    }
    print::line(format!(
        "{:<16} {}",
        "deployed",
        print::time(&function["last_modified"])
    ))?;
    if let Some(reason) = function["failed_deploy"]["reason"].as_str() {
        let (at, reason) = (
            print::time(&function["failed_deploy"]["at"]),
            print::one_line(reason),
        );
        print::line(format!("{:<16} at {at}: {reason}", "last deploy"))?;
        print::line(format!("{:<16} failed; the version above goes on", ""))?;
    }
    for (name, value) in function["environment"].as_object().into_iter().flatten() {
        print::line(format!(
            "{:<16} {}={}",
            "environment",
            print::plain(name),
            print::cell(value)
        ))?;
    }
    Ok(())
}
