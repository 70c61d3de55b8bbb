//! A running host, as a command sees it: the native API and Kinesis, over one HTTP client.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use shardmill_core::Scope;

use crate::clock::Clock;
use crate::timestamp;

/// Speaks to a host. Cheap to clone; clones share connections.
#[derive(Clone)]
pub(super) struct Client {
    http: Http<HttpConnector, Full<Bytes>>,
    endpoint: String,
    scope: Scope,
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
        const THROTTLES: [&str; 2] = [
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
    pub(super) fn new(endpoint: &str, scope: Scope) -> anyhow::Result<Self> {
        let endpoint = endpoint.trim_end_matches('/');
        let uri: Uri = endpoint
            .parse()
            .with_context(|| format!("endpoint {endpoint:?}"))?;
        if uri.scheme_str() != Some("http") || uri.authority().is_none() {
            bail!("endpoint {endpoint:?}: an address as http://127.0.0.1:4566 expected");
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let http = Http::builder(TokioExecutor::new()).build(connector);
        Ok(Self {
            http,
            endpoint: endpoint.into(),
            scope,
            patience: Some(ANSWER),
        })
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
        self.identify(&mut request);
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

    /// Says who is calling, in the form of an AWS signature. Hosts take any signature from their
    /// own machine, so there is none to compute: only the account and the region count.
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
        (Client::new(&endpoint, Scope::default()).unwrap(), asked)
    }

    #[tokio::test]
    async fn a_host_that_does_not_answer_is_not_waited_for_without_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::new(&endpoint, Scope::default()).unwrap();
        let client = client.answering_within(Duration::from_millis(50));
        let error = client.get("health").await.unwrap_err();
        assert!(matches!(error, CallError::Silent { .. }), "{error:?}");
        assert!(error.may_pass());
    }
}
