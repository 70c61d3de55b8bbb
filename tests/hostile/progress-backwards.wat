;; tries: to go through its records backwards
;; mode: record
;; end: malformed answer: progress(2) in a batch of 3, where 0 comes next
(func $attack (param i32 i32) (result i64)
    (drop (call $progress (i32.const 2))) (i64.const 0x0000000800000010))
