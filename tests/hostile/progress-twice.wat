;; tries: to take the same record twice, so that it counts twice
;; mode: record
;; end: malformed answer: progress(0) in a batch of 3, where 1 comes next
;; counters:
(data (i32.const 0x400) "name")
(func $attack (param i32 i32) (result i64)
    (drop (call $progress (i32.const 0)))
    (drop (call $counter (i32.const 0x400) (i32.const 4) (i64.const 1)))
    (drop (call $progress (i32.const 0)))
    (i64.const 0x0000000800000010))
