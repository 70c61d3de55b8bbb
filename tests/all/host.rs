//! The door of this suite: a real `shardmill serve` in a temporary folder, on a port of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tempfile::TempDir;

/// What a caller who signs as nobody in particular sends.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host;x-amz-date, Signature=0";

/// A host that is running, or was killed and can be started again on the same data.
pub(crate) struct Host {
    folder: TempDir,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    process: Option<Child>,
    url: String,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Host {
    /// Starts a host with nothing in it.
    pub(crate) fn start() -> Self {
        Self::with(&[], None)
    }

    /// Starts a host with more arguments, and a manifest that is written into its folder.
    pub(crate) fn with(arguments: &[&str], manifest: Option<&str>) -> Self {
        Self::made(arguments, manifest, &[], |_| {})
    }

    /// Starts a host with a manifest, with variables in its environment, and with what `prepare`
    /// puts into its folder.
    pub(crate) fn prepared(
        manifest: &str,
        environment: &[(&str, &str)],
        prepare: impl FnOnce(&Path),
    ) -> Self {
        Self::made(&[], Some(manifest), environment, prepare)
    }

    fn made(
        arguments: &[&str],
        manifest: Option<&str>,
        environment: &[(&str, &str)],
        prepare: impl FnOnce(&Path),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let mut arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let environment = environment.iter();
        let environment = environment.map(|(name, value)| ((*name).into(), (*value).into()));
        if let Some(text) = manifest {
            let path = folder.path().join("shardmill.toml");
            std::fs::write(&path, text).unwrap();
            arguments.extend(["--config".into(), path.display().to_string()]);
        }
        let http = Client::builder(TokioExecutor::new()).build_http();
        let mut host = Self {
            folder,
            arguments,
            environment: environment.collect(),
            process: None,
            url: String::new(),
            http,
        };
        host.restart();
        host
    }

    /// Leaves the manifest out from the next start on.
    pub(crate) fn forget_manifest(&mut self) {
        let at = self.arguments.iter().position(|a| a == "--config");
        if let Some(at) = at {
            self.arguments.drain(at..at + 2);
        }
    }

    /// Starts the process again on the same data.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut process = self.command().spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = line.trim().strip_prefix("listening on ").map(str::to_owned);
        self.process = Some(process);
        self.url = url
            .unwrap_or_else(|| panic!("no ready line, but {line:?}; see {}", self.log().display()));
    }

