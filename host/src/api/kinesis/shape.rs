//! What an operation takes: its members as data, and a body's values once they have these shapes.
//!
//! A body passes two stages, [`coerce`](super::coerce) (types; the first mismatch ends it) and
//! [`constraints`](super::constraints) (nulls, lengths, patterns, ranges; all are reported).
//! A new operation is a table of members and a function; neither stage knows operations.
//!
//! Rules: Kinesis Data Streams API 2013-12-02, the members of each request.

/// A member of a structure.
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    pub(crate) shape: &'static Shape,
}

impl Member {
    pub(crate) const fn required(name: &'static str, shape: &'static Shape) -> Self {
        Self {
            name,
            required: true,
            shape,
        }
    }

    pub(crate) const fn optional(name: &'static str, shape: &'static Shape) -> Self {
        Self {
            name,
            required: false,
            shape,
        }
    }
}

/// The least and the greatest length or value.
pub(crate) type Bounds = (i64, i64);

/// What a value may be.
pub(crate) enum Shape {
    /// Characters.
    Text {
        length: Bounds,
        pattern: Option<Pattern>,
    },
    /// One of these texts; the order is that of AWS's message.
    Choice(&'static [&'static str]),
    /// A 32-bit number.
    Integer(Bounds),
    Boolean,
    /// Bytes, Base64 in JSON.
    Blob {
        length: Bounds,
    },
    /// An instant.
    Timestamp,
    /// A list; `shown` is what AWS calls an item that is a structure.
    List {
        length: Bounds,
        item: &'static Shape,
        shown: &'static str,
    },
    /// Texts by text.
    Map {
        length: Bounds,
        key: Bounds,
        value: Bounds,
    },
    Structure(&'static [Member]),
}

/// A regular expression, as AWS prints it, and the function that does its work.
pub(crate) struct Pattern {
    pub(crate) text: &'static str,
    pub(crate) matches: fn(&str) -> bool,
}

/// Names of streams, shards, consumers: 1 to 128 of `a-z A-Z 0-9 _ . -`.
pub(crate) const NAME: Shape = Shape::Text {
    length: (1, 128),
    pattern: Some(Pattern {
        text: "[a-zA-Z0-9_.-]+",
        matches: |text| {
            let good = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
            !text.is_empty() && text.bytes().all(good)
        },
    }),
};

/// A stream's ARN.
pub(crate) const STREAM_ARN: Shape = Shape::Text {
    length: (1, 2048),
    pattern: Some(Pattern {
        text: r"arn:aws.*:kinesis:.*:\d{12}:stream/\S+",
        matches: super::target::is_stream_arn,
    }),
};

/// A sequence number in decimal.
pub(crate) const SEQUENCE_NUMBER: Shape = Shape::Text {
    length: (0, i64::MAX),
    pattern: Some(Pattern {
        text: r"0|([1-9]\d{0,128})",
        matches: |text| is_decimal(text, 129),
    }),
};

/// A hash key in decimal; may still be above 2^128 − 1.
pub(crate) const HASH_KEY: Shape = Shape::Text {
    length: (0, i64::MAX),
    pattern: Some(Pattern {
        text: r"0|([1-9]\d{0,38})",
        matches: |text| is_decimal(text, 39),
    }),
};

/// A page token.
pub(crate) const NEXT_TOKEN: Shape = Shape::Text {
    length: (1, 1_048_576),
    pattern: None,
};

/// How many of something to answer with.
pub(crate) const LIMIT: Shape = Shape::Integer((1, 10_000));

/// A decimal number of at most `digits` digits, without leading zeros.
pub(crate) fn is_decimal(text: &str, digits: usize) -> bool {
    (1..=digits).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'))
}

/// A value that has its shape's type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    Blob(Vec<u8>),
    /// Milliseconds since the epoch.
    Timestamp(i64),
    /// `None`: a null item.
    List(Vec<Option<Value>>),
    Map(Vec<(String, String)>),
    Structure(Input),
}

/// The members of a structure that are there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Input(pub(crate) Vec<(&'static str, Value)>);

impl Input {
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Value::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// A number that is a count or a size, if it is there and not negative.
    pub(crate) fn count(&self, name: &str) -> Option<usize> {
        self.integer(name)?.try_into().ok()
    }

    /// Whether it is there and true.
    pub(crate) fn is_true(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::Boolean(true)))
    }

    pub(crate) fn blob(&self, name: &str) -> Option<&[u8]> {
        match self.get(name)? {
            Value::Blob(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Milliseconds since the epoch.
    pub(crate) fn timestamp(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Value::Timestamp(millis) => Some(*millis),
            _ => None,
        }
    }

    pub(crate) fn structure(&self, name: &str) -> Option<&Input> {
        match self.get(name)? {
            Value::Structure(input) => Some(input),
            _ => None,
        }
    }

    /// The structures of a list.
    pub(crate) fn structures(&self, name: &str) -> impl Iterator<Item = &Input> {
        let items: &[_] = match self.get(name) {
            Some(Value::List(items)) => items,
            _ => &[],
        };
        items.iter().filter_map(|item| match item {
            Some(Value::Structure(input)) => Some(input),
            _ => None,
        })
    }

    pub(crate) fn map(&self, name: &str) -> &[(String, String)] {
        match self.get(name) {
            Some(Value::Map(entries)) => entries,
            _ => &[],
        }
    }
}
