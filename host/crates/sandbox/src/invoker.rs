//! The threads that run guests, apart from the I/O runtime.
//!
//! All attempts stand in one queue; a thread takes the first, runs it for one slice, and puts it
//! behind the others: first come, first served, slice by slice. A sleeping attempt holds no
//! thread. Nothing wakes an attempt but its own timer or its caller's going away, so this needs no
//! runtime and no wakers.
//!
//! An attempt is dropped, and with it its instance, on the thread that ran it last.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::thread::{self, JoinHandle};

use tokio::time::Instant;

use crate::meter::{Signals, panic_message};

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
    pub(crate) fn submit(&self, work: Work, signals: Arc<Signals>) -> Ticket {
        self.queue.submit(Task {
            work,
            signals: Arc::clone(&signals),
        });
        Ticket {
            queue: Arc::clone(&self.queue),
            signals,
        }
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
    signals: Arc<Signals>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.signals.is_finished() {
            self.signals.cancel();
            self.queue.hurry(&self.signals);
        }
    }
}

struct Task {
    work: Work,
    signals: Arc<Signals>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Task>,
    /// By the instant of waking; the number keeps equal instants apart, in order.
    sleeping: BTreeMap<(Instant, u64), Task>,
    slept: u64,
    idle: usize,
    stopping: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, task: Task) {
        let mut state = self.lock();
        state.ready.push_back(task);
        if state.idle > 0 {
            self.changed.notify_one();
        }
    }

    /// Puts `back` where it belongs and waits for the next attempt to run; `None` at the end.
    fn turn(&self, back: Option<Task>) -> Option<Task> {
        let mut state = self.lock();
        if let Some(task) = back {
            state.put_back(task);
        }
        loop {
            if state.stopping {
                return None;
            }
            let next_timer = state.wake_sleepers();
            if let Some(task) = state.ready.pop_front() {
                if state.idle > 0 && !state.ready.is_empty() {
                    self.changed.notify_one();
                }
                return Some(task);
            }
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

    /// Lets a cancelled sleeper be dropped now rather than when it would have woken.
    fn hurry(&self, signals: &Arc<Signals>) {
        let mut state = self.lock();
        let key = state
            .sleeping
            .iter()
            .find(|(_, t)| Arc::ptr_eq(&t.signals, signals))
            .map(|(k, _)| *k);
        if let Some(task) = key.and_then(|key| state.sleeping.remove(&key)) {
            state.ready.push_front(task);
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
        state
            .ready
            .drain(..)
            .chain(sleeping.into_values())
            .collect()
    }
}

impl State {
    fn put_back(&mut self, task: Task) {
        match task.signals.wake_at() {
            Some(at) if !task.signals.is_cancelled() => {
                self.slept += 1;
                self.sleeping.insert((at, self.slept), task);
            }
            _ => self.ready.push_back(task),
        }
    }

    /// Moves the sleepers that are due behind the others; the instant of the next one.
    fn wake_sleepers(&mut self) -> Option<Instant> {
        let mut now = None;
        while let Some(first) = self.sleeping.first_entry() {
            let at = first.key().0;
            if at > *now.get_or_insert_with(Instant::now) {
                return Some(at);
            }
            self.ready.push_back(first.remove());
        }
        None
    }
}

fn run(queue: &Queue) {
    let mut back = None;
    while let Some(mut task) = queue.turn(back.take()) {
        // An attempt catches its own panics and answers; this keeps the thread whatever happens.
        let caught = catch_unwind(AssertUnwindSafe(move || {
            if task.signals.is_cancelled() {
                return None;
            }
            let polled = task
                .work
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            if polled.is_ready() {
                task.signals.finish();
                return None;
            }
            Some(task)
        }));
        back = caught.unwrap_or_else(|panic| {
            tracing::error!(
                panic = panic_message(&*panic),
                "an attempt panicked outside its guest"
            );
            None
        });
    }
}
