//! What comes apart and what does not, bytes against bytes, and the laws on seeded runs.

use super::wire::put_bytes;
use super::*;
use crate::batch::{Batch, BatchContext, Slice};
use crate::block::Placement;
use crate::mapping::{ItemFailures, Position, read_item_failures};
use crate::shard::ShardId;
use crate::time::UnixMillis;

/// Key, explicit hash key and data of a record.
type Entry = (String, Option<HashKey>, Vec<u8>);

/// A small generator whose seed a failure prints.
struct Dice(u64);

impl Dice {
    fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn entry(&mut self) -> Entry {
        let key = match self.roll(4) {
            0 => "ü".repeat(1 + self.roll(256) as usize),
            _ => format!("key-{}", self.roll(5)),
        };
        let explicit = match self.roll(3) {
            0 => Some(HashKey(u128::MAX >> self.roll(128))),
            _ => None,
        };
        let len = match self.roll(5) {
            0 => 0,
            1 => self.roll(40_000),
            _ => self.roll(40),
        };
        let data = (0..len).map(|_| self.roll(256) as u8).collect();
        (key, explicit, data)
    }
}

fn entry(key: &str, explicit: Option<u128>, data: &str) -> Entry {
    (key.into(), explicit.map(HashKey), data.into())
}

/// A block of plain records from position 7 on, after two emissions.
fn block(data: &[&[u8]]) -> Block {
    let mut records = Records::default();
    for data in data {
        records.push_parts(Parts {
            key: OUTER_PARTITION_KEY,
            explicit: None,
            hops: 2,
            data,
        });
    }
    let (index, blob) = records.into_parts();
    let placement = Placement {
        shard: ShardId(3),
        created_seconds: 1_700_000_000,
        first: 7,
        arrival: UnixMillis(1_700_000_050_123),
    };
    Block::new(placement, index.into(), blob.into()).expect("a block")
}

fn apart(data: &[u8]) -> Option<Block> {
    take_apart(&block(&[data]).iter().next().expect("a record"))
}

fn entries(block: &Block) -> Vec<Entry> {
    let of = |parts: Parts<'_>| (parts.key.into(), parts.explicit, parts.data.into());
    block.iter().map(|record| of(record.parts)).collect()
}

fn aggregate(entries: &[Entry]) -> Vec<u8> {
    let mut aggregator = Aggregator::new(usize::MAX);
    for (key, explicit, data) in entries {
        aggregator.push(key, *explicit, data).expect("room");
    }
    aggregator.take().expect("an aggregate").data
}

/// Magic and digest around a message.
fn seal(message: &[u8]) -> Vec<u8> {
    [&MAGIC[..], message, &Md5::digest(message)].concat()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex"))
        .collect()
}

#[test]
fn the_bytes_are_those_of_other_implementations() {
    for (name, text, want) in [
        (
            "by hand",
            "f3899ac2
             0a01 61  0a01 62  1201 30
             1a07 0800 1a03 6f6e65
             1a09 0801 1000 1a03 74776f
             47960f31c7a5156f8b56d6a9d5c9e120",
            vec![entry("a", None, "one"), entry("b", Some(0), "two")],
        ),
        (
            // AWS's aggregator for Python, 1.2.3, for these three records.
            "aws_kinesis_agg",
            "f3899ac2
             0a08 73656e736f722d31  0a06 7365c3b1616c
             1227 333430323832333636393230393338343633343633333734363037343331373638323131343535
             1201 37
             1a0b 0800 1a07 7b226e223a317d
             1a06 0801 1000 1a00
             1a0b 0800 1001 1a05 7468726565
             8840682f6329a1f1ed04847bdf4ba01c",
            vec![
                entry("sensor-1", None, "{\"n\":1}"),
                entry("señal", Some(u128::MAX), ""),
                entry("sensor-1", Some(7), "three"),
            ],
        ),
    ] {
        let bytes = hex(text);
        assert_eq!(aggregate(&want), bytes, "{name}");
        assert_eq!(apart(&bytes).map(|b| entries(&b)), Some(want), "{name}");
    }
}

