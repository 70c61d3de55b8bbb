//! Doors for the laws of `fuzz/laws`: a host in memory, on simulated time, that is handed requests
//! behind the socket. No part of the program.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::http::request::Parts;
use sha2::{Digest, Sha256};
use shardmill_core::effects::Effects;
use shardmill_core::quotas::Quotas;
use shardmill_core::sandbox::{
    BoxFuture, Carrier, Invocation, LoadError, Mode, Module, Report, Usage,
};
use shardmill_core::{Outcome, Sandbox, Scope, UnixMillis};
use shardmill_store::Memory;
use tokio::runtime::Runtime;

use crate::api::{Answer, kinesis, native, sqs};
use crate::auth::{self, Caller, Role};
use crate::clock::Clock;
use crate::services::{Access, Services, Settings};
use crate::tenancy::{AccessKeySpec, Secret, SecretSource, Tenancy, TenantSpec};
use crate::workloads::Workloads;

/// When the host begins.
const NOW: UnixMillis = UnixMillis(1_704_164_645_000);
/// The access key of the closed host.
pub const ACCESS_KEY: &str = "AKIDEXAMPLE";
/// Its secret.
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// A request as it arrives.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Path and query.
    pub uri: String,
    /// Names and values.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// How an operation of Kinesis reads its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As it comes: the fast way where that is possible.
    Any,
    /// The careful way always.
    Careful,
}

/// A host.
pub struct Host {
    runtime: Runtime,
    services: Arc<Services>,
}

impl Host {
    /// An open host with functions, mappings and queues, of which there are none yet. No mapping
    /// runs.
    pub fn open() -> Self {
        Self::start(Access::Loopback)
    }

    /// A closed host with one access key, at 2024-01-02T03:04:05Z.
    pub fn closed() -> Self {
        Self::start(Access::Closed)
    }

    fn start(access: Access) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O");
        let services = runtime.block_on(async {
            let clock = Clock::starting_at(NOW);
            let store = Arc::new(Memory::new(Arc::new(move || clock.now())));
            let workloads = Workloads::new(store.clone(), Arc::new(Echo), clock, None);
            let settings = Settings {
                access,
                ..Settings::default()
            };
            let services = Services::start(store, clock, settings).await;
            let services = services.expect("a store in memory starts");
            services
                .with_workloads(workloads)
                .with_tenancy(Arc::new(one_tenant()))
        });
        Self {
            runtime,
            services: Arc::new(services),
        }
    }

    /// Lets a second pass.
    pub fn wait(&self) {
        let second = std::time::Duration::from_secs(1);
        self.runtime
            .block_on(async { tokio::time::sleep(second).await });
    }

    /// Calls an operation of Kinesis.
    pub fn kinesis(&self, operation: &str, body: &[u8], way: Way) -> Reply {
        let (parts, host) = (parts(&Request::default()), self.services.as_ref());
        let Some(parts) = parts else {
            return refused();
        };
        let operation = kinesis::find(operation);
        let caller = Ok(caller(Scope::default()));
        let ran = self.runtime.block_on(async {
            match way {
                Way::Any => kinesis::run(host, &parts, caller, operation, body).await,
                Way::Careful => kinesis::careful(host, &parts, caller, operation, body).await,
            }
        });
        match ran {
            Ok(output) => Reply {
                status: 200,
                body: output.into_bytes(),
            },
            Err(error) => {
                let told = error.told();
                let body = serde_json::json!({ "__type": told.kind, "message": told.message });
                Reply {
                    status: told.status,
                    body: body.to_string().into_bytes(),
                }
            }
        }
    }

    /// Calls an operation of SQS.
    pub fn sqs(&self, operation: &str, body: &[u8]) -> Reply {
        let target = format!("{}{operation}", sqs::TARGET).into_bytes();
        let request = Request {
            headers: vec![
                ("x-amz-target".into(), target),
                ("host".into(), b"localhost".to_vec()),
            ],
            ..Request::default()
        };
        let Some(parts) = parts(&request) else {
            return refused();
        };
        let body = Bytes::copy_from_slice(body);
        self.answer(sqs::respond(
            &self.services,
            &parts,
            caller(Scope::default()),
            body,
        ))
    }

    /// Calls the native API; `uri` begins below `/_shardmill/`.
    pub fn native(&self, method: &str, uri: &str, body: &[u8]) -> Reply {
        let request = Request {
            method: method.into(),
            uri: format!("/_shardmill/{uri}"),
            ..Request::default()
        };
        let Some(parts) = parts(&request) else {
            return refused();
        };
        let body = Bytes::copy_from_slice(body);
        self.answer(native::respond(
            &self.services,
            parts,
            caller(Scope::default()),
            body,
        ))
    }

    /// The body of a request whose signature for a service is good.
    ///
    /// # Errors
    /// What the client is told.
    pub fn checked_body(&self, service: &str, request: &Request) -> Result<Vec<u8>, String> {
        let parts = parts(request).ok_or("this is no request of HTTP")?;
        let body = Bytes::copy_from_slice(&request.body);
        let _entered = self.runtime.enter();
        auth::fuzzing::checked_body(&self.services, &parts, service, body).map(Into::into)
    }

    fn answer(&self, answer: impl Future<Output = Answer>) -> Reply {
        self.runtime.block_on(async {
            let (parts, body) = answer.await.into_parts();
            let Ok(body) = body.collect().await;
            Reply {
                status: parts.status.as_u16(),
                body: body.to_bytes().into(),
            }
        })
    }
}

