//! A set of tasks that can grow from anywhere and is awaited in one place. HTTP/2 needs it: its
//! streams are tasks that hyper starts.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

/// Tasks that somebody awaits. Clones share one set.
#[derive(Clone, Default)]
pub(crate) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    /// Starts a task; forgets those that have ended.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = set.try_join_next() {
            report(ended);
        }
        set.spawn(task);
    }

    /// Waits until every task has ended, those that are started meanwhile included.
    pub(crate) async fn join(&self) {
        loop {
            let mut set = std::mem::take(&mut *self.lock());
            if set.is_empty() {
                return;
            }
            while let Some(ended) = set.join_next().await {
                report(ended);
            }
        }
    }

    /// Ends every task.
    pub(crate) async fn abort(&self) {
        let mut set = std::mem::take(&mut *self.lock());
        set.shutdown().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a request ended in a panic");
    }
}