#[test]
fn a_record_of_the_native_library_comes_apart() {
    // The KPL itself puts its own outer key into the table, and no record points at it.
    let mut message = Vec::new();
    put_bytes(PARTITION_KEY_TABLE, b"a", &mut message);
    put_bytes(PARTITION_KEY_TABLE, b"34b94c1e", &mut message);
    for _ in 0..3 {
        put_bytes(RECORDS, b"\x08\x01\x1a\x04ping", &mut message);
    }
    let block = apart(&seal(&message)).expect("an aggregate");
    assert_eq!(entries(&block), vec![entry("34b94c1e", None, "ping"); 3]);
}

#[test]
fn inner_records_stand_where_their_aggregate_does() {
    let inside = [entry("x", None, "0"), entry("y", Some(5), "1")];
    let data = aggregate(&inside);
    let outer = block(&[b"before", &data, b"after"]);
    let record = outer.iter().nth(1).expect("the aggregate");
    let block = take_apart(&record).expect("an aggregate");
    let places: Vec<_> = block
        .iter()
        .map(|r| (r.position, r.sub_sequence, r.beginning(), r.behind()))
        .collect();
    let second = Position { record: 8, sub: 1 };
    assert_eq!(
        places,
        [
            (8, 0, Position::of(8), second),
            (8, 1, second, Position::of(9)),
        ]
    );
    for inner in block.iter() {
        assert_eq!(inner.sequence_number(), record.sequence_number());
        assert_eq!(inner.arrival, record.arrival);
        assert_eq!(inner.shard(), record.shard());
        assert_eq!(inner.parts.hops, 2);
        assert!(inner.is_inner());
    }
    assert_eq!((block.first(), block.end()), (8, 9));
    assert_eq!(
        (record.beginning(), record.behind()),
        (Position::of(8), Position::of(9))
    );
}

#[test]
fn what_is_no_sound_aggregate_stays_as_it_is() {
    let field = |number, bytes: &[u8]| {
        let mut out = Vec::new();
        put_bytes(number, bytes, &mut out);
        out
    };
    let (key, hash) = (field(1, b"k"), |text: &str| field(2, text.as_bytes()));
    let record = field(3, b"\x08\x00\x1a\x00");
    let hashed = field(3, b"\x08\x00\x10\x00\x1a\x00");
    let cases: [(&str, Vec<u8>, bool); 20] = [
        ("the least", [&key[..], &record].concat(), true),
        (
            "a table behind its records",
            [&record[..], &key].concat(),
            true,
        ),
        (
            "an unknown field",
            [&key[..], &record, &field(9, b"new")].concat(),
            true,
        ),
        (
            "a tag",
            [&key[..], &field(3, b"\x08\x00\x1a\x00\x22\x03\x0a\x01t")].concat(),
            true,
        ),
        (
            "a key of 256 characters",
            [&field(1, "ü".repeat(256).as_bytes())[..], &record].concat(),
            true,
        ),
        (
            "a bad entry that no record has",
            [&key[..], &field(1, b"\xff"), &hash("x"), &record].concat(),
            true,
        ),
        (
            "the highest hash key",
            [&key[..], &hash(&u128::MAX.to_string()), &hashed].concat(),
            true,
        ),
        ("no message", vec![], false),
        ("no record", key.clone(), false),
        ("a key index outside", record.clone(), false),
        (
            "a hash key index outside",
            [&key[..], &hashed].concat(),
            false,
        ),
        (
            "no key index",
            [&key[..], &field(3, b"\x1a\x00")].concat(),
            false,
        ),
        (
            "no data",
            [&key[..], &field(3, b"\x08\x00")].concat(),
            false,
        ),
        (
            "an integer for a record",
            [&key[..], &[0x18, 0x00]].concat(),
            false,
        ),
        (
            "an empty key",
            [&field(1, b"")[..], &record].concat(),
            false,
        ),
        (
            "a key of 257 characters",
            [&field(1, &[b'k'; 257])[..], &record].concat(),
            false,
        ),
        (
            "a key that is not UTF-8",
            [&field(1, b"\xff")[..], &record].concat(),
            false,
        ),
        (
            "a hash key of 2^128",
            [
                &key[..],
                &hash("340282366920938463463374607431768211456"),
                &hashed,
            ]
            .concat(),
            false,
        ),
        (
            "a hash key with a sign",
            [&key[..], &hash("+1"), &hashed].concat(),
            false,
        ),
        (
            "an empty hash key",
            [&key[..], &hash(""), &hashed].concat(),
            false,
        ),
    ];
    for (name, message, comes_apart) in cases {
        assert_eq!(apart(&seal(&message)).is_some(), comes_apart, "{name}");
    }
    assert_eq!(apart(b""), None);
    assert_eq!(apart(&MAGIC), None);
    assert_eq!(apart(b"{\"plain\":true}"), None);
}

