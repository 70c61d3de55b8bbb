//! A guest's answer. `batch length u16 LE │ answer`

use shardmill_core::abi::{ANSWER_MAGIC, Answer, BadAnswer, VERSION, read_answer};

use crate::input::Input;

/// What is read says all of its bytes, written anew; what is refused names what is wrong.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let len = usize::from(input.u16());
    let bytes = input.0;
    match read_answer(bytes, len) {
        Ok(answer) => {
            let (status, failed, texts) = parts(&answer);
            assert!(
                texts.iter().any(|t| written(status, &failed, t) == bytes),
                "{answer:?} is not what was read"
            );
            assert!(failed.iter().all(|index| (*index as usize) < len));
            assert_eq!(status == 1, matches!(answer, Answer::Partial(..)));
            assert!(status != 1 || !failed.is_empty());
        }
        Err(error) => {
            let told = error.to_string();
            let named = match error {
                BadAnswer::Short(length) => {
                    assert_eq!(length, bytes.len());
                    length.to_string()
                }
                BadAnswer::Trailing(length) => length.to_string(),
                BadAnswer::Magic(magic) => format!("{magic:08x}"),
                BadAnswer::Version(number) | BadAnswer::Status(number) => number.to_string(),
                BadAnswer::Count { count, .. } => count.to_string(),
                BadAnswer::Index { index, len: of } => {
                    assert!(of == len && index as usize >= len);
                    index.to_string()
                }
                BadAnswer::Text => "UTF-8".into(),
            };
            assert!(told.contains(&named), "{told} does not name {named}");
        }
    }
}

/// Status, failed records and the texts that mean it.
fn parts(answer: &Answer) -> (u16, Vec<u32>, Vec<String>) {
    match answer {
        Answer::Ok(text) => (0, vec![], vec![text.clone()]),
        Answer::Partial(failed, text) => (1, failed.clone(), vec![text.clone()]),
        Answer::Error {
            kind,
            message,
            record,
        } => {
            let mut texts = vec![format!("{kind}\n{message}")];
            if message.is_empty() {
                texts.push(kind.clone());
            }
            (2, record.iter().copied().collect(), texts)
        }
        Answer::Json(text) => (3, vec![], vec![text.clone()]),
    }
}

fn written(status: u16, failed: &[u32], text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&ANSWER_MAGIC.to_le_bytes());
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&status.to_le_bytes());
    out.extend_from_slice(&(failed.len() as u32).to_le_bytes());
    for index in failed {
        out.extend_from_slice(&index.to_le_bytes());
    }
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out
}
