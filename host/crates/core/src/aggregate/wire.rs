//! As much of the protobuf wire format as an aggregate needs: fields of varints and of bytes.
//! Every other field is passed over; groups, which nobody writes any more, are refused.
//!
//! Rules: protobuf documentation, "Encoding".

/// Bytes that are no message, or not the message that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The longest varint, bytes: 64 bits in groups of 7.
const MAX_VARINT_BYTES: usize = 10;

const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const BYTES: u32 = 2;
const FIXED_32: u32 = 5;

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Integer(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Value<'a> {
    pub(super) fn integer(self) -> Result<u64, Malformed> {
        match self {
            Self::Integer(value) => Ok(value),
            Self::Bytes(_) | Self::Fixed => Err(Malformed),
        }
    }

    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Integer(_) | Self::Fixed => Err(Malformed),
        }
    }
}

/// The fields of a message, in order.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field's number and value, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        let (number, wire_type) = (tag >> 3, tag & 7);
        if number == 0 {
            return Err(Malformed);
        }
        let value = match wire_type {
            VARINT => Value::Integer(self.varint()?),
            BYTES => {
                let len = self.varint()?;
                Value::Bytes(self.take(usize::try_from(len).map_err(|_| Malformed)?)?)
            }
            FIXED_64 => self.take(8).map(|_| Value::Fixed)?,
            FIXED_32 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed),
        };
        Ok(Some((number, value)))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (at, byte) in self.rest.iter().enumerate().take(MAX_VARINT_BYTES) {
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit of the 64.
            if at + 1 == MAX_VARINT_BYTES && bits > 1 {
                return Err(Malformed);
            }
            value |= bits << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(Malformed)
    }
}

/// Adds a varint field.
pub(super) fn put_integer(number: u32, value: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(number << 3 | VARINT), out);
    put_varint(value, out);
}

/// Adds a field of bytes.
pub(super) fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(number << 3 | BYTES), out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_length_come_back() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_integer(7, value, &mut out);
                let mut fields = Fields::of(&out);
                assert_eq!(fields.next(), Ok(Some((7, Value::Integer(value)))));
                assert_eq!(fields.next(), Ok(None), "{value}");
            }
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (name, bytes) in [
            ("a field number of 0", &[0x00, 0x01][..]),
            (
                "a field number beyond 29 bits",
                &[0xff, 0xff, 0xff, 0xff, 0x1f, 0x00],
            ),
            ("a tag without a value", &[0x08]),
            ("a varint without an end", &[0x08, 0x80]),
            (
                "a varint of 65 bits",
                &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
            ),
            (
                "a varint of 11 bytes",
                &[0x08, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 0],
            ),
            ("a length beyond the end", &[0x0a, 2, 0]),
            (
                "a length beyond memory",
                &[0x0a, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
            ),
            ("four bytes cut short", &[0x0d, 0, 0, 0]),
            ("eight bytes cut short", &[0x09, 0, 0, 0, 0, 0, 0, 0]),
            ("a group", &[0x0b, 0x0c]),
            ("a wire type that is none", &[0x0f]),
        ] {
            assert_eq!(Fields::of(bytes).next(), Err(Malformed), "{name}");
        }
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        let bytes = [0x0d, 1, 2, 3, 4, 0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x10, 5];
        let mut fields = Fields::of(&bytes);
        assert_eq!(fields.next(), Ok(Some((1, Value::Fixed))));
        assert_eq!(fields.next(), Ok(Some((1, Value::Fixed))));
        assert_eq!(fields.next(), Ok(Some((2, Value::Integer(5)))));
        assert_eq!(fields.next(), Ok(None));
    }
}