#[test]
fn an_aggregate_inside_an_aggregate_stays_an_inner_records_data() {
    let inner = aggregate(&[entry("deep", None, "down")]);
    let outer = aggregate(&[("k".into(), None, inner.clone())]);
    let block = apart(&outer).expect("an aggregate");
    assert_eq!(entries(&block), [("k".to_owned(), None, inner)]);
    let record = block.iter().next().expect("a record");
    assert_eq!(take_apart(&record), None);
}

#[test]
fn a_small_aggregate_cannot_ask_for_any_amount_of_memory() {
    let mut keys = Vec::new();
    put_bytes(PARTITION_KEY_TABLE, &[b'k'; 256], &mut keys);
    let mut record = Vec::new();
    put_bytes(RECORDS, b"\x08\x00\x1a\x00", &mut record);
    let room = MAX_TAKEN_APART_BYTES / (256 + crate::block::INDEX_ENTRY_BYTES);
    for (count, comes_apart) in [(room, true), (room + 1, false)] {
        let message = [keys.clone(), record.repeat(count)].concat();
        assert!(message.len() < 1 << 20);
        assert_eq!(apart(&seal(&message)).is_some(), comes_apart, "{count}");
    }
    let mut empty = Vec::new();
    put_bytes(EXPLICIT_HASH_KEY_TABLE, b"", &mut empty);
    let room = MAX_TAKEN_APART_BYTES / TABLE_ENTRY_BYTES - 1;
    for (count, comes_apart) in [(room, true), (room + 1, false)] {
        let message = [&keys, &record, &empty.repeat(count)[..]].concat();
        assert_eq!(apart(&seal(&message)).is_some(), comes_apart, "{count}");
    }
}

#[test]
fn every_cut_and_every_flipped_byte_leaves_the_record_as_it_is() {
    let whole = aggregate(&[
        entry("a", None, "one"),
        entry("b", Some(0), "two"),
        entry("a", Some(9), "three"),
    ]);
    assert!(apart(&whole).is_some());
    for end in 0..whole.len() {
        assert_eq!(apart(&whole[..end]), None, "cut at {end}");
    }
    for at in 0..whole.len() {
        for flip in 1..=u8::MAX {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            assert_eq!(apart(&bytes), None, "byte {at} ^ {flip:#04x}");
        }
    }
}

#[test]
fn any_message_under_a_right_digest_is_read_without_a_panic() {
    let mut came_apart = 0;
    for seed in 1..20_000 {
        let mut dice = Dice::of(seed);
        let sealed = aggregate(&[
            entry("a", None, "one"),
            entry("b", Some(0), "two"),
            entry("a", Some(9), "three"),
        ]);
        let mut message = sealed[MAGIC.len()..sealed.len() - DIGEST_BYTES].to_vec();
        for _ in 0..=dice.roll(4) {
            let at = dice.roll(message.len() as u64) as usize;
            match dice.roll(4) {
                0 => message.truncate(at + 1),
                1 => message.insert(at, dice.roll(256) as u8),
                _ => message[at] = dice.roll(256) as u8,
            }
        }
        if let Some(block) = apart(&seal(&message)) {
            assert!(block.count() > 0, "seed {seed}");
            came_apart += 1;
        }
    }
    assert!(came_apart > 100, "{came_apart} of them came apart");
}

