//! The seven host calls. In the sandbox they are imports; in a native test or benchmark they are
//! whatever implements [`Host`].
//!
//! Names, limits and codes are those of `docs/abi.md`, "Host calls".

/// The host's side of an invocation. A handler never sees it: it has a
/// [`Context`](crate::Context).
pub trait Host {
    /// Makes record `index` the current one: later effects are tagged with it.
    fn progress(&mut self, index: u32) -> i32;

    /// Length of the value in bytes, or [`ABSENT`]. A value longer than `out` is not written.
    fn state_get(&mut self, name: &str, out: &mut [u8]) -> i64;

    /// Sets a value under the current record's partition key.
    fn state_set(&mut self, name: &str, value: &[u8]) -> i32;

    /// Removes a value; one that is absent already is no error.
    fn state_delete(&mut self, name: &str) -> i32;

    /// Adds `n`, which may be negative, to a counter of the function.
    fn counter_add(&mut self, name: &str, n: i64) -> i32;

    /// Puts a record into a stream of the same tenant, when the batch is committed.
    fn emit(&mut self, stream: &str, key: &str, data: &[u8]) -> i32;

    /// Writes a line to the function's log; it stays even if the attempt fails.
    fn log(&mut self, level: i32, text: &str) -> i32;
}

/// The call was done.
pub const DONE: i32 = 0;
/// `state_get`: there is no such value.
pub const ABSENT: i32 = -1;
/// The call needs a current record, and there is none.
pub const NO_CURRENT_RECORD: i32 = -2;
/// A name, key or value is too long, or empty where it must not be, or not UTF-8.
pub const BAD_ARGUMENT: i32 = -3;
/// An unknown index or level.
pub const UNKNOWN: i32 = -4;

/// What a [`Context`](crate::Context) calls: the imports.
#[cfg(target_family = "wasm")]
pub type HostRef<'a> = crate::imports::Imports<'a>;

/// What a [`Context`](crate::Context) calls: a host in the same process.
#[cfg(not(target_family = "wasm"))]
pub type HostRef<'a> = &'a mut (dyn Host + 'a);
