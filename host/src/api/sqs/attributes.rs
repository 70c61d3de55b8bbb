//! Attributes: of queues, as texts in their ranges; of messages, with the digest that clients
//! check.
//!
//! Rules: CreateQueue and GetQueueAttributes, "Attributes"; developer guide, "Calculating the MD5
//! message digest for message attributes".

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use base64_simd::STANDARD;
use md5::{Digest, Md5};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::error::Error;
use crate::queues::{Attributes, MessageAttribute};

/// Most attributes of a message.
const MAX_ATTRIBUTES: usize = 10;
/// Longest name of a message's attribute.
const MAX_NAME: usize = 256;

/// A setting of a queue: its name, its range, and where it is.
type Setting = (
    &'static str,
    RangeInclusive<u32>,
    fn(&mut Attributes) -> &mut u32,
);

const SETTINGS: [Setting; 5] = [
    ("VisibilityTimeout", 0..=43_200, |a| {
        &mut a.visibility_timeout_seconds
    }),
    ("MessageRetentionPeriod", 60..=1_209_600, |a| {
        &mut a.message_retention_seconds
    }),
    ("DelaySeconds", 0..=900, |a| &mut a.delay_seconds),
    ("ReceiveMessageWaitTimeSeconds", 0..=20, |a| {
        &mut a.receive_wait_seconds
    }),
    ("MaximumMessageSize", 1_024..=1_048_576, |a| {
        &mut a.maximum_message_bytes
    }),
];

/// Lays given attributes over those of a queue.
pub(super) fn set(
    attributes: &mut Attributes,
    given: &BTreeMap<String, String>,
) -> Result<(), Error> {
    for (name, value) in given {
        let setting = SETTINGS.iter().find(|(known, ..)| known == name);
        let Some((_, range, place)) = setting else {
            return Err(Error::InvalidAttributeName(name.clone()));
        };
        let number = value.parse().ok().filter(|n| range.contains(n));
        let number = number.ok_or_else(|| Error::InvalidAttributeValue(name.clone()))?;
        *place(attributes) = number;
    }
    Ok(())
}

/// The settings of a queue, as texts.
pub(super) fn shown(attributes: &Attributes) -> Map<String, Json> {
    let mut attributes = attributes.clone();
    let shown = SETTINGS.iter().map(|(name, _, place)| {
        (
            (*name).to_owned(),
            place(&mut attributes).to_string().into(),
        )
    });
    shown.collect()
}

/// A message's attribute as it is given.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Given {
    data_type: Option<String>,
    string_value: Option<String>,
    binary_value: Option<String>,
}

/// Checks the attributes of a message. They come back by name.
pub(super) fn of_message(given: BTreeMap<String, Given>) -> Result<Vec<MessageAttribute>, Error> {
    if given.len() > MAX_ATTRIBUTES {
        let text = format!(
            "Number of message attributes [{}] exceeds the allowed maximum [{MAX_ATTRIBUTES}].",
            given.len()
        );
        return Err(Error::InvalidParameter(text));
    }
    given
        .into_iter()
        .map(|(name, given)| one(name, given))
        .collect()
}

fn one(name: String, given: Given) -> Result<MessageAttribute, Error> {
    let bad =
        |what: &str| Error::InvalidParameter(format!("The message attribute '{name}' {what}."));
    let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
    let edges = name.starts_with('.') || name.ends_with('.') || name.contains("..");
    if name.is_empty() || name.len() > MAX_NAME || edges || !name.bytes().all(good) {
        return Err(bad("has an invalid name: A-Z a-z 0-9 _ - . expected"));
    }
    let data_type = given.data_type.unwrap_or_default();
    let value = match data_type.split('.').next() {
        Some("String" | "Number") => given.string_value,
        Some("Binary") => match given.binary_value {
            Some(text) if STANDARD.decode_to_vec(&text).is_err() => {
                return Err(bad("holds no Base64"));
            }
            value => value,
        },
        _ => {
            let what = "has an invalid message attribute type, the set of supported type \
                        prefixes is Binary, Number, and String";
            return Err(bad(what));
        }
    };
    let value = value.filter(|value| !value.is_empty());
    let value = value.ok_or_else(|| bad("must contain a non-empty value of its type"))?;
    Ok(MessageAttribute {
        name,
        data_type,
        value,
    })
}

/// An attribute as it is answered.
pub(super) fn answered(attribute: &MessageAttribute) -> Json {
    let value = if is_binary(attribute) {
        "BinaryValue"
    } else {
        "StringValue"
    };
    json!({ "DataType": attribute.data_type, value: attribute.value })
}

fn is_binary(attribute: &MessageAttribute) -> bool {
    attribute.data_type.starts_with("Binary")
}

/// The digest of a text, hexadecimal.
pub(super) fn digest(text: &str) -> String {
    hexadecimal(Md5::new().chain_update(text))
}

/// The digest of attributes, which are in the order of their names; `None` without any.
pub(super) fn digest_of(attributes: &[&MessageAttribute]) -> Option<String> {
    if attributes.is_empty() {
        return None;
    }
    let mut hash = Md5::new();
    for attribute in attributes {
        let binary = is_binary(attribute);
        let value = match STANDARD.decode_to_vec(&attribute.value) {
            Ok(bytes) if binary => bytes,
            _ => attribute.value.clone().into_bytes(),
        };
        let counted = |hash: &mut Md5, bytes: &[u8]| {
            hash.update((bytes.len() as u32).to_be_bytes());
            hash.update(bytes);
        };
        counted(&mut hash, attribute.name.as_bytes());
        counted(&mut hash, attribute.data_type.as_bytes());
        hash.update([if binary { 2 } else { 1 }]);
        counted(&mut hash, &value);
    }
    Some(hexadecimal(hash))
}

/// Bytes that a message counts as: its body, and names, types and values of its attributes.
pub(super) fn size(body: &str, attributes: &[MessageAttribute]) -> usize {
    let of = |a: &MessageAttribute| a.name.len() + a.data_type.len() + a.value.len();
    body.len() + attributes.iter().map(of).sum::<usize>()
}

fn hexadecimal(hash: Md5) -> String {
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_that_clients_check() {
        assert_eq!(digest("hello"), "5d41402abc4b2a76b9719d911017c592");
        assert_eq!(digest_of(&[]), None);
        let attribute = MessageAttribute::text("timestamp", "1493147359900");
        let number = MessageAttribute {
            data_type: "Number".into(),
            ..attribute
        };
        // As SQS answers for this attribute.
        assert_eq!(
            digest_of(&[&number]).as_deref(),
            Some("235c5c510d26fb653d073faed50ae77c")
        );
    }

    #[test]
    fn a_queue_takes_its_settings_in_their_ranges_and_no_others() {
        let mut attributes = Attributes::default();
        for (name, value, good) in [
            ("VisibilityTimeout", "43200", true),
            ("VisibilityTimeout", "43201", false),
            ("VisibilityTimeout", "-1", false),
            ("MessageRetentionPeriod", "59", false),
            ("RedrivePolicy", "{}", false),
            ("FifoQueue", "true", false),
        ] {
            let given = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            let taken = set(&mut attributes, &given).is_ok();
            assert_eq!(taken, good, "{name} = {value}");
        }
        assert_eq!(shown(&attributes)["VisibilityTimeout"], "43200");
    }
}
