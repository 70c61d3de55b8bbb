//! Objects: the document with its records, put under a key that the delivery's id is part of, so
//! that a repeated delivery replaces itself. Into a bucket of an S3-compatible store, or a folder.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{
    Attribute, Attributes, Error, ObjectStore, PutOptions, PutPayload, Result, RetryConfig,
};

use super::http::{Http, RefusedObject, chain};
use super::schedule::{Failed, Trouble};

/// As AWS writes it.
const CONTENT_TYPE: &str = "application/octet-stream";

/// The region of a store that names none.
const DEFAULT_REGION: &str = "us-east-1";

/// How an S3-compatible store is reached. What is `None` is taken from the environment:
/// `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`,
/// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`; keys also from the machine's role.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct S3Settings {
    /// Its address; AWS's own where nothing names one. Buckets are named in the path.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// The access key.
    pub access_key_id: Option<String>,
    /// The secret key.
    pub secret_access_key: Option<String>,
}

impl std::fmt::Debug for S3Settings {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Settings")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// Buckets, each opened once.
#[derive(Debug)]
pub(super) struct Buckets {
    settings: S3Settings,
    http: Http,
    open: Mutex<HashMap<String, Arc<AmazonS3>>>,
}

impl Buckets {
    pub(super) fn new(settings: S3Settings, http: Http) -> Self {
        let open = Mutex::default();
        Self {
            settings,
            http,
            open,
        }
    }

    /// Puts an object into a bucket: below the prefix, which is taken as it is, under the key.
    pub(super) async fn put(
        &self,
        bucket: &str,
        (prefix, key): (&str, &str),
        body: Bytes,
    ) -> Result<(), Trouble> {
        let put = async {
            let (prefix, key) = (ObjectPath::parse(prefix)?, ObjectPath::from(key));
            let key = prefix.parts().chain(key.parts()).collect::<ObjectPath>();
            let store = self.bucket(bucket)?;
            let attributes = Attributes::from_iter([(Attribute::ContentType, CONTENT_TYPE)]);
            let options = PutOptions::from(attributes);
            let payload = PutPayload::from(body);
            store.put_opts(&key, payload, options).await
        };
        put.await.map(drop).map_err(trouble)
    }

    fn bucket(&self, name: &str) -> Result<Arc<AmazonS3>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(name) {
            return Ok(Arc::clone(store));
        }
        let store = Arc::new(self.build(name)?);
        open.insert(name.into(), Arc::clone(&store));
        Ok(store)
    }

    fn build(&self, bucket: &str) -> Result<AmazonS3> {
        let S3Settings {
            endpoint,
            region,
            access_key_id,
            secret_access_key,
        } = self.settings.clone();
        // Whoever tries again is the schedule.
        let retry = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_retry(retry)
            .with_http_connector(self.http.clone());
        let named = endpoint.or_else(|| std::env::var("AWS_ENDPOINT_URL_S3").ok());
        let endpoint = named.or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
        if let Some(endpoint) = endpoint {
            builder = builder
                .with_allow_http(endpoint.starts_with("http://"))
                .with_endpoint(endpoint);
        }
        let region = region.or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Region));
        builder = builder.with_region(region.unwrap_or_else(|| DEFAULT_REGION.into()));
        if let Some(id) = access_key_id {
            builder = builder.with_access_key_id(id);
        }
        if let Some(secret) = secret_access_key {
            builder = builder.with_secret_access_key(secret);
        }
        builder.build()
    }
}

/// Puts an object into a folder, which is made where it is not there: written beside its place,
/// renamed, and synced before this returns.
pub(super) async fn put_file(folder: &Path, key: &str, body: Bytes) -> Result<(), Trouble> {
    let unusable = |why: String| Trouble {
        failed: Failed::Unreachable,
        why,
    };
    let made = tokio::fs::create_dir_all(folder).await;
    made.map_err(|e| unusable(format!("{}: {e}", folder.display())))?;
    let store = LocalFileSystem::new_with_prefix(folder).map_err(trouble)?;
    let (path, payload) = (ObjectPath::from(key), PutPayload::from(body));
    let put = store.with_fsync(true);
    let put = put.put_opts(&path, payload, PutOptions::default()).await;
    put.map(drop).map_err(trouble)
}

fn trouble(error: Error) -> Trouble {
    let failed = match &error {
        Error::Generic { source, .. } => of_answer(source.as_ref()),
        Error::NotFound { .. }
        | Error::PermissionDenied { .. }
        | Error::Unauthenticated { .. }
        | Error::InvalidPath { .. }
        | Error::NotSupported { .. } => Failed::Misconfigured,
        _ => Failed::Unreachable,
    };
    let why = chain(&error);
    Trouble { failed, why }
}

/// What is at fault when a store has answered with nothing that `object_store` knows.
fn of_answer(error: &(dyn std::error::Error + 'static)) -> Failed {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<RefusedObject>() {
            return of_code(&refused.text);
        }
        cause = error.source();
    }
    Failed::Unreachable
}

/// What S3's code says of a 400: of the object, unless it is one of the few that speak of the
/// request's time, keys or address. Amazon S3 API reference, "List of error codes".
fn of_code(document: &str) -> Failed {
    let code = document.split_once("<Code>");
    let code = code.and_then(|(_, rest)| rest.split_once("</Code>"));
    match code.map(|(code, _)| code) {
        Some("RequestTimeout") => Failed::Unreachable,
        Some(
            "AuthorizationHeaderMalformed" | "ExpiredToken" | "InvalidBucketName" | "InvalidToken",
        ) => Failed::Misconfigured,
        _ => Failed::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_400_is_the_objects_fault_unless_its_code_says_otherwise() {
        for (document, want) in [
            ("", Failed::Refused),
            (
                "<Error><Code>EntityTooLarge</Code></Error>",
                Failed::Refused,
            ),
            (
                "<Error><Code>ExpiredToken</Code></Error>",
                Failed::Misconfigured,
            ),
            (
                "<Error><Code>RequestTimeout</Code></Error>",
                Failed::Unreachable,
            ),
        ] {
            assert_eq!(of_code(document), want, "{document}");
        }
    }
}
