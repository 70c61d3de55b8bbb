//! What runs on a host beside its streams: functions, their mappings, and what they gave up.

use std::path::PathBuf;
use std::sync::Arc;

use shardmill_core::Sandbox;
use shardmill_store::Store;

use crate::clock::Clock;
use crate::delivery::{self, Delivery};
use crate::functions::Functions;
use crate::mapping::{Failures, Ids, Mappings};
use crate::usage::{Ledger, Metered};

/// Functions, mappings and failures over one store and one sandbox. Cheap to clone.
#[derive(Clone)]
pub struct Workloads {
    /// Deploys functions and makes them ready.
    pub functions: Arc<Functions>,
    /// Makes and runs mappings.
    pub mappings: Mappings,
    /// Shows, replays and redrives what was given up.
    pub failures: Failures,
    /// Runs all of it.
    pub(crate) sandbox: Arc<dyn Sandbox>,
    /// What functions used; `usage::run` writes it.
    pub usage: Arc<Ledger>,
}

impl Workloads {
    /// Sets them up; nothing runs yet. `notes` is the folder where batches in flight are noted.
    pub fn new(
        store: Arc<dyn Store>,
        sandbox: Arc<dyn Sandbox>,
        clock: Clock,
        notes: Option<PathBuf>,
    ) -> Self {
        let delivery = Delivery::new(Arc::clone(&store), clock, delivery::Settings::default());
        Self::with_delivery(store, sandbox, clock, notes, delivery)
    }

    /// The same, with what reports to on-failure destinations.
    pub fn with_delivery(
        store: Arc<dyn Store>,
        sandbox: Arc<dyn Sandbox>,
        clock: Clock,
        notes: Option<PathBuf>,
        delivery: Delivery,
    ) -> Self {
        Self::with_ids(store, sandbox, clock, notes, delivery, Ids::Random)
    }

    /// The same, with ids of mappings and requests from a source of one's own.
    pub fn with_ids(
        store: Arc<dyn Store>,
        sandbox: Arc<dyn Sandbox>,
        clock: Clock,
        notes: Option<PathBuf>,
        delivery: Delivery,
        ids: Ids,
    ) -> Self {
        let usage = Arc::new(Ledger::new(Arc::clone(&store), clock));
        let sandbox: Arc<dyn Sandbox> = Arc::new(Metered::new(sandbox, Arc::clone(&usage)));
        let functions = Arc::new(Functions::new(
            Arc::clone(&store),
            Arc::clone(&sandbox),
            clock,
        ));
        let mappings = Mappings::with_ids(
            store,
            Arc::clone(&sandbox),
            Arc::clone(&functions),
            clock,
            notes,
            delivery,
            ids,
        );
        let failures = Failures::of(&mappings);
        Self {
            functions,
            mappings,
            failures,
            sandbox,
            usage,
        }
    }
}
