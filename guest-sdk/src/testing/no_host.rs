//! A host that does nothing, for measuring handlers and for looking at batches.

use crate::host::{ABSENT, DONE, Host};

/// Lets every call succeed and keeps nothing: keyed state is always absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHost;

impl Host for NoHost {
    fn progress(&mut self, _index: u32) -> i32 {
        DONE
    }

    fn state_get(&mut self, _name: &str, _out: &mut [u8]) -> i64 {
        ABSENT.into()
    }

    fn state_set(&mut self, _name: &str, _value: &[u8]) -> i32 {
        DONE
    }

    fn state_delete(&mut self, _name: &str) -> i32 {
        DONE
    }

    fn counter_add(&mut self, _name: &str, _n: i64) -> i32 {
        DONE
    }

    fn emit(&mut self, _stream: &str, _key: &str, _data: &[u8]) -> i32 {
        DONE
    }

    fn log(&mut self, _level: i32, _text: &str) -> i32 {
        DONE
    }
}
