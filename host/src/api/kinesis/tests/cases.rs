//! The rows of `tests/golden/kinesis/conformance-cases.json`: requests, and what production
//! Kinesis answers to them. Each row meets a host of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;
use serde_json::{Value as Json, json};
use shardmill_core::ShardId;
use shardmill_core::stream::StreamMode;
use shardmill_store::StreamChange;

use super::http::{Reply, send};
use super::{ACCOUNT, AUTHORIZATION, Host, REGION, at, quick, stream_of, text};
use crate::api::kinesis::iterator::ShardIterator;
use crate::api::kinesis::operations::{Support, find};
use crate::services::Settings;

const CASES: &str = include_str!("../../../../../tests/golden/kinesis/conformance-cases.json");

/// Why a row is not run, if it is not.
fn skipped(case: &Json) -> Option<&'static str> {
    let id = case["id"].as_str().unwrap_or_default();
    if let Some(operation) = case["op"].as_str()
        && !matches!(find(operation).map(|o| &o.support), Some(Support::Yes(_)))
    {
        return Some("operation not supported yet");
    }
    match (id, case["request"]["sign"].as_str()) {
        ("PutRecords-09", _) => Some("needs throttling"),
        ("Wire-45" | "Wire-46", _) => Some("needs CBOR"),
        (_, Some(_)) => Some("needs the closed mode"),
        _ => None,
    }
}

#[tokio::test]
async fn rows_are_answered_as_aws_answers_them() {
    let document: Json = serde_json::from_str(CASES).expect("the cases are JSON");
    let mut failures = Vec::new();
    let mut run = 0;
    for case in document["cases"].as_array().expect("cases") {
        let id = text(&case["id"]);
        if let Some(reason) = skipped(case) {
            println!("skipped: {id} ({reason})");
            continue;
        }
        run += 1;
        if let Err(why) = row(case).await {
            failures.push(format!("{id}: {why}"));
        }
    }
    println!("{run} rows run");
    assert!(
        failures.is_empty(),
        "{} of {run} rows fail:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[tokio::test]
async fn values_of_the_wrong_type_are_told_in_awss_words() {
    let document: Json = serde_json::from_str(CASES).expect("the cases are JSON");
    let matrix = &document["serializationMatrix"];
    let host = Host::start(quick()).await;
    let mut failures = Vec::new();
    let mut run = 0;
    for field in matrix["fields"].as_array().expect("fields") {
        let (operation, path, kind) = (text(&field[0]), text(&field[1]), text(&field[2]));
        if !matches!(find(&operation).map(|o| &o.support), Some(Support::Yes(_))) {
            println!("skipped: {operation} {path} (operation not supported yet)");
            continue;
        }
        for value in matrix["values"][&kind].as_array().expect("values") {
            run += 1;
            let body = path
                .rsplit('.')
                .fold(value[0].clone(), |inner, name| match name {
                    "0" => json!([inner]),
                    name => json!({ name: inner }),
                });
            let reply = host.call(&operation, &body).await;
            let want = json!({"__type": "SerializationException", "Message": value[1]});
            if reply.status != 400 || reply.json().as_ref() != Some(&want) {
                failures.push(format!(
                    "{operation} {body}: {} {}",
                    reply.status,
                    reply.text()
                ));
            }
        }
    }
    println!("{run} values run");
    assert!(
        failures.is_empty(),
        "{} of {run}:\n{}",
        failures.len(),
        failures.join("\n")
    );
    host.stop().await;
}

/// Runs one row; what differs is the error.
async fn row(case: &Json) -> Result<(), String> {
    let shard_limit = if case["needs"].is_string() { 50 } else { 1000 };
    let host = Host::start(Settings {
        shard_limit,
        ..quick()
    })
    .await;
    host.stream("conformance", 3).await;
    let names = placeholders(&host, case).await;
    let reply = match case["op"].as_str() {
        Some(operation) => host.call(operation, &names.fill(&case["input"])).await,
        None => raw(&host, &case["request"]).await,
    };
    let told = check(case, &names, &reply);
    host.stop().await;
    told
}

/// A request as the row spells it.
async fn raw(host: &Host, request: &Json) -> Reply {
    let mut headers: Vec<(&str, &str)> = Vec::new();
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        let value = match value.as_str().expect("a header") {
            // The one place where this host differs: only loopback origins are let in.
            "whatever" => "http://localhost:3000",
            value => value,
        };
        headers.push((name, value));
    }
    if request["sign"] != json!(false) {
        headers.push(("X-Amz-Date", "20240102T030405Z"));
        headers.push(("Authorization", AUTHORIZATION));
    }
    let method = request["method"].as_str().unwrap_or("POST");
    let path = request["path"].as_str().unwrap_or("/");
    let body = request["body"].as_str().unwrap_or_default();
    send(host.port, method, path, &headers, body.as_bytes()).await
}

/// Values for the names in braces.
struct Placeholders(BTreeMap<String, String>);

impl Placeholders {
    /// Every text with its names replaced.
    fn fill(&self, json: &Json) -> Json {
        match json {
            Json::String(text) => {
                let number = Regex::new(r"^\{now\+(\d+)\.0\}$").expect("a pattern");
                match number.captures(text) {
                    Some(found) => {
                        let ahead: u64 = found[1].parse().expect("seconds");
                        json!(self.0["now"].parse::<u64>().expect("now") + ahead)
                    }
                    None => json!(self.text(text)),
                }
            }
            Json::Array(items) => items.iter().map(|item| self.fill(item)).collect(),
            Json::Object(members) => match members.get("$repeat").and_then(Json::as_u64) {
                Some(count) => vec![self.fill(&members["item"]); count as usize].into(),
                None => {
                    let members = members.iter().map(|(n, v)| (n.clone(), self.fill(v)));
                    Json::Object(members.collect())
                }
            },
            json => json.clone(),
        }
    }

    fn text(&self, text: &str) -> String {
        let name = Regex::new(r"\{(?:(\w+|b64zeros)\*(\d+)|(\w+))\}").expect("a pattern");
        let replace = |found: &regex::Captures<'_>| match (found.get(1), found.get(2)) {
            (Some(what), Some(count)) if what.as_str() != "entries" => {
                let count = count.as_str().parse().expect("a count");
                match what.as_str() {
                    "b64zeros" => base64_simd::STANDARD.encode_to_string(vec![0; count]),
                    what => what.repeat(count),
                }
            }
            _ => match self.0.get(found.get(3).map_or("", |name| name.as_str())) {
                Some(value) => value.clone(),
                None => found[0].to_owned(),
            },
        };
        name.replace_all(text, replace).into_owned()
    }
}

