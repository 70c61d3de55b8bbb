//! A running host, as a command sees it: the native API and Kinesis, over one HTTP client.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use shardmill_core::Scope;

use crate::auth::{ACCOUNT, Credentials, Service, sign};
use crate::clock::Clock;
use crate::timestamp;

/// Speaks to a host. Cheap to clone; clones share connections.
#[derive(Clone)]
pub(super) struct Client {
    http: Http<HttpsConnector<HttpConnector>, Full<Bytes>>,
    endpoint: String,
    scope: Scope,
    /// What requests are signed with; without, any signature has to do.
    credentials: Option<Credentials>,
    /// Whether `scope` names an account that the key may not be of.
    names_account: bool,
    /// How long a whole answer may take; without end for what runs handlers or compiles them.
    patience: Option<Duration>,
}

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take that a host gives at once.
const ANSWER: Duration = Duration::from_secs(60);

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// Nobody listens, or the connection broke. Whether the request was done is not known.
    #[error(
        "cannot reach {endpoint}: {cause}: is `shardmill serve` running? --endpoint or SHARDMILL_ENDPOINT names another host"
    )]
    Unreachable {
        /// Where.
        endpoint: String,
        /// What the system says.
        cause: String,
    },
    /// A connection, and no answer.
    #[error(
        "{endpoint} has not answered for {seconds} s: whether the request was done is not known"
    )]
    Silent {
        /// Where.
        endpoint: String,
        /// How long.
        seconds: f64,
    },
    /// The host refused.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The error's name.
        code: String,
        /// What it says, and what to do.
        message: String,
    },
    /// The answer is not what this command understands.
    #[error(
        "{endpoint} answers {status} with something else than a host's JSON: is it a Shardmill host?"
    )]
    Foreign {
        /// Where.
        endpoint: String,
        /// The HTTP status.
        status: StatusCode,
    },
}

impl CallError {
    /// Whether the same request may succeed later.
    pub(super) fn may_pass(&self) -> bool {
        const THROTTLES: [&str; 3] = [
            "throttled",
            "ProvisionedThroughputExceededException",
            "ThrottlingException",
        ];
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } => true,
            Self::Refused { status, code, .. } => {
                status.is_server_error() || THROTTLES.contains(&code.as_str())
            }
            Self::Foreign { .. } => false,
        }
    }

    /// Whether the host refused with this code of the native API.
    pub(super) fn has_code(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == wanted)
    }

    /// Whether the host says that there is no such thing.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "ResourceNotFoundException" || code == "not_found")
    }
}

impl Client {
    /// Speaks to a host that listens at `endpoint`. Certificates are held against those of
    /// `ca_file`, or of this machine.
    pub(super) fn new(
        endpoint: &str,
        scope: Scope,
        ca_file: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let endpoint = endpoint.trim_end_matches('/');
        let uri: Uri = endpoint
            .parse()
            .with_context(|| format!("endpoint {endpoint:?}"))?;
        let secure = uri.scheme_str() == Some("https");
        if !(secure || uri.scheme_str() == Some("http")) || uri.authority().is_none() {
            bail!(
                "endpoint {endpoint:?}: an address as http://127.0.0.1:4566 or https://HOST:PORT expected"
            );
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(secure, ca_file)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let http = Http::builder(TokioExecutor::new()).build(connector);
        Ok(Self {
            http,
            endpoint: endpoint.into(),
            scope,
            credentials: None,
            names_account: false,
            patience: Some(ANSWER),
        })
    }

    /// The same with signed requests; `names_account`: for the scope's account, whosever key it is.
    pub(super) fn signing(self, credentials: Credentials, names_account: bool) -> Self {
        Self {
            credentials: Some(credentials),
            names_account,
            ..self
        }
    }

    /// The same for calls that take as long as a handler runs, or a module compiles.
    pub(super) fn patient(&self) -> Self {
        Self {
            patience: None,
            ..self.clone()
        }
    }

    /// The same with answers that take no longer than this.
    pub(super) fn answering_within(&self, patience: Duration) -> Self {
        Self {
            patience: Some(patience),
            ..self.clone()
        }
    }

    /// Reads from the native API.
    pub(super) async fn get(&self, path: &str) -> Result<Value, CallError> {
        self.native(Method::GET, path, None).await
    }

    /// Sends JSON to the native API.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Value, CallError> {
        self.native(
            method,
            path,
            Some(("application/json", body.to_string().into())),
        )
        .await
    }

