//! The fuel ledger: what functions have used, for whom, day by day.
//!
//! All attempts pass through [`Metered`], whoever asks for them: mappings, people, dry runs,
//! replays. It adds them up in memory by (tenant, function, mapping) and day (UTC), and writes the
//! sums every [`FLUSH`] and when the host stops. A host that is killed forgets what it had not
//! written yet, which is why this is for showing and for shares, not for exact bills. Of an attempt
//! whose caller goes away before it ends nobody knows the fuel: it counts as cancelled.
//!
//! ```text
//! table Usage │ account, region │ day u64 │ function │ mapping │ → JSON of Row
//! ```
//!
//! Which partition keys burn the most is estimated per function, in memory (`keys`, `sketches`).

mod keys;
mod ledger;
mod sketches;

pub use keys::MAX_KEYS;
pub use ledger::{Entry, FlushError, KEPT_DAYS, Ledger, MAX_ROWS, Row, SinceError};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::admission::Standing;
use shardmill_core::quotas::{FunctionQuotas, Quotas};
use shardmill_core::sandbox::{
    Again, BoxFuture, Input, Invocation, LoadError, Module, Owner, Report,
};
use shardmill_core::{Sandbox, TenantId};
use tokio_util::sync::CancellationToken;

/// Partition keys that are shown, unless it is said otherwise.
pub const SHOWN_KEYS: usize = 20;

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
        let mut attempt = Attempt {
            ledger: &self.ledger,
            owner,
            mapping,
            ended: false,
        };
        let report = run(invocation).await;
        attempt.ended = true;
        let owner = &attempt.owner;
        self.ledger
            .note(owner, attempt.mapping.as_ref(), records, &report);
        if let Some(batch) = batch {
            self.ledger.note_keys(owner, &batch, &report);
        }
        report
    }
}

/// An attempt that is noted as cancelled if it is dropped before it has ended.
struct Attempt<'a> {
    ledger: &'a Ledger,
    owner: Arc<Owner>,
    mapping: Option<Arc<str>>,
    ended: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.ledger
                .note_cancelled(&self.owner, self.mapping.as_ref());
        }
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

/// Writes the sums until `stop`, and once more then. What is still running goes on to use
/// something: [`write`] is for the time when it has ended.
pub async fn run(ledger: Arc<Ledger>, stop: CancellationToken) {
    loop {
        let stopped = tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(FLUSH) => false,
        };
        write(&ledger).await;
        if stopped {
            return;
        }
    }
}

/// Writes the sums, and logs why where that cannot be done.
pub async fn write(ledger: &Ledger) {
    if let Err(error) = ledger.flush().await {
        tracing::warn!(%error, "what functions used could not be written: it is kept in memory");
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests {
    use shardmill_core::UnixMillis;
    use shardmill_store::Memory;

    pub(crate) use super::ledger::tests::{Never, invocation};
    use super::*;
    use crate::clock::Clock;

    #[tokio::test]
    async fn an_attempt_whose_caller_goes_away_counts_as_cancelled() {
        let store = Arc::new(Memory::new(Arc::new(|| UnixMillis(0))));
        let ledger = Arc::new(Ledger::new(store, Clock::starting_at(UnixMillis(0))));
        let metered = Metered::new(Arc::new(Never), Arc::clone(&ledger));
        drop(metered.invoke(invocation()));
        let entries = ledger.since(None, 0).await.expect("a readable store");
        assert!(entries.is_empty(), "it never began");
        {
            let mut attempt = metered.invoke(invocation());
            let waker = std::task::Waker::noop();
            let mut context = std::task::Context::from_waker(waker);
            assert!(attempt.as_mut().poll(&mut context).is_pending());
        }
        let entries = ledger.since(None, 0).await.expect("a readable store");
        let cancelled = Row {
            invocations: 1,
            cancelled: 1,
            ..Row::default()
        };
        assert_eq!(entries[0].row, cancelled);
    }
}
