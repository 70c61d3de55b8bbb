//! The one HTTP client of deliveries: HTTP/1.1, with TLS by rustls and the machine's own root
//! certificates. It follows no redirect. It is also what the object store speaks through.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::TokioExecutor;
use object_store::client::{
    HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Most that is read of an answer, bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The client. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// No connection, or one that broke.
    #[error("{}", chain(.0))]
    Client(#[from] ClientError),
    /// The answer's body was cut short, or is larger than anybody would send here.
    #[error("the answer cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
}

impl Http {
    /// A client. Without root certificates on this machine, and with a warning, `https` fails.
    pub(super) fn new() -> Self {
        let provider = ring::default_provider();
        let builder = HttpsConnectorBuilder::new();
        let builder = match builder.with_provider_and_native_roots(provider) {
            Ok(builder) => builder,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "no root certificates: https destinations fail until ca-certificates is installed"
                );
                HttpsConnectorBuilder::new().with_tls_config(without_roots())
            }
        };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = builder
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
        }
    }

    /// Sends a request and returns the status of its answer as soon as it is there. The body,
    /// which may be broken or never end, is dropped unread.
    ///
    /// # Errors
    /// No answer. A status is no error.
    pub(super) async fn status(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<StatusCode, NoAnswer> {
        Ok(self.client.request(request).await?.status())
    }

    /// Sends a request and reads its answer whole.
    ///
    /// # Errors
    /// See [`NoAnswer`]. A status is no error.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, NoAnswer> {
        let (parts, body) = self.client.request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(NoAnswer::Body)?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }
}

#[async_trait::async_trait]
impl HttpService for Http {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let is_object = parts.method == Method::PUT && !body.is_empty();
        let answer = self.send(Request::from_parts(parts, Full::new(body))).await;
        let answer = answer.map_err(|error| {
            let kind = match &error {
                NoAnswer::Client(error) if error.is_connect() => HttpErrorKind::Connect,
                NoAnswer::Client(_) => HttpErrorKind::Request,
                NoAnswer::Body(_) => HttpErrorKind::Interrupted,
            };
            HttpError::new(kind, error)
        })?;
        let (status, refused) = (answer.status(), [400, 413]);
        if is_object && refused.contains(&status.as_u16()) {
            let text = String::from_utf8_lossy(answer.body()).into_owned();
            let error = RefusedObject { status, text };
            return Err(HttpError::new(HttpErrorKind::Unknown, error));
        }
        Ok(answer.map(Into::into))
    }
}

/// An object was refused as it is: 400 or 413, which `object_store` does not tell from an outage.
#[derive(Debug, thiserror::Error)]
#[error("answered {status}: {text}")]
pub(super) struct RefusedObject {
    pub(super) status: StatusCode,
    /// The answer's body: S3's error document.
    pub(super) text: String,
}

impl object_store::client::HttpConnector for Http {
    fn connect(&self, _: &object_store::ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// Trusts nobody: every handshake fails.
fn without_roots() -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(ring::default_provider().into());
    let builder = builder
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions of TLS");
    builder
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// An error with all its causes: the outermost alone says only `client error`.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}
