//! `shardmill deliveries`: reports to on-failure destinations that have not been made.

use anyhow::bail;
use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use super::client::{Client, escaped};
use super::{Connection, print};

/// Deliveries that are asked for at a time.
const PAGE: usize = 1000;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List those that wait and those that were given up, oldest first (the default)
    List {
        #[command(flatten)]
        filter: Filter,
        /// Only deliveries younger than this one: the next page
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Show one with the document that is sent
    Show {
        /// Its id, or the beginning of it if there is only one such
        id: String,
    },
    /// Try deliveries at once; those that were given up begin anew
    Retry(Chosen),
    /// Drop deliveries; the failure store keeps their entries
    Drop(Chosen),
}

#[derive(Debug, Default, clap::Args)]
struct Filter {
    /// Only of this mapping
    #[arg(long)]
    mapping: Option<String>,
    /// Only to this destination
    #[arg(long)]
    destination: Option<String>,
}

/// The deliveries that a command is for.
#[derive(Debug, clap::Args)]
struct Chosen {
    /// One: its id, or the beginning of it if there is only one such
    #[arg(conflicts_with_all = ["all", "mapping", "destination"])]
    id: Option<String>,
    /// Every delivery
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        command,
        connection,
    } = arguments;
    let client = connection.client()?;
    let json = connection.json;
    let first_page = Command::List {
        filter: Filter::default(),
        after: None,
        limit: 100,
    };
    match command.unwrap_or(first_page) {
        Command::List {
            filter,
            after,
            limit,
        } => {
            let (found, after) = find(&client, &filter, after, limit as usize).await?;
            if json {
                return print::line(json!({ "deliveries": found, "after": after }));
            }
            table(&found)?;
            match after {
                Some(after) => print::line(format!("… there are younger ones: --after {after}")),
                None => Ok(()),
            }
        }
        Command::Show { id } => {
            let found = client.get(&format!("deliveries/{}", escaped(&id))).await?;
            match json {
                true => print::line(found),
                false => print::line(format!("{found:#}")),
            }
        }
        Command::Retry(chosen) => {
            let ids = chosen.each(&client, (Method::POST, "/retry")).await?;
            done(json, "retried", &ids, "tried again")
        }
        Command::Drop(chosen) => {
            let ids = chosen.each(&client, (Method::DELETE, "")).await?;
            let what = "dropped; `shardmill failures show ID` has the records of each";
            done(json, "dropped", &ids, what)
        }
    }
}

impl Filter {
    fn query(&self) -> String {
        let given = [
            ("mapping", &self.mapping),
            ("destination", &self.destination),
        ];
        let given = given
            .into_iter()
            .filter_map(|(n, v)| Some((n, v.as_ref()?)));
        given
            .map(|(name, value)| format!("&{name}={}", escaped(value)))
            .collect()
    }
}

impl Chosen {
    /// Calls for each of them. Returns the ids of those that were still there.
    async fn each(
        self,
        client: &Client,
        (method, operation): (Method, &str),
    ) -> anyhow::Result<Vec<String>> {
        let path = |id: &str| format!("deliveries/{}{operation}", escaped(id));
        if let Some(id) = self.id {
            client.native(method, &path(&id), None).await?;
            return Ok(vec![id]);
        }
        let mut done = Vec::new();
        for id in self.ids(client).await? {
            match client.native(method.clone(), &path(&id), None).await {
                Ok(_) => done.push(id),
                // It was made meanwhile.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    async fn ids(self, client: &Client) -> anyhow::Result<Vec<String>> {
        if !self.all && self.filter.query().is_empty() {
            bail!("which deliveries? give an id, --mapping NAME, --destination TEXT, or --all");
        }
        let (found, _) = find(client, &self.filter, None, usize::MAX).await?;
        let ids = found.iter().filter_map(|delivery| delivery["id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    }
}

/// The first `limit` deliveries behind `after`, page by page, and behind which the rest begins.
async fn find(
    client: &Client,
    filter: &Filter,
    mut after: Option<String>,
    limit: usize,
) -> anyhow::Result<(Vec<Value>, Option<String>)> {
    let mut found = Vec::new();
    loop {
        let page = PAGE.min(limit - found.len());
        let mut path = format!("deliveries?limit={page}{}", filter.query());
        if let Some(after) = &after {
            path += &format!("&after={}", escaped(after));
        }
        let mut answer = client.get(&path).await?;
        let page = answer["deliveries"].as_array_mut().map(std::mem::take);
        found.extend(page.unwrap_or_default());
        after = answer["after"].as_str().map(str::to_owned);
        if after.is_none() || found.len() >= limit {
            return Ok((found, after));
        }
    }
}

fn done(json: bool, key: &str, ids: &[String], what: &str) -> anyhow::Result<()> {
    let text = match ids {
        [id] => format!("delivery {id} {what}"),
        ids => format!("{} deliveries {what}", ids.len()),
    };
    print::done(json, &json!({ key: ids }), &text)
}

fn table(deliveries: &[Value]) -> anyhow::Result<()> {
    let mut table = print::table(&[
        "delivery",
        "mapping",
        "destination",
        "records",
        "given up",
        "state",
        "why",
    ]);
    for delivery in deliveries {
        let text = |key: &str| print::cell(&delivery[key]);
        let why = match &delivery["undeliverable"]["why"] {
            Value::Null => &delivery["problem"],
            why => why,
        };
        table.add_row([
            text("id"),
            text("mapping"),
            text("destination"),
            text("records"),
            print::time(&delivery["created"]),
            text("state"),
            print::one_line(&print::cell(why)),
        ]);
    }
    print::rows(&table, "no deliveries: all have been made")
}
