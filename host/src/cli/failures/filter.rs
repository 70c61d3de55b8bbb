//! Which entries are meant, as the host's list takes it, and all pages of that list.

use clap::ValueEnum;
use serde_json::Value;

use crate::cli::client::{Client, escaped};

/// Entries that are asked for at a time.
const PAGE: usize = 1000;

#[derive(Debug, Default, clap::Args)]
pub(super) struct Filter {
    /// Only of this mapping
    #[arg(long)]
    mapping: Option<String>,
    /// Only of this function
    #[arg(long)]
    function: Option<String>,
    /// Only of this stream
    #[arg(long)]
    stream: Option<String>,
    /// Only of this shard, as shardId-000000000000
    #[arg(long)]
    shard: Option<String>,
    /// Only with this reason, as RetryAttemptsExhausted
    #[arg(long)]
    reason: Option<String>,
    /// Only with this kind of cause, as trap, handler_error or out_of_fuel
    #[arg(long)]
    cause: Option<String>,
    /// Only entries made then or later: 2026-01-31T12:00:00Z, or so long ago: 90s, 10m, 2h, 7d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only entries made before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// Whether entries that were redriven are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Redriven {
    /// Leave them out
    #[default]
    No,
    /// They too
    Also,
    /// Nothing else
    Only,
}

impl Redriven {
    fn word(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Also => "also",
            Self::Only => "only",
        }
    }
}

impl Filter {
    /// Whether it leaves anything out.
    pub(super) fn is_empty(&self) -> bool {
        self.parameters().all(|(_, value)| value.is_none())
    }

    fn parameters(&self) -> impl Iterator<Item = (&'static str, &Option<String>)> {
        [
            ("mapping", &self.mapping),
            ("function", &self.function),
            ("stream", &self.stream),
            ("shard", &self.shard),
            ("reason", &self.reason),
            ("cause", &self.cause),
            ("since", &self.since),
            ("until", &self.until),
        ]
        .into_iter()
    }

    fn query(&self) -> String {
        let given = self
            .parameters()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)));
        given
            .map(|(name, value)| format!("&{name}={}", escaped(value)))
            .collect()
    }
}

/// Entries, newest first.
pub(super) struct Found {
    pub(super) entries: Vec<Value>,
    /// Where the rest begins, if there is one.
    pub(super) before: Option<String>,
    /// The last answer, for the totals.
    pub(super) answer: Value,
}

/// The first `limit` entries, page by page.
pub(super) async fn find(
    client: &Client,
    filter: &Filter,
    more: &str,
    (redriven, before, limit): (Redriven, Option<String>, usize),
) -> anyhow::Result<Found> {
    let mut found = Found {
        entries: Vec::new(),
        before,
        answer: Value::Null,
    };
    loop {
        let left = limit - found.entries.len();
        if left == 0 {
            return Ok(found);
        }
        let page = PAGE.min(left);
        let mut path = format!("failures?limit={page}&redriven={}{more}", redriven.word());
        path += &filter.query();
        if let Some(before) = &found.before {
            path += &format!("&before={}", escaped(before));
        }
        found.answer = client.get(&path).await?;
        let page = found.answer["failures"].as_array_mut().map(std::mem::take);
        found.entries.extend(page.unwrap_or_default());
        found.before = found.answer["before"].as_str().map(str::to_owned);
        if found.before.is_none() {
            return Ok(found);
        }
    }
}

/// An entry as a command on several needs it.
pub(super) struct Chosen {
    pub(super) id: String,
    /// Whether it was redriven.
    pub(super) redriven: bool,
}

/// All entries, the oldest first.
pub(super) async fn all(
    client: &Client,
    filter: &Filter,
    more: &str,
    redriven: Redriven,
) -> anyhow::Result<Vec<Chosen>> {
    let mut all = Vec::new();
    let mut before = None;
    loop {
        let found = find(client, filter, more, (redriven, before, PAGE)).await?;
        all.extend(found.entries.iter().filter_map(|entry| {
            Some(Chosen {
                id: entry["id"].as_str()?.to_owned(),
                redriven: !entry["redriven"].is_null(),
            })
        }));
        before = found.before;
        if before.is_none() {
            all.reverse();
            return Ok(all);
        }
    }
}
