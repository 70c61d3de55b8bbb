;; tries: a partial answer whose count of failed records overflows its length
;; end: malformed answer: answer of 24 bytes is cut short
(data (i32.const 0x400) "SMA1\01\00\01\00\ff\ff\ff\ff\00\00\00\00\00\00\00\00\00\00\00\00")
(func $attack (param i32 i32) (result i64) (i64.const 0x0000040000000018))
