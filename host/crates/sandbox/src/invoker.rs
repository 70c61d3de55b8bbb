//! The threads that run guests, apart from the I/O runtime.
//!
//! A thread takes the attempt whose slice is next (`schedule` says which), runs it for one slice,
//! and puts it back. A sleeping attempt holds no thread. Nothing wakes an attempt but its own
//! timer or its caller's going away, so this needs no runtime and no wakers.
//!
//! An attempt is dropped, and with it its instance, on the thread that ran it last.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::thread::{self, JoinHandle};

use shardmill_core::TenantId;
use shardmill_core::quotas::Quotas;
use shardmill_core::sandbox::Owner;
use tokio::time::Instant;

use crate::meter::{SLICE_FUEL, Signals, panic_message};
use crate::schedule::{Next, Schedule, Slice};

/// What a thread runs: an attempt that hands its report over itself.
pub(crate) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The threads. Dropping them ends each after its slice and drops every attempt.
pub(crate) struct Invokers {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Invokers {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(count: usize) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let mut invokers = Self {
            queue,
            threads: Vec::new(),
        };
        for index in 0..count.max(1) {
            let queue = Arc::clone(&invokers.queue);
            let thread = thread::Builder::new()
                .name(format!("invoker-{index}"))
                .spawn(move || run(&queue))?;
            invokers.threads.push(thread);
        }
        Ok(invokers)
    }

    /// Queues an attempt. Dropping the ticket before the attempt has ended cancels it.
    pub(crate) fn submit(&self, owner: &Arc<Owner>, work: Work, signals: Arc<Signals>) -> Ticket {
        let task = Task {
            work,
            signals: Arc::clone(&signals),
            charged: 0,
        };
        self.queue.submit(Arc::clone(owner), task);
        Ticket {
            queue: Arc::clone(&self.queue),
            owner: Arc::clone(owner),
            signals,
        }
    }

    /// What a tenant may have from now on.
    pub(crate) fn set_quotas(&self, tenant: TenantId, quotas: &Quotas) {
        let mut state = self.queue.lock();
        state.schedule.set_quotas(tenant, quotas, Instant::now());
        drop(state);
        self.queue.changed.notify_one();
    }

    /// Until when a tenant's fuel is burnt, if it is.
    pub(crate) fn dry_until(&self, tenant: TenantId) -> Option<Instant> {
        self.queue.lock().schedule.dry_until(tenant, Instant::now())
    }

    /// A function's weight among its tenant's from now on.
    pub(crate) fn set_weight(&self, owner: &Arc<Owner>, weight: u32) {
        self.queue.lock().schedule.set_weight(owner, weight);
    }
}

impl Drop for Invokers {
    fn drop(&mut self) {
        self.queue.stop();
        for thread in self.threads.drain(..) {
            // The last owner may be an attempt itself: a thread cannot wait for its own end.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
        drop(self.queue.take_all());
    }
}

/// A caller's hold on its attempt.
pub(crate) struct Ticket {
    queue: Arc<Queue>,
    owner: Arc<Owner>,
    signals: Arc<Signals>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.signals.is_finished() {
            self.signals.cancel();
            self.queue.hurry(&self.owner, &self.signals);
        }
    }
}

struct Task {
    work: Work,
    signals: Arc<Signals>,
    /// Fuel that its slices were charged so far.
    charged: u64,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    schedule: Schedule<Task>,
    /// Those that nobody waits for any more: they only have to be dropped.
    cancelled: Vec<(Arc<Owner>, Task)>,
    /// By the instant of waking; the number keeps equal instants apart, in order.
    sleeping: BTreeMap<(Instant, u64), (Arc<Owner>, Task)>,
    slept: u64,
    idle: usize,
    stopping: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, owner: Arc<Owner>, task: Task) {
        let mut state = self.lock();
        state.schedule.push(owner, task);
        if state.idle > 0 {
            self.changed.notify_one();
        }
    }

    /// Puts what ran where it belongs and waits for the next attempt to run; `None` at the end.
    fn turn(&self, ran: Option<Ran>) -> Option<Turn> {
        let mut state = self.lock();
        if let Some(ran) = ran {
            state.put_back(ran);
        }
        loop {
            if state.stopping {
                return None;
            }
            if let Some((owner, task)) = state.cancelled.pop() {
                return Some(Turn::Drop(owner, task));
            }
            let now = Instant::now();
            let next_timer = state.wake_sleepers(now);
            let more_fuel = match state.schedule.pop(now) {
                Next::Run(owner, task) => {
                    if state.idle > 0 && !state.schedule.is_idle() {
                        self.changed.notify_one();
                    }
                    return Some(Turn::Run(owner, task));
                }
                Next::Wait(until) => until,
            };
            let next_timer = next_timer.into_iter().chain(more_fuel).min();
            state.idle += 1;
            state = match next_timer {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let span = at.saturating_duration_since(Instant::now());
                    self.changed
                        .wait_timeout(state, span)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
            state.idle -= 1;
        }
    }

    /// Lets a cancelled attempt be dropped now rather than when it would have woken, or had its
    /// turn. One that runs is dropped after its slice.
    fn hurry(&self, owner: &Arc<Owner>, signals: &Arc<Signals>) {
        let mut state = self.lock();
        let is = |task: &Task| Arc::ptr_eq(&task.signals, signals);
        let bed = signals.bed();
        let task = match bed.and_then(|bed| state.sleeping.remove(&bed)) {
            Some((_, task)) => Some(task),
            None => state.schedule.remove(owner, is),
        };
        if let Some(task) = task {
            state.cancelled.push((Arc::clone(owner), task));
            if state.idle > 0 {
                self.changed.notify_one();
            }
        }
    }

    fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }

    fn take_all(&self) -> Vec<Task> {
        let mut state = self.lock();
        let sleeping = std::mem::take(&mut state.sleeping);
        let mut all = state.schedule.drain();
        all.extend(state.cancelled.drain(..).map(|(_, task)| task));
        all.extend(sleeping.into_values().map(|(_, task)| task));
        all
    }
}

