//! The failure store against the real sandbox: the same trap and the same fuel in a replay, here
//! and on another host, and what the command line makes of it.

use std::process::Output;

use serde_json::{Value, json};

use crate::host::{Host, guest};

fn manifest(handler: &str, more: &str) -> String {
    format!(
        r#"
{more}
[[stream]]
name = "in"
shards = 1

[[function]]
name = "f"
wasm = "{}"
timeout_seconds = 1
fuel = 20_000_000
fuel_per_record = 20_000
environment = {{ STAGE = "test" }}

[[mapping]]
name = "m"
stream = "in"
function = "f"
starting_position = "TRIM_HORIZON"
"#,
        guest(handler).display()
    )
}

/// Puts records under one key and waits until they are done or given up.
async fn put(host: &Host, records: &[&str]) {
    host.active("in").await;
    let records: Vec<_> = records
        .iter()
        .map(|data| {
            let data = base64_simd::STANDARD.encode_to_string(data);
            json!({"PartitionKey": "k", "Data": data})
        })
        .collect();
    let put = json!({"StreamName": "in", "Records": records});
    let put = host.kinesis("PutRecords", put).await.unwrap();
    assert_eq!(put["FailedRecordCount"], 0);
    host.drained("m").await;
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn every_failure_is_replayed_to_the_unit_of_fuel() {
    for handler in ["poison", "poison-batch", "poison-event"] {
        let host = Host::with(&[], Some(&manifest(handler, "")));
        let poisons = ["panic", "spin", "grow", "exit", "error", "sleep 5000"];
        // A handler of events has no keyed state.
        let counts = if handler == "poison-event" {
            "count n"
        } else {
            "state n"
        };
        let records = [counts, "ok", "panic", counts, "spin", "grow"];
        put(&host, &records).await;
        put(&host, &["exit", "error", "count a", "sleep 5000", "ok"]).await;
        let failures = host.failures();
        assert_eq!(failures.len(), poisons.len(), "{handler}: {failures:#?}");
        for failure in &failures {
            let id = text(&failure["id"]);
            let cause = &failure["cause"]["cause"];
            let replayed = host.json(&["failures", "replay", id]);
            assert_eq!(replayed["same"], true, "{handler} {cause}: {replayed:#}");
            assert_eq!(replayed["warnings"], json!([]), "{handler} {cause}");
            assert_eq!(
                replayed["replayed"]["fuel_used"], failure["replay"]["fuel"],
                "{handler} {cause}"
            );
        }
        assert_eq!(host.counters("f").get("done"), Some(&5), "{handler}");
    }
}

#[tokio::test]
async fn a_replay_outlives_the_module_that_failed_and_tries_another() {
    let host = Host::with(&[], Some(&manifest("poison", "")));
    put(&host, &["ok", "panic"]).await;
    let id = text(&host.failures()[0]["id"]).to_owned();
    let echo = guest("clickstream").display().to_string();
    stdout(
        &host
            .cli(&["functions", "deploy", "f", &echo])
            .output()
            .unwrap(),
    );
    assert_eq!(host.json(&["failures", "replay", &id])["same"], true);

    let batch = guest("poison-batch").display().to_string();
    let other = host.cli(&["failures", "replay", &id, "--with", &batch]);
    let other = { other }.output().unwrap();
    assert_eq!(
        other.status.code(),
        Some(1),
        "it fails there, too: {other:?}"
    );
    let told = String::from_utf8(other.stdout).unwrap();
    assert!(told.contains("another module, sha256 "), "{told}");
    assert_eq!(
        host.counters("f").get("done"),
        Some(&1),
        "nothing was committed"
    );
    let broken = host
        .cli(&["failures", "replay", &id, "--with", "/dev/null"])
        .output();
    let told = stderr(&broken.unwrap());
    assert!(told.starts_with("error: "), "{told}");
}

#[tokio::test]
async fn an_exported_failure_is_replayed_on_another_host() {
    let host = Host::with(&[], Some(&manifest("poison", "")));
    put(&host, &["state n", "panic", "ok"]).await;
    let id = text(&host.failures()[0]["id"]).to_owned();
    let file = host.folder().join("failure.smfx").display().to_string();
    let told = host
        .cli(&["failures", "export", &id, &file, "--with-module"])
        .output();
    assert!(stdout(&told.unwrap()).contains("it holds the records"));

    let other = Host::start();
    let imported = other.json(&["failures", "import", &file, "--account", "123456789012"]);
    let new = text(&imported["id"]);
    assert_ne!(new, id);
    let account = ["--account", "123456789012"];
    let with = |arguments: &[&str]| other.cli(&[arguments, &account].concat());
    assert_eq!(other.failures(), [] as [Value; 0], "it is the account's");
    let replayed = with(&["failures", "replay", new]).output().unwrap();
    let told = stdout(&replayed);
    assert!(told.ends_with("the same outcome\n"), "{told}");
    let listed = stdout(&with(&["failures", "list"]).output().unwrap());
    assert!(
        listed.contains("RetryAttemptsExhausted, imported"),
        "{listed}"
    );
    let shown = stdout(&with(&["failures", "show", new]).output().unwrap());
    assert!(
        shown.contains(&format!("{id} of account 000000000000")),
        "{shown}"
    );
    let refused = stderr(&with(&["failures", "redrive", new]).output().unwrap());
    assert!(
        refused.contains("it can be shown and replayed, not redriven"),
        "{refused}"
    );
    let none = stdout(&with(&["failures", "redrive", "--all"]).output().unwrap());
    assert_eq!(none, "no failures to redrive\n");

    let mut damaged = std::fs::read(&file).unwrap();
    damaged[100] ^= 1;
    std::fs::write(&file, damaged).unwrap();
    let refused = stderr(&with(&["failures", "import", &file]).output().unwrap());
    assert!(refused.contains("its checksum does not match"), "{refused}");
    let garbage = guest("echo").display().to_string();
    let refused = stderr(&with(&["failures", "import", &garbage]).output().unwrap());
    assert!(
        refused.starts_with("error: not an exported failure"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_trap_report_names_file_and_line() {
    let host = Host::with(&[], Some(&manifest("poison", "")));
    put(&host, &["panic", "{\"a\": [1]}", "grow"]).await;
    let failures = host.failures();
    let show = |at: usize, more: &[&str]| {
        let id = text(&failures[at]["id"]);
        let arguments = [&["failures", "show", id], more].concat();
        stdout(&host.cli(&arguments).output().unwrap())
    };
    let panicked = show(2, &[]);
    let line = panicked
        .lines()
        .find(|line| line.contains("at poison::on_record ("))
        .unwrap_or_else(|| panic!("{panicked}"));
    assert!(line.contains("(handlers/poison/src/"), "{line}");
    assert!(
        panicked.contains("(handlers/poison/src/command.rs:"),
        "{panicked}"
    );
    let grown = show(0, &[]);
    assert!(
        grown.contains("(handlers/poison/src/command.rs:"),
        "{grown}"
    );
    for (more, want) in [
        (&[][..], "\n  {\n    \"a\": [\n      1\n    ]\n  }\n"),
        (&["--data", "text"], "\n  {\"a\": [1]}\n"),
        (&["--data", "hex"], "\n  0x7b2261223a205b315d7d\n"),
        (&["--data", "none", "--all"], "  key k\n"),
    ] {
        let shown = show(1, more);
        assert!(shown.ends_with(want), "{more:?}: {shown}");
    }
}

#[tokio::test]
async fn some_are_listed_redriven_and_deleted_as_asked() {
    let host = Host::with(&[], Some(&manifest("poison", "")));
    put(&host, &["error", "panic", "emit out", "fail"]).await;
    assert_eq!(host.failures().len(), 4);
    let run = |arguments: &[&str]| host.cli(arguments).output().unwrap();
    let causes = |arguments: &[&str]| -> Vec<String> {
        let list = host.json(&[&["failures", "list"], arguments].concat());
        let all = list["failures"].as_array().unwrap();
        let cause = |f: &Value| text(&f["cause"]["cause"]).to_owned();
        all.iter().map(cause).collect()
    };
    assert_eq!(causes(&["--cause", "trap"]), ["trap"]);
    assert_eq!(
        causes(&["--since", "1h", "--limit", "1"]),
        ["handler_error"]
    );
    assert_eq!(
        causes(&["--until", "2020-01-01T00:00:00Z"]),
        [] as [&str; 0]
    );
    assert!(stderr(&run(&["failures", "list", "--since", "soon"])).contains("an instant as"));
    assert!(stderr(&run(&["failures", "list", "--reason", "Bad"])).contains("RecordTooLarge"));
    assert!(stderr(&run(&["failures", "redrive"])).contains("which failures?"));

    // The oldest is an error, which stays one: without being told to go on, that is the end.
    let redrive = run(&["failures", "redrive", "--mapping", "m", "--json"]);
    assert_eq!(redrive.status.code(), Some(1));
    let sum: Value = serde_json::from_slice(&redrive.stdout).unwrap();
    assert_eq!(
        json!([sum["done"], sum["failed"], sum["left"]]),
        json!([0, 1, 3])
    );
    let created = json!({"StreamName": "out", "ShardCount": 1});
    host.kinesis("CreateStream", created).await.unwrap();
    host.active("out").await;
    let going = [
        "failures",
        "redrive",
        "--all",
        "--keep-going",
        "--rate",
        "100",
    ];
    let redrive = run(&going);
    assert_eq!(redrive.status.code(), Some(1));
    let told = String::from_utf8(redrive.stdout).unwrap();
    assert!(
        told.ends_with("1 failure redriven (1 record), 3 failed again\n"),
        "{told}"
    );
    assert_eq!(causes(&["--redriven=only"]).len(), 1);
    assert_eq!(causes(&["--redriven"]).len(), 4);

    let panicked = host.json(&["failures", "list", "--cause", "trap"]);
    let id = text(&panicked["failures"][0]["id"]).to_owned();
    assert_eq!(
        stdout(&run(&["failures", "redrive", &id, "--to-stream"])),
        format!("{id}: 1 record done\n")
    );
    host.drained("m").await;
    assert_eq!(
        causes(&["--cause", "trap"]).len(),
        1,
        "it trapped again, as another entry"
    );
    assert!(stderr(&run(&["failures", "redrive", &id])).contains("was redriven already"));
    assert_eq!(
        stdout(&run(&["failures", "delete", "--redriven=only"])),
        "2 failures deleted\n"
    );
    assert_eq!(
        stdout(&run(&["failures", "delete", "--all", "--yes"])),
        "3 failures deleted\n"
    );
    assert_eq!(
        stdout(&run(&["failures", "list", "--redriven"])),
        "no failures\n"
    );
}

#[tokio::test]
async fn a_full_failure_store_pauses_the_shard_and_says_what_to_do() {
    let server = "[server]\nfailures_max_mib = 1\n";
    let host = Host::with(&[], Some(&manifest("poison", server)));
    host.active("in").await;
    let large = format!("error {}", "x".repeat(600_000));
    for _ in 0..2 {
        let data = base64_simd::STANDARD.encode_to_string(&large);
        let put = json!({"StreamName": "in", "PartitionKey": "k", "Data": data});
        host.kinesis("PutRecord", put).await.unwrap();
    }
    let paused = async || host.mapping("m")["state"] == "Paused";
    crate::host::until("the shard is paused", paused).await;
    let reason = host.mapping("m")["shards"][0]["paused"].to_string();
    assert!(reason.contains("the failure store is full"), "{reason}");
    assert_eq!(host.failures().len(), 1);
    let run = |arguments: &[&str]| stdout(&host.cli(arguments).output().unwrap());
    let unasked = host.cli(&["failures", "delete", "--all"]).output().unwrap();
    assert!(stderr(&unasked).contains("1 failure not redriven: say --yes"));
    let deleted = run(&["failures", "delete", "--all", "--yes"]);
    assert_eq!(deleted, "1 failure deleted\n");
    run(&["mappings", "resume", "m"]);
    host.drained("m").await;
    assert_eq!(host.failures().len(), 1);
}
