//! The fuel ledger: what functions have used, for whom, day by day.
//!
//! All attempts pass through [`Metered`], whoever asks for them: mappings, people, dry runs,
//! replays. It adds them up in memory by (tenant, function, mapping) and day (UTC), and writes the
//! sums every [`FLUSH`] and when the host stops. A host that is killed forgets what it had not
//! written yet, which is why this is for showing and for shares, not for exact bills.
//!
//! ```text
//! table Usage │ account, region │ day u64 │ function │ mapping │ → JSON of Row
//! ```
//!
//! Which partition keys burn the most is estimated per function, in memory (`keys`).

mod keys;
mod ledger;

pub use ledger::{Entry, FlushError, Ledger, Row};

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::admission::Standing;
use shardmill_core::quotas::{FunctionQuotas, Quotas};
use shardmill_core::sandbox::{
    Again, BoxFuture, Input, Invocation, LoadError, Module, Owner, Report,
};
use shardmill_core::{Sandbox, TenantId};
use tokio_util::sync::CancellationToken;

/// How often the sums are written.
const FLUSH: Duration = Duration::from_secs(10);

/// A sandbox whose attempts are noted in a ledger.
pub struct Metered {
    sandbox: Arc<dyn Sandbox>,
    ledger: Arc<Ledger>,
}

impl Metered {
    /// Notes what this sandbox runs.
    pub fn new(sandbox: Arc<dyn Sandbox>, ledger: Arc<Ledger>) -> Self {
        Self { sandbox, ledger }
    }

    async fn noted(
        &self,
        invocation: Invocation,
        run: impl AsyncFnOnce(Invocation) -> Report,
    ) -> Report {
        let owner = Arc::clone(&invocation.owner);
        let mapping = invocation.mapping.clone();
        let (batch, records) = match &invocation.input {
            Input::Records(batch) => (Some(batch.clone()), batch.len()),
            Input::Event { count, .. } => (None, *count),
        };
        let report = run(invocation).await;
        self.ledger.note(&owner, mapping.as_ref(), records, &report);
        if let Some(batch) = batch {
            self.ledger.note_keys(&owner, &batch, &report);
        }
        report
    }
}

impl Sandbox for Metered {
    fn load(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        self.sandbox.load(wasm)
    }

    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        let run = async |invocation| self.sandbox.invoke(invocation).await;
        Box::pin(self.noted(invocation, run))
    }

    fn replay(&self, invocation: Invocation, again: Again) -> BoxFuture<'_, Report> {
        let run = async move |invocation| self.sandbox.replay(invocation, again).await;
        Box::pin(self.noted(invocation, run))
    }

    fn set_quotas(&self, tenant: TenantId, quotas: &Quotas) {
        self.sandbox.set_quotas(tenant, quotas);
    }

    fn set_function_quotas(&self, owner: &Arc<Owner>, quotas: FunctionQuotas) {
        self.sandbox.set_function_quotas(owner, quotas);
    }

    fn standings(&self) -> Vec<(TenantId, Standing)> {
        self.sandbox.standings()
    }

    fn engine(&self) -> String {
        self.sandbox.engine()
    }
}

/// Writes the sums until `stop`, and once more then.
pub async fn run(ledger: Arc<Ledger>, stop: CancellationToken) {
    loop {
        let stopped = tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(FLUSH) => false,
        };
        if let Err(error) = ledger.flush().await {
            tracing::warn!(%error, "what functions used could not be written: it is tried again");
        }
        if stopped {
            return;
        }
    }
}
