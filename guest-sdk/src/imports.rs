//! The host calls of the sandbox: imports from module `shardmill`.
//!
//! Beside `export.rs` the only file with `unsafe`: every pointer passed here comes from a slice
//! that outlives the call, with that slice's length, and the host keeps none of them.

#![expect(unsafe_code, reason = "imported functions take raw pointers")]

use std::marker::PhantomData;

use crate::host::Host;

/// The host outside the sandbox.
#[derive(Clone, Copy)]
pub struct Imports<'a>(PhantomData<&'a ()>);

impl Imports<'_> {
    /// There is nothing to set up.
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

mod raw {
    #[link(wasm_import_module = "shardmill")]
    unsafe extern "C" {
        pub(super) safe fn progress(index: i32) -> i32;
        pub(super) fn state_get(name: *const u8, name_len: usize, out: *mut u8, cap: usize) -> i64;
        pub(super) fn state_set(
            name: *const u8,
            name_len: usize,
            value: *const u8,
            value_len: usize,
        ) -> i32;
        pub(super) fn state_delete(name: *const u8, name_len: usize) -> i32;
        pub(super) fn counter_add(name: *const u8, name_len: usize, n: i64) -> i32;
        pub(super) fn emit(
            stream: *const u8,
            stream_len: usize,
            key: *const u8,
            key_len: usize,
            data: *const u8,
            data_len: usize,
        ) -> i32;
        pub(super) fn log(level: i32, text: *const u8, text_len: usize) -> i32;
    }
}

// SAFETY, for every block below: see the top of the file.
impl Host for Imports<'_> {
    fn progress(&mut self, index: u32) -> i32 {
        raw::progress(index as i32)
    }

    fn state_get(&mut self, name: &str, out: &mut [u8]) -> i64 {
        unsafe { raw::state_get(name.as_ptr(), name.len(), out.as_mut_ptr(), out.len()) }
    }

    fn state_set(&mut self, name: &str, value: &[u8]) -> i32 {
        unsafe { raw::state_set(name.as_ptr(), name.len(), value.as_ptr(), value.len()) }
    }

    fn state_delete(&mut self, name: &str) -> i32 {
        unsafe { raw::state_delete(name.as_ptr(), name.len()) }
    }

    fn counter_add(&mut self, name: &str, n: i64) -> i32 {
        unsafe { raw::counter_add(name.as_ptr(), name.len(), n) }
    }

    fn emit(&mut self, stream: &str, key: &str, data: &[u8]) -> i32 {
        unsafe {
            raw::emit(
                stream.as_ptr(),
                stream.len(),
                key.as_ptr(),
                key.len(),
                data.as_ptr(),
                data.len(),
            )
        }
    }

    fn log(&mut self, level: i32, text: &str) -> i32 {
        unsafe { raw::log(level, text.as_ptr(), text.len()) }
    }
}
