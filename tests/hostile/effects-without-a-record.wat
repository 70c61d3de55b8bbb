;; tries: keyed state of no record, which would be everybody's
;; counters:
(data (i32.const 0x400) "name")
(func $attack (param i32 i32) (result i64)
    (call $must (call $set (i32.const 0x400) (i32.const 4) (i32.const 0) (i32.const 1)) (i32.const -2))
    (call $must (i32.wrap_i64 (call $get (i32.const 0x400) (i32.const 4) (i32.const 0) (i32.const 1))) (i32.const -2))
    (i64.const 0x0000000800000010))
