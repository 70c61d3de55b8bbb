//! The sandbox on simulated time. It must itself be one whose guests' running takes no time and
//! whose sleeping is over at once; what they slept then passes on the simulated clock.
//!
//! An invocation runs to its end before anything else of the host goes on, while the runtime's
//! only thread waits for it. So no time passes meanwhile (a paused clock moves on when there is
//! nothing to do), and invocations of several shards end in the order in which they began: a run
//! is the same every time, whatever the machine does.
//!
//! So no timer fires while one waits, the sandbox's own neither: an invocation that waited for room
//! would do so for ever. After [`PATIENCE`] of real time without a sign of life the run is given up.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::admission::Standing;
use shardmill_core::quotas::{FunctionQuotas, Quotas};
use shardmill_core::sandbox::{
    Again, BoxFuture, Input, Invocation, LoadError, Module, Owner, Report, Sandbox,
};
use shardmill_core::{Outcome, TenantId};
use tokio_util::sync::CancellationToken;

use super::facts::Invoked;

/// How long the sandbox may take for an answer, of real time: longer than compiling, and than the
/// fuel of any invocation lasts.
pub(super) const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How often one that waits looks how long it has waited.
const PULSE: Duration = Duration::from_millis(100);

/// A sandbox whose every invocation is noted.
pub(super) struct Simulated {
    inner: Arc<dyn Sandbox>,
    patience: Duration,
    stuck: CancellationToken,
    invoked: Mutex<HashMap<TenantId, Vec<Invoked>>>,
}

impl Simulated {
    /// Over a sandbox that is given up on when it takes longer than this for an answer.
    pub(super) fn new(inner: Arc<dyn Sandbox>, patience: Duration) -> Self {
        Self {
            inner,
            patience,
            stuck: CancellationToken::new(),
            invoked: Mutex::default(),
        }
    }

    /// Resolves when the sandbox was given up on: nothing more comes from it.
    pub(super) fn stuck(&self) -> impl Future<Output = ()> + use<> {
        self.stuck.clone().cancelled_owned()
    }

    /// The sandbox's answer; none ever when it was given up on.
    async fn answer<T>(&self, future: BoxFuture<'_, T>) -> T {
        match wait_for(future, self.patience) {
            Some(value) => value,
            None => {
                self.stuck.cancel();
                std::future::pending().await
            }
        }
    }

    /// The invocations so far that ran a handler for a mapping of this tenant.
    pub(super) fn invoked(&self, tenant: TenantId) -> Vec<Invoked> {
        let invoked = self.invoked.lock();
        let invoked = invoked.unwrap_or_else(PoisonError::into_inner);
        invoked.get(&tenant).cloned().unwrap_or_default()
    }

    async fn run(&self, invocation: Invocation) -> Report {
        let records = match &invocation.input {
            Input::Records(batch) => batch.len(),
            Input::Event { count, .. } => *count,
        };
        // The dry run of a deploy is nobody's invocation: it comes from no stream.
        let tenant = invocation.owner.scope.tenant;
        let mapped = !invocation.context.stream.is_empty();
        let report = self.answer(self.inner.invoke(invocation)).await;
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
        Box::pin(self.answer(self.inner.load(wasm)))
    }

    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        Box::pin(async move {
            let report = self.run(invocation).await;
            let slept = report.usage.duration;
            if !slept.is_zero() {
                tokio::time::sleep(slept).await;
            }
            report
        })
    }

    /// No invocation of a mapping, and its sleeping is not waited for.
    fn replay(&self, invocation: Invocation, again: Again) -> BoxFuture<'_, Report> {
        Box::pin(self.answer(self.inner.replay(invocation, again)))
    }

    fn set_quotas(&self, tenant: TenantId, quotas: &Quotas) {
        self.inner.set_quotas(tenant, quotas);
    }

    fn set_function_quotas(&self, owner: &Arc<Owner>, quotas: FunctionQuotas) {
        self.inner.set_function_quotas(owner, quotas);
    }

    fn standings(&self) -> Vec<(TenantId, Standing)> {
        self.inner.standings()
    }

    fn engine(&self) -> String {
        self.inner.engine()
    }
}

struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Waits for a future, and lets nothing else run on this thread meanwhile. Whatever the future
/// waits for has to come from other threads. `None`: it did not within about this real time.
fn wait_for<T>(future: impl Future<Output = T>, patience: Duration) -> Option<T> {
    // tokio would make a task give way after so many steps, to others that must not run now.
    let mut future = pin!(tokio::task::unconstrained(future));
    let unpark = Arc::new(Unpark {
        thread: thread::current(),
        woken: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&unpark));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
        let mut waited = Duration::ZERO;
        while !unpark.woken.swap(false, Ordering::Acquire) {
            if waited >= patience {
                return None;
            }
            thread::park_timeout(PULSE);
            waited += PULSE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::tests::{Never, invocation};

    /// A wait in the sandbox once hung the run: the timers that bound it stood still.
    #[tokio::test(start_paused = true)]
    async fn a_sandbox_that_waits_for_time_to_pass_is_given_up_on() {
        let patience = Duration::from_millis(300);
        let again = || Again {
            stop_at_fuel: None,
            timeout: Duration::from_secs(1),
        };
        let sandbox = || Simulated::new(Arc::new(Never), patience);
        let (loading, invoking, replaying) = (sandbox(), sandbox(), sandbox());
        tokio::select! {
            _ = loading.load(Bytes::new()) => panic!("nothing answers"),
            () = loading.stuck() => {}
        }
        tokio::select! {
            _ = invoking.invoke(invocation()) => panic!("nothing answers"),
            () = invoking.stuck() => {}
        }
        tokio::select! {
            _ = replaying.replay(invocation(), again()) => panic!("nothing answers"),
            () = replaying.stuck() => {}
        }
    }

    #[tokio::test]
    async fn an_answer_of_another_thread_is_waited_for() {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let other = thread::spawn(move || answer.send(7));
        assert_eq!(wait_for(answered, PATIENCE), Some(Ok(7)));
        other.join().expect("it has ended").expect("it was heard");
    }
}
