use super::*;
use crate::contract::{Engine, check};
use crate::io::DiskIo;

/// How a store of the contract is kept, and how it is opened again.
struct OnDisk {
    io: Arc<dyn Io>,
    sim: Option<SimIo>,
    orderly: bool,
    options: Options,
    _folder: Option<tempfile::TempDir>,
}

impl Engine for OnDisk {
    fn open(&self, clock: Clock) -> Arc<dyn Store> {
        Embedded::open(Arc::clone(&self.io), self.options, clock).expect("the store opens")
    }

    fn reopen(&self, store: Arc<dyn Store>, clock: Clock) -> BoxFuture<'_, Arc<dyn Store>> {
        Box::pin(async move {
            if self.orderly {
                store.close().await;
            }
            drop(store);
            self.open(clock)
        })
    }

    fn fill_disk(&self, full: bool) {
        if let Some(sim) = &self.sim {
            sim.set_capacity(full.then_some(1 << 20));
        }
    }
}

fn simulated(orderly: bool, options: Options) -> OnDisk {
    let sim = SimIo::new();
    OnDisk {
        io: Arc::new(sim.clone()),
        sim: Some(sim),
        orderly,
        options: Options {
            low_water_bytes: 1 << 20,
            ..options
        },
        _folder: None,
    }
}

mod closed_orderly {
    use super::*;
    check!(simulated(
        true,
        Options {
            segment_bytes: 4 << 20,
            ..options()
        }
    ));
}

mod ended_at_once {
    use super::*;
    check!(simulated(
        false,
        Options {
            segment_bytes: 4 << 20,
            ..options()
        }
    ));
}

/// Every group goes to the tables at once, nothing is cached, and all reads are cold.
mod without_layers_and_cache {
    use super::*;
    check!(simulated(
        false,
        Options {
            segment_bytes: 4 << 20,
            layer_bytes: 1,
            table_sync_bytes: 4000,
            tail_cache_bytes: 0,
            ..options()
        }
    ));
}

#[tokio::test]
async fn a_folder_on_the_real_disk_is_found_again_and_locked() {
    let folder = tempfile::tempdir().expect("a folder");
    let io = || Arc::new(DiskIo::new(folder.path()).expect("a folder")) as Arc<dyn Io>;
    let clock = || TestClock::default().as_clock();
    let store = Embedded::open(io(), Options::default(), clock()).expect("a store");
    let stream = create(&store, "clicks", 1).await;
    for n in 0..100 {
        let tx = Tx {
            appends: vec![large(stream, 0, &format!("key {n}"))],
            ..Tx::default()
        };
        store.commit(tx).await.expect("an append");
    }
    let second = Embedded::open(io(), Options::default(), clock());
    assert!(matches!(
        second,
        Err(OpenError::Journal(journal::OpenError::InUse { .. }))
    ));
    store.close().await;
    drop(store);
    let store = Embedded::open(io(), Options::default(), clock()).expect("the store again");
    let found = records_of(&store, shard(stream, 0)).await;
    assert_eq!(found.len(), 100);
    drop(store);
    let store = Embedded::open(io(), Options::default(), clock()).expect("the store again");
    assert_eq!(records_of(&store, shard(stream, 0)).await, found);
}
