;; tries: to have its batch written to an odd address
;; end: malformed answer: shardmill_prepare(*) returned 0x10001, which is not a multiple of 8
(func (export "shardmill_prepare") (param $len i32) (result i32)
    (select (i32.const 0x10000) (i32.const 0x10001) (i32.lt_u (local.get $len) (i32.const 300))))
(func $attack (param i32 i32) (result i64) unreachable)
