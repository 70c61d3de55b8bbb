//! What a manifest may say, and how it is told when it says something else.

use std::time::Duration;

use shardmill_core::UnixMillis;
use shardmill_core::mapping::{OnExhausted, Shadow};
use shardmill_core::quotas::Quotas;

use super::*;

const WHOLE: &str = r#"
prune = true

[server]
listen = "127.0.0.1:4577"
data_dir = "data"
region = "eu-central-1"
failures_max_age_days = 7
failures_max_mib = 512
access = "closed"
clock_skew_seconds = 90
secret_key_file = "secret.key"
max_connections = 77
patience_seconds = 5
body_grace_seconds = 6

[tls]
certificate = "tls/host.pem"
key = "/run/host.key"

[[tenant]]
account = "123456789012"
name = "Clicks & co"
weight = 300
stored_mib = 2
shards = 3
functions = 4
requests_per_second = 5
concurrent_invocations = 6
guest_memory_mib = 7
fuel_per_second = 8_000_000
access_key = [
    { id = "AKONE", secret = "0123456789abcdef" },
    { id = "AKTWO", secret_file = "two" },
]

[[operator]]
name = "ops"
[[operator.access_key]]
id = "AKOPS"
secret_env = "OPS_SECRET"

[[stream]]
name = "clicks"
shards = 4
retention_hours = 48

[[function]]
name = "clickstream"
wasm = "target/clickstream.wasm"
timeout_seconds = 10
memory_mib = 64
fuel = 2_000_000
fuel_per_record = 1000
answer_kib = 2048
output_kib = 32
effects_mib = 4
effects = 500
batch_mib = 8
environment = { LEVEL = "debug" }

[[mapping]]
name = "clicks-clickstream"
stream = "clicks"
function = "clickstream"
batch_size = 500
batching_window_seconds = 1
starting_position = "AT_TIMESTAMP"
starting_position_timestamp = 2023-11-14T22:14:10.123Z
maximum_retry_attempts = -1
maximum_record_age_seconds = 60
bisect_batch_on_function_error = false
report_batch_item_failures = true
on_exhausted = "pause"
parallelization_factor = 3
filters = ['{"partitionKey": ["a"]}']
deaggregate = true
circuit_breaker = 5
max_parked_keys = 17
max_parked_mib = 2
roll_back_failure_percent = 40
roll_back_batches = 15
shadow = ":canary"
shadow_percent = 20
shadow_fuel_per_second = 5_000_000
on_failure = "s3://given-up/clicks"
enabled = false

[[mapping]]
name = "windows"
stream = "clicks"
function = "clickstream"
tumbling_window_seconds = 90

[[queue]]
name = "dead-letters"
visibility_timeout_seconds = 60

[delivery]
maximum_age_hours = 2
timeout_seconds = 3
outbox_entries = 7
outbox_mib = 1
webhook_secret = "secret"
allow = ["s3://given-up/", "https://hooks.example.com/"]

[s3]
endpoint = "http://127.0.0.1:9000"
region = "eu-west-3"
access_key_id = "key"
secret_access_key = "secret"
"#;

fn parse(text: &str) -> Result<Manifest, ManifestError> {
    Manifest::parse(text, Path::new("/etc/shardmill.toml"))
}