/// What the row needs is made here, in the host or by it.
async fn placeholders(host: &Host, case: &Json) -> Placeholders {
    let services = &host.services;
    let now = services.clock.now();
    let mut names = BTreeMap::from([
        ("account".to_owned(), ACCOUNT.to_owned()),
        ("region".into(), REGION.into()),
        ("stream".into(), "conformance".into()),
        (
            "streamArn".into(),
            format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/conformance"),
        ),
        ("now".into(), now.seconds().to_string()),
        ("missing".into(), "missing".into()),
    ]);
    for number in 2..=40 {
        names.insert(format!("missing{number}"), format!("missing{number}"));
    }
    let wanted = case.to_string();
    if wanted.contains("{creatingStream}") {
        let mut stream = stream_of(1);
        stream.name = "creating".parse().expect("a name");
        stream.active_from = now.plus(Duration::from_secs(3600));
        super::change(services, StreamChange::Create(Box::new(stream))).await;
        names.insert("creatingStream".into(), "creating".into());
    }
    if wanted.contains("{onDemandStream}") {
        let mut stream = stream_of(4);
        stream.name = "ondemand".parse().expect("a name");
        stream.mode = StreamMode::OnDemand;
        super::change(services, StreamChange::Create(Box::new(stream))).await;
        names.insert("onDemandStream".into(), "ondemand".into());
    }
    if wanted.contains("{listShardsToken}") {
        let input = json!({"StreamName": "conformance", "MaxResults": 1});
        let token = text(&host.ok("ListShards", input).await["NextToken"]);
        names.insert("listShardsToken".into(), token);
    }
    let stream = services
        .store
        .streams(None)
        .into_iter()
        .find(|s| s.name.as_str() == "conformance");
    let mut iterator = ShardIterator {
        scope: super::scope(),
        stream: stream.expect("the stream").id,
        name: "conformance".into(),
        shard: ShardId(0),
        position: 1,
        issued: now,
    };
    names.insert("validIterator".into(), iterator.seal(&services.seal));
    iterator.issued = now.minus(Duration::from_secs(301));
    names.insert("expiredIterator".into(), iterator.seal(&services.seal));
    Placeholders(names)
}

