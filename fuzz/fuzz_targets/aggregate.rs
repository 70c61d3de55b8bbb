#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| shardmill_laws::aggregate::check(data));
