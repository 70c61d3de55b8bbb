//! `shardmill tail`: records as they arrive, shard by shard, children after their parents.

mod tree;

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Value, json};
use shardmill_core::UnixMillis;

use self::tree::{Listed, Tree};
use super::client::Client;
use super::{Connection, print};
use crate::timestamp;

/// Pause when no shard had anything new.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes of data that are shown of a record.
const SHOWN_BYTES: usize = 2000;
/// Records of one call.
const CALL_RECORDS: usize = 1000;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The stream
    stream: String,
    /// Where to begin
    #[arg(long, value_enum, default_value_t = From::Latest)]
    from: From,
    /// Only this shard, as shardId-000000000000 or 0
    #[arg(long)]
    shard: Option<String>,
    /// End after so many records
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// End when everything that is there has been shown
    #[arg(long)]
    no_follow: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum From {
    /// The oldest record that is kept
    TrimHorizon,
    /// What is put from now on
    Latest,
}

/// A shard that is being read.
struct Shard {
    id: String,
    iterator: String,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let client = arguments.connection.client()?;
    let stream = &arguments.stream;
    let listed = listed(&client, stream).await?;
    let (mut tree, mut first) = match arguments.from {
        From::TrimHorizon => Tree::from_oldest(&listed),
        From::Latest => Tree::from_now(&listed),
    };
    if let Some(wanted) = &arguments.shard {
        first = listed.into_iter().map(|shard| shard.id).collect();
        first.retain(|id| wanted == id || is_number_of(wanted, id));
    }
    let kind = match arguments.from {
        From::TrimHorizon => "TRIM_HORIZON",
        From::Latest => "LATEST",
    };
    let mut shards = VecDeque::new();
    for id in first {
        shards.push_back(iterator(&client, stream, id, kind).await?);
    }
    if shards.is_empty() {
        let wanted = arguments.shard.as_deref().unwrap_or_default();
        anyhow::bail!(
            "stream {stream:?} has no shard {wanted:?}: `shardmill streams describe {stream}` lists them"
        );
    }
    let mut left = arguments.limit.unwrap_or(usize::MAX);
    // Shards in a row that had nothing.
    let mut idle = 0;
    while left > 0 {
        let Some(mut shard) = shards.pop_front() else {
            break;
        };
        let limit = CALL_RECORDS.min(left);
        let body = json!({"ShardIterator": shard.iterator, "Limit": limit});
        let answer = client.kinesis("GetRecords", &body).await?;
        let records = answer["Records"]
            .as_array()
            .context("an answer without records")?;
        for record in records {
            show(&shard.id, record, arguments.connection.json)?;
        }
        left -= records.len();
        let behind = answer["MillisBehindLatest"].as_u64().unwrap_or(0);
        idle = if records.is_empty() && behind == 0 {
            idle + 1
        } else {
            0
        };
        match answer["NextShardIterator"].as_str() {
            Some(next) => {
                shard.iterator = next.into();
                shards.push_back(shard);
            }
            None => {
                tree.end(&shard.id);
                let children = answer["ChildShards"].as_array().into_iter().flatten();
                for child in children.filter(|_| arguments.shard.is_none()) {
                    let parents = child["ParentShards"].as_array().into_iter().flatten();
                    let parents: Vec<_> = parents.map(print::cell).collect();
                    if let Some(id) = tree.begin(&print::cell(&child["ShardId"]), &parents) {
                        shards.push_back(iterator(&client, stream, id, "TRIM_HORIZON").await?);
                    }
                }
                idle = 0;
            }
        }
        if idle >= shards.len() {
            if arguments.no_follow {
                break;
            }
            idle = 0;
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

async fn listed(client: &Client, stream: &str) -> anyhow::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    let mut body = json!({"StreamName": stream});
    loop {
        let answer = client.kinesis("ListShards", &body).await?;
        for shard in answer["Shards"].as_array().into_iter().flatten() {
            let parents = ["ParentShardId", "AdjacentParentShardId"];
            let parents = parents.iter().filter_map(|name| shard[name].as_str());
            listed.push(Listed {
                id: print::cell(&shard["ShardId"]),
                parents: parents.map(ToOwned::to_owned).collect(),
                open: shard["SequenceNumberRange"]["EndingSequenceNumber"].is_null(),
            });
        }
        match answer["NextToken"].as_str() {
            Some(token) => body = json!({"NextToken": token}),
            None => return Ok(listed),
        }
    }
}

async fn iterator(client: &Client, stream: &str, id: String, kind: &str) -> anyhow::Result<Shard> {
    let body = json!({"StreamName": stream, "ShardId": id, "ShardIteratorType": kind});
    let answer = client.kinesis("GetShardIterator", &body).await?;
    let iterator = answer["ShardIterator"]
        .as_str()
        .context("an answer without an iterator")?;
    Ok(Shard {
        id,
        iterator: iterator.into(),
    })
}

fn is_number_of(wanted: &str, id: &str) -> bool {
    let number = id.rsplit('-').next().and_then(|n| n.parse::<u64>().ok());
    number.is_some() && wanted.parse().ok() == number
}

fn show(shard: &str, record: &Value, as_json: bool) -> anyhow::Result<()> {
    let data = record["Data"].as_str().unwrap_or_default();
    let data = base64_simd::STANDARD
        .decode_to_vec(data)
        .context("data that is not base64")?;
    let seconds = record["ApproximateArrivalTimestamp"]
        .as_f64()
        .unwrap_or_default();
    let arrival = UnixMillis((seconds * 1000.0).round() as u64);
    let key = &record["PartitionKey"];
    if as_json {
        let mut line = json!({
            "shard": shard,
            "sequence_number": record["SequenceNumber"],
            "partition_key": key,
            "arrival": arrival,
        });
        match String::from_utf8(data) {
            Ok(text) => line["text"] = text.into(),
            Err(bytes) => {
                line["data"] = base64_simd::STANDARD
                    .encode_to_string(bytes.as_bytes())
                    .into()
            }
        }
        return print::line(line);
    }
    let number = shard.trim_start_matches("shardId-").trim_start_matches('0');
    let number = if number.is_empty() { "0" } else { number };
    let key = print::in_line(&print::cell(key));
    // A record is a line, whatever its producer wrote.
    let data = print::in_line(&print::data(&data, SHOWN_BYTES));
    print::line(format!(
        "{}  {number}  {key}  {data}",
        timestamp::format(arrival)
    ))
}