    /// Calls the native API.
    pub(super) async fn native(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Value, CallError> {
        let (content_type, body) = body.unwrap_or(("application/json", Bytes::new()));
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        request
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let (status, body) = self.call(request, &format!("/_shardmill/{path}")).await?;
        let answer = serde_json::from_slice::<Value>(&body).ok();
        match answer {
            Some(answer) if status.is_success() => Ok(answer),
            Some(answer) => Err(self.native_error(status, &answer["error"])),
            None => Err(self.foreign(status)),
        }
    }

    /// Reads a file from the native API.
    pub(super) async fn bytes(&self, path: &str) -> Result<Bytes, CallError> {
        let request = Request::new(Full::new(Bytes::new()));
        let (status, body) = self.call(request, &format!("/_shardmill/{path}")).await?;
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice::<Value>(&body) {
            Ok(answer) => Err(self.native_error(status, &answer["error"])),
            Err(_) => Err(self.foreign(status)),
        }
    }

    /// Calls an operation of Kinesis.
    pub(super) async fn kinesis(&self, operation: &str, body: &Value) -> Result<Value, CallError> {
        self.kinesis_as(operation, body.to_string().into(), None)
            .await
    }

    /// Calls an operation of Kinesis, as a producer if there is one: `ID;NUMBER`.
    pub(super) async fn kinesis_as(
        &self,
        operation: &str,
        body: Bytes,
        producer: Option<HeaderValue>,
    ) -> Result<Value, CallError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-amz-json-1.1"),
        );
        if let Ok(target) = format!("Kinesis_20131202.{operation}").parse() {
            headers.insert("x-amz-target", target);
        }
        if let Some(producer) = producer {
            headers.insert("x-shardmill-producer", producer);
        }
        let (status, body) = self.call(request, "/").await?;
        if status.is_success() && body.is_empty() {
            return Ok(Value::Null);
        }
        let answer = serde_json::from_slice::<Value>(&body).ok();
        match answer {
            Some(answer) if status.is_success() => Ok(answer),
            Some(answer) => Err(self.kinesis_error(status, &answer)),
            None => Err(self.foreign(status)),
        }
    }

    async fn call(
        &self,
        request: Request<Full<Bytes>>,
        path: &str,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let Some(patience) = self.patience else {
            return self.answer(request, path).await;
        };
        let answer = tokio::time::timeout(patience, self.answer(request, path));
        answer.await.unwrap_or_else(|_| {
            Err(CallError::Silent {
                endpoint: self.endpoint.clone(),
                seconds: patience.as_secs_f64(),
            })
        })
    }

    async fn answer(
        &self,
        mut request: Request<Full<Bytes>>,
        path: &str,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let unreachable = |cause: &dyn std::error::Error| CallError::Unreachable {
            endpoint: self.endpoint.clone(),
            cause: root_of(cause),
        };
        let uri = format!("{}{path}", self.endpoint).parse::<Uri>();
        *request.uri_mut() = uri.map_err(|e| unreachable(&e))?;
        let request = match &self.credentials {
            Some(credentials) => self.signed(request, credentials).await,
            None => {
                self.identify(&mut request);
                request
            }
        };
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
            .map_err(|e| unreachable(&e))?;
        Ok((status, body.to_bytes()))
    }

    async fn signed(
        &self,
        request: Request<Full<Bytes>>,
        credentials: &Credentials,
    ) -> Request<Full<Bytes>> {
        let (mut parts, body) = request.into_parts();
        // It is in memory whole.
        let Ok(body) = body.collect().await.map(|body| body.to_bytes());
        if self.names_account
            && let Ok(account) = HeaderValue::from_str(&self.scope.tenant.to_string())
        {
            parts.headers.insert(ACCOUNT, account);
        }
        let service = match parts.uri.path().starts_with("/_shardmill/") {
            true => Service::Native,
            false => Service::Kinesis,
        };
        let signed_for = (service, &self.scope.region);
        sign(
            &mut parts,
            &body,
            credentials,
            signed_for,
            Clock::system().now(),
        );
        Request::from_parts(parts, Full::new(body))
    }

    /// Says who is calling, in the form of an AWS signature. An open host takes any signature, so
    /// there is none to compute: only the account and the region count.
    fn identify(&self, request: &mut Request<Full<Bytes>>) {
        let Scope { tenant, region } = &self.scope;
        let now = timestamp::format(Clock::system().now());
        let time: String = now[..19]
            .chars()
            .filter(|c| !matches!(c, '-' | ':'))
            .collect();
        let signature = format!(
            "AWS4-HMAC-SHA256 Credential={tenant}/{}/{region}/kinesis/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature={:064}",
            &time[..8],
            0
        );
        for (name, value) in [
            (AUTHORIZATION.as_str(), signature),
            ("x-amz-date", time + "Z"),
        ] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                request
                    .headers_mut()
                    .insert(hyper::header::HeaderName::from_static(name), value);
            }
        }
    }

    fn native_error(&self, status: StatusCode, error: &Value) -> CallError {
        let Some(message) = error["message"].as_str() else {
            return self.foreign(status);
        };
        let code = error["code"].as_str().unwrap_or_default().to_owned();
        let message = match error["hint"].as_str() {
            Some(hint) => format!("{message}: {hint}"),
            None => message.to_owned(),
        };
        CallError::Refused {
            status,
            code,
            message,
        }
    }

    fn kinesis_error(&self, status: StatusCode, answer: &Value) -> CallError {
        let Some(code) = answer["__type"].as_str() else {
            return self.foreign(status);
        };
        let code = code.rsplit('#').next().unwrap_or(code).to_owned();
        let message = answer["message"].as_str().or(answer["Message"].as_str());
        let message = format!("{code}: {}", message.unwrap_or("no message"));
        CallError::Refused {
            status,
            code,
            message,
        }
    }

    fn foreign(&self, status: StatusCode) -> CallError {
        CallError::Foreign {
            endpoint: self.endpoint.clone(),
            status,
        }
    }
}