#[test]
fn what_an_aggregator_takes_in_comes_out_again() {
    for seed in 1..200 {
        let mut dice = Dice::of(seed);
        let limit = 51_200 + dice.roll(1000) as usize;
        let mut aggregator = Aggregator::new(limit);
        assert_eq!(aggregator.take(), None);
        let (mut want, mut got) = (Vec::new(), Vec::new());
        let mut drain = |aggregator: &mut Aggregator| {
            let aggregate = aggregator.take().expect("an aggregate");
            assert!(aggregate.data.len() <= limit, "seed {seed}");
            let block = apart(&aggregate.data).expect("an aggregate");
            assert_eq!(block.count() as usize, aggregate.count, "seed {seed}");
            let first = block.iter().next().expect("a record");
            assert_eq!(first.parts.hash_key(), aggregate.explicit, "seed {seed}");
            got.extend(entries(&block));
        };
        for _ in 0..dice.roll(60) + 1 {
            let (key, explicit, data) = dice.entry();
            if let Err(error) = aggregator.push(&key, explicit, &data) {
                assert!(
                    matches!(error, NotAdded::Full { .. }),
                    "seed {seed}: {error}"
                );
                drain(&mut aggregator);
                assert_eq!(
                    aggregator.push(&key, explicit, &data),
                    Ok(()),
                    "seed {seed}"
                );
            }
            want.push((key, explicit, data));
        }
        drain(&mut aggregator);
        assert!(aggregator.is_empty());
        assert_eq!(got, want, "seed {seed}");
    }
}

#[test]
fn an_aggregator_refuses_what_does_not_fit_and_stays_as_it_was() {
    let entries = [entry("a", None, "one"), entry("b", Some(0), "two")];
    let whole = aggregate(&entries);
    let mut aggregator = Aggregator::new(whole.len());
    for (key, explicit, data) in &entries {
        assert_eq!(aggregator.push(key, *explicit, data), Ok(()));
    }
    for (key, explicit) in [("a", None), ("new", None), ("a", Some(HashKey(1)))] {
        let error = aggregator.push(key, explicit, b"").expect_err("no room");
        assert!(matches!(error, NotAdded::Full { .. }), "{error}");
    }
    for (key, chars) in [(String::new(), 0), ("k".repeat(257), 257)] {
        assert_eq!(
            aggregator.push(&key, None, b""),
            Err(NotAdded::Key { chars })
        );
    }
    assert_eq!(aggregator.take().map(|a| a.data), Some(whole));

    // A large limit does not let an aggregate grow beyond what would be taken apart.
    let mut aggregator = Aggregator::new(usize::MAX);
    let data = vec![0; MAX_TAKEN_APART_BYTES / 2];
    assert_eq!(aggregator.push("a", None, &data), Ok(()));
    let error = aggregator.push("a", None, &data).expect_err("too much");
    let limit_bytes = MAX_TAKEN_APART_BYTES;
    assert!(matches!(error, NotAdded::Full { limit_bytes: l, .. } if l == limit_bytes));
}

/// Two aggregates between plain records: 7, (8,0) (8,1) (8,2), 9, (10,0), 11.
fn mixed() -> Batch {
    let three = aggregate(&[
        entry("x", None, "zero"),
        entry("y", Some(5), ""),
        entry("x", Some(6), "two"),
    ]);
    let one = aggregate(&[entry("alone", None, "only")]);
    let plain = block(&[b"7", &three, b"9", &one, b"11"]);
    let mut batch = Batch::default();
    for (record, index) in plain.iter().zip(0..) {
        let slice = match take_apart(&record) {
            Some(block) => Slice {
                from: 0,
                to: block.count(),
                block,
            },
            None => Slice {
                from: index,
                to: index + 1,
                block: plain.clone(),
            },
        };
        batch.push(slice);
    }
    batch
}

fn positions(batch: &Batch) -> Vec<(u64, u32)> {
    batch.iter().map(|r| r.beginning().into()).collect()
}

/// Everything that a reader sees of a batch's records.
fn seen(batch: &Batch) -> Vec<String> {
    batch
        .iter()
        .map(|r| {
            let (number, span) = (r.sequence_number(), (r.beginning(), r.behind()));
            format!(
                "{number} {span:?} {:?} {:?} {}",
                r.parts,
                r.arrival,
                r.is_inner()
            )
        })
        .collect()
}

#[test]
fn cuts_that_begin_and_end_inside_an_aggregate_join_to_the_whole() {
    let batch = mixed();
    let whole = [
        (7, 0),
        (8, 0),
        (8, 1),
        (8, 2),
        (9, 0),
        (10, 0),
        (11, 0),
        (12, 0),
    ];
    assert_eq!(positions(&batch), whole[..7]);
    for from in 0..7 {
        for to in from + 1..=7 {
            let cut = batch.cut(from..to);
            assert_eq!(positions(&cut), whole[from..to]);
            assert_eq!(cut.first_position(), Some(whole[from].into()));
            assert_eq!(cut.end_position(), Some(whole[to].into()), "{from}..{to}");
            assert_eq!(
                cut.get(to - from - 1).map(|r| r.behind()),
                cut.end_position()
            );
            for at in from..=to {
                let joined = [batch.cut(from..at), batch.cut(at..to)];
                assert_eq!(joined.iter().flat_map(seen).collect::<Vec<_>>(), seen(&cut));
            }
        }
    }
}

