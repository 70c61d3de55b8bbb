;; tries: a record behind the last one
;; mode: record
;; end: malformed answer: progress(3) in a batch of 3, where 3 comes next
(func $attack (param i32 i32) (result i64) (local $i i32)
    (loop $l
        (drop (call $progress (local.get $i)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $i) (i32.const 4))))
    (i64.const 0x0000000800000010))
