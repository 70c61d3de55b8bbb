//! A guest may lie in every field of its answer, and about where it is.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;
use shardmill_core::abi::{Answer, read_answer};

use super::*;

fn answering(prepare: &str, handle: &str, answer: &str) -> String {
    packed(
        BATCH,
        &format!(
            r#"(data (i32.const 0x400) "{answer}")
            (func (export "shardmill_prepare") (param i32) (result i32) {prepare})
            (func (export "shardmill_handle") (param i32 i32) (result i64) {handle})"#
        ),
    )
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

fn answer(status: u16, count: u32, failed: &[u32], text_len: u32, text: &str) -> Vec<u8> {
    let mut bytes = b"SMA1\x01\0".to_vec();
    bytes.extend_from_slice(&status.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    failed
        .iter()
        .for_each(|index| bytes.extend_from_slice(&index.to_le_bytes()));
    bytes.extend_from_slice(&text_len.to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

#[tokio::test]
async fn a_lying_pointer_is_a_malformed_answer() {
    let host = Host::start();
    let input = "(i32.const 0x10000)";
    for (name, prepare, handle) in [
        (
            "prepare outside memory",
            "(i32.const 0x7ffffff8)",
            "(i64.const 0)",
        ),
        ("prepare negative", "(i32.const -8)", "(i64.const 0)"),
        (
            "prepare too near the end",
            "(i32.const 0x1ffff8)",
            "(i64.const 0)",
        ),
        ("prepare unaligned", "(i32.const 0x10004)", "(i64.const 0)"),
        (
            "handle outside memory",
            input,
            "(i64.const 0x7000000000000010)",
        ),
        ("handle negative", input, "(i64.const -1)"),
        (
            "handle over the end",
            input,
            "(i64.const 0x001ffff800000010)",
        ),
        (
            "handle with a huge length",
            input,
            "(i64.const 0x00000008ffffffff)",
        ),
        ("handle with no length", input, "(i64.const 0)"),
    ] {
        let report = host.run(&answering(prepare, handle, ""), 2).await;
        assert!(
            matches!(cause(&report), Cause::BadAnswer { .. }),
            "{name}: {report:?}"
        );
    }
}

#[tokio::test]
async fn a_lie_in_any_field_is_a_malformed_answer() {
    let host = Host::start();
    let mut magic = answer(0, 0, &[], 0, "");
    magic[0] = b'X';
    let mut version = answer(0, 0, &[], 0, "");
    version[4] = 2;
    for (name, bytes, reason) in [
        ("magic", magic, "magic number"),
        ("version", version, "version 2"),
        ("status", answer(9, 0, &[], 0, ""), "unknown status 9"),
        (
            "count without indices",
            answer(1, 3, &[], 0, ""),
            "cut short",
        ),
        ("huge count", answer(1, u32::MAX, &[], 0, ""), "cut short"),
        (
            "count 0 in a partial answer",
            answer(1, 0, &[], 0, ""),
            "names 0 failed",
        ),
        (
            "failed records in a good answer",
            answer(0, 1, &[0], 0, ""),
            "names 1 failed",
        ),
        (
            "two records at fault",
            answer(2, 2, &[0, 1], 0, ""),
            "names 2 failed",
        ),
        (
            "index outside the batch",
            answer(1, 1, &[2], 0, ""),
            "record 2 of a batch of 2",
        ),
        (
            "text longer than it says",
            answer(0, 0, &[], 1, "ab"),
            "1 bytes behind",
        ),
        (
            "text shorter than it says",
            answer(0, 0, &[], u32::MAX, "ab"),
            "cut short",
        ),
        (
            "JSON from a batch-mode handler",
            answer(3, 0, &[], 2, "{}"),
            "status 3",
        ),
    ] {
        let handle = format!("(i64.const {:#x})", (0x400u64 << 32) | bytes.len() as u64);
        let report = host
            .run(
                &answering("(i32.const 0x10000)", &handle, &escaped(&bytes)),
                2,
            )
            .await;
        let Cause::BadAnswer { reason: told } = cause(&report) else {
            panic!("{name}: {report:?}")
        };
        assert!(told.contains(reason), "{name}: {told}");
        assert!(report.effects.is_empty());
    }
}

#[tokio::test]
async fn a_good_answer_is_read() {
    let host = Host::start();
    for (bytes, expected) in [
        (
            answer(0, 0, &[], 5, "state"),
            Outcome::Ok {
                text: "state".into(),
            },
        ),
        (
            answer(1, 2, &[1, 0], 0, ""),
            Outcome::Partial {
                failed: vec![1, 0],
                text: String::new(),
            },
        ),
        (
            answer(2, 1, &[1], 7, "Bad\nfoo"),
            Outcome::Failed(Failure {
                cause: Cause::HandlerError {
                    error_type: "Bad".into(),
                    message: "foo".into(),
                },
                record: Some(1),
            }),
        ),
    ] {
        let handle = format!("(i64.const {:#x})", (0x400u64 << 32) | bytes.len() as u64);
        let report = host
            .run(
                &answering("(i32.const 0x10000)", &handle, &escaped(&bytes)),
                2,
            )
            .await;
        assert_eq!(report.outcome, expected);
    }
}

#[test]
fn the_reader_survives_a_hundred_thousand_mutated_answers() {
    let seed = 0x5ead;
    let mut random = ChaCha12Rng::seed_from_u64(seed);
    let good = [
        answer(0, 0, &[], 5, "state"),
        answer(1, 3, &[4, 0, 2], 2, "{}"),
        answer(2, 1, &[1], 11, "Error\nwords"),
        answer(3, 0, &[], 4, "null"),
    ];
    for round in 0..100_000 {
        let mut bytes = good[random.random_range(0..good.len())].clone();
        for _ in 0..random.random_range(0..4) {
            match random.random_range(0..4) {
                0 => bytes.truncate(random.random_range(0..=bytes.len())),
                1 => bytes.push(random.random()),
                2 if !bytes.is_empty() => {
                    let at = random.random_range(0..bytes.len());
                    bytes[at] = random.random();
                }
                _ => {
                    let mut noise = vec![0; random.random_range(0..64)];
                    random.fill_bytes(&mut noise);
                    bytes.splice(..0, noise);
                }
            }
        }
        let len = random.random_range(0..6);
        // Whatever is read is within the batch; nothing panics.
        match read_answer(&bytes, len) {
            Ok(Answer::Partial(failed, _)) => {
                assert!(
                    !failed.is_empty() && failed.iter().all(|i| (*i as usize) < len),
                    "{seed} {round}"
                );
            }
            Ok(Answer::Error {
                record: Some(i), ..
            }) => assert!((i as usize) < len, "{seed} {round}"),
            Ok(_) | Err(_) => {}
        }
    }
}
