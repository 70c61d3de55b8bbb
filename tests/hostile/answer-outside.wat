;; tries: an answer that lies outside of its memory
;; end: malformed answer: shardmill_handle returned 0x10 bytes at 0x70000000, which are not in a memory of 0x200000
(func $attack (param i32 i32) (result i64) (i64.const 0x7000000000000010))
