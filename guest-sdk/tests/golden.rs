//! The buffers in `tests/golden/abi`: drawn here by hand, field by field, and compared with the
//! files, with what the packer writes, and with what a handler sees.
//!
//! `UPDATE_GOLDEN=1` writes the files anew.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use shardmill_guest::testing::{NoHost, TestRecord, pack, pack_event, record};
use shardmill_guest::{
    Batch, BatchResponse, Context, Error, Invocation, Record, SequenceNumber, Window, run,
};

const FUNCTION: Invocation<'static> = Invocation {
    stream: "",
    shard: "",
    request_id: "5f2b3c9e-8a41-4f0e-9d3b-2f1a6c7d8e90",
    function: "on-click",
    version: "$LATEST",
    tenant: "000000000000",
    attempt: 1,
    deadline_ms: 1_545_084_653_987,
    window: None,
};

const WINDOWED: Invocation<'static> = Invocation {
    stream: "clicks",
    shard: "shardId-000000000003",
    attempt: 2,
    window: Some(Window {
        start_ms: 1_545_084_600_000,
        end_ms: 1_545_084_660_000,
        state: r#"{"views":41}"#,
        is_final: true,
        ended_early: false,
    }),
    ..FUNCTION
};

const EVENT: &str = r#"{"Records":[],"window":{"start":"2018-12-17T22:10:00Z"}}"#;

/// 49545115243490985018280067714973144582180062593244200961, the example in AWS's documents.
const SEQUENCE_NUMBER: [u64; 3] = [
    0x65ef_7fa0_0000_0001,
    0x46bb_1801_3c27_4250,
    0x0205_466f_8230_0005,
];

