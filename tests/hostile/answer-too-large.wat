;; tries: an answer of all its memory
;; end: response of 2097152 bytes, 1048576 allowed
(func $attack (param i32 i32) (result i64) (i64.const 0x0000000000200000))
