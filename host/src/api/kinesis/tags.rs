//! Tags: which are allowed.
//!
//! Rules: AddTagsToStream and CreateStream, "Tags": 50 per stream; Unicode letters, digits, white
//! space and `_ . : / = + - @`. The texts were recorded when the limit was 10.

use std::collections::BTreeMap;

use super::{Error, Shape};

/// Tags of one stream.
const MAX_TAGS: usize = 50;

pub(crate) const TAGS: Shape = Shape::Map {
    length: (1, 200),
    key: (1, 128),
    value: (0, 256),
};

/// The tags of a new stream.
///
/// # Errors
/// Too many, or characters that are not allowed.
pub(crate) fn checked(
    entries: &[(String, String)],
    stream: &str,
    account: impl std::fmt::Display,
) -> Result<BTreeMap<String, String>, Error> {
    let good = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
    if !entries
        .iter()
        .all(|(k, v)| k.chars().all(good) && v.chars().all(good))
    {
        return Err(Error::InvalidArgument(
            "Some tags contain invalid characters. Valid characters: Unicode letters, digits, \
             white space, _ . / = + - % @."
                .into(),
        ));
    }
    if entries.len() > MAX_TAGS {
        return Err(Error::InvalidArgument(format!(
            "Failed to add tags to stream {stream} under account {account} because a given stream \
             cannot have more than {MAX_TAGS} tags associated with it."
        )));
    }
    Ok(entries.iter().cloned().collect())
}