fn check(case: &Json, names: &Placeholders, reply: &Reply) -> Result<(), String> {
    let want = &case["expect"];
    let cbor = reply.header("content-type") == Some("application/x-amz-cbor-1.1");
    let body = if cbor {
        Some(cbor_texts(&reply.body))
    } else {
        reply.json()
    };
    let shown = || format!("{} {}", reply.status, reply.text());
    let body = body.unwrap_or(Json::Null);
    let must = |holds: bool, what: &str| {
        if holds {
            Ok(())
        } else {
            Err(format!("{what}: {}", shown()))
        }
    };
    must(json!(reply.status) == want["status"], "status")?;
    let kind = body["__type"].as_str().unwrap_or_default();
    if case["drift"].is_string() {
        let message = &body["message"];
        let missing = kind == "ResourceNotFoundException";
        let kinds = ["ValidationException", "InvalidArgumentException"];
        return must(
            (kinds.contains(&kind) || missing) && message.is_string(),
            "drifted type",
        );
    }
    if let Some(wanted) = want["type"].as_str() {
        must(kind == wanted, "type")?;
    }
    if let Some(wanted) = want["contentType"].as_str() {
        must(
            reply.header("content-type").unwrap_or("(none)") == wanted,
            "content type",
        )?;
    }
    let message = body["message"].as_str().unwrap_or_default();
    if let Some(wanted) = want["message"].as_str() {
        must(message == names.text(wanted), "message")?;
    }
    if let Some(pattern) = want["messageRegex"].as_str() {
        let pattern = Regex::new(&pattern.replace("{account}", ACCOUNT)).expect("a pattern");
        must(pattern.is_match(message), "message's form")?;
    }
    if let Some(wanted) = want["messages"].as_array() {
        must(same_violations(message, wanted, names), "violations")?;
    }
    match (&want["body"], case["bodyMode"].as_str()) {
        (Json::Null, _) => {}
        (Json::String(wanted), _) => must(reply.text() == *wanted, "body")?,
        (paths, Some("paths")) => {
            for (path, value) in paths.as_object().into_iter().flatten() {
                must(at(&body, path) == Some(value), path)?;
            }
        }
        (wanted, _) => must(body == names.fill(wanted), "body")?,
    }
    for path in want["bodyHas"].as_array().into_iter().flatten() {
        let path = path.as_str().unwrap_or_default();
        must(at(&body, path).is_some(), path)?;
    }
    for (name, value) in want["headers"].as_object().into_iter().flatten() {
        must(reply.header(name) == value.as_str(), name)?;
    }
    for name in want["headersPresent"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        must(
            reply.header(name).is_some_and(|value| !value.is_empty()),
            name,
        )?;
    }
    for name in want["noHeaders"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        must(reply.header(name).is_none(), name)?;
    }
    Ok(())
}

/// Whether a message tells exactly these violations, in any order.
fn same_violations(message: &str, wanted: &[Json], names: &Placeholders) -> bool {
    let count = wanted.len();
    let errors = if count == 1 { "error" } else { "errors" };
    let Some(told) = message.strip_prefix(&format!("{count} validation {errors} detected: "))
    else {
        return false;
    };
    let any = Regex::new(r"^Value '\[[^']*\]' at 'records'").expect("a pattern");
    let plain = |text: &str| any.replace(text, "Value '[…]' at 'records'").into_owned();
    let mut told: Vec<_> = told.split("; ").map(plain).collect();
    let mut wanted: Vec<_> = wanted
        .iter()
        .map(|w| plain(&names.text(&text(w))))
        .collect();
    told.sort();
    wanted.sort();
    told == wanted
}

/// A CBOR map of texts.
fn cbor_texts(bytes: &[u8]) -> Json {
    let mut rest = &bytes[1..];
    let mut next = || {
        let (head, after) = rest.split_first().expect("a text");
        let (length, after) = match head {
            0x60..=0x77 => (usize::from(head - 0x60), after),
            0x7a => {
                let (length, after) = after.split_first_chunk().expect("a length");
                (u32::from_be_bytes(*length) as usize, after)
            }
            head => panic!("no text: {head:#x}"),
        };
        let (text, after) = after.split_at(length);
        rest = after;
        String::from_utf8_lossy(text).into_owned()
    };
    let members = (0..bytes[0] & 0x1f).map(|_| (next(), json!(next())));
    Json::Object(members.collect())
}
