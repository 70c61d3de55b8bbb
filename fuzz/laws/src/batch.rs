//! Batches: the guest's reader of any bytes, the way from the host's packer to the guest's reader,
//! and the stored form. `kind u8 │ rest`

use std::cell::RefCell;

use bytes::Bytes;
use shardmill_core::abi::read_answer;
use shardmill_core::block::{Parts, Placement};
use shardmill_core::{Batch, BatchContext, Block, HashKey, Records, ShardId, Slice, UnixMillis};
use shardmill_guest::testing::NoHost;
use shardmill_guest::{Context, Error, run};

use crate::input::Input;

/// A record as it is put: key, explicit hash key, data.
type Entry = (String, Option<u128>, Vec<u8>);

/// What the host packs is what a handler sees; what a guest makes of any bytes is an answer; what
/// is read from the stored form is written to it again.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    match input.u8() % 3 {
        0 => read(input.0),
        1 => pack(&mut input),
        _ => stored(input.0),
    }
}

fn read(bytes: &[u8]) {
    let count = RefCell::new(None);
    let handler = |batch: &shardmill_guest::Batch<'_>, ctx: &mut Context<'_>| {
        // Where a batch comes from can be read whatever the records are.
        let _ = format!("{:?}", ctx.invocation());
        *count.borrow_mut() = Some(batch.len());
        Ok::<(), Error>(())
    };
    let answer = run::batch(handler, bytes, &mut NoHost);
    let seen = count.into_inner();
    assert!(seen.is_none_or(|count| count <= bytes.len()));
    let read = read_answer(&answer, seen.unwrap_or(0));
    let read = read.expect("a guest's answer is one");
    assert_eq!(
        seen.is_some(),
        read == shardmill_core::abi::Answer::Ok(String::new())
    );
}

fn pack(input: &mut Input<'_>) {
    let context = BatchContext {
        stream: input.text(),
        shard: input.text(),
        request_id: input.text(),
        function: input.text(),
        version: input.text(),
        tenant: input.text(),
        window_state: input.text(),
        window: (UnixMillis(input.u64()), UnixMillis(input.u64())),
        deadline: UnixMillis(input.u64()),
        attempt: input.u32(),
        flags: input.u32(),
    };
    let placement = Placement {
        shard: ShardId(u32::from(input.u16())),
        created_seconds: u64::from(input.u32()),
        first: 1 + u64::from(input.u32()),
        arrival: UnixMillis(u64::from(input.u32()) * 1_000),
    };
    let mut entries: Vec<Entry> = Vec::new();
    while !input.is_empty() {
        let key = format!("k{}", input.text());
        let explicit = (input.u8() & 1 != 0).then(|| u128::from_le_bytes(input.array()));
        entries.push((key, explicit, input.short().to_vec()));
    }
    let mut records = Records::default();
    for (key, explicit, data) in &entries {
        records.push_parts(Parts {
            key,
            explicit: explicit.map(HashKey),
            hops: 0,
            data,
        });
    }
    let (index, blob) = records.into_parts();
    let block = Block::new(placement, index.into(), blob.into()).expect("what was packed is whole");
    let to = block.count();
    let numbers: Vec<_> = block.iter().map(|r| r.sequence_number()).collect();
    let batch = Batch::new([Slice { block, from: 0, to }]);
    let mut packed = vec![0xa5; batch.packed_len(&context)];
    batch.write_packed(&context, &mut packed);
    let seen = RefCell::new(Vec::new());
    let handler = |given: &shardmill_guest::Batch<'_>, ctx: &mut Context<'_>| {
        let told = ctx.invocation();
        assert_eq!(
            (
                told.stream,
                told.shard,
                told.tenant,
                told.deadline_ms,
                told.attempt
            ),
            (
                context.stream.as_str(),
                context.shard.as_str(),
                context.tenant.as_str(),
                context.deadline.0,
                context.attempt
            )
        );
        for (record, number) in given.iter().zip(&numbers) {
            assert_eq!(record.sequence_number().to_le_bytes(), number.to_le_bytes());
            assert_eq!(record.arrival_ms(), placement.arrival.0);
            let entry = (
                record.partition_key().to_owned(),
                record.explicit_hash_key(),
                record.data().to_vec(),
            );
            seen.borrow_mut().push(entry);
        }
        Ok::<(), Error>(())
    };
    let answer = run::batch(handler, &packed, &mut NoHost);
    read_answer(&answer, entries.len()).expect("an answer");
    assert_eq!(seen.into_inner(), entries);
    stored(&batch.to_stored());
}

fn stored(bytes: &[u8]) {
    let Ok(batch) = Batch::from_stored(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    let again = batch.to_stored();
    let other = Batch::from_stored(again.clone().into()).expect("what was written is read");
    assert_eq!(other.to_stored(), again);
    let of = |batch: &Batch| {
        let records = batch.iter();
        let seen = records.map(|r| (r.sequence_number(), r.beginning(), r.parts.data.to_vec()));
        seen.collect::<Vec<_>>()
    };
    assert_eq!(of(&batch), of(&other));
    assert_eq!(batch.len(), other.len());
}
