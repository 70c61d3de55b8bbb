;; tries: an error whose text is longer than its buffer
;; end: malformed answer: answer of 20 bytes is cut short
(data (i32.const 0x400) "SMA1\01\00\02\00\00\00\00\00\ff\ff\ff\7fabcd")
(func $attack (param i32 i32) (result i64) (i64.const 0x0000040000000014))
