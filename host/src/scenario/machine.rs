//! A host on simulated time: the store in memory, the real pollers and janitor, no HTTP.

use std::sync::Arc;
use std::time::Duration;

use shardmill_core::UnixMillis;
use shardmill_store::{Memory, Store};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::simulated::Simulated;
use crate::clock::Clock;
use crate::delivery::{self, Delivery};
use crate::janitor;
use crate::mapping::{FailureBounds, Ids, Numbers};
use crate::services::{Services, Settings};
use crate::workloads::Workloads;

/// Entries of the failure store stay for longer than any scenario lasts.
const FAILURES_AGE: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Ids that a host gives before the one after its restart begins with others.
const IDS_OF_A_HOST: u64 = 1 << 40;

/// What all tenants share.
pub(super) struct Machine {
    clock: Clock,
    store: Arc<dyn Store>,
    sandbox: Arc<Simulated>,
    /// Changes with every transaction.
    commits: watch::Receiver<u64>,
    restarts: u64,
    host: Host,
}

/// What a restart ends and begins anew.
struct Host {
    workloads: Workloads,
    stop: CancellationToken,
    kill: CancellationToken,
    tasks: JoinSet<()>,
}

impl Machine {
    /// Starts one with nothing in it.
    pub(super) async fn start(
        started: UnixMillis,
        sandbox: Arc<Simulated>,
    ) -> anyhow::Result<Self> {
        let clock = Clock::starting_at(started);
        let (committing, commits) = watch::channel(0);
        // The store asks for the time once per transaction.
        let store: Arc<dyn Store> = Arc::new(Memory::new(Arc::new(move || {
            committing.send_modify(|count| *count += 1);
            clock.now()
        })));
        let host = Host::start(&store, &sandbox, clock, 0).await?;
        Ok(Self {
            clock,
            store,
            sandbox,
            commits,
            restarts: 0,
            host,
        })
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    pub(super) fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    pub(super) fn sandbox(&self) -> Arc<Simulated> {
        Arc::clone(&self.sandbox)
    }

    pub(super) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    pub(super) fn workloads(&self) -> Workloads {
        self.host.workloads.clone()
    }

    /// Ends the host. Killed, it finishes nothing.
    pub(super) async fn stop(&mut self, killed: bool) {
        self.host.end(killed).await;
    }

    /// Starts another host on the same store.
    pub(super) async fn start_again(&mut self) -> anyhow::Result<()> {
        self.restarts += 1;
        let ids = self.restarts * IDS_OF_A_HOST;
        self.host = Host::start(&self.store, &self.sandbox, self.clock, ids).await?;
        Ok(())
    }
}

impl Host {
    async fn start(
        store: &Arc<dyn Store>,
        sandbox: &Arc<Simulated>,
        clock: Clock,
        ids: u64,
    ) -> anyhow::Result<Self> {
        let guests: Arc<dyn shardmill_core::Sandbox> = Arc::clone(sandbox) as _;
        let ids = Ids::Counted(Numbers::from(ids + 1));
        let delivery = Delivery::new(Arc::clone(store), clock, delivery::Settings::default());
        let workloads = Workloads::with_ids(Arc::clone(store), guests, clock, None, delivery, ids);
        workloads.failures.open(FailureBounds {
            age: FAILURES_AGE,
            ..FailureBounds::default()
        })?;
        workloads.functions.apply_quotas()?;
        let services = Services::start(Arc::clone(store), clock, Settings::default()).await?;
        let services = services.with_workloads(workloads.clone());
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let (mappings, stopped, killed) = (workloads.mappings.clone(), stop.clone(), kill.clone());
        tasks.spawn(async move { mappings.run(stopped, killed).await });
        let stopped = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = janitor::run(Arc::new(services)) => {}
            }
        });
        Ok(Self {
            workloads,
            stop,
            kill,
            tasks,
        })
    }

    async fn end(&mut self, killed: bool) {
        if killed {
            self.kill.cancel();
        }
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}
