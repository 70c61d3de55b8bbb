;; tries: an answer at a negative address with a negative length
;; end: malformed answer: shardmill_handle returned 0xffffffff bytes at 0xffffffff, which are not in a memory of 0x200000
(func $attack (param i32 i32) (result i64) (i64.const -1))
