;; tries: to overflow a counter: it wraps around
;; counters: name=-2
(data (i32.const 0x400) "name")
(func $attack (param i32 i32) (result i64)
    (drop (call $progress (i32.const 0)))
    (call $must (call $counter (i32.const 0x400) (i32.const 4) (i64.const 0x7fffffffffffffff)) (i32.const 0))
    (call $must (call $counter (i32.const 0x400) (i32.const 4) (i64.const 0x7fffffffffffffff)) (i32.const 0))
    (i64.const 0x0000000800000010))
