;; tries: hints at records that are not there
;; counters:
(func $attack (param i32 i32) (result i64)
    (call $must (call $progress (i32.const -1)) (i32.const -4))
    (call $must (call $progress (i32.const 3)) (i32.const -4))
    (call $must (call $progress (i32.const 0x7fffffff)) (i32.const -4))
    (i64.const 0x0000000800000010))
