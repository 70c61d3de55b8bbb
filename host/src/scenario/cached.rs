//! A sandbox that compiles a module once, however many scenarios and restarts load it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use shardmill_core::admission::Standing;
use shardmill_core::quotas::{FunctionQuotas, Quotas};
use shardmill_core::sandbox::{Again, BoxFuture, Invocation, LoadError, Module, Owner, Report};
use shardmill_core::{Sandbox, TenantId};

/// A sandbox that keeps every module it has loaded, for as long as it lives.
pub struct Cached {
    inner: Arc<dyn Sandbox>,
    /// By the SHA-256 of their bytes.
    loaded: Mutex<HashMap<[u8; 32], Arc<dyn Module>>>,
}

impl Cached {
    /// Over this sandbox.
    pub fn new(inner: Arc<dyn Sandbox>) -> Self {
        Self {
            inner,
            loaded: Mutex::default(),
        }
    }
}

impl Sandbox for Cached {
    fn load(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        let loaded = || self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        Box::pin(async move {
            let digest: [u8; 32] = Sha256::digest(&wasm).into();
            let known = loaded().get(&digest).cloned();
            if let Some(module) = known {
                return Ok(module);
            }
            let module = self.inner.load(wasm).await?;
            loaded().insert(digest, Arc::clone(&module));
            Ok(module)
        })
    }

    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        self.inner.invoke(invocation)
    }

    fn replay(&self, invocation: Invocation, again: Again) -> BoxFuture<'_, Report> {
        self.inner.replay(invocation, again)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts loads; somebody waits.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    struct Loaded;

    impl Module for Loaded {
        fn digest(&self) -> &str {
            "0"
        }

        fn carrier(&self) -> shardmill_core::sandbox::Carrier {
            shardmill_core::sandbox::Carrier::Command
        }
    }

    impl Sandbox for Counting {
        fn load(&self, _: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(Arc::new(Loaded) as Arc<dyn Module>) })
        }

        fn invoke(&self, _: Invocation) -> BoxFuture<'_, Report> {
            Box::pin(std::future::pending())
        }

        fn standings(&self) -> Vec<(TenantId, Standing)> {
            vec![(TenantId::DEFAULT, Standing::default())]
        }
    }

    #[tokio::test]
    async fn each_module_is_loaded_once_and_the_rest_is_passed_on() {
        let inner = Arc::new(Counting::default());
        let cached = Cached::new(Arc::clone(&inner) as Arc<dyn Sandbox>);
        for wasm in ["a", "b", "a", "b"] {
            assert!(cached.load(Bytes::from(wasm)).await.is_ok());
        }
        assert_eq!(inner.0.load(Ordering::Relaxed), 2);
        assert_eq!(cached.standings().len(), 1);
    }
}
