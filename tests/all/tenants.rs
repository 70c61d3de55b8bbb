//! A closed host over TLS with two tenants and an operator: who reaches what, and what quotas do.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::host::{Host, guest, until};

const ONE: (&str, &str, &str) = ("000000000001", "AKIDONE", "secret-of-tenant-one");
const TWO: (&str, &str, &str) = ("000000000002", "AKIDTWO", "secret-of-tenant-two");
const OPS: (&str, &str) = ("AKIDOPS", "secret-of-the-operator");

/// Quotas of both tenants, and the manifest around them.
fn manifest(one: &str, two: &str) -> String {
    format!(
        r#"
[server]
access = "closed"
[tls]
certificate = "host.pem"
key = "host.key"
[[tenant]]
account = "{}"
name = "one"
{one}
[[tenant.access_key]]
id = "{}"
secret = "{}"
[[tenant]]
account = "{}"
{two}
[[tenant.access_key]]
id = "{}"
secret_file = "two.secret"
[[operator]]
name = "ops"
[[operator.access_key]]
id = "{}"
secret_env = "OPS_SECRET"
"#,
        ONE.0, ONE.1, ONE.2, TWO.0, TWO.1, OPS.0
    )
}

/// A certificate for the loopback address, signed by itself.
fn certify(folder: &Path) {
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(folder.join("host.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("host.key"), made.signing_key.serialize_pem()).unwrap();
}

fn closed(one: &str, two: &str) -> Host {
    Host::prepared(&manifest(one, two), &[("OPS_SECRET", OPS.1)], |folder| {
        certify(folder);
        std::fs::write(folder.join("two.secret"), format!("{}\n", TWO.2)).unwrap();
    })
}

/// The command line with somebody's key.
fn as_of(host: &Host, (id, secret): (&str, &str), arguments: &[&str]) -> Command {
    let mut command = host.cli(arguments);
    command
        .env("AWS_ACCESS_KEY_ID", id)
        .env("AWS_SECRET_ACCESS_KEY", secret)
        .env("SHARDMILL_CA_FILE", host.folder().join("host.pem"));
    command
}

fn one(host: &Host, arguments: &[&str]) -> Output {
    as_of(host, (ONE.1, ONE.2), arguments).output().unwrap()
}

fn two(host: &Host, arguments: &[&str]) -> Output {
    as_of(host, (TWO.1, TWO.2), arguments).output().unwrap()
}

fn ops(host: &Host, arguments: &[&str]) -> Output {
    as_of(host, OPS, arguments).output().unwrap()
}

#[track_caller]
fn good(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn json_of(output: &Output) -> Value {
    serde_json::from_str(&good(output)).unwrap()
}

#[track_caller]
fn bad(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// `put` of so many lines of 1,000 bytes.
fn put(mut command: Command, lines: usize) -> Output {
    use std::io::Write;
    let line = format!("{}\n", "x".repeat(1_000));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that has given up reads no more.
    let _ = child
        .stdin
        .take()
        .unwrap()
        .write_all(line.repeat(lines).as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn over_tls_a_key_reaches_its_own_account_and_nobody_elses() {
    let host = closed("", "");
    assert!(host.url().starts_with("https://"), "{}", host.url());
    good(&one(
        &host,
        &["streams", "create", "clicks", "--shards", "2"],
    ));
    let path = guest("echo");
    let path = path.to_str().unwrap();
    good(&one(&host, &["functions", "deploy", "echo", path]));
    let made = [
        "mappings",
        "create",
        "mapper",
        "--stream",
        "clicks",
        "--function",
        "echo",
    ];
    good(&one(&host, &made));

    // What is another's is answered as what is not there, in every word.
    for (theirs, name) in [
        (&["streams", "describe", "clicks"][..], "clicks"),
        (&["streams", "delete", "clicks"], "clicks"),
        (&["tail", "clicks", "--no-follow"], "clicks"),
        (&["put", "clicks"], "clicks"),
        (&["functions", "describe", "echo"], "echo"),
        (&["functions", "delete", "echo"], "echo"),
        (&["invoke", "echo"], "echo"),
        (&["mappings", "describe", "mapper"], "mapper"),
        (&["mappings", "pause", "mapper"], "mapper"),
        (&["mappings", "delete", "mapper"], "mapper"),
        (&["tenants", ONE.0], ONE.0),
    ] {
        let missing: Vec<&str> = theirs
            .iter()
            .map(|word| if *word == name { "000000000009" } else { word })
            .collect();
        let told = [(theirs, name), (&missing[..], "000000000009")].map(|(words, name)| {
            let output = two(&host, words);
            let text = String::from_utf8_lossy(&output.stderr).replace(name, "NAME");
            (output.status.code(), text)
        });
        assert_eq!(told[0], told[1], "{theirs:?}");
        assert_eq!(told[0].0, Some(1), "{theirs:?}");
    }
    for list in ["streams", "functions", "mappings"] {
        let listed = json_of(&two(&host, &[list, "--json"]));
        assert_eq!(listed[list], json!([]), "{list}");
        let listed = json_of(&one(&host, &[list, "--json"]));
        assert_eq!(listed[list].as_array().unwrap().len(), 1, "{list}");
    }

    // To act for another takes an operator.
    let refused = bad(&two(&host, &["streams", "--account", ONE.0]));
    assert!(
        refused.contains("not authorized to act for another"),
        "{refused}"
    );
    let listed = json_of(&ops(&host, &["streams", "--account", ONE.0, "--json"]));
    assert_eq!(listed["streams"][0]["name"], "clicks");
    let listed = json_of(&ops(&host, &["tenants", "--json"]));
    assert_eq!(listed["tenants"].as_array().unwrap().len(), 2);
    let listed = json_of(&two(&host, &["tenants", "--json"]));
    assert_eq!(listed["tenants"].as_array().unwrap().len(), 1);
    assert_eq!(listed["tenants"][0]["account"], TWO.0);

    // Wrong keys.
    let wrong = [
        ((ONE.1, TWO.2), "does not match the signature"),
        (
            ("AKIDNOBODY", ONE.2),
            "security token included in the request is invalid",
        ),
    ];
    for (key, text) in wrong {
        let refused = bad(&as_of(&host, key, &["streams"]).output().unwrap());
        assert!(refused.contains(text), "{refused}");
    }
    let mut unsigned = host.cli(&["streams"]);
    let unsigned = unsigned.env("SHARDMILL_CA_FILE", host.folder().join("host.pem"));
    bad(&unsigned.output().unwrap());
    // A certificate that nobody vouches for is not taken.
    let mut distrusting = as_of(&host, (ONE.1, ONE.2), &["streams"]);
    bad(&distrusting
        .env_remove("SHARDMILL_CA_FILE")
        .output()
        .unwrap());

    // No secret has found its way into the log.
    let log = std::fs::read_to_string(host.log()).unwrap();
    for secret in [ONE.2, TWO.2, OPS.1] {
        assert!(!log.contains(secret));
    }
}

#[tokio::test]
async fn ids_of_anothers_things_are_like_ids_of_nothing() {
    let host = closed("", "");
    good(&one(&host, &["streams", "create", "in"]));
    let path = guest("poison");
    good(&one(
        &host,
        &["functions", "deploy", "f", path.to_str().unwrap()],
    ));
    let file = host.folder().join("lines");
    std::fs::write(&file, "count c\npanic\n").unwrap();
    good(&one(
        &host,
        &["put", "in", file.to_str().unwrap(), "--key", "k"],
    ));
    let made = [
        "mappings",
        "create",
        "m",
        "--stream",
        "in",
        "--function",
        "f",
        "--set",
    ];
    good(&one(
        &host,
        &[&made[..], &["maximum_retry_attempts=0"]].concat(),
    ));
    let failures = |host: &Host| {
        let listed = json_of(&one(host, &["failures", "list", "--json"]));
        listed["failures"].as_array().unwrap().clone()
    };
    until("it is given up", async || !failures(&host).is_empty()).await;
    let failure = failures(&host)[0]["id"].as_str().unwrap().to_owned();
    let mapping = json_of(&one(&host, &["mappings", "--json"]))["mappings"][0].clone();
    let mapping = mapping["id"].as_str().unwrap().to_owned();
    // Ids of the same form, of nothing at all.
    let turned = |id: &str| -> String {
        let digit = |c: char| if c == '3' { '4' } else { '3' };
        let last = id.chars().last().unwrap();
        format!("{}{}", &id[..id.len() - 1], digit(last))
    };
    for (words, id) in [
        (&["failures", "show", "ID"][..], &failure),
        (&["failures", "replay", "ID"], &failure),
        (&["failures", "redrive", "ID"], &failure),
        (&["failures", "export", "ID", "-"], &failure),
        (&["failures", "delete", "ID"], &failure),
        (&["mappings", "describe", "ID"], &mapping),
        (&["mappings", "pause", "ID"], &mapping),
        (&["mappings", "parked", "ID"], &mapping),
        (&["mappings", "dry-run", "ID", "--filter", "{}"], &mapping),
        (&["deliveries", "show", "ID"], &failure),
        (&["counters", "f"], &failure),
        (&["state", "f", "--key", "k"], &failure),
    ] {
        let nothing = turned(id);
        let told = [id.as_str(), &nothing].map(|id| {
            let words: Vec<&str> = words
                .iter()
                .map(|word| match *word {
                    "ID" => id,
                    // A name is as good as another to who has none.
                    "f" if id == nothing => "g",
                    word => word,
                })
                .collect();
            let output = two(&host, &words);
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).replace(id, "ID");
            (output.status.code(), text.replace("\"g\"", "\"f\""))
        });
        assert_eq!(told[0], told[1], "{words:?}");
        assert_ne!(told[0].0, Some(2), "{words:?}: {}", told[0].1);
    }
    assert_eq!(failures(&host).len(), 1, "nothing was deleted");
    let mine = json_of(&one(&host, &["mappings", "--json"]))["mappings"][0].clone();
    assert_ne!(mine["state"], "Disabled", "nothing was paused");
}

#[tokio::test]
async fn keys_and_quotas_change_without_a_restart() {
    let host = closed("", "");
    good(&one(&host, &["streams", "create", "a"]));
    let changed = manifest("shards = 1", "").replace(ONE.2, "another-secret-of-one");
    std::fs::write(host.folder().join("shardmill.toml"), changed).unwrap();
    let new = (ONE.1, "another-secret-of-one");
    until("the new secret holds", async || {
        as_of(&host, new, &["streams"])
            .output()
            .unwrap()
            .status
            .success()
    })
    .await;
    bad(&one(&host, &["streams"]));
    let create = as_of(&host, new, &["streams", "create", "b"])
        .output()
        .unwrap();
    let refused = bad(&create);
    assert!(
        refused.contains("exceed the shard limit for the account 000000000001"),
        "{refused}"
    );
    std::fs::write(host.folder().join("two.secret"), "a-new-secret-of-two").unwrap();
    until("the new file holds", async || {
        let key = (TWO.1, "a-new-secret-of-two");
        as_of(&host, key, &["streams"])
            .output()
            .unwrap()
            .status
            .success()
    })
    .await;
}

#[test]
fn an_operator_sees_what_all_tenants_used_and_a_tenant_what_it_used() {
    let host = closed("", "");
    let clickstream = guest("clickstream").display().to_string();
    for (id, secret) in [(ONE.1, ONE.2), (TWO.1, TWO.2)] {
        let deploy = ["functions", "deploy", "clickstream", &clickstream];
        good(&as_of(&host, (id, secret), &deploy).output().unwrap());
    }
    let accounts = |output: &Output| -> Vec<String> {
        let answer = json_of(output);
        let rows = answer["usage"].as_array().unwrap().iter();
        let mut accounts: Vec<String> = rows
            .map(|row| row["account"].as_str().unwrap().to_owned())
            .collect();
        accounts.dedup();
        accounts
    };
    // The dry run of each deploy is an attempt.
    let days = ["usage", "--days", "1", "--json"];
    assert_eq!(accounts(&one(&host, &days)), [ONE.0]);
    assert_eq!(accounts(&two(&host, &days)), [TWO.0]);
    let mut all = accounts(&ops(&host, &[&days[..], &["--all"]].concat()));
    all.sort();
    all.dedup();
    assert_eq!(all, [ONE.0, TWO.0]);
    let by_tenant = ["usage", "--days", "1", "--by", "tenant"];
    let table = good(&ops(&host, &by_tenant));
    assert!(table.contains(ONE.0) && table.contains(TWO.0), "{table}");
    for refused in [&by_tenant[..], &["usage", "--all"]] {
        let error = bad(&one(&host, refused));
        assert!(error.contains("for operators"), "{error}");
    }
}

#[tokio::test]
async fn http_2_is_agreed_on_over_tls() {
    let host = closed("", "");
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(host.folder().join("host.pem"));
    for certificate in certificates.unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let address = host.url().strip_prefix("https://").unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = "localhost".try_into().unwrap();
    let stream = connector.connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let connection = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = connection.unwrap();
    tokio::spawn(connection);
    for (path, status) in [("health", 200), ("streams", 401)] {
        let uri = format!("https://localhost/_shardmill/{path}");
        let request = hyper::Request::get(uri).body(Full::<Bytes>::default());
        let answer = sender.send_request(request.unwrap()).await.unwrap();
        let told = (answer.version(), answer.status().as_u16());
        assert_eq!(told, (hyper::Version::HTTP_2, status), "{path}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_shown_without_a_restart() {
    let host = closed("", "");
    good(&one(&host, &["streams"]));
    let old = std::fs::read(host.folder().join("host.pem")).unwrap();
    certify(host.folder());
    until("the new certificate is shown", async || {
        one(&host, &["streams"]).status.success()
    })
    .await;
    let path = host.folder().join("old.pem");
    std::fs::write(&path, old).unwrap();
    let mut trusting = as_of(&host, (ONE.1, ONE.2), &["streams"]);
    bad(&trusting.env("SHARDMILL_CA_FILE", path).output().unwrap());
}

#[tokio::test]
async fn puts_beyond_the_quota_of_bytes_wait_until_there_is_room_and_lose_nothing() {
    let mut host = closed("stored_mib = 1", "");
    for key in [(ONE.1, ONE.2), (TWO.1, TWO.2)] {
        good(
            &as_of(&host, key, &["streams", "create", "s"])
                .output()
                .unwrap(),
        );
    }
    let arguments = ["put", "s", "--json"];
    good(&put(as_of(&host, (ONE.1, ONE.2), &arguments), 900));
    let shown = |host: &Host| json_of(&one(host, &["tenants", ONE.0, "--json"]));
    let before = shown(&host);
    let stored = before["usage"]["stored_bytes"].as_u64().unwrap();
    assert!((900_000..=1 << 20).contains(&stored), "{stored}");
    host.restart();
    assert_eq!(
        shown(&host)["usage"],
        before["usage"],
        "counted again after a restart"
    );

    let more = as_of(&host, (ONE.1, ONE.2), &arguments);
    let more = std::thread::spawn(move || put(more, 900));
    until("the quota is hit", async || {
        shown(&host)["hits"]["stored_bytes"].as_u64().is_some()
    })
    .await;
    good(&put(as_of(&host, (TWO.1, TWO.2), &arguments), 1_800));
    let table = good(&ops(&host, &["tenants"]));
    assert!(
        table.contains("of 1") && table.contains("stored_bytes"),
        "{table}"
    );
    assert!(shown(&host)["usage"]["stored_bytes"].as_u64().unwrap() <= 1 << 20);
    let raised = manifest("stored_mib = 2", "");
    std::fs::write(host.folder().join("shardmill.toml"), raised).unwrap();
    let put = json_of(&more.join().unwrap());
    assert_eq!(put["records"], 900);
    let streams = json_of(&one(&host, &["streams", "--json"]));
    assert_eq!(streams["streams"][0]["records"], 1_800);
}

#[test]
fn quotas_of_functions_shards_and_requests_are_told_in_words() {
    let host = closed("functions = 1\nshards = 3", "requests_per_second = 2");
    let path = guest("echo");
    let path = path.to_str().unwrap();
    good(&one(&host, &["functions", "deploy", "f", path]));
    good(&one(&host, &["functions", "deploy", "f", path]));
    let refused = bad(&one(
        &host,
        &["functions", "deploy", "g", path, "--region", "eu-west-1"],
    ));
    assert!(refused.contains("may have 1 functions"), "{refused}");
    good(&one(&host, &["streams", "create", "a", "--shards", "2"]));
    let create = [
        "streams",
        "create",
        "b",
        "--shards",
        "2",
        "--region",
        "eu-west-1",
    ];
    let refused = bad(&one(&host, &create));
    assert!(
        refused.contains("in all regions: 2. Limit: 3."),
        "{refused}"
    );
    let many: Vec<_> = (0..40)
        .map(|_| {
            as_of(&host, (TWO.1, TWO.2), &["functions"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let refused = many
        .into_iter()
        .map(|child| child.wait_with_output().unwrap());
    let refused = refused.filter(|output| !output.status.success()).count();
    let shown = json_of(&ops(&host, &["tenants", TWO.0, "--json"]));
    let hits = shown["hits"]["requests_per_second"].as_u64().unwrap_or(0);
    assert_eq!(hits, refused as u64);
    assert!(refused > 0, "forty at once are more than two a second");
}

#[tokio::test]
async fn a_mapping_whose_tenant_has_no_room_waits_without_an_attempt() {
    let host = closed("stored_mib = 1", "");
    for stream in ["in", "out"] {
        good(&one(&host, &["streams", "create", stream]));
    }
    let path = guest("poison");
    good(&one(
        &host,
        &["functions", "deploy", "f", path.to_str().unwrap()],
    ));
    let line = format!("emit out {}", "x".repeat(20_000));
    let file = host.folder().join("lines");
    std::fs::write(&file, format!("{line}\n").repeat(40)).unwrap();
    good(&one(
        &host,
        &["put", "in", file.to_str().unwrap(), "--key", "k"],
    ));
    let made = [
        "mappings",
        "create",
        "m",
        "--stream",
        "in",
        "--function",
        "f",
    ];
    good(&one(&host, &made));
    let shard = |host: &Host| {
        let all = json_of(&one(host, &["mappings", "--json"]));
        all["mappings"][0]["shards"][0].clone()
    };
    until("the mapping says why it waits", async || {
        let shard = shard(&host);
        shard["last_error"]
            .to_string()
            .contains("quota of stored bytes")
    })
    .await;
    let waiting = shard(&host);
    assert_eq!(waiting["attempts"], 0, "{waiting}");
    assert_eq!(waiting["records_behind"], 40, "{waiting}");
    let raised = manifest("stored_mib = 3", "");
    std::fs::write(host.folder().join("shardmill.toml"), raised).unwrap();
    until("all is emitted", async || {
        shard(&host)["records_behind"] == 0
    })
    .await;
    let streams = json_of(&one(&host, &["streams", "--json"]));
    let records = |n: usize| streams["streams"][n]["records"].clone();
    assert_eq!(
        (records(0), records(1)),
        (json!(40), json!(40)),
        "each once"
    );
    let given_up = json_of(&one(&host, &["failures", "list", "--json"]));
    assert_eq!(given_up["failures"], json!([]));
}

/// Whether any file below a folder holds these bytes.
fn is_in_files(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_in_files(&path, bytes);
        }
        let held = std::fs::read(&path).unwrap_or_default();
        held.windows(bytes.len()).any(|window| window == bytes)
    })
}

#[tokio::test]
async fn with_a_key_no_secret_of_a_function_lies_in_the_data_folder() {
    let key = "7f".repeat(32);
    let mut host = Host::prepared("", &[("SHARDMILL_SECRET_KEY", &key)], |_| {});
    for stream in ["in", "open"] {
        good(&host.cli(&["streams", "create", stream]).output().unwrap());
    }
    let path = guest("poison");
    let path = path.to_str().unwrap();
    let deploy = [
        "functions",
        "deploy",
        "f",
        path,
        "--env",
        "TOKEN=hunter2-hunter2",
    ];
    good(&host.cli(&deploy).output().unwrap());
    // A failure keeps what the attempt ran on, its environment included.
    let file = host.folder().join("lines");
    std::fs::write(&file, "panic\n").unwrap();
    good(
        &host
            .cli(&["put", "in", file.to_str().unwrap()])
            .output()
            .unwrap(),
    );
    let made = [
        "mappings",
        "create",
        "m",
        "--stream",
        "in",
        "--function",
        "f",
        "--set",
    ];
    let made = [&made[..], &["maximum_retry_attempts=0"]].concat();
    good(&host.cli(&made).output().unwrap());
    until("it is given up", async || !host.failures().is_empty()).await;
    let id = host.failures()[0]["id"].as_str().unwrap().to_owned();
    let same = |host: &Host| {
        let replay = host.cli(&["failures", "replay", &id]).output().unwrap();
        String::from_utf8_lossy(&replay.stdout).into_owned()
    };
    let before = same(&host);
    host.restart();
    assert_eq!(same(&host), before, "it replays as before");
    let shown = host.json(&["functions", "describe", "f"]);
    assert_eq!(shown["environment"]["TOKEN"], "hunter2-hunter2");
    let exported = host.folder().join("exported");
    let export = ["failures", "export", &id, exported.to_str().unwrap()];
    good(&host.cli(&export).output().unwrap());
    assert_eq!(host.terminate(), Some(0));
    assert!(!is_in_files(host.folder(), b"hunter2-hunter2"));

    // Without the key the host does not start on these data, and with another one neither.
    for key in ["", &"ab".repeat(32)] {
        let mut command = host.command();
        let output = command.env("SHARDMILL_SECRET_KEY", key).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{key}");
    }
    let log = std::fs::read_to_string(host.log()).unwrap();
    assert!(
        log.contains("secrets in this data folder are sealed: give the key"),
        "{log}"
    );
    assert!(log.contains("sealed with another key"), "{log}");
    assert!(!log.contains("hunter2"));
}
