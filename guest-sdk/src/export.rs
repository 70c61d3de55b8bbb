//! The export shim: what [`handler!`](crate::handler) turns into the exports of the module.
//!
//! Beside `imports.rs` the only file with `unsafe`. A handler's own crate has none: the macro's
//! functions are safe, and take from the host nothing but a length.

/// Makes a module of a function: `handler!(record: f)`, `handler!(batch: f)` or
/// `handler!(event: f)`, once in a crate.
///
/// On targets other than WebAssembly it exports nothing and only checks the function's type.
#[macro_export]
macro_rules! handler {
    (record: $handler:expr) => {
        $crate::__handler!(record, $crate::export::RECORD_MODE, $handler);
    };
    (batch: $handler:expr) => {
        $crate::__handler!(batch, $crate::export::BATCH_MODE, $handler);
    };
    (event: $handler:expr) => {
        $crate::__handler!(event, $crate::export::EVENT_MODE, $handler);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __handler {
    ($run:ident, $mode:expr, $handler:expr) => {
        const _: () = {
            const HANDLE: fn(&[u8], $crate::host::HostRef<'_>) -> ::std::vec::Vec<u8> =
                |batch, host| $crate::run::$run($handler, batch, host);

            #[cfg(target_family = "wasm")]
            #[unsafe(no_mangle)]
            extern "C" fn shardmill_abi_v1() -> i32 {
                $mode | $crate::export::USES_STATE
            }

            #[cfg(target_family = "wasm")]
            #[unsafe(no_mangle)]
            extern "C" fn shardmill_prepare(len: i32) -> i32 {
                $crate::export::prepare(len)
            }

            #[cfg(target_family = "wasm")]
            #[unsafe(no_mangle)]
            extern "C" fn shardmill_handle(ptr: i32, len: i32) -> i64 {
                $crate::export::handle(ptr, len, HANDLE)
            }
        };
    };
}

/// `shardmill_abi_v1`: the handler is called for each record.
pub const RECORD_MODE: i32 = 1;
/// `shardmill_abi_v1`: the handler is called once for a batch.
pub const BATCH_MODE: i32 = 2;
/// `shardmill_abi_v1`: the handler takes and gives JSON.
pub const EVENT_MODE: i32 = 4;
/// `shardmill_abi_v1`: the handler may use keyed state. Always set here: [`Context`] offers it to
/// every handler. One that never does so does not import the calls, and that is what tells.
///
/// [`Context`]: crate::Context
pub const USES_STATE: i32 = 8;

#[cfg(target_family = "wasm")]
pub use shim::{handle, prepare};

#[cfg(target_family = "wasm")]
#[expect(
    unsafe_code,
    reason = "the host writes into memory that the guest allocated"
)]
mod shim {
    use std::alloc::{Layout, alloc, handle_alloc_error};
    use std::ptr;
    use std::sync::Mutex;

    use crate::host::HostRef;
    use crate::imports::Imports;

    /// The buffer that [`prepare`] gave to the host: pointer and length.
    static BUFFER: Mutex<Option<(usize, usize)>> = Mutex::new(None);

    /// Runs constructors, once in an instance, and gives the host 8-aligned room for its batch.
    pub fn prepare(len: i32) -> i32 {
        unsafe extern "C" {
            // Provided by the linker. If nothing referred to it, the linker would wrap every
            // export in it instead.
            fn __wasm_call_ctors();
        }
        let mut buffer = BUFFER.lock().expect("one thread");
        assert!(buffer.is_none(), "shardmill_prepare was called twice");
        // SAFETY: the first call, before anything else runs in this instance.
        unsafe { __wasm_call_ctors() };

        let len = usize::try_from(len).expect("a length is not negative");
        let layout = Layout::from_size_align(len.max(8), 8).expect("a batch fits memory");
        // Not zeroed: the host writes all of it, and a large batch would pay for it twice.
        // SAFETY: the layout's size is at least 8.
        let address = unsafe { alloc(layout) };
        if address.is_null() {
            handle_alloc_error(layout);
        }
        *buffer = Some((address.expose_provenance(), len));
        address.expose_provenance() as i32
    }

    /// Runs the handler on the buffer of [`prepare`]. The answer stays allocated: the instance
    /// ends with this invocation.
    pub fn handle(ptr: i32, len: i32, handle: fn(&[u8], HostRef<'_>) -> Vec<u8>) -> i64 {
        let buffer = BUFFER.lock().expect("one thread").take();
        let (address, capacity) = buffer.expect("shardmill_prepare was called");
        let len = usize::try_from(len).expect("a length is not negative");
        assert!(
            ptr as usize == address && len <= capacity,
            "not the buffer of shardmill_prepare"
        );
        // SAFETY: `prepare` allocated `capacity` bytes here, nothing else refers to them, the
        // host wrote the first `len`, and they are never freed.
        let batch =
            unsafe { std::slice::from_raw_parts(ptr::with_exposed_provenance::<u8>(address), len) };
        let answer = handle(batch, Imports::new()).leak();
        (answer.as_ptr().addr() as i64) << 32 | answer.len() as i64
    }
}
