;; tries: the answer of an event-mode handler from a batch-mode one
;; end: malformed answer: a batch-mode handler answered with status 3 (JSON)
(data (i32.const 0x400) "SMA1\01\00\03\00\00\00\00\00\02\00\00\00{}")
(func $attack (param i32 i32) (result i64) (i64.const 0x0000040000000012))
