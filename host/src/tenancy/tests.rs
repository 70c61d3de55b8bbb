//! Tenants as a manifest changes, and what a store takes of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use shardmill_core::sandbox::{BoxFuture, Invocation, LoadError, Module, Report};
use shardmill_core::{Records, Scope, ShardId, ShardKey, Stream, StreamId};
use shardmill_store::{Append, CommitError, Memory, Receipt, Route, StreamChange, Trim, Tx};

use super::*;
use crate::clock::Clock;
use crate::manifest::Manifest;

/// A sandbox that remembers what it was told of quotas.
#[derive(Default)]
struct Told(Mutex<BTreeMap<TenantId, Quotas>>);

impl Sandbox for Told {
    fn load(&self, _: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        unreachable!("nothing is loaded")
    }

    fn invoke(&self, _: Invocation) -> BoxFuture<'_, Report> {
        unreachable!("nothing is invoked")
    }

    fn set_quotas(&self, tenant: TenantId, quotas: &Quotas) {
        self.0
            .lock()
            .expect("no panic")
            .insert(tenant, quotas.clone());
    }
}

fn manifest(text: &str) -> Manifest {
    Manifest::parse(text, Path::new("/folder/shardmill.toml")).expect("a good manifest")
}

fn apply(tenancy: &Tenancy, sandbox: &Told, text: &str) -> Result<(), TenancyError> {
    let manifest = manifest(text);
    tenancy.apply(&manifest.tenants, &manifest.operators, sandbox)
}

const ONE: &str = "000000000001";

fn account(text: &str) -> TenantId {
    text.parse().expect("an account")
}

#[test]
fn a_changed_manifest_changes_keys_and_quotas_and_a_bad_one_nothing() {
    let (tenancy, sandbox) = (Tenancy::default(), Told::default());
    let first = r#"
        [[tenant]]
        account = "000000000001"
        concurrent_invocations = 3
        access_key = [{ id = "AKONE", secret = "0123456789abcdef" }]
        [[tenant]]
        account = "000000000002"
    "#;
    apply(&tenancy, &sandbox, first).expect("good");
    let key = tenancy.access_key("AKONE").expect("the key");
    assert_eq!(key.owner, Owner::Tenant(account(ONE)));
    let told = || sandbox.0.lock().expect("no panic").clone();
    assert_eq!(told()[&account(ONE)].concurrent_invocations, Some(3));

    let bad = r#"
        [[tenant]]
        account = "000000000001"
        access_key = [{ id = "AKTWO", secret_env = "SHARDMILL_NO_SUCH_VARIABLE" }]
    "#;
    let error = apply(&tenancy, &sandbox, bad)
        .expect_err("no secret")
        .to_string();
    assert!(
        error.contains("AKTWO") && error.contains("SHARDMILL_NO_SUCH_VARIABLE"),
        "{error}"
    );
    assert!(
        tenancy.access_key("AKONE").is_some(),
        "all of it or nothing"
    );

    let second = r#"
        [[tenant]]
        account = "000000000002"
        access_key = [{ id = "AKTWO", secret = "0123456789abcdef" }]
    "#;
    apply(&tenancy, &sandbox, second).expect("good");
    assert!(tenancy.access_key("AKONE").is_none() && tenancy.access_key("AKTWO").is_some());
    assert_eq!(
        told()[&account(ONE)],
        Quotas::default(),
        "quotas end with the tenant"
    );
}

#[test]
fn secrets_come_from_files_without_their_line_end_and_are_read_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let (tenancy, sandbox) = (Tenancy::default(), Told::default());
    let spec = AccessKeySpec {
        id: "AKOPS".into(),
        secret: SecretSource::File(folder.path().join("secret")),
    };
    let operator = OperatorSpec {
        name: "ops".into(),
        access_keys: vec![spec],
    };
    let take = || tenancy.apply(&[], std::slice::from_ref(&operator), &sandbox);
    assert!(matches!(take(), Err(TenancyError::Unreadable { .. })));
    for secret in ["0123456789abcdef", "fedcba9876543210"] {
        std::fs::write(folder.path().join("secret"), format!("{secret}\n")).expect("a file");
        take().expect("a secret");
        let key = tenancy.access_key("AKOPS").expect("the key");
        assert_eq!((key.secret.reveal(), key.owner), (secret, Owner::Operator));
    }
    std::fs::write(folder.path().join("secret"), "short").expect("a file");
    assert!(matches!(take(), Err(TenancyError::Short { length: 5, .. })));
}

