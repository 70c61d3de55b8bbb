;; tries: to answer with the bytes of its own batch
;; end: malformed answer: answer begins with 0x31424d53 instead of the magic number
(func $attack (param $ptr i32) (param $len i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32)) (i64.extend_i32_u (local.get $len))))
