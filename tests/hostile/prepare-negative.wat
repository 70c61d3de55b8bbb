;; tries: to have its batch written before its memory
;; end: malformed answer: shardmill_prepare(*) returned 0xfffffff8, whose bytes are not in a memory of 0x200000
(func (export "shardmill_prepare") (param $len i32) (result i32)
    (select (i32.const 0x10000) (i32.const -8) (i32.lt_u (local.get $len) (i32.const 300))))
(func $attack (param i32 i32) (result i64) unreachable)
