//! A sandbox that compiles a module once, however many scenarios and restarts load it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use shardmill_core::quotas::{FunctionQuotas, Quotas};
use shardmill_core::sandbox::{Again, BoxFuture, Invocation, LoadError, Module, Owner, Report};
use shardmill_core::{Sandbox, TenantId};

/// A sandbox that keeps every module it has loaded, for as long as it lives.
pub struct Cached {
    inner: Arc<dyn Sandbox>,
    loaded: Mutex<HashMap<Bytes, Arc<dyn Module>>>,
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
            let known = loaded().get(&wasm).cloned();
            if let Some(module) = known {
                return Ok(module);
            }
            let module = self.inner.load(wasm.clone()).await?;
            loaded().insert(wasm, Arc::clone(&module));
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

    fn engine(&self) -> String {
        self.inner.engine()
    }
}
