//! Records from the entries of a `put`: one, one many times, or the lines of a file.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use regex::bytes::Regex;
use shardmill_core::HashKey;
use shardmill_core::limits::MAX_PARTITION_KEY_CHARS;

use super::action::NewRecord;
use super::data::Forms;
use super::span;
use super::table::RecordTable;

/// Data and partition key of a record. PutRecord: 1 MiB unless a stream is made for more.
const MAX_RECORD_BYTES: usize = 1 << 20;
/// Copies of one entry: as many as the largest batch holds, ten times.
const MAX_REPEAT: i64 = 100_000;

/// The records of an entry; files are relative to `base`.
///
/// # Errors
/// What is wrong with the entry.
pub(super) fn read(table: RecordTable, base: &Path) -> Result<Vec<NewRecord>, String> {
    let at = table
        .at
        .as_deref()
        .map(|text| span::parse(text).ok_or_else(|| format!("at = {text:?}: {}", span::EXPECTED)));
    let at = at.transpose()?;
    let hash_key = table.hash_key.as_deref().map(read_hash_key).transpose()?;
    let repeat = table.repeat.unwrap_or(1);
    if !(1..=MAX_REPEAT).contains(&repeat) {
        return Err(format!("repeat = {repeat}: 1 to {MAX_REPEAT} expected"));
    }
    let forms = Forms {
        text: table.data,
        json: table.json,
        hex: table.hex,
        base64: table.base64,
    };
    let data = forms.read()?;
    let record = |key: String, data: Bytes| {
        let (name, at) = (table.name.clone(), at);
        check(&key, &data)?;
        Ok(NewRecord {
            name,
            at,
            key,
            hash_key,
            data,
        })
    };
    let once = match (data, table.lines, table.key, table.key_regex) {
        (Some(_), None, _, Some(_)) => {
            return Err("key_regex goes with lines: give the record a key".into());
        }
        (Some(data), None, Some(key), None) => vec![record(key, data.bytes())?],
        (None, Some(file), key, regex) => {
            let rule = KeyRule::new(key, regex)?;
            let file = base.join(file);
            let text = std::fs::read(&file);
            let text = text.map_err(|error| format!("read {}: {error}", file.display()))?;
            let mut records = Vec::new();
            for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if line.is_empty() {
                    continue;
                }
                let made = rule
                    .key(line)
                    .and_then(|key| record(key, Bytes::copy_from_slice(line)));
                let made = made.map_err(|why| format!("{}:{number}: {why}", file.display()));
                records.push(made?);
            }
            records
        }
        (Some(_), Some(_), ..) => {
            return Err("lines are their records' data: leave out the other".into());
        }
        (Some(_), None, None, None) => {
            return Err("key is missing: a partition key expected".into());
        }
        (None, None, ..) => {
            return Err(
                "the record has no data: one of data, json, hex, base64, lines expected".into(),
            );
        }
    };
    Ok((0..repeat).flat_map(|_| once.iter().cloned()).collect())
}

/// Where a line's partition key comes from.
enum KeyRule {
    Constant(String),
    Regex(Regex),
}

impl KeyRule {
    fn new(key: Option<String>, regex: Option<String>) -> Result<Self, String> {
        match (key, regex) {
            (Some(key), None) => Ok(Self::Constant(key)),
            (None, Some(regex)) => {
                let read = Regex::new(&regex);
                read.map(Self::Regex)
                    .map_err(|error| format!("key_regex = {regex:?}: {error}").replace('\n', " "))
            }
            _ => Err("lines need a key: one of key and key_regex expected".into()),
        }
    }

    fn key(&self, line: &[u8]) -> Result<String, String> {
        let regex = match self {
            Self::Constant(key) => return Ok(key.clone()),
            Self::Regex(regex) => regex,
        };
        let found = regex.captures(line);
        let group = found
            .as_ref()
            .and_then(|found| found.get(1).or(found.get(0)));
        let group = group.ok_or_else(|| format!("{regex} does not match"))?;
        let key = std::str::from_utf8(group.as_bytes());
        key.map(str::to_owned)
            .map_err(|_| "its partition key is not UTF-8".into())
    }
}

/// What PutRecord would say of a record.
fn check(key: &str, data: &[u8]) -> Result<(), String> {
    let length = key.chars().count();
    if !(1..=MAX_PARTITION_KEY_CHARS).contains(&length) {
        return Err(format!(
            "a partition key of {length} characters: 1 to {MAX_PARTITION_KEY_CHARS} expected"
        ));
    }
    let size = key.len() + data.len();
    if size > MAX_RECORD_BYTES {
        return Err(format!(
            "a record of {size} bytes: at most {MAX_RECORD_BYTES} expected"
        ));
    }
    Ok(())
}

fn read_hash_key(text: &str) -> Result<HashKey, String> {
    let number = text.parse::<u128>();
    let bad = |_| format!("hash_key = {text:?}: a decimal number below 2^128 expected");
    number.map(HashKey).map_err(bad)
}

/// When the last of these records is put, if any has a time; the times do not go back.
///
/// # Errors
/// One that goes back.
pub(super) fn in_order(
    records: &[NewRecord],
    from: Option<Duration>,
) -> Result<Option<Duration>, String> {
    let mut last = from;
    for at in records.iter().filter_map(|record| record.at) {
        if let Some(before) = last.filter(|before| at < *before) {
            let (at, before) = (span::format(at), span::format(before));
            return Err(format!(
                "at = {at:?}: it is over, the time before it is {before}"
            ));
        }
        last = Some(at);
    }
    Ok(last)
}
