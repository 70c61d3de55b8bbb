//! Writing an answer's body as it goes, without a tree in between.
//!
//! The methods name what is written (a blob, an instant), not how JSON spells it, so that a
//! second encoding fits behind them. Rules: Kinesis over JSON 1.1: blobs are Base64, instants
//! seconds with a fraction, absent members are left out.

use std::fmt::Display;
use std::io::Write;

use shardmill_core::{SequenceNumber, UnixMillis};

/// An answer's body. Empty for operations without output members: a body of no bytes.
#[derive(Default)]
pub(crate) struct Output(Vec<u8>);

impl Output {
    /// Room for `bytes` bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// The bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A structure, with the members that `fill` writes.
    pub(crate) fn structure(&mut self, fill: impl FnOnce(&mut Self)) {
        self.separate();
        self.0.push(b'{');
        fill(self);
        self.0.push(b'}');
    }

    /// A member's name; its value must follow. The name needs no escapes.
    pub(crate) fn member(&mut self, name: &str) -> &mut Self {
        self.separate();
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
        self
    }

    /// A list of what `each` writes for the items.
    pub(crate) fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) {
        self.separate();
        self.0.push(b'[');
        for item in items {
            each(self, item);
        }
        self.0.push(b']');
    }

    /// Any text.
    pub(crate) fn text(&mut self, text: &str) {
        self.separate();
        // Writing into a vector does not fail.
        let _ = serde_json::to_writer(&mut self.0, text);
    }

    /// A text that needs no escapes: an id, a name, a number as text.
    pub(crate) fn plain(&mut self, text: impl Display) {
        self.separate();
        let _ = write!(self.0, "\"{text}\"");
    }

    pub(crate) fn sequence_number(&mut self, number: SequenceNumber) {
        self.separate();
        self.0.push(b'"');
        self.0
            .extend_from_slice(number.write_decimal(&mut [0; 58]).as_bytes());
        self.0.push(b'"');
    }

    pub(crate) fn blob(&mut self, bytes: &[u8]) {
        self.separate();
        self.0.push(b'"');
        base64_simd::STANDARD.encode_append(bytes, &mut self.0);
        self.0.push(b'"');
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.separate();
        let _ = write!(self.0, "{number}");
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.separate();
        let _ = write!(self.0, "{value}");
    }

    pub(crate) fn timestamp(&mut self, at: UnixMillis) {
        self.separate();
        let _ = write!(self.0, "{}.{:03}", at.seconds(), at.0 % 1000);
    }

    /// The comma before the second and later parts of a list or structure.
    fn separate(&mut self) {
        if !matches!(self.0.last(), None | Some(b'{' | b'[' | b':')) {
            self.0.push(b',');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_the_json_that_was_meant() {
        let mut out = Output::default();
        out.structure(|out| {
            out.member("Text").text("a\"b\\\n{");
            out.member("Empty").structure(|_| {});
            out.member("List").list([1, 2, 3], |out, n| out.number(n));
            out.member("Blob").blob(b"hi");
            out.member("At").timestamp(UnixMillis(1_722_433_048_007));
            out.member("True").boolean(true);
            out.member("None").list([(); 0], |_, ()| {});
        });
        assert_eq!(
            String::from_utf8(out.into_bytes()).as_deref(),
            Ok(concat!(
                r#"{"Text":"a\"b\\\n{","Empty":{},"List":[1,2,3],"Blob":"aGk=","#,
                r#""At":1722433048.007,"True":true,"None":[]}"#
            ))
        );
    }
}
