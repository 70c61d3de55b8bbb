;; tries: an answer whose end wraps around to the beginning of memory
;; end: malformed answer: shardmill_handle returned 0xfffffff8 bytes at 0x10, which are not in a memory of 0x200000
(func $attack (param i32 i32) (result i64) (i64.const 0x00000010fffffff8))
