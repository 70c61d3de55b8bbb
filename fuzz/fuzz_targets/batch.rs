#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| shardmill_laws::batch::check(data));
