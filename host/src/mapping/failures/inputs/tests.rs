use std::sync::atomic::{AtomicU64, Ordering};

use shardmill_core::limits::FunctionLimits;
use shardmill_core::sandbox::{Carrier, Mode, Module};
use shardmill_core::{ShardId, Slice, UnixMillis};

use super::*;

/// Values that are different each time.
struct Changing(AtomicU64);

impl StateView for Changing {
    fn get(&self, key: &str, name: &str) -> Result<Found, String> {
        let turn = self.0.fetch_add(1, Ordering::SeqCst);
        let value = Bytes::from(format!("{key} {name} {turn}"));
        Ok((name != "absent").then_some((value, turn + 1)))
    }
}

struct NoModule;

impl Module for NoModule {
    fn digest(&self) -> &str {
        ""
    }
    fn carrier(&self) -> Carrier {
        Carrier::Packed {
            mode: Mode::Record,
            uses_state: true,
        }
    }
}

fn batch(records: usize, bytes: usize) -> Batch {
    let mut packed = shardmill_core::Records::default();
    for _ in 0..records {
        packed.push("k", None, &vec![b'x'; bytes]);
    }
    let (index, blob) = packed.into_parts();
    let placement = shardmill_core::block::Placement {
        shard: ShardId(0),
        created_seconds: 1,
        first: 1,
        arrival: UnixMillis(5),
    };
    let block = shardmill_core::Block::new(placement, index.into(), blob.into());
    Batch::new([Slice {
        block: block.expect("a block"),
        from: 0,
        to: records as u32,
    }])
}

fn given(batch: &Batch, kept: bool) -> (Invocation, Given) {
    let invocation = Invocation {
        owner: Arc::default(),
        mapping: None,
        module: Arc::new(NoModule),
        input: Input::Records(batch.clone()),
        context: BatchContext {
            stream: "s".into(),
            attempt: 3,
            ..BatchContext::default()
        },
        limits: FunctionLimits::default(),
        environment: Arc::new(BTreeMap::from([("A".into(), "b".into())])),
        state: Arc::new(Changing(AtomicU64::new(0))),
        now: UnixMillis(7),
        seed: [0; 32],
    };
    recorded(invocation, kept)
}

fn pack(given: &Given, batch: &Batch, elsewhere: Option<BatchAt>, roomy: bool) -> Packed {
    given.pack(Ended {
        scope: &Scope::default(),
        outcome: &Outcome::Ok {
            text: String::new(),
        },
        batch,
        elsewhere,
        roomy,
    })
}

#[test]
fn what_an_attempt_was_given_comes_back() {
    let whole = batch(3, 10);
    let (invocation, given) = given(&whole, true);
    let read = |key: &str, name: &str| invocation.state.get(key, name).expect("a value");
    let first = read("k", "n");
    assert_eq!(read("k", "n"), first, "an attempt sees one state");
    assert_eq!(read("k", "absent"), None);
    let packed = pack(&given, &whole, None, true);
    assert_eq!(packed.inexact, None);
    let back = Inputs::read(&packed.blob).expect("inputs");
    assert_eq!(back.context, invocation.context);
    assert_eq!(back.environment["A"], "b");
    let key = |name: &str| ("k".to_owned(), name.to_owned());
    assert_eq!(
        back.state,
        BTreeMap::from([(key("n"), first), (key("absent"), None)])
    );
    assert_eq!(back.batch, BatchAt::Here);
    assert_eq!(back.body, whole.to_stored());
    for end in 0..packed.blob.len() - back.body.len() {
        assert!(Inputs::read(&packed.blob.slice(..end)).is_none(), "{end}");
    }
}

#[test]
fn what_is_too_large_is_left_out_and_said() {
    let large = batch(5, 1 << 20);
    let (_, given) = given(&large, true);
    for (elsewhere, roomy, at, inexact) in [
        (None, true, BatchAt::Payload, true),
        (Some(BatchAt::Payload), true, BatchAt::Payload, false),
        (Some(BatchAt::Payload), false, BatchAt::Payload, false),
    ] {
        let packed = pack(&given, &large, elsewhere, roomy);
        assert_eq!(packed.inexact.is_some(), inexact);
        assert!(packed.blob.len() < 10_000);
        assert_eq!(Inputs::read(&packed.blob).expect("inputs").batch, at);
    }
    let small = batch(5, 10);
    let packed = pack(&given, &small, None, false);
    let why = packed.inexact.expect("a reason");
    assert!(why.contains("half full"), "{why}");
}

#[test]
fn only_an_attempt_that_may_be_the_last_is_recorded() {
    let whole = batch(1, 1);
    let (invocation, given) = given(&whole, false);
    let read = || invocation.state.get("k", "n").expect("a value");
    assert_ne!(read(), read(), "nothing stands before the store");
    let packed = pack(&given, &whole, Some(BatchAt::Payload), true);
    assert!(packed.inexact.is_some());
}
