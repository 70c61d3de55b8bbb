//! The sandbox on simulated time. It must itself be one whose guests' running takes no time and
//! whose sleeping is over at once; what they slept then passes on the simulated clock.
//!
//! An invocation runs to its end before anything else of the host goes on, while the runtime's
//! only thread waits for it. So no time passes meanwhile (a paused clock moves on when there is
//! nothing to do), and invocations of several shards end in the order in which they began: a run
//! is the same every time, whatever the machine does.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use bytes::Bytes;
use shardmill_core::quotas::{FunctionQuotas, Quotas};
use shardmill_core::sandbox::{
    BoxFuture, Input, Invocation, LoadError, Module, Owner, Report, Sandbox,
};
use shardmill_core::{Outcome, TenantId};

use super::facts::Invoked;

/// A sandbox whose every invocation is noted.
pub(super) struct Simulated {
    inner: Arc<dyn Sandbox>,
    invoked: Mutex<HashMap<TenantId, Vec<Invoked>>>,
}

impl Simulated {
    pub(super) fn new(inner: Arc<dyn Sandbox>) -> Self {
        Self {
            inner,
            invoked: Mutex::default(),
        }
    }

    /// The invocations so far that ran a handler for a mapping of this tenant.
    pub(super) fn invoked(&self, tenant: TenantId) -> Vec<Invoked> {
        let invoked = self.invoked.lock();
        let invoked = invoked.unwrap_or_else(PoisonError::into_inner);
        invoked.get(&tenant).cloned().unwrap_or_default()
    }

    fn run(&self, invocation: Invocation) -> Report {
        let records = match &invocation.input {
            Input::Records(batch) => batch.len(),
            Input::Event { count, .. } => *count,
        };
        // The dry run of a deploy is nobody's invocation: it comes from no stream.
        let tenant = invocation.owner.scope.tenant;
        let mapped = !invocation.context.stream.is_empty();
        let report = wait_for(self.inner.invoke(invocation));
        if mapped && !matches!(report.outcome, Outcome::Throttled { .. }) {
            let fuel = report.usage.fuel;
            let mut all = self.invoked.lock().unwrap_or_else(PoisonError::into_inner);
            let own = all.entry(tenant).or_default();
            own.push(Invoked { records, fuel });
        }
        report
    }
}

impl Sandbox for Simulated {
    fn load(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        Box::pin(async move { wait_for(self.inner.load(wasm)) })
    }

    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        Box::pin(async move {
            let report = self.run(invocation);
            let slept = report.usage.duration;
            if !slept.is_zero() {
                tokio::time::sleep(slept).await;
            }
            report
        })
    }

    fn set_quotas(&self, tenant: TenantId, quotas: &Quotas) {
        self.inner.set_quotas(tenant, quotas);
    }

    fn set_function_quotas(&self, owner: &Arc<Owner>, quotas: FunctionQuotas) {
        self.inner.set_function_quotas(owner, quotas);
    }

    fn engine(&self) -> String {
        self.inner.engine()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future, and lets nothing else run on this thread meanwhile. Whatever the future
/// waits for has to come from other threads.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    // tokio would make a task give way after so many steps, to others that must not run now.
    let mut future = pin!(tokio::task::unconstrained(future));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