#[test]
fn a_batch_of_records_is_packed_and_read_as_drawn() {
    let records = records();
    let strings_len = 7 * 4 + (6 + 20 + 36 + 8 + 7 + 12 + 12);
    let index_off = (64 + strings_len as u32).next_multiple_of(8);
    let blob_off = index_off + 3 * 64;
    let blob_len = (3 + 16) + (3 + 4 + 16) + (6 + 2);

    let mut buffer = Drawing::default();
    buffer.bytes("magic", b"SMB1");
    buffer.u16("version", 1);
    buffer.u16("kind: records", 1);
    buffer.u32("total_len", blob_off + blob_len);
    buffer.u32("count", 3);
    buffer.u32("index_off", index_off);
    buffer.u32("blob_off", blob_off);
    buffer.u32("blob_len", blob_len);
    buffer.u32("strings_off", 64);
    buffer.u64("window_start", 1_545_084_600_000);
    buffer.u64("window_end", 1_545_084_660_000);
    buffer.u64("deadline", 1_545_084_653_987);
    buffer.u32("attempt", 2);
    buffer.u32("flags: final invocation of the window", 1);
    buffer.string("stream", "clicks");
    buffer.string("shard", "shardId-000000000003");
    buffer.string("request_id", "5f2b3c9e-8a41-4f0e-9d3b-2f1a6c7d8e90");
    buffer.string("function", "on-click");
    buffer.string("version", "$LATEST");
    buffer.string("tenant", "000000000000");
    buffer.string("window_state", r#"{"views":41}"#);
    buffer.pad_to(index_off);

    buffer.u32("record 0: key_off", blob_off);
    buffer.u32("key_len", 3);
    buffer.u32("data_off", blob_off + 3);
    buffer.u32("data_len", 16);
    buffer.sequence_number(SEQUENCE_NUMBER);
    buffer.u64("arrival", 1_545_084_650_987);
    buffer.u32("flags", 0);
    buffer.u32("sub_sequence", 0);
    buffer.u32("explicit_hash_off: none", 0);
    buffer.u32("reserved", 0);

    buffer.u32("record 1: key_off", blob_off + 19);
    buffer.u32("key_len", 3);
    buffer.u32("data_off", blob_off + 19 + 3);
    buffer.u32("data_len", 4);
    buffer.sequence_number([
        SEQUENCE_NUMBER[0] + 1,
        SEQUENCE_NUMBER[1],
        SEQUENCE_NUMBER[2],
    ]);
    buffer.u64("arrival", 1_545_084_650_988);
    buffer.u32("flags", 0);
    buffer.u32("sub_sequence", 0);
    buffer.u32("explicit_hash_off", blob_off + 19 + 7);
    buffer.u32("reserved", 0);

    buffer.u32("record 2: key_off", blob_off + 42);
    buffer.u32("key_len", 6);
    buffer.u32("data_off", blob_off + 42 + 6);
    buffer.u32("data_len", 2);
    buffer.sequence_number([u64::MAX, u64::MAX, u64::MAX >> 6]);
    buffer.u64("arrival", 1_545_084_650_988);
    buffer.u32("flags", 0);
    buffer.u32("sub_sequence", 7);
    buffer.u32("explicit_hash_off: none", 0);
    buffer.u32("reserved", 0);

    buffer.bytes("record 0: key", b"ann");
    buffer.bytes("data", br#"{"page":"/home"}"#);
    buffer.bytes("record 1: key", b"bob");
    buffer.bytes("data", &[0x00, 0xff, 0xfe, 0x80]);
    buffer.bytes("explicit hash key: 2^128 - 1", &[0xff; 16]);
    buffer.bytes("record 2: key", "żół".as_bytes());
    buffer.bytes("data", b"ok");

    buffer.check("batch-records", &describe(&buffer.bytes));
    assert_eq!(buffer.bytes, pack(&WINDOWED, &records));
}

#[test]
fn an_empty_batch_is_packed_and_read_as_drawn() {
    let strings_len = 7 * 4 + (36 + 8 + 7 + 12);
    let index_off = (64 + strings_len as u32).next_multiple_of(8);

    let mut buffer = Drawing::default();
    buffer.head(1, "kind: records", index_off, [index_off, index_off, 0]);
    buffer.check("batch-empty", &describe(&buffer.bytes));
    assert_eq!(buffer.bytes, pack(&FUNCTION, &[]));
}

#[test]
fn an_event_is_packed_and_read_as_drawn() {
    let strings_len = 7 * 4 + (36 + 8 + 7 + 12);
    let blob_off = (64 + strings_len as u32).next_multiple_of(8);

    let mut buffer = Drawing::default();
    let blob_len = EVENT.len() as u32;
    buffer.head(
        2,
        "kind: JSON event",
        blob_off + blob_len,
        [0, blob_off, blob_len],
    );
    buffer.bytes("the event", EVENT.as_bytes());

    let seen = RefCell::new(Value::Null);
    let look = |event: Value, ctx: &mut Context| {
        *seen.borrow_mut() = json!({
            "kind": "event",
            "invocation": describe_invocation(ctx.invocation()),
            "event": event,
        });
        Ok(())
    };
    run::event(look, &buffer.bytes, &mut NoHost);
    buffer.check("batch-event", &seen.borrow());
    assert_eq!(buffer.bytes, pack_event(&FUNCTION, EVENT));
}

#[test]
fn answers_are_written_as_drawn() {
    let batch = pack(&WINDOWED, &records());

    let text = r#"{"views":44}"#;
    let mut answer = Drawing::answer(0, "status: ok", &[]);
    answer.string("text: window state", text);
    answer.check(
        "answer-ok",
        &json!({"status": "ok", "failed": [], "text": text}),
    );
    let count = |_: &Record, ctx: &mut Context| ctx.set_window_state(&json!({"views": 44}));
    assert_eq!(answer.bytes, run::record(count, &batch, &mut NoHost));

    let mut answer = Drawing::answer(1, "status: partial", &[1, 2]);
    answer.string("text: no window state", "");
    answer.check(
        "answer-partial",
        &json!({"status": "partial", "failed": [1, 2], "text": ""}),
    );
    let partial = |_: &Batch, _: &mut Context| Ok(BatchResponse::failed([2, 1, 2]));
    assert_eq!(answer.bytes, run::batch(partial, &batch, &mut NoHost));

    let text = "MalformedRecord\nnot a click:\n00 ff";
    let mut answer = Drawing::answer(2, "status: error", &[1]);
    answer.string("text: type and message", text);
    answer.check(
        "answer-error",
        &json!({"status": "error", "failed": [1], "text": text}),
    );
    let refuse = |record: &Record, _: &mut Context| match record.index() {
        1 => Err(Error::new("MalformedRecord", "not a click:\n00 ff")),
        _ => Ok(()),
    };
    assert_eq!(answer.bytes, run::record(refuse, &batch, &mut NoHost));

    let mut answer = Drawing::answer(3, "status: JSON", &[]);
    answer.string("text: the response", r#"{"batchItemFailures":[]}"#);
    answer.check(
        "answer-json",
        &json!({"status": "json", "failed": [], "text": r#"{"batchItemFailures":[]}"#}),
    );
    let respond = |_: Value, _: &mut Context| Ok(json!({"batchItemFailures": []}));
    let event = pack_event(&FUNCTION, EVENT);
    assert_eq!(answer.bytes, run::event(respond, &event, &mut NoHost));
}

fn records() -> [TestRecord; 3] {
    let first = TestRecord {
        sequence_number: SequenceNumber::from_limbs(SEQUENCE_NUMBER),
        arrival_ms: 1_545_084_650_987,
        ..record("ann", r#"{"page":"/home"}"#)
    };
    let [low, middle, high] = SEQUENCE_NUMBER;
    let second = TestRecord {
        sequence_number: SequenceNumber::from_limbs([low + 1, middle, high]),
        arrival_ms: 1_545_084_650_988,
        explicit_hash_key: Some(u128::MAX),
        ..record("bob", [0x00, 0xff, 0xfe, 0x80])
    };
    let third = TestRecord {
        sequence_number: SequenceNumber::from_limbs([u64::MAX, u64::MAX, u64::MAX >> 6]),
        arrival_ms: 1_545_084_650_988,
        sub_sequence: 7,
        ..record("żół", "ok")
    };
    [first, second, third]
}

/// What a handler sees of a batch of records.
fn describe(batch: &[u8]) -> Value {
    let seen = RefCell::new(Value::Null);
    let look = |batch: &Batch, ctx: &mut Context| {
        let records: Vec<_> = (batch.iter())
            .map(|record| {
                json!({
                    "partition_key": record.partition_key(),
                    "data": hex(record.data()),
                    "sequence_number": record.sequence_number().to_string(),
                    "arrival": record.arrival_ms(),
                    "sub_sequence": record.sub_sequence(),
                    "explicit_hash_key": record.explicit_hash_key().map(|key| key.to_string()),
                })
            })
            .collect();
        *seen.borrow_mut() = json!({
            "kind": "records",
            "invocation": describe_invocation(ctx.invocation()),
            "records": records,
        });
        Ok(())
    };
    run::batch(look, batch, &mut NoHost);
    seen.into_inner()
}

fn describe_invocation(invocation: &Invocation<'_>) -> Value {
    json!({
        "stream": invocation.stream,
        "shard": invocation.shard,
        "request_id": invocation.request_id,
        "function": invocation.function,
        "version": invocation.version,
        "tenant": invocation.tenant,
        "attempt": invocation.attempt,
        "deadline": invocation.deadline_ms,
        "window": invocation.window.map(|window| json!({
            "start": window.start_ms,
            "end": window.end_ms,
            "state": window.state,
            "is_final": window.is_final,
            "ended_early": window.ended_early,
        })),
    })
}

/// A buffer and its picture, made together.
#[derive(Default)]
struct Drawing {
    bytes: Vec<u8>,
    picture: String,
}

impl Drawing {
    /// Header and strings of [`FUNCTION`], up to the contents.
    fn head(
        &mut self,
        kind: u16,
        kind_name: &str,
        total_len: u32,
        [index_off, blob_off, blob_len]: [u32; 3],
    ) {
        self.bytes("magic", b"SMB1");
        self.u16("version", 1);
        self.u16(kind_name, kind);
        self.u32("total_len", total_len);
        self.u32("count", 0);
        self.u32("index_off", index_off);
        self.u32("blob_off", blob_off);
        self.u32("blob_len", blob_len);
        self.u32("strings_off", 64);
        self.u64("window_start", 0);
        self.u64("window_end", 0);
        self.u64("deadline", 1_545_084_653_987);
        self.u32("attempt", 1);
        self.u32("flags", 0);
        self.string("stream", "");
        self.string("shard", "");
        self.string("request_id", "5f2b3c9e-8a41-4f0e-9d3b-2f1a6c7d8e90");
        self.string("function", "on-click");
        self.string("version", "$LATEST");
        self.string("tenant", "000000000000");
        self.string("window_state", "");
        self.pad_to(blob_off);
    }

    /// An answer up to its text.
    fn answer(status: u16, status_name: &str, failed: &[u32]) -> Self {
        let mut answer = Self::default();
        answer.bytes("magic", b"SMA1");
        answer.u16("version", 1);
        answer.u16(status_name, status);
        answer.u32("count", failed.len() as u32);
        failed.iter().for_each(|index| answer.u32("failed", *index));
        answer
    }

    fn u16(&mut self, field: &str, n: u16) {
        self.bytes(field, &n.to_le_bytes());
    }

    fn u32(&mut self, field: &str, n: u32) {
        self.bytes(field, &n.to_le_bytes());
    }

    fn u64(&mut self, field: &str, n: u64) {
        self.bytes(field, &n.to_le_bytes());
    }

    fn sequence_number(&mut self, limbs: [u64; 3]) {
        self.bytes(
            "sequence_number",
            limbs.map(u64::to_le_bytes).as_flattened(),
        );
    }

    fn string(&mut self, field: &str, text: &str) {
        self.u32(&format!("{field}: length"), text.len() as u32);
        self.bytes(field, text.as_bytes());
    }

    fn pad_to(&mut self, off: u32) {
        self.bytes("padding", &vec![0; off as usize - self.bytes.len()]);
    }

    /// Bytes, sixteen on a line; the field's name stands on the first.
    fn bytes(&mut self, field: &str, bytes: &[u8]) {
        let mut name = field;
        for line in bytes.chunks(16) {
            let digits: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let comment = format!("# {:3} {name}", self.bytes.len());
            let _ = writeln!(
                self.picture,
                "{:<48}{}",
                digits.join(" "),
                comment.trim_end()
            );
            self.bytes.extend_from_slice(line);
            name = "";
        }
    }

    fn check(&self, name: &str, description: &Value) {
        check_file(&format!("{name}.hex"), &self.picture);
        check_file(&format!("{name}.json"), &format!("{description:#}\n"));
    }
}

fn check_file(name: &str, expected: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden/abi")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, expected).expect("write the golden file");
    }
    let golden = fs::read_to_string(&path).expect("a golden file; UPDATE_GOLDEN=1 writes it");
    assert_eq!(
        golden,
        expected,
        "{}; UPDATE_GOLDEN=1 writes it anew",
        path.display()
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
