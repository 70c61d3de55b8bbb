//! `shardmill streams split`, `merge` and `scale`: SplitShard, MergeShards and UpdateShardCount,
//! with what they need looked up, and what they did told.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::{Value, json};
use shardmill_core::ShardId;

use super::super::client::{Client, escaped};
use super::super::print;
use super::wait;

#[derive(Debug, Subcommand)]
pub(super) enum Reshard {
    /// Split a shard in two; new records go to the two at once
    Split {
        /// The stream's name
        name: String,
        /// The shard, as shardId-000000000002 or 2
        shard: String,
        /// Where the upper shard begins, a hash key in decimal [default: the middle]
        #[arg(long, value_name = "HASH_KEY")]
        at: Option<u128>,
    },
    /// Merge two neighbouring shards, in either order
    Merge {
        /// The stream's name
        name: String,
        /// One shard, as shardId-000000000002 or 2
        shard: String,
        /// The other
        adjacent: String,
    },
    /// Give a stream another number of shards with even ranges: double or half at most, ten times
    /// a day
    Scale {
        /// The stream's name
        name: String,
        /// Its shards from now on
        shards: u32,
    },
}

/// An open shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Open {
    start: u128,
    end: u128,
    id: ShardId,
}

pub(super) async fn run(client: &Client, command: Reshard, as_json: bool) -> anyhow::Result<()> {
    let (Reshard::Split { name, .. } | Reshard::Merge { name, .. } | Reshard::Scale { name, .. }) =
        &command;
    let before = open_shards(client, name).await?;
    let (operation, input) = match &command {
        Reshard::Split { name, shard, at } => {
            let id = id_of(shard)?;
            let open = before.iter().find(|open| open.id == id);
            let at = match (at, open) {
                (Some(at), _) => *at,
                (None, Some(open)) => open.start + (open.end - open.start) / 2 + 1,
                (None, None) => bail!("stream {name:?} has no open shard {id}"),
            };
            let (id, at) = (id.to_string(), at.to_string());
            let input = json!({"StreamName": name, "ShardToSplit": id, "NewStartingHashKey": at});
            ("SplitShard", input)
        }
        Reshard::Merge {
            name,
            shard,
            adjacent,
        } => {
            let mut pair = [id_of(shard)?, id_of(adjacent)?];
            // Kinesis wants the lower one first.
            let start = |id: &ShardId| before.iter().position(|open| open.id == *id);
            pair.sort_by_key(start);
            let [lower, upper] = pair.map(|id| id.to_string());
            let input = json!({"StreamName": name, "ShardToMerge": lower,
                "AdjacentShardToMerge": upper});
            ("MergeShards", input)
        }
        Reshard::Scale { name, shards } => {
            let input = json!({"StreamName": name, "TargetShardCount": shards,
                "ScalingType": "UNIFORM_SCALING"});
            ("UpdateShardCount", input)
        }
    };
    client.kinesis(operation, &input).await?;
    wait(client, name, Some("ACTIVE")).await?;
    let after = open_shards(client, name).await?;
    let ids = |shards: &[Open]| shards.iter().map(|open| open.id).collect::<BTreeSet<_>>();
    let texts = |shards: Vec<&ShardId>| shards.iter().map(|id| id.to_string()).collect::<Vec<_>>();
    let (old, new) = (ids(&before), ids(&after));
    let closed = texts(old.difference(&new).collect());
    let opened = texts(new.difference(&old).collect());
    let done = json!({"name": name, "closed": closed, "opened": opened});
    let told = match &command {
        Reshard::Split { .. } => {
            format!(
                "{} split into {}",
                closed.join(" and "),
                opened.join(" and ")
            )
        }
        Reshard::Merge { .. } => {
            format!(
                "{} merged into {}",
                closed.join(" and "),
                opened.join(" and ")
            )
        }
        Reshard::Scale { .. } => format!(
            "stream {name} has {} now, {} before",
            print::count(after.len() as u64, "open shard"),
            before.len()
        ),
    };
    print::done(as_json, &done, &told)
}

fn id_of(text: &str) -> anyhow::Result<ShardId> {
    ShardId::parse_lenient(text)
        .with_context(|| format!("{text:?} is no shard: give it as shardId-000000000002 or 2"))
}

/// The open shards of a stream, by hash key.
async fn open_shards(client: &Client, name: &str) -> anyhow::Result<Vec<Open>> {
    let answer = client.get(&format!("streams/{}", escaped(name))).await?;
    let mut open = Vec::new();
    for shard in answer["shards"].as_array().into_iter().flatten() {
        if shard["state"] == "open" {
            open.push(read(shard).context("the host told of a shard that is none")?);
        }
    }
    open.sort();
    Ok(open)
}

fn read(shard: &Value) -> Option<Open> {
    let key = |name: &str| shard[name].as_str()?.parse().ok();
    Some(Open {
        start: key("starting_hash_key")?,
        end: key("ending_hash_key")?,
        id: ShardId::parse_lenient(shard["shard"].as_str()?)?,
    })
}