/// What certificates are held against.
fn tls(secure: bool, ca_file: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        let read = || format!("read --ca-file {}", path.display());
        for certificate in CertificateDer::pem_file_iter(path).with_context(read)? {
            roots
                .add(certificate.with_context(read)?)
                .with_context(read)?;
        }
        if roots.is_empty() {
            bail!("--ca-file {}: no certificate in it", path.display());
        }
    }
    let provider = Arc::new(ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    // The machine's own are not looked for where nobody needs them.
    if secure && ca_file.is_none() {
        let builder = builder.with_native_roots();
        let builder = builder.context("no root certificates: name the host's with --ca-file")?;
        return Ok(builder.with_no_client_auth());
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The innermost cause: the layers above it only say that a request failed.
fn root_of(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A text as one segment of a path, or one value of a query.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A host that gives these answers, one a connection, and then none. Its client, and what it
    /// was asked: method and path.
    pub(in crate::cli) async fn host(
        answers: &'static [(u16, &'static str)],
    ) -> (Client, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let mut asked = Vec::new();
            for (status, body) in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                    head.push(socket.read_u8().await.unwrap());
                }
                let line = String::from_utf8_lossy(&head);
                let mut words = line.split(' ');
                let (method, path) = (words.next().unwrap(), words.next().unwrap());
                asked.push(format!("{method} {path}"));
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (
            Client::new(&endpoint, Scope::default(), None).unwrap(),
            asked,
        )
    }

    #[tokio::test]
    async fn a_host_that_does_not_answer_is_not_waited_for_without_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::new(&endpoint, Scope::default(), None).unwrap();
        let client = client.answering_within(Duration::from_millis(50));
        let error = client.get("health").await.unwrap_err();
        assert!(matches!(error, CallError::Silent { .. }), "{error:?}");
        assert!(error.may_pass());
    }
}
