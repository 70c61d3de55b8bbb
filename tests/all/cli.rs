//! The command line against a real host: what it shows, what it says when something is wrong,
//! and its exit codes.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::host::{Host, guest, until};

fn shardmill(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardmill"));
    command
        .args(arguments)
        .env_remove("SHARDMILL_ENDPOINT")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line that a failed command says, and its exit code.
#[track_caller]
fn error(output: &Output) -> (String, i32) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (text.trim_end().to_owned(), output.status.code().unwrap())
}

/// What a host that must not start says. It is given ten seconds to say it.
#[expect(
    clippy::disallowed_methods,
    reason = "a process has no condition to wait for"
)]
fn ended(command: &mut Command) -> Output {
    let mut child = command.spawn().unwrap();
    for _ in 0..1_000 {
        if child.try_wait().unwrap().is_some() {
            return child.wait_with_output().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("it runs: {:?}", child.wait_with_output());
}

/// The command with this on its standard input.
fn fed(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_closed_host_that_nobody_could_call_is_not_started() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardmill"));
    command
        .args(["serve", "--access", "closed", "--listen", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (text, code) = error(&ended(&mut command));
    assert!(text.contains("there is no access key"), "{text}");
    assert_eq!(code, 1);
}

#[test]
fn what_is_put_is_tailed_in_order() {
    let host = Host::start();
    stdout(
        &host
            .cli(&["streams", "create", "events", "--shards", "3"])
            .output()
            .unwrap(),
    );
    let lines: String = (0..2_000)
        .map(|i| format!("{{\"user\": {}, \"n\": {i}}}\n", i % 7))
        .collect();
    let put = host.cli(&["put", "events", "--key-pointer", "/user", "--json"]);
    let put: Value = serde_json::from_str(&stdout(&fed(put, &lines))).unwrap();
    assert_eq!(
        (&put["records"], &put["empty_lines"]),
        (&json!(2_000), &json!(0))
    );

    let tail = [
        "tail",
        "events",
        "--from",
        "trim-horizon",
        "--no-follow",
        "--json",
    ];
    let tailed = stdout(&host.cli(&tail).output().unwrap());
    let tailed: Vec<Value> = tailed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(tailed.len(), 2_000);
    for user in 0..7 {
        let key = user.to_string();
        let of_user = tailed
            .iter()
            .filter(|record| record["partition_key"] == key.as_str());
        let numbers: Vec<u64> = of_user
            .map(|record| serde_json::from_str::<Value>(record["text"].as_str().unwrap()).unwrap())
            .map(|event| event["n"].as_u64().unwrap())
            .collect();
        assert!(numbers.is_sorted(), "the lines of a key keep their order");
        assert_eq!(numbers.len(), (0..2_000).filter(|i| i % 7 == user).count());
    }
    let streams = host.json(&["streams"]);
    let stream = &streams["streams"][0];
    assert_eq!(
        json!([
            stream["name"],
            stream["status"],
            stream["open_shards"],
            stream["records"]
        ]),
        json!(["events", "ACTIVE", 3, 2_000])
    );
    stdout(&host.cli(&["streams", "delete", "events"]).output().unwrap());
    let named = shardmill(&["streams", "--endpoint", host.url(), "--json"]);
    assert_eq!(stdout(&named), "{\"streams\":[]}\n");
}

#[test]
fn a_line_without_a_key_stops_put_and_says_which() {
    let host = Host::start();
    stdout(&host.cli(&["streams", "create", "s"]).output().unwrap());
    let input = "{\"k\": 1}\n\nbroken\n{\"k\": 2}\n";
    let put = fed(host.cli(&["put", "s", "--key-pointer", "/k"]), input);
    assert_eq!(
        error(&put),
        (
            "error: 1 record put into s, but not all: standard input, line 3: no partition key \
             (--key-default names one for such lines): not JSON: expected value at line 1 column 1"
                .into(),
            1
        )
    );
    let put = fed(
        host.cli(&["put", "s", "--key-pointer", "/k", "--key-default", "none"]),
        input,
    );
    assert!(
        stdout(&put).starts_with("3 records (22 B) put into s in "),
        "{put:?}"
    );
    let long = fed(
        host.cli(&["put", "s", "--key", "k"]),
        &"x".repeat((1 << 20) + 1),
    );
    let (text, code) = error(&long);
    assert!(
        text.ends_with("line 1: longer than 1048576 bytes, the most that a record may have"),
        "{text}"
    );
    assert_eq!(code, 1);
}

#[test]
fn an_error_says_what_to_do_next() {
    let host = Host::start();
    let refused = format!(
        "error: cannot reach {}: Connection refused (os error 111): is `shardmill serve` running? \
         --endpoint or SHARDMILL_ENDPOINT names another host",
        "http://127.0.0.1:1"
    );
    let cases: [(&[&str], &str, i32); 9] = [
        (
            &["streams", "--endpoint", "http://127.0.0.1:1"],
            &refused,
            1,
        ),
        (
            &["put", "nope"],
            "error: stream \"nope\" does not exist: `shardmill streams create nope` makes it",
            1,
        ),
        (
            &["counters", "nope"],
            "error: function \"nope\" does not exist: `shardmill functions` lists them",
            1,
        ),
        (
            &["mappings", "pause", "nope"],
            "error: mapping \"nope\" does not exist: `shardmill mappings` lists them",
            1,
        ),
        (
            &["failures", "show", "0"],
            "error: no failure's id begins with \"0\": `shardmill failures list` shows them",
            1,
        ),
        (
            &[
                "mappings",
                "create",
                "m",
                "--stream",
                "nope",
                "--function",
                "f",
            ],
            "error: stream nope does not exist: create it first",
            1,
        ),
        (
            &["functions", "deploy", "f", "/nowhere/f.wasm"],
            "error: read /nowhere/f.wasm: No such file or directory (os error 2)",
            1,
        ),
        (
            &["streams", "--endpoint", "ftp://localhost"],
            "error: endpoint \"ftp://localhost\": an address as http://127.0.0.1:4566 or https://HOST:PORT expected",
            1,
        ),
        (
            &["put"],
            "error: the following required arguments were not provided:",
            2,
        ),
    ];
    for (arguments, want, code) in cases {
        let (text, exit) = error(&host.cli(arguments).output().unwrap());
        assert_eq!(
            (text.lines().next(), exit),
            (Some(want), code),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_manifest_that_is_wrong_does_not_start_a_host() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("shardmill.toml");
    let serve = |text: &str| {
        std::fs::write(&manifest, text).unwrap();
        let data = folder.path().join("data").display().to_string();
        let config = manifest.display().to_string();
        error(&shardmill(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            &data,
            "--config",
            &config,
        ]))
    };
    let place = manifest.display();
    let (text, code) = serve("[[stream]]\nname = \"s\"\nshard = 4\n");
    assert_eq!(
        text,
        format!("error: {place}:3: unknown key `shard`: did you mean `shards`?")
    );
    assert_eq!(code, 1);
    let (text, _) =
        serve("[[mapping]]\nname = \"m\"\nstream = \"s\"\nfunction = \"f\"\nbatch_size = 0\n");
    assert_eq!(
        text,
        format!("error: {place}: mapping \"m\": batch_size = 0: 1 to 10000 records expected")
    );
}

#[test]
fn a_bind_beyond_loopback_is_refused() {
    let (text, code) = error(&shardmill(&["serve", "--listen", "0.0.0.0:0"]));
    assert!(
        text.starts_with("error: listen on 0.0.0.0:0: everybody who can reach this address"),
        "{text}"
    );
    assert_eq!(code, 1);
}

#[test]
fn a_second_host_on_the_same_data_is_refused_and_the_first_ends_in_order() {
    let mut host = Host::start();
    let second = ended(host.command().stderr(Stdio::piped()));
    let (text, code) = error(&second);
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: "), "{text}");
    assert_eq!((code, second.stdout.len()), (1, 0), "{text}");
    assert_eq!(host.terminate(), Some(0));
}

#[tokio::test]
async fn a_changed_manifest_is_brought_about_and_a_broken_one_is_not() {
    let stream = |name: &str| format!("[[stream]]\nname = \"{name}\"\nshards = 1\n");
    let host = Host::with(&[], Some(&stream("first")));
    let manifest = host.folder().join("shardmill.toml");
    let log = async |text: &str| {
        let logged = async || std::fs::read_to_string(host.log()).unwrap().contains(text);
        until(text, logged).await;
    };
    std::fs::write(&manifest, "[[stream").unwrap();
    log("what runs goes on").await;
    // Replaced by a rename, as editors do.
    let new = host.folder().join("new");
    std::fs::write(&new, stream("second")).unwrap();
    std::fs::rename(&new, &manifest).unwrap();
    log("kept, though the manifest no longer names it").await;
    let names: Vec<Value> = host.json(&["streams"])["streams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stream| stream["name"].clone())
        .collect();
    assert_eq!(names, ["first", "second"]);
}

#[tokio::test]
async fn a_function_is_deployed_invoked_mapped_and_paused_by_hand() {
    let host = Host::start();
    let run = |arguments: &[&str]| stdout(&host.cli(arguments).output().unwrap());
    let wasm = |name: &str| guest(name).display().to_string();
    assert_eq!(
        run(&["functions", "deploy", "echo", &wasm("echo")]),
        "function echo deployed, version 1\n"
    );
    assert_eq!(
        run(&["invoke", "echo", "--event", "{\"a\": 1}"]),
        "{\"a\":1}\n"
    );
    let answer = host.json(&["invoke", "echo", "--event", "{}"]);
    assert_eq!(answer["outcome"], "ok");
    assert!(answer["fuel_used"].as_u64() > Some(0) && answer["memory_bytes"].as_u64() > Some(0));

    run(&[
        "functions",
        "deploy",
        "f",
        &wasm("poison"),
        "--fuel",
        "20000000",
        "--env",
        "A=b",
    ]);
    assert_eq!(
        host.json(&["functions", "describe", "f"])["environment"],
        json!({"A": "b"})
    );
    run(&["streams", "create", "s"]);
    run(&[
        "mappings",
        "create",
        "m",
        "--stream",
        "s",
        "--function",
        "f",
        "--batch-size",
        "10",
    ]);
    let again = [
        "mappings",
        "create",
        "m",
        "--stream",
        "s",
        "--function",
        "f",
    ];
    let (refused, _) = error(&host.cli(&again).output().unwrap());
    assert!(refused.contains("\"m\" exists"), "{refused}");
    assert!(refused.contains("mappings update NAME --set"), "{refused}");
    assert_eq!(host.mapping("m")["policy"]["batch_size"], 10);
    stdout(&fed(
        host.cli(&["put", "s", "--key", "k"]),
        "ok\nok\npanic\nok\n",
    ));
    host.drained("m").await;
    assert_eq!(host.counters("f").get("done"), Some(&3));

    let failures = host.failures();
    let [failure] = failures.as_slice() else {
        panic!("one failure: {failures:?}")
    };
    let id = failure["id"].as_str().unwrap();
    let shown = run(&["failures", "show", &id[..13]]);
    for text in [
        "RetryAttemptsExhausted",
        "trap",
        "  at ",
        "invocations  3",
        "1 record\n",
        "\n  panic\n",
    ] {
        assert!(shown.contains(text), "{text:?} in {shown}");
    }
    let again = host
        .cli(&["failures", "redrive", "--all"])
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(1), "it traps again");
    run(&["functions", "deploy", "f", &wasm("clickstream")]);
    run(&["mappings", "pause", "m"]);
    until("the mapping stands", async || {
        host.mapping("m")["state"] == "Disabled"
    })
    .await;
    run(&["mappings", "resume", "m"]);
    assert_eq!(host.mapping("m")["state"], "Enabled");
    run(&["mappings", "delete", "m"]);
    let none = "no mappings: a manifest or `shardmill mappings create NAME` makes one\n";
    until("it is gone", async || run(&["mappings"]) == none).await;
}