#[test]
fn every_key_reaches_its_place() {
    let manifest = parse(WHOLE).expect("a good manifest");
    assert!(manifest.prune);
    assert_eq!(
        manifest.server.data_dir.as_deref(),
        Some(Path::new("/etc/data"))
    );
    let failures = manifest.server.failures;
    assert_eq!(
        (failures.age, failures.bytes),
        (Duration::from_secs(7 * 86_400), 512 << 20)
    );
    let server = &manifest.server;
    assert!(server.closed);
    assert_eq!(server.clock_skew, Some(Duration::from_secs(90)));
    let secret_key = server.secret_key_file.as_deref();
    assert_eq!(secret_key, Some(Path::new("/etc/secret.key")));
    let tls = crate::server::TlsFiles {
        certificate: "/etc/tls/host.pem".into(),
        key: "/run/host.key".into(),
    };
    assert_eq!(server.tls.as_ref(), Some(&tls));
    let connections = Connections {
        most: 77,
        patience: Duration::from_secs(5),
        body_grace: Duration::from_secs(6),
    };
    assert_eq!(server.connections, connections);
    let tenant = &manifest.tenants[0];
    assert_eq!(tenant.account.to_string(), "123456789012");
    assert_eq!(tenant.name, "Clicks & co");
    let quotas = Quotas {
        weight: 300,
        stored_bytes: Some(2 << 20),
        shards: Some(3),
        functions: Some(4),
        requests_per_second: Some(5),
        concurrent_invocations: Some(6),
        guest_memory_bytes: Some(7 << 20),
        fuel_per_second: Some(8_000_000),
    };
    assert_eq!(tenant.quotas, quotas);
    let secrets: Vec<_> = tenant.access_keys.iter().map(|key| &key.secret).collect();
    assert!(matches!(secrets[0], SecretSource::Inline(s) if s.reveal() == "0123456789abcdef"));
    assert_eq!(secrets[1], &SecretSource::File("/etc/two".into()));
    let operator = &manifest.operators[0].access_keys[0];
    assert_eq!(operator.secret, SecretSource::Variable("OPS_SECRET".into()));
    let files: Vec<_> = manifest.files().collect();
    assert!(files.contains(&Path::new("/etc/two")), "{files:?}");
    assert!(!format!("{manifest:?}").contains("0123456789abcdef"));
    let stream = &manifest.streams[0];
    assert_eq!((stream.shards, stream.retention_hours), (4, 48));
    assert_eq!(stream.scope.region.as_str(), "eu-central-1");
    let function = &manifest.functions[0];
    assert_eq!(function.wasm, Path::new("/etc/target/clickstream.wasm"));
    assert_eq!(function.settings.limits.timeout, Duration::from_secs(10));
    assert_eq!(function.settings.limits.memory_bytes, 64 << 20);
    let limits = &function.settings.limits;
    assert_eq!(limits.fuel(10), 2_010_000);
    assert_eq!(
        (limits.answer_bytes, limits.output_bytes),
        (2 << 20, 32 << 10)
    );
    assert_eq!((limits.effect_bytes, limits.effect_items), (4 << 20, 500));
    assert_eq!(limits.batch_bytes, 8 << 20);
    assert_eq!(function.settings.environment["LEVEL"], "debug");
    let mapping = &manifest.mappings[0];
    let at = StartingPosition::AtTimestamp(UnixMillis(1_700_000_050_123));
    assert_eq!(mapping.starting_position, at);
    assert_eq!(mapping.enabled, Some(false));
    let policy = Policy {
        batch_size: 500,
        batching_window: Duration::from_secs(1),
        maximum_retry_attempts: None,
        maximum_record_age: Some(Duration::from_secs(60)),
        bisect_batch_on_function_error: false,
        report_batch_item_failures: true,
        on_exhausted: OnExhausted::Pause,
        parallelization_factor: 3,
        tumbling_window: Duration::ZERO,
        filter_criteria: vec![r#"{"partitionKey": ["a"]}"#.into()],
        deaggregate: true,
        circuit_breaker: 5,
        max_parked_keys: 17,
        max_parked_bytes: 2 << 20,
        roll_back_failure_percent: 40,
        roll_back_batches: 15,
        shadow: Some(Shadow {
            function: ":canary".into(),
            percent: 20,
            fuel_per_second: 5_000_000,
        }),
    };
    assert_eq!(mapping.policy, policy);
    let window = manifest.mappings[1].policy.tumbling_window;
    assert_eq!(window, Duration::from_secs(90));
    let destination = mapping.on_failure.as_ref().expect("a destination");
    assert_eq!(destination.as_str(), "s3://given-up/clicks");
    let queue = QueueSpec {
        scope: stream.scope.clone(),
        name: "dead-letters".into(),
        visibility_timeout_seconds: Some(60),
        message_retention_seconds: None,
    };
    assert_eq!(manifest.queues, [queue]);
    let delivery = delivery::Settings {
        maximum_age: Duration::from_secs(7200),
        timeout: Duration::from_secs(3),
        bounds: delivery::Bounds {
            entries: 7,
            bytes: 1 << 20,
        },
        webhook_secret: Some("secret".into()),
        s3: delivery::S3Settings {
            endpoint: Some("http://127.0.0.1:9000".into()),
            region: Some("eu-west-3".into()),
            access_key_id: Some("key".into()),
            secret_access_key: Some("secret".into()),
        },
        allowed: delivery::Allowed {
            prefixes: Some(
                ["s3://given-up/", "https://hooks.example.com/"]
                    .map(|text| text.parse().expect("a destination"))
                    .into(),
            ),
            ..delivery::Allowed::default()
        },
    };
    assert_eq!(manifest.delivery, delivery);
}

#[test]
fn a_mapping_that_says_nothing_retries_twice_and_bisects() {
    let text = "[[mapping]]\nname = \"m\"\nstream = \"s\"\nfunction = \"f\"\n";
    let manifest = parse(text).expect("a good manifest");
    assert_eq!(manifest.mappings[0].policy, Policy::manifest());
    assert_eq!(
        manifest.mappings[0].starting_position,
        StartingPosition::TrimHorizon
    );
    assert_eq!(manifest.mappings[0].enabled, None);
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_the_limit() {
    let cases = [
        (
            "[[stream]]\nname = \"s\"\nshrads = 4",
            "3: unknown key `shrads`: did you mean `shards`?",
        ),
        (
            "[streams]\nx = 1",
            "1: unknown key `streams`: did you mean `stream`?",
        ),
        (
            "[[stream]]\nname = \"s\"\nshards = 1\nprune = true",
            "4: key `prune` belongs to the top of the file, above the first table",
        ),
        (
            "[[stream]]\nname = \"s\"\nshards = \"4\"",
            "3: invalid type: string \"4\", expected i64",
        ),
        (
            "[[stream]]\nname = \"s\"",
            " stream \"s\": shards is missing: 1 to 10000 expected",
        ),
        (
            "[[stream]]\nshards = 1",
            " stream number 1: name is missing: a name expected",
        ),
        (
            "[[stream]]\nname = \"s\"\nshards = 1\nretention_hours = 9000",
            " stream \"s\": retention_hours = 9000: 24 to 8760 hours expected",
        ),
        (
            "[[function]]\nname = \"f\"\nwasm = \"f\"\ntimeout_seconds = 0",
            " function \"f\": timeout_seconds = 0: 1 to 900 seconds expected",
        ),
        (
            "[[mapping]]\nname = \"m\"\nstream = \"s\"\nfunction = \"f\"\nmaximum_record_age_seconds = 5",
            " mapping \"m\": maximum_record_age_seconds = 5: 60 to 604800 seconds, or -1 for no limit, expected",
        ),
        (
            "[[mapping]]\nname = \"m\"\nstream = \"s\"\nfunction = \"f\"\nshadow_percent = 5",
            " mapping \"m\": shadow is missing: \":VERSION\", \":ALIAS\" or \"FUNCTION:VERSION\" expected",
        ),
        (
            "[[mapping]]\nname = \"m\"\nstream = \"s\"\nfunction = \"f\"\nshadow = \":2\"\nshadow_percent = 0",
            " mapping \"m\": shadow_percent = 0: 1 to 100 percent expected",
        ),
        (
            "[[mapping]]\nname = \"m\"\nstream = \"s\"\nfunction = \"f\"\nshadow = \":0\"",
            " mapping \"m\": shadow = \":0\": qualifier \"0\": a version's number from 1, $LATEST, or an alias expected (1 to 128 of a-z A-Z 0-9 - _, not a number)",
        ),
        (
            "[[mapping]]\nname = \"m\"\nstream = \"s\"\nfunction = \"f\"\nstarting_position = \"latest\"",
            " mapping \"m\": starting_position = \"latest\": did you mean \"LATEST\"?",
        ),
        (
            "[[function]]\nname = \"f\"\nwasm = \"f\"\n[[function]]\nname = \"f\"\nwasm = \"g\"",
            " function: name = \"f\": it is named twice",
        ),
        (
            "[[mapping]]\nname = \"m\"\nstream = \"s\"\nfunction = \"f\"\non_failure = \"arn:aws:sns:us-east-1:000000000000:t\"",
            " mapping \"m\": on_failure = \"arn:aws:sns:us-east-1:000000000000:t\": topics are not supported: use a queue or a webhook",
        ),
        (
            "[[queue]]\nname = \"q.fifo\"",
            " queue \"q.fifo\": name = \"q.fifo\": 1 to 80 of a-z A-Z 0-9 _ - expected; FIFO queues are not supported",
        ),
        (
            "[delivery]\nmaximum_age_hours = 0",
            " delivery: maximum_age_hours = 0: 1 to 720 hours expected",
        ),
        (
            "[delivery]\nallow = [\"hooks.example.com\"]",
            " delivery: allow = \"hooks.example.com\": arn:aws:sqs:REGION:ACCOUNT:NAME, s3://BUCKET[/PREFIX], arn:aws:s3:::BUCKET, file:///FOLDER, https://… or http://… expected",
        ),
        (
            "[delivery]\nallow = [\"arn:aws:sqs:us-east-1:000000000000:q\"]",
            " delivery: allow = \"arn:aws:sqs:us-east-1:000000000000:q\": queues are always allowed",
        ),
        (
            "[s3]\nsecret_access_key = \"s\"",
            " s3: access_key_id is missing: both keys, or neither and the environment's, expected",
        ),
        (
            "[server]\naccess = \"close\"",
            " server: access = \"close\": did you mean \"closed\"?",
        ),
        (
            "[tls]\ncertificate = \"c\"",
            " tls: key is missing: a PEM file expected",
        ),
        (
            "[[tenant]]\nname = \"t\"",
            " tenant number 1: account is missing: 12 digits expected",
        ),
        (
            "[[tenant]]\naccount = \"1\"",
            " tenant \"1\": account = \"1\": 12 digits expected",
        ),
        (
            "[[tenant]]\naccount = \"000000000001\"\nweight = 0",
            " tenant \"000000000001\": weight = 0: 1 to 1000 expected",
        ),
        (
            "[[tenant]]\naccount = \"000000000001\"\n[[tenant]]\naccount = \"000000000001\"",
            " tenant: account = \"000000000001\": two tenants have this account",
        ),
        (
            "[[operator]]\nname = \"o\"\naccess_key = [{ id = \"AKID\", secret = \"hunter2\" }]",
            " operator \"o\": access_key \"AKID\": secret = 7 characters: 16 characters at least expected",
        ),
        (
            "[[operator]]\nname = \"o\"\naccess_key = [{ id = \"AK/ID\", secret_env = \"S\" }]",
            " operator \"o\": access_key \"AK/ID\": id = \"AK/ID\": 4 to 128 of a-z A-Z 0-9 _ expected",
        ),
        (
            "[[operator]]\nname = \"o\"\naccess_key = [{ id = \"AKID\", secret_env = \"S\", secret_file = \"s\" }]",
            " operator \"o\": access_key \"AKID\": secret = given twice: one of secret, secret_file and secret_env expected",
        ),
        (
            "[[operator]]\nname = \"o\"\naccess_key = [{ id = \"AKID\", secret_env = \"S\" }, { id = \"AKID\", secret_env = \"S\" }]",
            " operator \"o\": access_key \"AKID\": id = \"AKID\": two access keys have this id",
        ),
        (
            "[server]\nfailures_max_mib = 0",
            " server: failures_max_mib = 0: 1 to 1048576 MiB expected",
        ),
        (
            "[server]\naccount = \"1\"",
            " server: account = \"1\": 12 digits expected",
        ),
    ];
    for (text, want) in cases {
        let error = parse(text).expect_err(text).to_string();
        assert_eq!(error, format!("/etc/shardmill.toml:{want}"), "{text}");
    }
}
