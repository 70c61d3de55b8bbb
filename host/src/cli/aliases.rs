//! `shardmill aliases`: names for a version of a function, or for two that share the requests.

use anyhow::{anyhow, bail};
use clap::Subcommand;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, escaped};
use super::{Connection, print};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the aliases of a function
    List {
        /// The function's name
        function: String,
    },
    /// Make an alias, or change it; from the next batch on, those who name it get what it says
    Set {
        /// FUNCTION:ALIAS
        alias: String,
        /// The version, or $LATEST; one that is there already keeps its own
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
        /// Another version with its share of the requests, 0.0 to 1.0, as `4=0.1`; without it, no
        /// requests are shared
        #[arg(long, value_name = "VERSION=SHARE", value_parser = weight)]
        weight: Option<(String, f64)>,
        /// What to say of it; one that is there already keeps its own
        #[arg(long)]
        description: Option<String>,
    },
    /// Show an alias
    Describe {
        /// FUNCTION:ALIAS
        alias: String,
    },
    /// Delete an alias
    Delete {
        /// FUNCTION:ALIAS
        alias: String,
    },
}

fn weight(text: &str) -> Result<(String, f64), anyhow::Error> {
    let parsed = text.split_once('=').and_then(|(version, share)| {
        let share = share.parse().ok()?;
        Some((version.to_owned(), share))
    });
    parsed.ok_or_else(|| anyhow!("VERSION=SHARE expected, as 4=0.1"))
}

/// The path of an alias that is named `FUNCTION:ALIAS`.
fn path(text: &str) -> anyhow::Result<String> {
    let Some((function, alias)) = text.split_once(':') else {
        bail!("{text:?}: FUNCTION:ALIAS expected");
    };
    Ok(format!(
        "functions/{}/aliases/{}",
        escaped(function),
        escaped(alias)
    ))
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        command,
        connection,
    } = arguments;
    let client = connection.client()?;
    let json = connection.json;
    match command {
        Command::List { function } => {
            let path = format!("functions/{}/aliases", escaped(&function));
            let answer = client.get(&path).await?;
            match json {
                true => print::line(answer),
                false => list(&answer),
            }
        }
        Command::Set {
            alias,
            version,
            weight,
            description,
        } => {
            let path = path(&alias)?;
            let mut body = Map::new();
            body.insert(
                "version".into(),
                version_for(&client, &path, version).await?,
            );
            let routing = weight.map(|(version, share)| (version, json!(share)));
            body.insert(
                "routing".into(),
                Value::Object(routing.into_iter().collect()),
            );
            let description = match description {
                Some(text) => Some(text.into()),
                None => client
                    .get(&path)
                    .await
                    .ok()
                    .map(|a| a["description"].clone()),
            };
            body.extend(description.map(|text| ("description".into(), text)));
            let answer = client.send(Method::PUT, &path, &body.into()).await?;
            let text = format!("alias {alias} set: {}", shares(&answer));
            print::done(json, &answer, &text)
        }
        Command::Describe { alias } => {
            let answer = client.get(&path(&alias)?).await?;
            match json {
                true => print::line(answer),
                false => describe(&answer),
            }
        }
        Command::Delete { alias } => {
            let answer = client.native(Method::DELETE, &path(&alias)?, None).await?;
            print::done(json, &answer, &format!("alias {alias} deleted"))
        }
    }
}

/// The version that is given, or that the alias has.
async fn version_for(client: &Client, path: &str, given: Option<String>) -> anyhow::Result<Value> {
    match given {
        Some(text) => Ok(text.into()),
        None => Ok(client.get(path).await?["version"].clone()),
    }
}

/// Which versions take which share of the requests.
fn shares(alias: &Value) -> String {
    let own = format!("version {}", print::cell(&alias["version"]));
    let routing = alias["routing"].as_object().into_iter().flatten();
    let others = routing.map(|(version, share)| {
        let percent = share.as_f64().unwrap_or(0.0) * 100.0;
        format!(", version {} takes {percent} %", print::plain(version))
    });
    others.fold(own, |all, other| all + &other)
}

fn list(answer: &Value) -> anyhow::Result<()> {
    let mut table = print::table(&["alias", "versions", "changed", "description"]);
    for alias in answer["aliases"].as_array().into_iter().flatten() {
        table.add_row([
            print::cell(&alias["name"]),
            shares(alias),
            print::time(&alias["last_modified"]),
            print::cell(&alias["description"]),
        ]);
    }
    print::rows(
        &table,
        "no aliases: `shardmill aliases set FUNCTION:ALIAS --version N` makes one",
    )
}

fn describe(alias: &Value) -> anyhow::Result<()> {
    for (label, text) in [
        ("alias", print::cell(&alias["name"])),
        ("function", print::cell(&alias["function"])),
        ("versions", shares(alias)),
        ("description", print::cell(&alias["description"])),
        ("changed", print::time(&alias["last_modified"])),
    ] {
        print::line(format!("{label:<16} {text}"))?;
    }
    Ok(())
}