    /// The command that starts the host; its log is in its folder.
    pub(crate) fn command(&self) -> Command {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardmill"));
        command.arg("serve");
        if !self.arguments.iter().any(|a| a == "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        command
    }

    /// The folder that holds the data, the log and the manifest.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The process that runs; it must still run.
    pub(crate) fn process_id(&mut self) -> u32 {
        let process = self.process.as_mut().unwrap();
        assert_eq!(process.try_wait().unwrap(), None, "the host has ended");
        process.id()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let mut process = self.process.take().unwrap();
        let status = Command::new("kill")
            .args(["-TERM", &process.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
        process.wait().unwrap().code()
    }

    /// Runs the command line against this host; its output must be JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.cli(arguments).arg("--json").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}"))
    }

    /// The command line, pointed at this host.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardmill"));
        command
            .args(arguments)
            .env("SHARDMILL_ENDPOINT", &self.url)
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY")
            .stdin(Stdio::null());
        command
    }

    /// What it takes to call the host, to be taken to another task.
    pub(crate) fn client(&self) -> Caller {
        Caller {
            url: self.url.clone(),
            http: self.http.clone(),
        }
    }

    /// One Kinesis operation: the answer, or the status and the error.
    pub(crate) async fn kinesis(
        &self,
        operation: &str,
        input: Value,
    ) -> Result<Value, (StatusCode, Value)> {
        self.client().kinesis(operation, input).await
    }
    /// Waits until a stream is ACTIVE.
    pub(crate) async fn active(&self, stream: &str) {
        until("the stream is ACTIVE", async || {
            let name = serde_json::json!({"StreamName": stream});
            let found = self.kinesis("DescribeStreamSummary", name).await;
            found.is_ok_and(|d| d["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE")
        })
        .await;
    }

    /// A mapping, as the command line shows it.
    pub(crate) fn mapping(&self, name: &str) -> Value {
        let all = self.json(&["mappings"]);
        let found = all["mappings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|m| m["name"] == name);
        found
            .cloned()
            .unwrap_or_else(|| panic!("no mapping {name}: {all}"))
    }

    /// Waits until a mapping has nothing left to do.
    pub(crate) async fn drained(&self, mapping: &str) {
        until("the mapping is drained", async || {
            let view = self.mapping(mapping);
            let shards = view["shards"].as_array().unwrap();
            !shards.is_empty() && shards.iter().all(|s| s["records_behind"] == 0)
        })
        .await;
    }

    /// The counters of a function, by name.
    pub(crate) fn counters(&self, function: &str) -> std::collections::BTreeMap<String, i64> {
        let all = self.json(&["counters", function]);
        let entry = |c: &Value| {
            (
                c["name"].as_str().unwrap().to_owned(),
                c["value"].as_i64().unwrap(),
            )
        };
        all["counters"]
            .as_array()
            .unwrap()
            .iter()
            .map(entry)
            .collect()
    }

    /// The entries of the failure store, newest first.
    pub(crate) fn failures(&self) -> Vec<Value> {
        self.json(&["failures", "list"])["failures"]
            .as_array()
            .unwrap()
            .clone()
    }
}

/// Calls a host over HTTP.
#[derive(Clone)]
pub(crate) struct Caller {
    url: String,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Caller {
    /// One Kinesis operation: the answer, or the status and the error.
    pub(crate) async fn kinesis(
        &self,
        operation: &str,
        input: Value,
    ) -> Result<Value, (StatusCode, Value)> {
        let target = format!("Kinesis_20131202.{operation}");
        self.call("application/x-amz-json-1.1", &target, input)
            .await
    }

    /// One SQS operation: the answer, or the status and the error.
    pub(crate) async fn sqs(
        &self,
        operation: &str,
        input: Value,
    ) -> Result<Value, (StatusCode, Value)> {
        let target = format!("AmazonSQS.{operation}");
        self.call("application/x-amz-json-1.0", &target, input)
            .await
    }

    async fn call(
        &self,
        content_type: &str,
        target: &str,
        input: Value,
    ) -> Result<Value, (StatusCode, Value)> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header("content-type", content_type)
            .header("x-amz-target", target)
            .header("x-amz-date", "20260101T000000Z")
            .header("authorization", AUTHORIZATION)
            .body(Full::new(Bytes::from(input.to_string())))
            .unwrap();
        let unreachable =
            |e: &dyn std::fmt::Display| (StatusCode::BAD_GATEWAY, Value::from(e.to_string()));
        let answer = self
            .http
            .request(request)
            .await
            .map_err(|e| unreachable(&e))?;
        let status = answer.status();
        let body = answer
            .into_body()
            .collect()
            .await
            .map_err(|e| unreachable(&e))?
            .to_bytes();
        let value = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body).unwrap()
        };
        if status.is_success() {
            Ok(value)
        } else {
            Err((status, value))
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("the host's log ends:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// Waits for a condition, for two minutes at most.
pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(120), wait).await;
    assert!(waited.is_ok(), "two minutes, and still not: {what}");
}

/// A guest that `cargo xtask guests` has built.
pub(crate) fn guest(name: &str) -> PathBuf {
    let folder = std::env::var_os("SHARDMILL_GUESTS").map_or_else(default_guests, PathBuf::from);
    let path = folder.join(format!("{name}.wasm"));
    assert!(
        path.is_file(),
        "{} is not there: run `cargo xtask guests`",
        path.display()
    );
    path
}

/// Beside the binary: `<target>/debug/shardmill` and `<target>/guests`.
fn default_guests() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_shardmill"));
    binary.ancestors().nth(2).unwrap().join("guests")
}