/// A store with one stream of account 1, which may store 1 MiB.
async fn metered() -> (Arc<Tenancy>, MeteredStore, StreamId) {
    let clock = Clock::starting_at(UnixMillis(1_700_000_000_000));
    let store: Arc<dyn Store> = Arc::new(Memory::new(Arc::new(move || clock.now())));
    let tenancy = Arc::new(Tenancy::default());
    let text = "[[tenant]]\naccount = \"000000000001\"\nstored_mib = 1";
    apply(&tenancy, &Told::default(), text).expect("good");
    let metered = MeteredStore::new(store, Arc::clone(&tenancy));
    let scope = Scope {
        tenant: account(ONE),
        ..Scope::default()
    };
    let stream = Stream {
        scope,
        ..crate::api::kinesis::tests::stream_of(1)
    };
    let tx = Tx {
        streams: vec![StreamChange::Create(Box::new(stream))],
        ..Tx::default()
    };
    let made = metered.commit(tx).await.expect("a stream");
    (tenancy, metered, made.created[0])
}

async fn put(store: &MeteredStore, stream: StreamId, bytes: usize) -> Result<Receipt, CommitError> {
    let mut records = Records::default();
    records.push("k", None, &vec![7; bytes - 1]);
    let append = Append {
        stream,
        route: Route::HashKey,
        records,
    };
    let tx = Tx {
        appends: vec![append],
        ..Tx::default()
    };
    store.commit(tx).await
}

#[tokio::test]
async fn a_quota_of_stored_bytes_is_kept_to_the_byte_and_trimming_makes_room() {
    let (tenancy, store, stream) = metered().await;
    put(&store, stream, 1 << 19).await.expect("half of it");
    put(&store, stream, (1 << 19) - 1)
        .await
        .expect("all but one");
    let refused = put(&store, stream, 2).await.expect_err("two more");
    let want = CommitError::Quota {
        tenant: account(ONE),
        bytes: 2,
        stored: (1 << 20) - 1,
        allowed: 1 << 20,
    };
    assert_eq!(refused, want);
    assert!(!store.has_room(account(ONE), 2) && store.has_room(account(ONE), 1));
    let hits = tenancy.tenant(account(ONE)).expect("it").meter.hits();
    assert_eq!(hits[Quota::StoredBytes as usize], 1);

    // What is counted in the store is the same, and less once it is trimmed.
    tenancy.measure(&store).await.expect("a count");
    assert!(!store.has_room(account(ONE), 2) && store.has_room(account(ONE), 1));
    let shard = ShardKey {
        stream,
        shard: ShardId(0),
    };
    let tx = Tx {
        trims: vec![Trim { shard, before: 2 }],
        ..Tx::default()
    };
    store.commit(tx).await.expect("trimmed");
    tenancy.measure(&store).await.expect("a count");
    assert!(store.has_room(account(ONE), 1 << 19));
    let usage = tenancy.usage(account(ONE), &store).await.expect("usage");
    let want = Usage {
        stored_bytes: (1 << 19) - 1,
        shards: 1,
        functions: 0,
    };
    assert_eq!(usage, want);
}

#[tokio::test]
async fn a_transaction_that_is_refused_for_another_reason_takes_no_room() {
    let (_, store, stream) = metered().await;
    let missing = StreamId(stream.0 + 1);
    put(&store, missing, 1 << 20).await.expect_err("no stream");
    let mut records = Records::default();
    records.push("k", None, &[7; 1 << 19]);
    let append = Append {
        stream,
        route: Route::Shard(ShardId(9)),
        records,
    };
    let tx = Tx {
        appends: vec![append],
        ..Tx::default()
    };
    store.commit(tx).await.expect_err("no shard");
    put(&store, stream, 1 << 20).await.expect("all of it");
}
