;; tries: the longest names, the largest value and the largest record that are allowed
;; end: effects refused: stream a* does not exist: create it, then redrive
(func $attack (param i32 i32) (result i64)
    (memory.fill (i32.const 0x1000) (i32.const 0x61) (i32.const 0x1000))
    (drop (call $progress (i32.const 0)))
    (call $must (call $counter (i32.const 0x1000) (i32.const 128) (i64.const 0x7fffffffffffffff)) (i32.const 0))
    (call $must (call $set (i32.const 0x1000) (i32.const 256) (i32.const 0) (i32.const 0x40000)) (i32.const 0))
    (call $must (call $emit (i32.const 0x1000) (i32.const 128) (i32.const 0x1000) (i32.const 256) (i32.const 0) (i32.const 0xfff00)) (i32.const 0))
    (i64.const 0x0000000800000010))
