//! Keyed state: small values that a function keeps for each partition key.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::refused;
#[cfg(target_family = "wasm")]
use crate::host::Host as _;
use crate::host::HostRef;
use crate::{Error, host};

/// A first guess at a value's length, in bytes: longer values take a second host call.
const FIRST_READ_BYTES: usize = 256;

/// What this function keeps for the current record's partition key.
///
/// It belongs to tenant, function, partition key and name: two streams with the same key meet
/// here, and a key that moves to another shard takes it along. A handler reads its own writes.
/// Names have 1 … 256 bytes, values at most 256 KiB. Every method fails in event mode, and in
/// batch mode before [`Context::current`](crate::Context::current).
pub struct State<'c, 'a> {
    host: &'c mut HostRef<'a>,
}

impl<'c, 'a> State<'c, 'a> {
    pub(crate) fn new(host: &'c mut HostRef<'a>) -> Self {
        Self { host }
    }

    /// A value that [`set`](Self::set) wrote, or `None`.
    ///
    /// # Errors
    /// The value is not JSON, or not a `T`; the host refuses the name.
    pub fn get<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Error> {
        match self.get_bytes(name)? {
            None => Ok(None),
            Some(bytes) => Ok(serde_json::from_slice(&bytes)?),
        }
    }

    /// Keeps a value as JSON.
    ///
    /// # Errors
    /// The value cannot be written as JSON; the host refuses name or length.
    pub fn set(&mut self, name: &str, value: impl Serialize) -> Result<(), Error> {
        self.set_bytes(name, serde_json::to_vec(&value)?)
    }

    /// The value as text, or `None`.
    ///
    /// # Errors
    /// The value is not UTF-8; the host refuses the name.
    pub fn get_text(&mut self, name: &str) -> Result<Option<String>, Error> {
        Ok(self.get_bytes(name)?.map(String::from_utf8).transpose()?)
    }

    /// Keeps a text as it is.
    ///
    /// # Errors
    /// The host refuses name or length.
    pub fn set_text(&mut self, name: &str, text: impl AsRef<str>) -> Result<(), Error> {
        self.set_bytes(name, text.as_ref())
    }

    /// The value's bytes, or `None`.
    ///
    /// # Errors
    /// The host refuses the name.
    pub fn get_bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let mut value = vec![0; FIRST_READ_BYTES];
        loop {
            match self.read(name, &mut value)? {
                None => return Ok(None),
                Some(len) if len <= value.len() => {
                    value.truncate(len);
                    return Ok(Some(value));
                }
                Some(len) => value.resize(len, 0),
            }
        }
    }

    /// Reads the value into `out` and gives its length, or `None` when it is absent. A value that
    /// is longer than `out` is not written.
    ///
    /// # Errors
    /// The host refuses the name.
    pub fn read(&mut self, name: &str, out: &mut [u8]) -> Result<Option<usize>, Error> {
        match self.host.state_get(name, out) {
            len @ 0.. => Ok(Some(len as usize)),
            code if code == i64::from(host::ABSENT) => Ok(None),
            code => Err(refused("state_get", name, code as i32)),
        }
    }

    /// Keeps bytes as they are.
    ///
    /// # Errors
    /// The host refuses name or length.
    pub fn set_bytes(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
        match self.host.state_set(name, value.as_ref()) {
            code if code < 0 => Err(refused("state_set", name, code)),
            _ => Ok(()),
        }
    }

    /// Forgets a value. One that is absent already is no error.
    ///
    /// # Errors
    /// The host refuses the name.
    pub fn delete(&mut self, name: &str) -> Result<(), Error> {
        match self.host.state_delete(name) {
            code if code < 0 => Err(refused("state_delete", name, code)),
            _ => Ok(()),
        }
    }
}
