//! What every request handler and background task is given: the store, the clock, the settings,
//! and the few pieces of state that are derived from them.

use std::sync::Arc;
use std::time::Duration;

use shardmill_core::{Region, Scope, TenantId};
use shardmill_store::{CommitError, Expect, Key, ReadError, Store, Table, Tx, Urgency, Value};

use crate::api::kinesis::Routes;
use crate::clock::Clock;
use crate::mapping::FailureBounds;
use crate::seal::Seal;
use crate::server::{Certificate, Connections};
use crate::tenancy::Tenancy;
use crate::workloads::Workloads;

/// Shared by everything that serves.
pub struct Services {
    /// Streams, records and tables.
    pub store: Arc<dyn Store>,
    /// The one clock.
    pub clock: Clock,
    /// What the operator chose.
    pub settings: Settings,
    /// Signs iterators and page tokens.
    pub(crate) seal: Seal,
    /// Where a stream's records go, by stream.
    pub(crate) routes: Routes,
    /// Held while a stream is made, changed or deleted: what is decided from the list of streams
    /// (limits, the old settings) still holds when it is committed.
    pub(crate) control: tokio::sync::Mutex<()>,
    /// Functions and mappings; `None` where only streams are served.
    pub(crate) workloads: Option<Workloads>,
    /// Who may call, and how much each may use.
    pub(crate) tenancy: Arc<Tenancy>,
}

/// What the operator chose, with its default.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who may speak to the host.
    pub access: Access,
    /// How far a signature's time may be from now. Default 5 minutes, as AWS.
    pub clock_skew: Duration,
    /// What the listener shows, if it speaks TLS.
    pub certificate: Option<Certificate>,
    /// What a connection may take.
    pub connections: Connections,
    /// The account of operators who name none. Default 000000000000.
    pub account: TenantId,
    /// Region of callers whose signature names none. Default us-east-1.
    pub region: Region,
    /// How long a stream is CREATING, UPDATING and DELETING. Default 50 ms, as visible as AWS's seconds.
    pub stream_creation_time: Duration,
    /// Open shards of an account in a region. Default 20,000: AWS's in us-east-1.
    pub shard_limit: u32,
    /// On-demand streams of an account in a region. Default 50, as AWS.
    pub on_demand_stream_limit: u32,
    /// How long an iterator or a page token is good. Default 300 s, as AWS.
    pub iterator_lifetime: Duration,
    /// What a tenant may keep in the failure store. Default 30 days and 1 GiB.
    pub failures: FailureBounds,
}

/// Who may speak to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Callers that reached it under a loopback name; any signature.
    Loopback,
    /// Everybody who can connect; any signature.
    Anyone,
    /// Whoever signs with a key that the manifest names.
    Closed,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            access: Access::Loopback,
            clock_skew: Duration::from_secs(300),
            certificate: None,
            connections: Connections::default(),
            account: TenantId::DEFAULT,
            region: Region::default(),
            stream_creation_time: Duration::from_millis(50),
            shard_limit: 20_000,
            on_demand_stream_limit: 50,
            iterator_lifetime: Duration::from_secs(300),
            failures: FailureBounds::default(),
        }
    }
}

/// Why the services could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store could not be read.
    #[error("read the host's settings: {0}")]
    Read(#[from] ReadError),
    /// The store could not be written.
    #[error("write the host's settings: {0}")]
    Write(#[from] CommitError),
}

impl Services {
    /// Sets them up. The key that signs iterators is made on the first start and kept.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn start(
        store: Arc<dyn Store>,
        clock: Clock,
        settings: Settings,
    ) -> Result<Self, StartError> {
        let seal = Seal::new(iterator_key(store.as_ref()).await?);
        Ok(Self {
            store,
            clock,
            settings,
            seal,
            routes: Routes::default(),
            control: tokio::sync::Mutex::new(()),
            workloads: None,
            tenancy: Arc::default(),
        })
    }
}

impl Services {
    /// The same, with tenants.
    #[must_use]
    pub fn with_tenancy(self, tenancy: Arc<Tenancy>) -> Self {
        Self { tenancy, ..self }
    }

    /// The same, with functions and mappings.
    #[must_use]
    pub fn with_workloads(self, workloads: Workloads) -> Self {
        Self {
            workloads: Some(workloads),
            ..self
        }
    }
}

/// Reads the key, or makes it: whoever commits first wins.
async fn iterator_key(store: &dyn Store) -> Result<[u8; 32], StartError> {
    let key = Key::new(Table::Host, &Scope::default()).part("iterator_key");
    loop {
        if let Some(kept) = store.get(&key)?
            && let Ok(secret) = kept.value.as_ref().try_into()
        {
            return Ok(secret);
        }
        let secret: [u8; 32] = rand::random();
        let revision = store.get(&key)?.map(|kept| kept.revision);
        let tx = Tx {
            expect: vec![Expect::Revision(key.clone(), revision)],
            writes: vec![(key.clone(), Value::Inline(secret.to_vec().into()))],
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        match store.commit(tx).await {
            Ok(_) | Err(CommitError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
