;; tries: to emit into another tenant's stream by its ARN
;; end: effects refused: stream arn:aws:kinesis:us-east-1:000000000001:stream/results does not exist: create it, then redrive
(data (i32.const 0x400) "arn:aws:kinesis:us-east-1:000000000001:stream/results")
(func $attack (param i32 i32) (result i64)
    (call $must (call $emit (i32.const 0x400) (i32.const 53) (i32.const 0x400) (i32.const 1) (i32.const 0) (i32.const 0)) (i32.const 0))
    (i64.const 0x0000000800000010))
