;; tries: bytes behind an answer's text
;; end: malformed answer: answer has 3 bytes behind its text
(data (i32.const 0x400) "SMA1\01\00\00\00\00\00\00\00\01\00\00\00abcd")
(func $attack (param i32 i32) (result i64) (i64.const 0x0000040000000014))