#[test]
fn the_stored_form_of_any_cut_gives_it_back() {
    let batch = mixed();
    for from in 0..7 {
        for to in from + 1..=7 {
            let cut = batch.cut(from..to);
            let stored = cut.to_stored();
            let back = Batch::from_stored(stored.clone().into()).expect("a stored batch");
            assert_eq!(seen(&back), seen(&cut));
            assert_eq!(back.end_position(), cut.end_position());
            for end in 0..stored.len() {
                // Any cut is refused or shorter; none panics.
                let short = Batch::from_stored(stored[..end].to_vec().into());
                assert!(short.map_or(0, |batch| batch.len()) < cut.len());
            }
        }
    }
}

#[test]
fn records_in_no_aggregate_are_stored_as_ever() {
    let stored = hex("03000000 00f1536500000000 0700000000000000 cb2be6cf8b010000
                      08000000 02000000 0100000001000002 61 37");
    assert_eq!(mixed().cut(0..1).to_stored(), stored);
    let back = Batch::from_stored(stored.into()).expect("a stored batch");
    assert_eq!(seen(&back), seen(&mixed().cut(0..1)));
}

#[test]
fn the_packed_form_carries_sub_sequence_numbers() {
    let batch = mixed().cut(2..7);
    let context = BatchContext::default();
    let mut out = vec![0xaa; batch.packed_len(&context)];
    batch.write_packed(&context, &mut out);
    let u32_at = |at: usize| u32::from_le_bytes(out[at..at + 4].try_into().expect("4 bytes"));
    for (i, record) in batch.iter().enumerate() {
        let entry = u32_at(16) as usize + i * crate::abi::INDEX_ENTRY_BYTES;
        assert_eq!(u32_at(entry + 48), 0);
        assert_eq!(u32_at(entry + 52), record.sub_sequence);
        assert_eq!(
            out[entry + 16..entry + 40],
            record.sequence_number().to_le_bytes()
        );
        let data = u32_at(entry + 8) as usize..(u32_at(entry + 8) + u32_at(entry + 12)) as usize;
        assert_eq!(&out[data], record.parts.data);
    }
}

#[test]
fn an_item_failure_names_the_first_record_of_the_batch_with_its_number() {
    let batch = mixed();
    let number = |i: usize| batch.get(i).expect("a record").sequence_number();
    for (name, cut, named, want) in [
        ("a plain record", 0..7, vec![4], vec![4]),
        ("the first inner record", 0..7, vec![1], vec![1]),
        ("the last inner record", 0..7, vec![3], vec![1]),
        ("a batch that begins inside", 2..7, vec![3], vec![0]),
        ("several", 0..7, vec![6, 2], vec![6, 1]),
    ] {
        let items: Vec<_> = named
            .iter()
            .map(|i| format!(r#"{{"itemIdentifier":"{}"}}"#, number(*i)))
            .collect();
        let response = format!(r#"{{"batchItemFailures":[{}]}}"#, items.join(","));
        let got = read_item_failures(&response, &batch.cut(cut));
        assert_eq!(got, ItemFailures::Records(want), "{name}");
    }
}

#[test]
fn inner_records_share_number_and_event_id_in_an_event() {
    let source = crate::event::EventSource::new(&crate::Scope::default(), "s");
    let batch = mixed().cut(1..3);
    let event: serde_json::Value = serde_json::from_slice(&source.event(&batch)).expect("JSON");
    let records = event["Records"].as_array().expect("records");
    let number = batch
        .get(0)
        .expect("a record")
        .sequence_number()
        .to_string();
    for (record, (key, data)) in records.iter().zip([("x", "emVybw=="), ("y", "")]) {
        assert_eq!(record["eventID"], format!("shardId-000000000003:{number}"));
        assert_eq!(record["kinesis"]["sequenceNumber"], number.as_str());
        assert_eq!(record["kinesis"]["partitionKey"], key);
        assert_eq!(record["kinesis"]["data"], data);
    }
}
