;; tries: an error whose text is not UTF-8
;; end: malformed answer: answer's text is not UTF-8
(data (i32.const 0x400) "SMA1\01\00\02\00\00\00\00\00\04\00\00\00\ff\fe\80\c0")
(func $attack (param i32 i32) (result i64) (i64.const 0x0000040000000014))
