//! Reading lines, finding their partition keys, handing them to the producers.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use shardmill_core::limits::MAX_PARTITION_KEY_CHARS;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use uuid::Uuid;

use super::KeyArguments;

/// Data and partition key of a record. PutRecord: 1 MiB unless a stream is made for more.
const MAX_RECORD_BYTES: usize = 1 << 20;

/// A line on its way.
pub(super) struct Line {
    pub(super) key: String,
    pub(super) data: Vec<u8>,
    /// Its part of what may wait, given back when the line is acknowledged.
    pub(super) _room: OwnedSemaphorePermit,
}

/// Where a line's partition key comes from.
pub(super) struct KeyRule {
    source: Source,
    default: Option<String>,
}

enum Source {
    Random,
    Constant(String),
    Regex(regex::bytes::Regex),
    Pointer(String),
}

/// Lines of a file or of standard input.
pub(super) struct Reader {
    name: String,
    input: Box<dyn BufRead + Send>,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Lines {
    /// Lines without a byte, which were left out.
    pub(super) empty: u64,
}

impl KeyRule {
    pub(super) fn new(arguments: KeyArguments) -> anyhow::Result<Self> {
        let KeyArguments {
            key,
            key_regex,
            key_pointer,
            key_default,
        } = arguments;
        for key in [&key, &key_default].into_iter().flatten() {
            check(key)?;
        }
        let source = match (key, key_regex, key_pointer) {
            (Some(key), _, _) => Source::Constant(key),
            (_, Some(regex), _) => Source::Regex(regex),
            (_, _, Some(pointer)) if pointer.is_empty() || pointer.starts_with('/') => {
                Source::Pointer(pointer)
            }
            (_, _, Some(pointer)) => {
                bail!("--key-pointer {pointer:?}: it begins with /, as /user/id")
            }
            (None, None, None) => Source::Random,
        };
        Ok(Self {
            source,
            default: key_default,
        })
    }

    /// The partition key of a line.
    fn key(&self, line: &[u8]) -> anyhow::Result<String> {
        let found = match &self.source {
            Source::Random => Ok(Uuid::new_v4().to_string()),
            Source::Constant(key) => Ok(key.clone()),
            Source::Regex(regex) => by_regex(regex, line),
            Source::Pointer(pointer) => by_pointer(pointer, line),
        };
        let key = found.and_then(|key| check(&key).map(|()| key));
        match (key, &self.default) {
            (Err(_), Some(default)) => Ok(default.clone()),
            (key, _) => key.context("no partition key (--key-default names one for such lines)"),
        }
    }
}

fn by_regex(regex: &regex::bytes::Regex, line: &[u8]) -> anyhow::Result<String> {
    let found = regex
        .captures(line)
        .ok_or_else(|| anyhow!("{regex} does not match"))?;
    let group = found
        .get(1)
        .or(found.get(0))
        .map_or(b"".as_slice(), |m| m.as_bytes());
    String::from_utf8(group.to_vec()).context("what the expression matches is not UTF-8")
}

fn by_pointer(pointer: &str, line: &[u8]) -> anyhow::Result<String> {
    let json: Value = serde_json::from_slice(line).context("not JSON")?;
    match json.pointer(pointer) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        Some(_) => bail!("the value at {pointer} is neither a text nor a number"),
        None => bail!("there is nothing at {pointer}"),
    }
}

fn check(key: &str) -> anyhow::Result<()> {
    match key.chars().count() {
        1..=MAX_PARTITION_KEY_CHARS => Ok(()),
        length => {
            bail!("a partition key of {length} characters: 1 to {MAX_PARTITION_KEY_CHARS} expected")
        }
    }
}

impl Reader {
    /// Opens a file, or standard input for `-`; the size where it is known.
    pub(super) fn open(file: &Path) -> anyhow::Result<(Self, Option<u64>)> {
        let name = file.display().to_string();
        if name == "-" {
            let input = Box::new(BufReader::new(std::io::stdin()));
            return Ok((
                Self {
                    name: "standard input".into(),
                    input,
                },
                None,
            ));
        }
        let opened = File::open(file).with_context(|| format!("open {name}"))?;
        let data = opened.metadata().with_context(|| format!("open {name}"))?;
        if data.is_dir() {
            bail!("{name} is a folder: a file of lines expected");
        }
        let size = data.is_file().then_some(data.len());
        Ok((
            Self {
                name,
                input: Box::new(BufReader::with_capacity(1 << 16, opened)),
            },
            size,
        ))
    }

    /// Hands every line to the queue of its partition key. Blocks while the queues are full;
    /// ends early when they are closed.
    pub(super) fn read(
        mut self,
        rule: &KeyRule,
        queues: &[mpsc::Sender<Line>],
        room: &Arc<Semaphore>,
    ) -> anyhow::Result<Lines> {
        let mut empty = 0;
        for number in 1u64.. {
            let place = || format!("{}, line {number}", self.name);
            let mut data = Vec::new();
            // One byte more than a record may have, and the line's end.
            let mut line = self.input.by_ref().take(MAX_RECORD_BYTES as u64 + 2);
            if line.read_until(b'\n', &mut data).with_context(place)? == 0 {
                break;
            }
            if data.last() == Some(&b'\n') {
                data.pop();
            }
            if data.is_empty() {
                empty += 1;
                continue;
            }
            if data.len() > MAX_RECORD_BYTES {
                bail!(
                    "{}: longer than {MAX_RECORD_BYTES} bytes, the most that a record may have",
                    place()
                );
            }
            let key = rule.key(&data).with_context(place)?;
            if data.len() + key.len() > MAX_RECORD_BYTES {
                bail!(
                    "{}: longer than {MAX_RECORD_BYTES} bytes with its partition key",
                    place()
                );
            }
            let need = (data.len() + key.len()) as u32;
            let permit = Handle::current().block_on(Arc::clone(room).acquire_many_owned(need));
            let Ok(permit) = permit else { break };
            let queue = &queues[hash(&key) % queues.len()];
            if queue
                .blocking_send(Line {
                    key,
                    data,
                    _room: permit,
                })
                .is_err()
            {
                break;
            }
        }
        Ok(Lines { empty })
    }
}

fn hash(key: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(source: Source, default: Option<&str>, line: &str) -> Result<String, String> {
        let rule = KeyRule {
            source,
            default: default.map(Into::into),
        };
        rule.key(line.as_bytes()).map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn a_key_is_found_where_the_rule_says() {
        let regex = |text| Source::Regex(regex::bytes::Regex::new(text).expect("an expression"));
        let pointer = || Source::Pointer("/user/id".into());
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(key(regex(r"^(\S+) "), None, "10.0.0.1 - -"), ok("10.0.0.1"));
        assert_eq!(key(regex(r"^\S+"), None, "10.0.0.1 - -"), ok("10.0.0.1"));
        assert_eq!(key(pointer(), None, r#"{"user":{"id":7}}"#), ok("7"));
        assert_eq!(key(pointer(), None, r#"{"user":{"id":"u-7"}}"#), ok("u-7"));
        assert_eq!(key(pointer(), Some("none"), "broken"), ok("none"));
        let error = key(pointer(), None, r#"{"user":{}}"#).expect_err("no key");
        assert!(error.ends_with("there is nothing at /user/id"), "{error}");
        let error = key(regex("^( *)x"), None, "x").expect_err("an empty key");
        assert!(
            error.ends_with("a partition key of 0 characters: 1 to 256 expected"),
            "{error}"
        );
    }
}
