;; tries: a partial answer that names a record which is not there
;; end: malformed answer: answer names record 4294967295 of a batch of 3
(data (i32.const 0x400) "SMA1\01\00\01\00\01\00\00\00\ff\ff\ff\ff\00\00\00\00")
(func $attack (param i32 i32) (result i64) (i64.const 0x0000040000000014))
