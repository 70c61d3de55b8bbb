;; tries: a status that is not there
;; end: malformed answer: answer has the unknown status 65535
(data (i32.const 0x400) "SMA1\01\00\ff\ff\00\00\00\00\00\00\00\00")
(func $attack (param i32 i32) (result i64) (i64.const 0x0000040000000010))
