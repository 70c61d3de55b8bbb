//! The gate before the invokers: `shardmill_core::admission` decides, this waits and tells.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shardmill_core::TenantId;
use shardmill_core::admission::{Admission, Amount, Claim, Refusal, Standing};
use shardmill_core::quotas::Quotas;
use shardmill_core::sandbox::Owner;
use tokio::sync::oneshot;

type Waiter = oneshot::Sender<Reservation>;

/// Slots and memory for attempts.
pub(crate) struct Gate {
    admission: Mutex<Admission<Waiter>>,
}

/// What an attempt holds while it runs, its slot and its memory. Dropping it lets the next ones in.
pub(crate) struct Reservation {
    gate: Arc<Gate>,
    claim: Claim,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let granted = self.gate.lock().release(&self.claim);
        self.gate.tell(granted);
    }
}

/// Why an attempt was not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAdmitted {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing became free in time.
    // What the host has left is the neighbours' business.
    #[error(
        "no free slot and memory within {span:?}: {} of the tenant's attempts run, with {} bytes, and \
         {} wait",
        .standing.held.slots, .standing.held.bytes, .standing.waiting
    )]
    Full { span: Duration, standing: Standing },
    /// The tenant's fuel of this second is burnt, and of those after it.
    #[error("the tenant's quota of fuel per second is burnt for more than {span:?}")]
    Dry { span: Duration },
}

impl Gate {
    pub(crate) fn new(total: Amount) -> Arc<Self> {
        Arc::new(Self {
            admission: Mutex::new(Admission::new(total)),
        })
    }

    /// Waits for a slot and memory, at most `span`. Cancel-safe: what is not taken is given back.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        owner: &Arc<Owner>,
        bytes: u64,
        span: Duration,
    ) -> Result<Reservation, NotAdmitted> {
        let (waiter, mut granted) = oneshot::channel();
        let asked = self.lock().request(owner, bytes, waiter)?;
        self.tell(asked.granted);
        if let Ok(reservation) = granted.try_recv() {
            return Ok(reservation);
        }
        let _waiting = Waiting {
            gate: self,
            claim: &asked.claim,
        };
        match tokio::time::timeout(span, granted).await {
            Ok(Ok(reservation)) => Ok(reservation),
            Ok(Err(_)) | Err(_) => {
                let admission = self.lock();
                let free = admission.free();
                tracing::debug!(
                    free.slots,
                    free.bytes,
                    "an attempt was not admitted in time"
                );
                let standing = admission.standing(owner.scope.tenant);
                Err(NotAdmitted::Full { span, standing })
            }
        }
    }

    pub(crate) fn set_quotas(self: &Arc<Self>, tenant: TenantId, quotas: &Quotas) {
        let granted = self.lock().set_quotas(tenant, quotas);
        self.tell(granted);
    }

    pub(crate) fn set_reserved(self: &Arc<Self>, owner: &Arc<Owner>, most: Option<u32>) {
        let granted = self.lock().set_reserved(owner, most);
        self.tell(granted);
    }

    /// What nobody holds.
    pub(crate) fn free(&self) -> Amount {
        self.lock().free()
    }

    /// What tenants hold and wait for.
    pub(crate) fn standings(&self) -> Vec<(TenantId, Standing)> {
        self.lock().standings().collect()
    }

    /// Hands out what was granted. A reservation that nobody takes is dropped here, which lets
    /// others in: so never under the lock.
    fn tell(self: &Arc<Self>, granted: Vec<(Claim, Waiter)>) {
        for (claim, waiter) in granted {
            let gate = Arc::clone(self);
            drop(waiter.send(Reservation { gate, claim }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Admission<Waiter>> {
        self.admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is taken back when nobody waits for it any more.
struct Waiting<'a> {
    gate: &'a Arc<Gate>,
    claim: &'a Claim,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // One that was granted does not wait: then this does nothing.
        let granted = self.gate.lock().withdraw(self.claim);
        self.gate.tell(granted);
    }
}