impl State {
    fn put_back(&mut self, ran: Ran) {
        let Ran {
            owner,
            task,
            slice,
            at,
            popped,
        } = ran;
        if !popped {
            return self.schedule.charge(&owner, slice, at);
        }
        self.schedule.settle(&owner, slice, at);
        let tenant = owner.scope.tenant;
        match task.map(|task| (task.signals.wake_at(), task)) {
            None => self.schedule.forget(tenant),
            Some((_, task)) if task.signals.is_cancelled() => {
                self.cancelled.push((owner, task));
                self.schedule.forget(tenant);
            }
            Some((Some(at), task)) => {
                self.slept += 1;
                task.signals.lie_down((at, self.slept));
                self.sleeping.insert((at, self.slept), (owner, task));
                self.schedule.forget(tenant);
            }
            Some((None, task)) => self.schedule.push(owner, task),
        }
    }

    /// Lets the sleepers that are due wait for their slices; the instant of the next one.
    fn wake_sleepers(&mut self, now: Instant) -> Option<Instant> {
        while let Some(first) = self.sleeping.first_entry() {
            let at = first.key().0;
            if at > now {
                return Some(at);
            }
            let (owner, task) = first.remove();
            self.schedule.push(owner, task);
        }
        None
    }
}

/// What a thread is to do.
enum Turn {
    /// Run one slice.
    Run(Arc<Owner>, Task),
    /// Nobody waits for it.
    Drop(Arc<Owner>, Task),
}

/// A slice that was run: what is left of its attempt, unless it has ended.
struct Ran {
    owner: Arc<Owner>,
    task: Option<Task>,
    slice: Slice,
    at: Instant,
    /// Whether the schedule gave it out.
    popped: bool,
}

fn run(queue: &Queue) {
    let mut ran = None;
    while let Some(turn) = queue.turn(ran.take()) {
        match turn {
            Turn::Drop(owner, task) => ran = Some(end(owner, task)),
            Turn::Run(owner, task) => ran = Some(slice(owner, task)),
        }
    }
}

/// Drops an attempt that nobody waits for: its tenant pays for that, too.
fn end(owner: Arc<Owner>, task: Task) -> Ran {
    let start = Instant::now();
    let fuel = task.signals.fuel().saturating_sub(task.charged);
    let _ = caught(|| drop(task));
    let at = Instant::now();
    Ran {
        owner,
        task: None,
        slice: Slice {
            fuel,
            ran: at.saturating_duration_since(start),
        },
        at,
        popped: false,
    }
}

/// Runs one slice of an attempt, and drops it when it has ended.
fn slice(owner: Arc<Owner>, mut task: Task) -> Ran {
    let start = Instant::now();
    let ran = caught(move || {
        let mut context = Context::from_waker(Waker::noop());
        if task.work.as_mut().poll(&mut context).is_ready() {
            task.signals.finish();
            return (task.signals.fuel().saturating_sub(task.charged), None);
        }
        // Whoever goes to sleep has said what it burnt; whoever yields has burnt a slice.
        let known = task.signals.fuel().saturating_sub(task.charged);
        let fuel = match task.signals.wake_at() {
            None => known.max(SLICE_FUEL),
            Some(_) => known,
        };
        task.charged += fuel;
        (fuel, Some(task))
    });
    let (fuel, task) = ran.unwrap_or_default();
    let at = Instant::now();
    Ran {
        owner,
        task,
        slice: Slice {
            fuel,
            ran: at.saturating_duration_since(start),
        },
        at,
        popped: true,
    }
}

/// An attempt catches its own panics and answers; this keeps the thread whatever happens.
fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    let caught = catch_unwind(AssertUnwindSafe(work));
    let log = |panic: &Box<dyn std::any::Any + Send>| {
        let panic = panic_message(&**panic);
        tracing::error!(panic, "an attempt panicked outside its guest");
    };
    caught.inspect_err(log).ok()
}
