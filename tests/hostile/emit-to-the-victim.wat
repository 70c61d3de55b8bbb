;; tries: to emit into a stream that another tenant has
;; end: effects refused: stream results does not exist: create it, then redrive
(data (i32.const 0x400) "results")
(func $attack (param i32 i32) (result i64)
    (call $must (call $emit (i32.const 0x400) (i32.const 7) (i32.const 0x400) (i32.const 1) (i32.const 0) (i32.const 0)) (i32.const 0))
    (i64.const 0x0000000800000010))
