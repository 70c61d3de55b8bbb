;; tries: host calls with effects before it has its batch
;; counters:
(data (i32.const 0x400) "name")
(func (export "shardmill_prepare") (param i32) (result i32)
    (call $must (call $counter (i32.const 0x400) (i32.const 4) (i64.const 1)) (i32.const -2))
    (call $must (call $emit (i32.const 0x400) (i32.const 4) (i32.const 0x400) (i32.const 4) (i32.const 0) (i32.const 0)) (i32.const -2))
    (call $must (call $set (i32.const 0x400) (i32.const 4) (i32.const 0) (i32.const 0)) (i32.const -2))
    (call $must (call $progress (i32.const 0)) (i32.const -2))
    (i32.const 0x10000))
(func $attack (param i32 i32) (result i64) (i64.const 0x0000000800000010))
