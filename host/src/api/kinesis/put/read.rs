//! Reading records from a request's body without copying them: texts and Base64 stay where they
//! are in the body, unless JSON has escapes in them.
//!
//! The fast way takes a body only when every member is there, of the right type and within its
//! constraints; whatever it does not like it leaves to the careful way, which finds the words.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use shardmill_core::HashKey;
use shardmill_core::limits::{MAX_PARTITION_KEY_CHARS, MAX_PUT_RECORDS_BYTES};

use super::super::shape::{HASH_KEY, Input, NAME, STREAM_ARN, Shape};
use super::super::{Call, Error, Target};
use super::explicit_hash_key;

/// A record of a request.
pub(crate) struct Entry<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) explicit: Option<HashKey>,
    pub(crate) data: Data<'a>,
}

/// A record's data as it came.
pub(crate) enum Data<'a> {
    /// Base64 that stands for `length` bytes, if it is good.
    Base64 { text: Cow<'a, str>, length: usize },
    /// The bytes.
    Bytes(&'a [u8]),
}

impl Data<'_> {
    /// How many bytes it is.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Base64 { length, .. } => *length,
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

impl<'a> Entry<'a> {
    /// The record of a checked structure with the members `PartitionKey`, `ExplicitHashKey` and
    /// `Data`.
    ///
    /// # Errors
    /// A hash key that is out of range.
    pub(crate) fn of(input: &'a Input) -> Result<Self, Error> {
        let explicit = input.text("ExplicitHashKey").map(explicit_hash_key);
        Ok(Self {
            key: input.text("PartitionKey").unwrap_or_default().into(),
            explicit: explicit.transpose()?,
            data: Data::Bytes(input.blob("Data").unwrap_or_default()),
        })
    }

    /// Where the record belongs in the hash space.
    pub(crate) fn hash_key(&self) -> HashKey {
        self.explicit
            .unwrap_or_else(|| HashKey::of_partition_key(&self.key))
    }

    /// Bytes that it takes in a packed blob.
    pub(crate) fn packed_bytes(&self) -> usize {
        self.key.len() + self.explicit.map_or(0, |_| 16) + self.data.length()
    }
}

/// A record in the body of PutRecords.
#[derive(Deserialize)]
pub(crate) struct FastEntry<'a> {
    #[serde(borrow, rename = "Data")]
    pub(crate) data: Text<'a>,
    #[serde(borrow, rename = "PartitionKey")]
    pub(crate) key: Text<'a>,
    #[serde(borrow, rename = "ExplicitHashKey", default)]
    pub(crate) explicit: Option<Text<'a>>,
}

impl<'a> FastEntry<'a> {
    /// The record, if all its members are good.
    pub(crate) fn entry(self) -> Option<Entry<'a>> {
        let key = self.key.0;
        let fits = !key.is_empty()
            && (key.len() <= MAX_PARTITION_KEY_CHARS
                || key.chars().count() <= MAX_PARTITION_KEY_CHARS);
        let explicit = match self.explicit {
            None => None,
            Some(text) if passes(&text.0, &HASH_KEY) => Some(explicit_hash_key(&text.0).ok()?),
            Some(_) => return None,
        };
        let text = self.data.0;
        let length = base64_simd::STANDARD.decoded_length(text.as_bytes()).ok()?;
        (fits && length <= MAX_PUT_RECORDS_BYTES).then_some(Entry {
            key,
            explicit,
            data: Data::Base64 { text, length },
        })
    }
}

/// The stream that a body names, if its name and its ARN are good and stand in the body as they
/// are.
pub(crate) fn target<'a>(
    call: &Call<'_>,
    name: Option<Text<'a>>,
    arn: Option<Text<'a>>,
) -> Option<Target<'a>> {
    let plain = |text: Option<Text<'a>>, shape| match text {
        None => Some(None),
        Some(Text(Cow::Borrowed(text))) => passes(text, shape).then_some(Some(text)),
        Some(Text(Cow::Owned(_))) => None,
    };
    Target::named(call, plain(name, &NAME)?, plain(arn, &STREAM_ARN)?).ok()
}

/// Whether a text satisfies the constraints of its shape.
fn passes(text: &str, shape: &Shape) -> bool {
    match shape {
        Shape::Text { length, pattern } => {
            let characters = text.chars().count() as i64;
            (length.0..=length.1).contains(&characters)
                && pattern.as_ref().is_none_or(|p| (p.matches)(text))
        }
        _ => false,
    }
}

/// A text that is borrowed from the body where JSON has no escapes in it. (For `Option<Cow>`
/// serde itself always copies.)
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}