/// The data of a body in chunks, whose signatures are not looked at.
///
/// # Errors
/// What the client is told.
pub fn chunks(body: &[u8], announced: Option<usize>) -> Result<Vec<u8>, String> {
    auth::fuzzing::chunks(body, announced).map(Into::into)
}

/// What a server that reads HTTP says before it looks at anything.
fn refused() -> Reply {
    let told = serde_json::json!({
        "__type": "BadRequest",
        "message": "this is no request of HTTP",
        "error": { "code": "bad_request", "message": "this is no request of HTTP" },
    });
    Reply {
        status: 400,
        body: told.to_string().into_bytes(),
    }
}

fn parts(request: &Request) -> Option<Parts> {
    let uri = match request.uri.as_str() {
        "" => "/",
        uri => uri,
    };
    let method = match request.method.as_str() {
        "" => "POST",
        method => method,
    };
    let mut builder = hyper::Request::builder().method(method).uri(uri);
    for (name, value) in &request.headers {
        builder = builder.header(name.as_str(), value.as_slice());
    }
    Some(builder.body(()).ok()?.into_parts().0)
}

fn caller(scope: Scope) -> Caller {
    Caller {
        scope,
        role: Role::Operator,
    }
}

fn one_tenant() -> Tenancy {
    let tenant = TenantSpec {
        account: "123456789012".parse().expect("an account"),
        name: String::new(),
        quotas: Quotas::default(),
        access_keys: vec![AccessKeySpec {
            id: ACCESS_KEY.into(),
            secret: SecretSource::Inline(Secret::from(SECRET.to_owned())),
        }],
    };
    let tenancy = Tenancy::default();
    let applied = tenancy.apply(&[tenant], &[], &Echo);
    applied.expect("a secret that is there");
    tenancy
}

/// A sandbox in which whatever begins like wasm is a handler that takes every record.
struct Echo;

struct Taken(String);

impl Module for Taken {
    fn digest(&self) -> &str {
        &self.0
    }

    fn carrier(&self) -> Carrier {
        Carrier::Packed {
            mode: Mode::Record,
            uses_state: false,
        }
    }
}

impl Sandbox for Echo {
    fn load(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        Box::pin(async move {
            if !wasm.starts_with(b"\0asm") {
                return Err(LoadError::Invalid("no module".into()));
            }
            let digest = Sha256::digest(&wasm);
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let module: Arc<dyn Module> = Arc::new(Taken(digest));
            Ok(module)
        })
    }

    fn invoke(&self, _: Invocation) -> BoxFuture<'_, Report> {
        let outcome = Outcome::Ok {
            text: String::new(),
        };
        let report = Report {
            outcome,
            effects: Effects::default(),
            usage: Usage::default(),
            log: Vec::new(),
            record_fuel: Vec::new(),
            stderr_tail: String::new(),
            output_cut_bytes: 0,
        };
        Box::pin(async { report })
    }
}
