;; tries: to emit into a stream that does not exist
;; end: effects refused: stream nowhere does not exist: create it, then redrive
(data (i32.const 0x400) "nowhere")
(func $attack (param i32 i32) (result i64)
    (call $must (call $emit (i32.const 0x400) (i32.const 7) (i32.const 0x400) (i32.const 1) (i32.const 0) (i32.const 0)) (i32.const 0))
    (i64.const 0x0000000800000010))
